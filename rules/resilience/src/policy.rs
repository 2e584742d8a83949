//! A policy: what is said of one callee (or one route), and the live state that all who call it share.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay_envelope::{Chance, Clock, RetryBucket, SystemChance, SystemClock};
use tower_layer::Layer;
use tower_service::Service;

use crate::bulkhead::{self, Bulkhead};
use crate::call::{Describe, Facts};
use crate::circuit_breaker::{self, CircuitBreaker, Mode};
use crate::hedge::{self, Hedges};
use crate::invalid::Invalid;
use crate::outcome::Classify;
use crate::record::{Decision, Recorder, Recording};
use crate::refusal::{DecisionId, Failed};
use crate::retry::{self, Retries};
use crate::scope::Scope;
use crate::stack::{Inbound, InboundLayer, Outbound, OutboundLayer};
use crate::timeout::{self, Timeouts};

/// What a policy says: data, as a document has it. Checked as a whole by [`PolicySpec::check`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PolicySpec {
    /// How long a call, and a try, may take.
    pub timeout: timeout::Spec,
    /// What is tried again. Not together with `hedge`.
    pub retry: Option<retry::Spec>,
    /// What is asked twice. Not together with `retry`.
    pub hedge: Option<hedge::Spec>,
    /// When the callee is left alone.
    pub breaker: Option<circuit_breaker::Spec>,
    /// How much is under way at a time.
    pub bulkhead: Option<bulkhead::Spec>,
}

/// A whole policy, checked: what each rule takes.
#[derive(Debug, Clone, Copy)]
struct Checked {
    timeout: timeout::Checked,
    retry: retry::Checked,
    hedge: Option<hedge::Checked>,
    breaker: circuit_breaker::Checked,
    bulkhead: Option<bulkhead::Checked>,
}

impl PolicySpec {
    /// Refuses settings that can't mean what they say, each by itself and together.
    ///
    /// # Errors
    /// [`Invalid`] names the pattern and the field.
    pub fn check(&self) -> Result<(), Invalid> {
        self.checked().map(drop)
    }

    fn checked(&self) -> Result<Checked, Invalid> {
        let timeout = self.timeout.check()?;
        let hedge = self.hedge.map(hedge::Spec::check).transpose()?;
        let bulkhead = self.bulkhead.map(bulkhead::Spec::check).transpose()?;
        // What is left out is a rule that lets everything pass: so it can be put in later, and know who is there.
        let retry = self.retry.unwrap_or(retry::Spec::default().max_attempts(1)).check()?;
        let off = circuit_breaker::Spec::default().mode(Mode::Disabled);
        let breaker = self.breaker.unwrap_or(off).check()?;
        self.fits_together()?;
        Ok(Checked { timeout, retry, hedge, breaker, bulkhead })
    }

    /// Settings that are good by themselves and mean nothing beside each other.
    fn fits_together(&self) -> Result<(), Invalid> {
        if self.retry.is_some_and(|retry| retry.max_attempts > 1) && self.hedge.is_some() {
            let problem = "the policy retries, too, and both around one try would multiply the tries";
            return Err(Invalid::new("hedge", "hedge", "set".into(), problem, "leave out one of the two"));
        }
        let Some(attempt) = self.timeout.attempt else { return Ok(()) };
        let shown = |time: Duration| format!("{time:?}");
        if let Some(hedge) = self.hedge.filter(|hedge| hedge.at_least >= attempt) {
            let problem = "a try ends (`timeout.attempt`) before it, so there would never be a second one";
            let remedy = "lower it below `timeout.attempt`";
            return Err(Invalid::new("hedge", "at_least", shown(hedge.at_least), problem, remedy));
        }
        let Some(breaker) = self.breaker else { return Ok(()) };
        if let Some(slow) = breaker.slow.filter(|slow| slow.longer_than >= attempt) {
            let problem =
                "a try ends (`timeout.attempt`) before it, as a failure, so none would ever be slow";
            let remedy = "lower it below `timeout.attempt`";
            let given = shown(slow.longer_than);
            return Err(Invalid::new("circuit_breaker", "slow.longer_than", given, problem, remedy));
        }
        if breaker.probe_limit < attempt {
            let problem =
                "a probe may take longer (`timeout.attempt`), and would count as lost while it is under way";
            let remedy = "raise it to `timeout.attempt` at least";
            let given = shown(breaker.probe_limit);
            return Err(Invalid::new("circuit_breaker", "probe_limit", given, problem, remedy));
        }
        Ok(())
    }
}

