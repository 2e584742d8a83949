//! A world whose time is tokio's, and sources that do what a test says.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_envelope::{
    Chance, Clock, Context, CorrelationId, Envelope, Identity, Monotonic, Priority, SeededChance, Tenant,
    Timestamp, TraceContext,
};
use mainstay_resilience::Scope;
use mainstay_resilience::cache::{Cache, Spec};
use mainstay_resilience::record::Recorder;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Tokio's time, paused in these tests.
#[derive(Debug)]
pub(crate) struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Monotonic {
        // Not from zero, so that nothing leans on the origin.
        Monotonic::from_origin(Duration::from_secs(1_000) + self.0.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}

/// Always the same draw.
#[derive(Debug)]
pub(crate) struct Always(pub(crate) u64);

impl Chance for Always {
    fn next_u64(&self) -> u64 {
        self.0
    }
}

/// An error that a test can tell from others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broken: {0}")]
pub(crate) struct Broken(pub(crate) &'static str);

pub(crate) type Tested = Cache<String, u64, Broken>;

pub(crate) struct World {
    pub(crate) cx: Context,
    pub(crate) scope: Arc<Scope>,
}

pub(crate) fn world() -> World {
    world_of(Arc::new(SeededChance::new(7)))
}

pub(crate) fn world_of(chance: Arc<dyn Chance>) -> World {
    recorded(chance, Recorder::off())
}

/// One whose decisions are kept.
pub(crate) fn recorded(chance: Arc<dyn Chance>, recorder: Recorder) -> World {
    let clock: Arc<dyn Clock> = Arc::new(Virtual(Instant::now()));
    let envelope = Envelope::begin(Priority::Normal, &*chance);
    let cx = Context::new(envelope, Arc::clone(&clock), Arc::clone(&chance));
    World { cx, scope: Arc::new(Scope::new("tested", clock, chance, recorder)) }
}

impl World {
    pub(crate) fn cache(&self, spec: Spec) -> Tested {
        Cache::builder("tested", spec).scope(Arc::clone(&self.scope)).build().unwrap()
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.scope.now()
    }

    pub(crate) fn with(&self, tenant: Option<&str>, caller: Option<&str>) -> Context {
        let envelope = self.cx.envelope().clone();
        let envelope = tenant.iter().fold(envelope, |e, t| e.with_tenant(Tenant::new(t).unwrap()));
        let envelope = caller.iter().fold(envelope, |e, c| e.with_caller(Identity::new(c).unwrap()));
        self.cx.with_envelope(envelope)
    }

    pub(crate) fn urgent(&self, priority: Priority) -> Context {
        let chance = SeededChance::new(1);
        let (trace, correlation) = (TraceContext::random(&chance), CorrelationId::random(&chance));
        self.cx.with_envelope(Envelope::of(trace, correlation, priority))
    }
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Sixty seconds, exactly, with no refresh before its time.
pub(crate) fn plain() -> Spec {
    Spec::for_everybody(secs(60)).ttl_jitter(0.0).early_refresh(0.0)
}

/// Counts the loads, and lets them go on when told.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    count: Arc<AtomicU64>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Gate { count: Arc::default(), open: Arc::new(Semaphore::new(0)) }
    }

    /// The number of this load, from 1, once it may go on.
    pub(crate) async fn pass(&self) -> u64 {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        self.open.acquire().await.unwrap().forget();
        number
    }

    /// Lets so many loads go on, now or later.
    pub(crate) fn open(&self, loads: usize) {
        self.open.add_permits(loads);
    }

    /// Loads begun.
    pub(crate) fn loads(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

/// Counts loads that go on at once, each bringing its number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<AtomicU64>);

impl Count {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn loads(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Lets everything run that can, until a condition holds. With time paused and only one thread, what does not hold
/// after so many rounds never will.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

/// A question as a task.
pub(crate) fn spawn<T: Send + 'static>(
    question: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(question)
}
