//! `mainstay up`: the shop's services, each a process of its own, until somebody ends it.

mod addresses;
mod checks;
mod greeting;
mod seed;
mod signals;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mainstay::Context;
use mainstay_runtime::logs::{Colours, Console};
use mainstay_runtime::supervisor::{self, Notice, Program, Spec, Stop, What};
use serde_json::json;
use tokio::sync::{oneshot, watch};

use crate::folder::{self, Folder, Service};
use crate::http::Http;
use crate::output::{Code, Output};
use crate::place::{Durability, Given, Server};
use crate::service::DRAIN_WITHIN;
use addresses::Addresses;
use greeting::Greeting;
use signals::Signals;

/// Runs the shop: order, payment and inventory, and a card processor that they call, each with its own store, supervised. Ctrl-C drains and ends it;
/// a second Ctrl-C does not wait. SIGTERM and SIGHUP do the same; SIGHUP only where it was not ignored before, so
/// that it goes on under nohup.
///
/// With --store the services' stores are in a PostgreSQL database, each in a schema of its own: shop_order, shop_payment,
/// shop_inventory, shop_processor, or with ?schema=NAME in the URL NAME_order and so on. The logs in which they tell each other what
/// happened stay in the data folder. Folder and stores belong together from then on.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data folder; made when it is not there. It survives restarts.
    #[arg(long, value_name = "DIR", default_value = folder::DEFAULT)]
    data: PathBuf,
    /// The services answer on 127.0.0.1: order on N+1, payment on N+2, inventory on N+3, the card
    /// processor on N+4. 0: on any free ports.
    #[arg(long, value_name = "N", default_value_t = 7100, value_parser = clap::value_parser!(u16).range(0..=i64::from(checks::PORT_BASE_MAX)))]
    port_base: u16,
    /// Place demonstration data, unless they are there: an account for alice, apples with a price.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    seed_demo: bool,
    /// The database for the stores: postgres://user:password@host:port/database[?schema=NAME][&pooled=true][&sslmode=…],
    /// or env:NAME for an environment variable that holds it, which the process list does not show.
    #[arg(long, value_name = "URL")]
    store: Option<Given>,
    /// Of a server that may lose what it has acknowledged when the power fails (`mainstay probe durability`).
    #[arg(long, value_name = "WHAT", default_value = "refuse", requires = "store")]
    durability: Durability,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    // Before anything is started: a signal that comes later finds somebody to obey it.
    let mut signals = Signals::hold()?;
    let server = arguments.store.as_ref().map(Given::server).transpose()?;
    let store = server.map(|server| (server, arguments.durability));
    let data = Folder::new(std::path::absolute(&arguments.data).unwrap_or_else(|_| arguments.data.clone()));
    let names = Service::ALL.map(|service| service.name().to_owned());
    let (console, written) = Console::new(std::io::stdout(), names, colours(), output.json);
    let ready = async {
        let lock = checks::take(&data).await?;
        checks::old_ones_gone(&data, |service, holder| {
            let line = format!("waiting for {holder} of an earlier run to end");
            console.said(
                service.name(),
                &line,
                &json!({ "service": service, "event": "waiting", "for": holder }),
            );
        })
        .await?;
        checks::stores(store.as_ref(), &data).await?;
        anyhow::Ok(lock)
    };
    let lock = tokio::select! {
        ready = ready => ready?,
        name = signals.next() => {
            console.tell(&format!("{name}: nothing was started"), &json!({ "event": "signal", "signal": name }));
            console.close(written).await;
            return Ok(());
        }
    };
    let addresses = Addresses::new(checks::ports(arguments.port_base)?);
    let programs = programs(&data, &addresses, store.as_ref())?;
    let spec = Spec { drain_within: DRAIN_WITHIN + DRAIN_WITHIN / 2, ..Spec::default() };

    let cx = Context::system();
    let (stop, stopped) = watch::channel(Stop::No);
    let obeying = tokio::spawn(signals.obey(stop, console.clone()));
    let (green, up) = oneshot::channel();
    let greeting = Greeting::new(&cx, &addresses, &arguments.data, arguments.store.as_ref());
    let greeter = tokio::spawn(greet(up, greeting, addresses, arguments.seed_demo, console.clone()));
    let mut green = Some(green);
    let tell = |notice: Notice| {
        if notice.what == What::AllReady {
            if let Some(green) = green.take() {
                // Nobody listens when the greeter has ended, and it ends only with its word said.
                let _ = green.send(());
            }
            return;
        }
        console.said(&notice.service, &notice.what.to_string(), &notice);
    };
    let ended = supervisor::run(&cx, spec.check()?, &programs, stopped, tell).await;
    obeying.abort();
    greeter.abort();
    // Both hold the console; it is written to its end when nobody does.
    let _ = obeying.await;
    let _ = greeter.await;
    if ended.is_ok() {
        console.tell("down; the data are kept", &json!({ "event": "down" }));
    }
    console.close(written).await;
    drop(lock);
    Ok(ended?)
}

/// Names are coloured for people: not in files, and not where NO_COLOR asks for none.
fn colours() -> Colours {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stdout().is_terminal() && !refused { Colours::On } else { Colours::Off }
}

/// Where a service finds the URL of its database. Not among its arguments: all users of a machine see those.
const STORE: &str = "MAINSTAY_STORE";

/// The services as processes of this same binary, in the order in which they start.
fn programs(
    data: &Folder,
    addresses: &Addresses,
    store: Option<&(Server, Durability)>,
) -> Result<Vec<Program>> {
    let file =
        std::env::current_exe().context("this program's own file can't be found; nothing was started")?;
    let (mut on_server, mut environment) = (Vec::new(), Vec::new());
    if let Some((server, durability)) = store {
        let store = format!("env:{STORE}");
        on_server = ["--store", &store, "--durability", durability.name()].map(OsString::from).into();
        environment.push((OsString::from(STORE), OsString::from(server.secret())));
    }
    let program = |service: Service| Program {
        name: service.name().to_owned(),
        file: file.clone(),
        arguments: [
            OsString::from("service"),
            service.name().into(),
            "--data".into(),
            data.path().into(),
            "--port".into(),
            OsString::from(addresses.port(service).to_string()),
        ]
        .into_iter()
        .chain(service.callees().iter().flat_map(|callee| {
            ["--calls".into(), OsString::from(format!("{callee}={}", addresses.url(*callee)))]
        }))
        .chain(on_server.iter().cloned())
        .collect(),
        environment: environment.clone(),
        for_good: [Code::Usage, Code::Unusable, Code::Broken].map(|code| code as i32).into(),
    };
    Ok(Service::STARTING.map(program).into())
}

/// Once everything is green: the demonstration data, and what to do now.
async fn greet(
    up: oneshot::Receiver<()>,
    greeting: Greeting,
    addresses: Addresses,
    seed_demo: bool,
    console: Console,
) {
    if up.await.is_err() {
        return;
    }
    if seed_demo && let Err(error) = seed::seed(&Http::new(), &addresses).await {
        let line = format!(
            "the demonstration data could not be placed: {error:#}; the services run; end them and start again to \
             place the data, or place your own"
        );
        console.tell(&line, &json!({ "event": "not_seeded", "cause": format!("{error:#}") }));
    }
    console.tell(&greeting.text(), &greeting);
}