/// Where a policy reads time and chance, and what it records. The defaults are for a process; tests and simulation give
/// their own.
#[derive(Debug)]
struct Surroundings {
    name: String,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    recording: Recording,
    capacity: usize,
}

/// Decisions kept by default, some 20 kB: enough to look up what a caller has just been told.
const CAPACITY: usize = 256;

impl Surroundings {
    fn new(name: impl Into<String>) -> Self {
        Surroundings {
            name: name.into(),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance::new()),
            recording: Recording::default(),
            capacity: CAPACITY,
        }
    }

    fn scope(self) -> Result<Arc<Scope>, Invalid> {
        let Surroundings { name, clock, chance, recording, capacity } = self;
        let problem = match name.len() {
            0 => Some("nobody could tell whose refusals they are"),
            1..=128 => None,
            _ => Some("it is longer than 128 bytes"),
        };
        if let Some(problem) = problem {
            return Err(Invalid::new(
                "policy",
                "name",
                format!("{name:?}"),
                problem,
                "give the callee's name",
            ));
        }
        // Chance, so that ids of two policies, and of two processes, are not mixed up.
        let recorder = Recorder::new(recording, capacity, chance.next_u64());
        Ok(Arc::new(Scope::new(name, clock, chance, recorder)))
    }
}

/// Makes the methods that both builders have.
macro_rules! surroundings {
    () => {
        /// Reads time from `clock`: the one that calls' deadlines are read from. Default: the system's.
        pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
            self.surroundings.clock = clock;
            self
        }

        /// Draws chance from `chance`. Default: the system's.
        pub fn chance(mut self, chance: Arc<dyn Chance>) -> Self {
            self.surroundings.chance = chance;
            self
        }

        /// Keeps the latest `capacity` decisions of this kind. Default: the latest 256 notable ones.
        pub fn record(mut self, recording: Recording, capacity: usize) -> Self {
            self.surroundings.recording = recording;
            self.surroundings.capacity = capacity;
            self
        }
    };
}

/// Says what an outbound policy is. Made by [`Policy::outbound`].
#[derive(Debug)]
#[must_use = "a policy is there when it is built"]
pub struct OutboundBuilder {
    spec: PolicySpec,
    surroundings: Surroundings,
}

impl OutboundBuilder {
    surroundings!();

    /// All tries together take at most this.
    pub const fn total(mut self, limit: Duration) -> Self {
        self.spec.timeout = self.spec.timeout.total(limit);
        self
    }

    /// One try takes at most this.
    pub const fn attempt(mut self, limit: Duration) -> Self {
        self.spec.timeout = self.spec.timeout.attempt(limit);
        self
    }

    /// Tries again what may pass, within the budget.
    pub const fn retry(mut self, retry: retry::Spec) -> Self {
        self.spec.retry = Some(retry);
        self
    }

    /// Asks a second time what takes too long, within the budget.
    pub const fn hedge(mut self, hedge: hedge::Spec) -> Self {
        self.spec.hedge = Some(hedge);
        self
    }

    /// Leaves a failing callee alone.
    pub const fn breaker(mut self, breaker: circuit_breaker::Spec) -> Self {
        self.spec.breaker = Some(breaker);
        self
    }

    /// So many calls at a time, and so many that wait for their turn.
    pub const fn bulkhead(mut self, permits: u32, queue: u32) -> Self {
        self.spec.bulkhead = Some(bulkhead::Spec::permits(permits).queue(queue));
        self
    }

    /// All of it at once, as a document has it.
    pub const fn spec(mut self, spec: PolicySpec) -> Self {
        self.spec = spec;
        self
    }

