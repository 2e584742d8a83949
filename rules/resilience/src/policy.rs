//! A policy: what is said of one callee (or one route), and the live state that all who call it share.

mod function;
mod inbound;
mod spec;
mod surroundings;

pub use inbound::{InboundBuilder, InboundPolicy};
pub use spec::{InboundSpec, PolicySpec};

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_envelope::{Chance, Clock, RetryBucket};
use tower_layer::Layer;
use tower_service::Service;

use crate::bulkhead::{self, Bulkhead};
use crate::call::Facts;
use crate::circuit_breaker::{self, CircuitBreaker};
use crate::hedge::{self, Hedges};
use crate::invalid::Invalid;
use crate::load_shed::{self, LoadShed};
use crate::outcome::Classify;
use crate::rate_limit::{self, Pacer, RateLimit};
use crate::record::{Decision, Recording};
use crate::refusal::{DecisionId, Failed};
use crate::retry::{self, Retries};
use crate::scope::Scope;
use crate::stack::{Outbound, OutboundLayer};
use crate::switch::Switch;
use crate::timeout::Timeouts;
use function::{Function, Given};
use surroundings::{Surroundings, surroundings};

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

    /// So often: what comes faster is refused.
    pub const fn rate_limit(mut self, rate: rate_limit::Spec) -> Self {
        self.spec.rate_limit = Some(rate);
        self
    }

    /// So far apart: what comes faster waits for its turn.
    pub const fn pacing(mut self, rate: rate_limit::Spec) -> Self {
        self.spec.pacing = Some(rate);
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

    /// As many calls at a time as are measured to go through without waiting for each other.
    pub const fn adaptive(mut self, limit: load_shed::Adaptive) -> Self {
        self.spec.adaptive = Some(limit);
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
        let checked = self.spec.checked()?;
        let scope = self.surroundings.scope()?;
        let bucket = Arc::new(RetryBucket::new());
        let shared = || Arc::clone(&scope);
        let rules = Outbound {
            timeouts: Timeouts::new(checked.timeout, shared()),
            rate_limit: Switch::new(checked.rate_limit.map(|settings| RateLimit::of(&scope, settings))),
            pacing: Switch::new(checked.pacing.map(|settings| Pacer::of(&scope, settings))),
            retries: Retries::new(checked.retry, Arc::clone(&bucket), shared()),
            hedges: Hedges::new(checked.hedge, Arc::clone(&bucket), shared()),
            breaker: CircuitBreaker::new(checked.breaker, shared()),
            bulkhead: Bulkhead::new(checked.bulkhead, shared()),
            adaptive: Switch::new(checked.adaptive.map(|settings| LoadShed::new(&scope, settings))),
            scope,
        };
        Ok(Policy { rules, bucket, spec: Arc::new(Mutex::new(self.spec)) })
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
    /// What was said last. One change at a time.
    spec: Arc<Mutex<PolicySpec>>,
}

impl Policy {
    /// Begins an outbound policy: for calls to the callee of that name.
    pub fn outbound(name: impl Into<String>) -> OutboundBuilder {
        OutboundBuilder { spec: PolicySpec::default(), surroundings: Surroundings::new(name) }
    }

    /// Begins an inbound policy: for requests to the route of that name.
    pub fn inbound(name: impl Into<String>) -> InboundBuilder {
        InboundBuilder::new(name)
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

    /// Other settings from now on, all of them or, if one can't be, none; of two changes at once, the later is what all
    /// rules go by. What was learnt stays: windows, states, open times, latencies, permits that are out, places in
    /// queues, buckets, measured limits, tokens. Each rule changes as one step; a call under way ends by the settings it
    /// met. What was left out and is put in counts the calls that begin from then on (a bulkhead those, too, that are
    /// under way); what is taken out and put in again goes on from where it was.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting that can't mean what it says. Nothing was changed.
    pub fn reconfigure(&self, spec: &PolicySpec) -> Result<circuit_breaker::Change, Invalid> {
        let checked = spec.checked()?;
        let mut present = self.spec.lock().unwrap_or_else(PoisonError::into_inner);
        let Outbound { scope, timeouts, rate_limit, pacing, retries, hedges, breaker, bulkhead, adaptive } =
            &self.rules;
        timeouts.reconfigure(checked.timeout);
        rate_limit.set(checked.rate_limit, |settings| RateLimit::of(scope, settings), RateLimit::change);
        pacing.set(checked.pacing, |settings| Pacer::of(scope, settings), Pacer::change);
        // Whichever of the two ends does so before the other begins: at no moment would both multiply the tries.
        if checked.hedge.is_some() {
            retries.reconfigure(checked.retry);
            hedges.reconfigure(checked.hedge);
        } else {
            hedges.reconfigure(checked.hedge);
            retries.reconfigure(checked.retry);
        }
        bulkhead.reconfigure(checked.bulkhead);
        adaptive.set(checked.adaptive, |settings| LoadShed::new(scope, settings), LoadShed::reconfigure);
        *present = *spec;
        Ok(breaker.reconfigure(checked.breaker, scope.now()))
    }

    /// What it says at present.
    pub fn spec(&self) -> PolicySpec {
        *self.spec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.rules.scope.name()
    }

    /// Its surroundings, for rules that are put into the stack beside its own.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.rules.scope
    }

    /// Its retries, for metrics.
    pub fn retries(&self) -> &Retries {
        &self.rules.retries
    }

    /// Its circuit breaker, for metrics, or to be asked by hand.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.rules.breaker
    }

    /// Its bulkhead, for metrics, or to be asked by hand.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.rules.bulkhead
    }

    /// Its limit of rates, for metrics, or to be asked by hand. None while it has none.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.rules.rate_limit.get()
    }

    /// Its pacing, for metrics, or to be asked by hand. None while it has none.
    pub fn pacing(&self) -> Option<&Pacer> {
        self.rules.pacing.get()
    }

    /// Its measured limit, for metrics, or to be asked by hand. None while it has none.
    pub fn adaptive(&self) -> Option<&LoadShed> {
        self.rules.adaptive.get()
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
