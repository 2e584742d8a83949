//! The state behind a service's routes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::Context;
use mainstay::flow::inbox::{DeadLetters, Followed, NotSeen};
use mainstay::flow::saga::Participant;
use mainstay::flow::unit_of_work::Publisher;
use mainstay::messaging::Log;
use mainstay::resilience::rate_limit::{Spec, TokenBucket};
use mainstay::store::{Located, ReadError, Receipt, Store};
use tokio::sync::watch;

use super::admission::Admission;
use super::answer::read_problem;
use super::metrics::Metrics;
use super::stats::Stats;
use super::wiring::{Health, ServeError, Wiring};
use crate::http::limits::Limits;
use crate::http::problem::{Fault, Problem};
use crate::http::server::stopped;

/// What every route of a service may use.
pub struct App<S: Store> {
    name: String,
    store: S,
    cx: Context,
    limits: Limits,
    publisher: Publisher,
    followed: Followed,
    stats: Stats,
    started: AtomicBool,
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// How many failures may be told now, and how many were not.
    failures: TokenBucket,
    untold: AtomicU64,
    health: Health,
    hosts: Vec<String>,
    stop: watch::Receiver<bool>,
    admission: Arc<Admission>,
    metrics: Metrics,
}

/// How much has been done, and what is left. Read from the store: it holds over restarts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) published: u64,
    pub(super) backlog: u64,
    pub(super) parked: u64,
}

/// Parked keys that are counted; when there are more, nothing of the rest is news.
const PARKED_KEYS_MAX: usize = 1_000;

/// Causes of failures that operators are told in a second: a disk that is full fails every request.
const FAILURES_TOLD: Spec = Spec::token_bucket(10, Duration::from_secs(1));

impl<S: Store> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("name", &self.name).field("store", &self.store).finish_non_exhaustive()
    }
}

impl<S: Store> App<S> {
    /// The state of the service with this declaration.
    pub fn new<L: Log>(wiring: &Wiring<S, L>, participant: &Participant) -> Result<Arc<Self>, ServeError> {
        let admission = Arc::new(Admission::new(participant.name(), &wiring.cx, &wiring.limits)?);
        let metrics = Metrics::default();
        let shown = Arc::clone(&admission);
        metrics.add(move |text, _| shown.show(text));
        Ok(Arc::new(Self {
            name: participant.name().to_owned(),
            store: wiring.store.clone(),
            cx: wiring.cx.clone(),
            limits: wiring.limits,
            publisher: Publisher::new(participant)?,
            followed: Followed::new(wiring.store.id()),
            stats: Stats::default(),
            started: AtomicBool::new(false),
            tell: Arc::clone(&wiring.tell),
            failures: TokenBucket::new(&FAILURES_TOLD.check()?),
            untold: AtomicU64::new(0),
            health: Arc::clone(&wiring.health),
            hosts: wiring.hosts.clone(),
            stop: wiring.stop.clone(),
            admission,
            metrics,
        }))
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The process's own context; a request has its own.
    pub fn cx(&self) -> &Context {
        &self.cx
    }

    /// What clients may send.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it may publish.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// How far those that it follows are handled.
    pub(super) fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Its counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Who is served when there is too much to do.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What it shows at `/metrics`.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Everything runs: the relay, the followers, the listener.
    pub(super) fn is_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Tells operators.
    pub fn tell(&self, line: &str) {
        (self.tell)(line);
    }

    /// A request was answered with a fault of ours: counted, and told with what finds the client's answer again.
    pub(super) fn failed(&self, cx: &Context, cause: &str) {
        self.stats.failure();
        if self.failures.take(cx.now(), 1).is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let correlation = cx.envelope().correlation().0;
        let more = match self.untold.swap(0, Ordering::Relaxed) {
            0 => String::new(),
            untold => format!("; {untold} more failed since the last one that was told"),
        };
        self.tell(&format!("a request was answered with 500: {cause}; correlation {correlation}{more}"));
    }

    /// Under which names it answers.
    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// What `/stats` says.
    pub(super) async fn figures(&self) -> Result<Figures, ReadError> {
        let outbox = self.store.outbox_status().await?;
        let (keys, _) = DeadLetters::new(self.store.clone())?.list(None, PARKED_KEYS_MAX).await?;
        Ok(Figures {
            published: outbox.last.saturating_sub(outbox.unsent),
            backlog: outbox.unsent,
            parked: keys.iter().map(|key| key.messages).sum(),
        })
    }

    /// Was the service told to stop?
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits for this, or until the service is told to stop; none then.
    pub async fn or_stopping<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.clone();
        tokio::select! {
            done = wait => Some(done),
            () = stopped(&mut stop) => None,
        }
    }

    /// Why it can't serve now; none when it can.
    pub(super) async fn not_ready(&self) -> Option<String> {
        if self.is_stopping() {
            return Some("the service is told to stop; go elsewhere".into());
        }
        if !self.started.load(Ordering::Acquire) {
            return Some("the service is starting; ask again a little later".into());
        }
        // A store that takes nothing any more may well be read.
        if let Some(why) = (self.health)() {
            return Some(why);
        }
        self.store.head().await.err().map(|error| format!("the store can't be read: {error}"))
    }

    /// Waits until what the receipt stands for is seen here, for [`Limits::receipt_wait`] at most.
    pub(super) async fn seen(&self, cx: &Context, receipt: &Receipt) -> Result<(), Problem> {
        let at_most = self.limits.receipt_wait.min(cx.remaining().unwrap_or(Duration::MAX));
        if receipt.store() != self.store.id() {
            return match self.or_stopping(self.followed.wait(receipt, at_most)).await {
                Some(Ok(())) => Ok(()),
                Some(Err(NotSeen::NotYet { .. })) | None => Err(not_yet()),
                Some(Err(not_followed)) => Err(Problem::new(Fault::ForeignReceipt, not_followed)),
            };
        }
        match self.store.position(receipt).await {
            Ok(Located::At(_)) => Ok(()),
            Ok(Located::NotYet) => Err(not_yet()),
            Err(ReadError::PastEnd { .. }) => Err(Problem::new(
                Fault::ForeignReceipt,
                "the receipt stands for a change that this store does not have: it was restored from an older copy",
            )),
            Err(error) => Err(read_problem(&error)),
        }
    }
}

fn not_yet() -> Problem {
    Problem::new(
        Fault::NotYet,
        "what the receipt stands for has not arrived here in time; nothing was done; \
         send the same request again, or leave the receipt out to see what is here now",
    )
}