    /// Checks it and makes it live.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting that can't mean what it says. Nothing was built.
    pub fn build(self) -> Result<Policy, Invalid> {
        let Checked { timeout, retry, hedge, breaker, bulkhead } = self.spec.checked()?;
        let scope = self.surroundings.scope()?;
        let bucket = Arc::new(RetryBucket::new());
        let shared = || Arc::clone(&scope);
        let rules = Outbound {
            timeouts: Timeouts::new(timeout, shared()),
            retries: Retries::new(retry, Arc::clone(&bucket), shared()),
            hedges: Hedges::new(hedge, Arc::clone(&bucket), shared()),
            breaker: CircuitBreaker::new(breaker, shared()),
            bulkhead: Bulkhead::new(bulkhead, shared()),
            scope: shared(),
        };
        Ok(Policy { rules, bucket })
    }
}

/// An outbound policy: one callee's rules and their live state. A clone is another handle on the same; whoever calls
/// the callee shares it.
///
/// ```
/// use mainstay_resilience::{Breaker, Policy, Retry};
/// use std::time::Duration;
///
/// let (ms, secs) = (Duration::from_millis, Duration::from_secs);
/// let policy = Policy::outbound("payment")
///     .total(secs(2))
///     .attempt(ms(300))
///     .retry(Retry::full_jitter(ms(50), secs(1)))                       // within a budget, always
///     .breaker(Breaker::failure_rate(0.5).over(100).open_for(secs(5)))
///     .bulkhead(32, 64)
///     .build()?;
/// # let _ = policy; Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Outbound,
    bucket: Arc<RetryBucket>,
}

impl Policy {
    /// Begins an outbound policy: for calls to the callee of that name.
    pub fn outbound(name: impl Into<String>) -> OutboundBuilder {
        OutboundBuilder { spec: PolicySpec::default(), surroundings: Surroundings::new(name) }
    }

    /// Begins an inbound policy: for requests to the route of that name.
    pub fn inbound(name: impl Into<String>) -> InboundBuilder {
        InboundBuilder {
            timeout: timeout::Spec::default(),
            bulkhead: None,
            surroundings: Surroundings::new(name),
        }
    }

    /// A tower layer that wears this policy; `classify` judges how calls end. Services made by it, and by other layers
    /// of this policy, share its state.
    pub fn layer<C>(&self, classify: C) -> OutboundLayer<C> {
        OutboundLayer::new(self.rules.clone(), classify)
    }

    /// Makes a call that is a function, as often as the rules say. It is given the facts of each try, with the try's
    /// deadline.
    ///
    /// # Errors
    /// Refused by a rule, or what the last try failed with.
    pub async fn call<T, E, C, F, Fut>(
        &self,
        facts: impl FnOnce(mainstay_envelope::Monotonic) -> Facts,
        classify: C,
        make: F,
    ) -> Result<T, Failed<E>>
    where
        C: Classify<T, E> + Clone,
        F: Fn(Facts) -> Fut + Clone,
        Fut: Future<Output = Result<T, E>>,
    {
        let facts = facts(self.rules.scope.now());
        let mut stack = self.layer(classify).describe(Given(facts)).layer(Function(make));
        std::future::poll_fn(|cx| stack.poll_ready(cx)).await?;
        stack.call(None).await
    }

    /// Other settings from now on, all of them or, if one can't be, none. What was learnt stays: windows, states, open
    /// times, latencies, permits that are out, tokens. Each rule changes as one step; a call under way ends by the
    /// settings it met.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting that can't mean what it says. Nothing was changed.
    pub fn reconfigure(&self, spec: &PolicySpec) -> Result<circuit_breaker::Change, Invalid> {
        let Checked { timeout, retry, hedge, breaker, bulkhead } = spec.checked()?;
        let Outbound { scope, timeouts, retries, hedges, breaker: live, bulkhead: permits } = &self.rules;
        timeouts.reconfigure(timeout);
        retries.reconfigure(retry);
        hedges.reconfigure(hedge);
        permits.reconfigure(bulkhead);
        Ok(live.reconfigure(breaker, scope.now()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.rules.scope.name()
    }

    /// Its surroundings, for rules that are put into the stack beside its own.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.rules.scope
    }

    /// Its circuit breaker, for metrics, or to be asked by hand.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.rules.breaker
    }

