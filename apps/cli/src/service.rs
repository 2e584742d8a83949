//! `mainstay service`: one service of the shop as a process, wired by hand in one visible order.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::{Method, StatusCode};
use mainstay::Context;
use mainstay::sqlite::{EmbeddedLog, LogOptions, Options, Sqlite};
use mainstay_runtime::{Announcement, Asked, Lifeline, Lock, NotLocked, logs};
use mainstay_shop::service::Wiring;
use mainstay_shop::{inventory, order, payment};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::bench::shop_process::commits_line;
use crate::folder::{Folder, Service};
use crate::http::Http;
use crate::output::Unusable;

/// How long a service may take to finish what it has begun: its open requests, then what it follows, then what it
/// publishes, for 5 s each. Past it the process ends, and the next one goes on where it was.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// How long the process before this one may hold the folder. Its supervisor has seen it end, so it is short.
const PREDECESSOR_WITHIN: Duration = Duration::from_secs(5);

/// How often a service is asked whether it can serve: until it could once, and afterwards.
const STARTING: Duration = Duration::from_millis(10);
const RUNNING: Duration = Duration::from_secs(1);

/// One service of the shop.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which.
    service: Service,
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where it answers, on 127.0.0.1.
    #[arg(long, value_name = "PORT")]
    port: u16,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut lifeline = Lifeline::hold().context("no signal handler could be set; nothing was started")?;
    let Arguments { service, data, port } = arguments;
    let data = Folder::new(data);
    // Held until this function has returned, when nothing writes any more.
    let _lock = take(&data, service).await?;
    let store = Sqlite::open(Options::new(data.store(service)))?;
    let log = EmbeddedLog::open(LogOptions::new(data.log(service)))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
        format!("port {port}, for the {service} service, can't be listened on; nothing was served")
    })?;
    let address = listener.local_addr()?.to_string();

    let (stop, stopped) = watch::channel(false);
    let mut wiring = Wiring::new(store.clone(), log.clone(), listener, Context::system(), stopped);
    wiring.tell = Arc::new(tell);
    let participant = match service {
        Service::Order => order::participant(),
        Service::Payment => payment::participant(),
        Service::Inventory => inventory::participant(),
    };
    for name in participant.follows().into_keys() {
        let other = Service::ALL.into_iter().find(|service| service.name() == name);
        let other = other
            .with_context(|| format!("{service} follows {name}, which is no service; nothing was served"))?;
        wiring = wiring.follow(name, EmbeddedLog::follow(LogOptions::new(data.log(other)))?);
    }

    let readiness = tokio::spawn(announce(address, store.clone()));
    let serving = async move {
        match service {
            Service::Order => order::serve(wiring).await,
            Service::Payment => payment::serve(wiring).await,
            Service::Inventory => inventory::serve(wiring).await,
        }
    };
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        asked = lifeline.asked() => {
            readiness.abort();
            // The supervisor says by itself that it asked.
            if asked != Asked::Terminated {
                tell(&format!("draining: {asked}"));
            }
            stop.send_replace(true);
            match tokio::time::timeout(DRAIN_WITHIN, serving).await {
                Ok(ended) => ended,
                Err(_) => anyhow::bail!(
                    "not drained within {DRAIN_WITHIN:?}; what was acknowledged is kept, and the rest is done again \
                     by the next process"
                ),
            }
        }
    };
    readiness.abort();
    tell(&commits_line(store.groups().commits(), log.groups().commits()));
    Ok(ended?)
}

async fn take(data: &Folder, service: Service) -> Result<Lock> {
    let folder = data.of(service);
    std::fs::create_dir_all(&folder)
        .map_err(|cause| Unusable(format!("{}: this folder can't be made: {cause}", folder.display())))?;
    let waiting = |held: &NotLocked| tell(&format!("waiting: {held}"));
    Lock::take_within(&data.lock(service), service.name(), PREDECESSOR_WITHIN, waiting)
        .await
        .map_err(|error| Unusable(format!("{error}; nothing was started")).into())
}

/// A line of this service's log. Its reader may be gone with the supervisor; that is told by the lifeline.
fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{}", logs::clean(line.as_bytes()));
}

/// Tells the supervisor whenever this service begins or ceases to be able to serve, as it answers itself when it is
/// asked by the way its clients come.
async fn announce(address: String, store: Sqlite) {
    let (http, url) = (Http::new(), format!("http://{address}/health/ready"));
    let mut before = None;
    let mut pause = STARTING;
    loop {
        let now = match http.send(Method::GET, &url, &[], None).await {
            Ok(answer) if answer.status == StatusCode::OK => match unhealthy(&store) {
                None => Announcement::Ready { address: address.clone() },
                Some(reason) => Announcement::Unready { reason },
            },
            Ok(answer) => Announcement::Unready { reason: answer.explanation() },
            Err(error) => Announcement::Unready { reason: format!("{error:#}") },
        };
        let is_ready = matches!(now, Announcement::Ready { .. });
        // Until it was ready once it is starting, and nobody takes it for ready.
        if (is_ready || before.is_some()) && before.as_ref() != Some(&now) {
            pause = RUNNING;
            if now.send().is_err() {
                return;
            }
            before = Some(now);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Why the store takes nothing now.
fn unhealthy(store: &Sqlite) -> Option<String> {
    let health = store.health();
    if health.ready() {
        return None;
    }
    let stuck = health
        .stuck
        .map(|(what, since)| format!("{what} has been running for {since:?}, and holds up all writing"));
    health.failed.or(stuck)
}
