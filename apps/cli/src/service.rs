//! `mainstay service`: one service of the shop as a process, wired by hand in one visible order.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::{Method, StatusCode};
use mainstay::Context;
use mainstay::postgres::Postgres;
use mainstay::sqlite::{EmbeddedLog, LogOptions, Options, Sqlite};
use mainstay::store::Store;
use mainstay_runtime::{Announcement, Asked, Lifeline, Lock, NotLocked, logs};
use mainstay_shop::service::Wiring;
use mainstay_shop::{inventory, order, payment, processor};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bench::shop_process::commits_line;
use crate::folder::{Folder, Service};
use crate::http::Http;
use crate::output::Unusable;
use crate::place::{Durability, Given};
use crate::shop_store::{self, For};

/// `NAME=URL`, as it is given.
fn callee(given: &str) -> Result<(String, String), String> {
    let (name, url) = given.split_once('=').ok_or("it is not NAME=URL")?;
    Ok((name.to_owned(), url.to_owned()))
}

/// How long a service may take to finish what it has begun: its open requests, then what it follows, then what it
/// publishes, for 5 s each. Past it the process ends, and the next one goes on where it was.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// How long the process before this one may hold the folder. Its supervisor has seen it end, so it is short.
const PREDECESSOR_WITHIN: Duration = Duration::from_secs(5);

/// How often a service is asked whether it can serve: until it could once, and afterwards.
const STARTING: Duration = Duration::from_millis(10);
const RUNNING: Duration = Duration::from_secs(1);

/// How long its answer is waited for, and how often it says the same again. With the pause between them the
/// supervisor hears of it at least every 9 s, if it runs at all, which is within
/// [`Spec::heard_within`](mainstay_runtime::supervisor::Spec::heard_within).
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const REPEATED: Duration = Duration::from_secs(3);

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
    /// Where a service that it calls answers: order calls inventory, payment calls processor.
    #[arg(long, value_name = "NAME=URL", value_parser = callee)]
    calls: Vec<(String, String)>,
    /// The database that its store is in: postgres://…, or env:NAME.
    #[arg(long, value_name = "URL")]
    store: Option<Given>,
    /// Of a server that may lose what it has acknowledged.
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    durability: Durability,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut lifeline = Lifeline::hold().context("no signal handler could be set; nothing was started")?;
    let Arguments { service, data, port, calls, store, durability } = arguments;
    let data = Folder::new(data);
    // Held until this function has returned, when nothing writes any more.
    let _lock = take(&data, service).await?;
    let at = At { service, data: &data, port, calls: &calls };
    let Some(given) = store else {
        shop_store::keeps_files(&data, service)?;
        let store = Sqlite::open(Options::new(data.store(service)))?;
        let (asked, kept) = (store.clone(), store.clone());
        return at
            .serve(
                store,
                move || unhealthy(&asked),
                &mut lifeline,
                |log| {
                    tell(&commits_line(kept.groups().commits(), log.groups().commits()));
                },
            )
            .await;
    };
    let store = shop_store::open(&given.server()?, &data, service, durability, For::Serving, tell).await?;
    let (told, health) = watch::channel(store.unhealthy().await);
    let watching = tokio::spawn(watch_over(store.clone(), told));
    let ended = at.serve(store.clone(), move || health.borrow().clone(), &mut lifeline, |_| {}).await;
    watching.abort();
    // So that the next process's sequencer need not wait for this one's lease.
    store.close().await;
    ended
}

/// How often a server is asked how it is.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Keeps up to date whether a store on a server can do its work: nobody who asks for it waits for the server.
async fn watch_over(store: Postgres, told: watch::Sender<Option<String>>) {
    while !told.is_closed() {
        tokio::time::sleep(ASKED_EVERY).await;
        told.send_replace(store.unhealthy().await);
    }
}

/// Which service, and where.
#[derive(Clone, Copy)]
struct At<'a> {
    service: Service,
    data: &'a Folder,
    port: u16,
    calls: &'a [(String, String)],
}

impl At<'_> {
    /// Serves until it is asked to end, or something of it ends by itself. `told` hears of the log when all is over.
    async fn serve<S: Store>(
        self,
        store: S,
        health: impl Fn() -> Option<String> + Send + Sync + 'static,
        lifeline: &mut Lifeline,
        told: impl FnOnce(&EmbeddedLog),
    ) -> Result<()> {
        let Self { service, data, port, calls } = self;
        let log = EmbeddedLog::open(LogOptions::new(data.log(service)))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
            format!("port {port}, for the {service} service, can't be listened on; nothing was served")
        })?;
        let address = listener.local_addr()?.to_string();

        let (stop, stopped) = watch::channel(false);
        let mut wiring = wired(store, log.clone(), listener, stopped, health);
        for (name, url) in calls {
            wiring = wiring.calls(name, url);
        }
        let participant = match service {
            Service::Order => order::participant(),
            Service::Payment => payment::participant(),
            Service::Inventory => inventory::participant(),
            Service::Processor => processor::participant(),
        };
        for name in participant.follows().into_keys() {
            let other = Service::ALL.into_iter().find(|service| service.name() == name);
            let other = other.with_context(|| {
                format!("{service} follows {name}, which is no service; nothing was served")
            })?;
            wiring = wiring.follow(name, EmbeddedLog::follow(LogOptions::new(data.log(other)))?);
        }

        let readiness = tokio::spawn(announce(address));
        let serving = async move {
            match service {
                Service::Order => order::serve(wiring).await,
                Service::Payment => payment::serve(wiring).await,
                Service::Inventory => inventory::serve(wiring).await,
                Service::Processor => processor::serve(wiring).await,
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
        told(&log);
        Ok(ended?)
    }
}