    /// Its bulkhead, for metrics, or to be asked by hand.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.rules.bulkhead
    }

    /// The tokens of calls that have none of their own.
    pub fn bucket(&self) -> &RetryBucket {
        &self.bucket
    }

    /// When a second try is due. None if nothing is hedged.
    pub fn hedge_delay(&self) -> Option<Duration> {
        self.rules.hedges.delay()
    }

    /// What a decision of this policy was made of, if it is still kept.
    pub fn decision(&self, id: DecisionId) -> Option<Decision> {
        self.rules.scope.recorder().find(id)
    }

    /// The decisions that are kept, the oldest first: what `mainstay replay` reads.
    pub fn decisions(&self) -> Vec<Decision> {
        self.rules.scope.recorder().decisions()
    }
}

/// The facts of a call that is a function.
#[derive(Clone)]
struct Given(Facts);

/// The function's request: the facts of the try, put in before it goes out.
type Try = Option<Facts>;

impl Describe<Try> for Given {
    fn facts(&self, _: &Try, _: mainstay_envelope::Monotonic) -> Facts {
        self.0.clone()
    }

    fn repeat(&self, _: &Try) -> Option<Try> {
        Some(None)
    }

    fn send(&self, request: &mut Try, facts: &Facts) {
        *request = Some(facts.clone());
    }
}

#[derive(Clone)]
struct Function<F>(F);

impl<T, E, F, Fut> Service<Try> for Function<F>
where
    F: Fn(Facts) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, facts: Try) -> Fut {
        // Always there: `send` puts them in.
        (self.0)(facts.unwrap_or(Facts::unknown(mainstay_envelope::Monotonic::ORIGIN)))
    }
}

/// Says what an inbound policy is. Made by [`Policy::inbound`].
#[derive(Debug)]
#[must_use = "a policy is there when it is built"]
pub struct InboundBuilder {
    timeout: timeout::Spec,
    bulkhead: Option<bulkhead::Spec>,
    surroundings: Surroundings,
}

impl InboundBuilder {
    surroundings!();

    /// A request may take at most this, whatever its caller says.
    pub const fn deadline(mut self, limit: Duration) -> Self {
        self.timeout = self.timeout.total(limit);
        self
    }

    /// So many requests at a time, and so many that wait for their turn.
    pub const fn bulkhead(mut self, permits: u32, queue: u32) -> Self {
        self.bulkhead = Some(bulkhead::Spec::permits(permits).queue(queue));
        self
    }

    /// Checks it and makes it live.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting that can't mean what it says. Nothing was built.
    pub fn build(self) -> Result<InboundPolicy, Invalid> {
        let timeout = self.timeout.check()?;
        let bulkhead = self.bulkhead.map(bulkhead::Spec::check).transpose()?;
        let scope = self.surroundings.scope()?;
        let timeouts = Timeouts::new(timeout, Arc::clone(&scope));
        let bulkhead = Bulkhead::new(bulkhead, Arc::clone(&scope));
        Ok(InboundPolicy { rules: Inbound { scope, timeouts, bulkhead } })
    }
}

/// An inbound policy: one route's rules and their live state. A clone is another handle on the same.
#[derive(Debug, Clone)]
pub struct InboundPolicy {
    rules: Inbound,
}

impl InboundPolicy {
    /// A tower layer that wears this policy; `describe` tells it about requests.
    pub fn layer<D>(&self, describe: D) -> InboundLayer<(), D> {
        InboundLayer::new(self.rules.clone(), describe)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.rules.scope.name()
    }

    /// Its surroundings, for rules that are put into the stack beside its own.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.rules.scope
    }

    /// Its bulkhead, for metrics.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.rules.bulkhead
    }

    /// The decisions that are kept, the oldest first.
    pub fn decisions(&self) -> Vec<Decision> {
        self.rules.scope.recorder().decisions()
    }
}