/// What every service has: its files, its place, and how it stands with them.
fn wired<S: Store>(
    store: S,
    log: EmbeddedLog,
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
    health: impl Fn() -> Option<String> + Send + Sync + 'static,
) -> Wiring<S, EmbeddedLog> {
    let mut wiring = Wiring::new(store, log, listener, Context::system(), stopped);
    wiring.tell = Arc::new(tell);
    wiring.health(health)
}

async fn take(data: &Folder, service: Service) -> Result<Lock> {
    data.make(&[service]).map_err(|(path, cause)| {
        Unusable(format!("{}: this folder can't be made: {cause}", path.display()))
    })?;
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

/// Tells the supervisor whenever this service begins or ceases to be able to serve, and every few seconds again.
async fn announce(address: String) {
    let http = Http::new();
    let mut before: Option<(Announcement, Instant)> = None;
    let mut pause = STARTING;
    loop {
        let now = probe(&http, &address).await;
        // Until it was ready once it is starting, and nobody takes it for ready.
        let is_due = match &before {
            None => matches!(now, Announcement::Ready { .. }),
            Some((said, at)) => *said != now || at.elapsed() >= REPEATED,
        };
        if is_due {
            pause = RUNNING;
            before = Some((now.clone(), Instant::now()));
            // Beside the service: it waits for ever when the supervisor is stopped and the pipe is full.
            if !matches!(tokio::task::spawn_blocking(move || now.send()).await, Ok(Ok(()))) {
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether the service at this address can serve, as it answers itself when it is asked by the way its clients
/// come: on a new connection. One that is kept would be answered also by a service that takes no others any more.
async fn probe(http: &Http, address: &str) -> Announcement {
    let url = format!("http://{address}/health/ready");
    let asked = http.send(Method::GET, &url, &[("connection", "close")], None);
    match tokio::time::timeout(ANSWERED_WITHIN, asked).await {
        Ok(Ok(answer)) if answer.status == StatusCode::OK => {
            Announcement::Ready { address: address.to_owned() }
        }
        Ok(Ok(answer)) => Announcement::Unready { reason: answer.explanation() },
        Ok(Err(error)) => Announcement::Unready { reason: format!("{error:#}") },
        Err(_) => {
            Announcement::Unready { reason: format!("it does not answer itself within {ANSWERED_WITHIN:?}") }
        }
    }
}

/// Why the store takes nothing now; the same words as long as it is the same trouble.
fn unhealthy(store: &Sqlite) -> Option<String> {
    let health = store.health();
    if health.ready() {
        return None;
    }
    let stuck = health
        .stuck
        .map(|(what, _)| format!("{what} has been running for too long, and holds up all writing"));
    health.failed.or(stuck)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener as Listener, TcpStream};

    use mainstay::store::Store;

    use super::*;

    /// Answers every request that comes on a connection, and keeps it open for more.
    fn answer(connection: TcpStream, status: &str) {
        let mut writer = connection.try_clone().unwrap();
        for line in BufReader::new(connection).lines().map_while(Result::ok) {
            if line.is_empty() {
                write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
            }
        }
    }

    #[tokio::test]
    async fn each_probe_comes_on_a_new_connection_as_new_clients_do() {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // Takes two clients and no third one, and goes on answering those it took.
        let serving = std::thread::spawn(move || {
            let take = |status| {
                let connection = listener.accept().unwrap().0;
                std::thread::spawn(move || answer(connection, status));
            };
            take("200 OK");
            take("503 Service Unavailable");
        });
        let http = Http::new();
        let ready = Announcement::Ready { address: address.clone() };
        assert_eq!(probe(&http, &address).await, ready);
        let told = probe(&http, &address).await;
        assert!(matches!(told, Announcement::Unready { .. }), "{told:?}");
        serving.join().unwrap();
        let told = probe(&http, &address).await;
        assert!(
            matches!(&told, Announcement::Unready { reason } if reason.contains("no answer")),
            "{told:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_is_not_ready_while_its_store_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join("store.db")).closure_limit(Duration::from_millis(50));
        let store = Sqlite::open(options).unwrap();
        let log = EmbeddedLog::open(LogOptions::new(folder.path().join("log.db"))).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let asked = store.clone();
        let wiring = wired(store.clone(), log, listener, watch::channel(false).1, move || unhealthy(&asked));
        assert_eq!((wiring.health)(), None);

        let (go, wait) = std::sync::mpsc::channel::<()>();
        let held = tokio::spawn(async move {
            let hold = move |_: &_| {
                let _ = wait.recv();
                Ok::<_, mainstay::store::Abort<()>>(())
            };
            let _ = store.transact(&Context::system(), hold).await;
        });
        let mut told = None;
        let ends = Instant::now() + Duration::from_secs(30);
        while told.is_none() && Instant::now() < ends {
            tokio::task::yield_now().await;
            told = (wiring.health)();
        }
        // It may be run again, and is not to wait then.
        drop(go);
        held.await.unwrap();
        assert!(told.as_ref().is_some_and(|told| told.contains("holds up all writing")), "{told:?}");
    }
}
