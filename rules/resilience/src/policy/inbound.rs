//! An inbound policy: what is said of one route, and the live state that all requests to it share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_envelope::{Chance, Clock};

use super::spec::{InboundChecked, InboundSpec};
use super::surroundings::{Surroundings, surroundings};
use crate::bulkhead::{self, Bulkhead};
use crate::invalid::Invalid;
use crate::load_shed::{self, LoadShed};
use crate::rate_limit::{self, KeyedRateLimit};
use crate::record::{Decision, Recording};
use crate::refusal::DecisionId;
use crate::scope::Scope;
use crate::stack::{Inbound, InboundLayer};
use crate::switch::Switch;
use crate::timeout::Timeouts;

/// Says what an inbound policy is. Made by [`Policy::inbound`](crate::Policy::inbound).
#[derive(Debug)]
#[must_use = "a policy is there when it is built"]
pub struct InboundBuilder {
    spec: InboundSpec,
    surroundings: Surroundings,
}

impl InboundBuilder {
    surroundings!();

    pub(super) fn new(name: impl Into<String>) -> Self {
        InboundBuilder { spec: InboundSpec::default(), surroundings: Surroundings::new(name) }
    }

    /// A request may take at most this, whatever its caller says.
    pub const fn deadline(mut self, limit: Duration) -> Self {
        self.spec.deadline = Some(limit);
        self
    }

    /// So much under way or waiting in all, before anything is known of anybody.
    pub const fn coarse_shed(mut self, limit: load_shed::Limit) -> Self {
        self.spec.coarse_shed = Some(limit);
        self
    }

    /// So often for each identity.
    pub const fn rate_limit(mut self, rate: rate_limit::Spec) -> Self {
        self.spec.rate_limit = Some(rate);
        self
    }

    /// So much at a time, the important first.
    pub const fn load_shed(mut self, shed: load_shed::Spec) -> Self {
        self.spec.load_shed = Some(shed);
        self
    }

    /// So many requests at a time, and so many that wait for their turn.
    pub const fn bulkhead(mut self, permits: u32, queue: u32) -> Self {
        self.spec.bulkhead = Some(bulkhead::Spec::permits(permits).queue(queue));
        self
    }

    /// All of it at once, as a document has it.
    pub const fn spec(mut self, spec: InboundSpec) -> Self {
        self.spec = spec;
        self
    }

    /// Checks it and makes it live.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting that can't mean what it says. Nothing was built.
    pub fn build(self) -> Result<InboundPolicy, Invalid> {
        let InboundChecked { timeout, coarse_shed, rate_limit, load_shed, bulkhead } = self.spec.checked()?;
        let scope = self.surroundings.scope()?;
        let shed =
            |settings: Option<_>| Switch::new(settings.map(|settings| LoadShed::new(&scope, settings)));
        let rules = Inbound {
            timeouts: Timeouts::new(timeout, Arc::clone(&scope)),
            coarse_shed: shed(coarse_shed),
            rate_limit: Switch::new(rate_limit.map(|settings| KeyedRateLimit::of(&scope, settings))),
            load_shed: shed(load_shed),
            bulkhead: Bulkhead::new(bulkhead, Arc::clone(&scope)),
            scope,
        };
        Ok(InboundPolicy { rules, spec: Arc::new(Mutex::new(self.spec)) })
    }
}

/// An inbound policy: one route's rules and their live state. A clone is another handle on the same.
///
/// ```
/// use mainstay_resilience::{Limit, Policy, Rate, Shed};
/// use std::time::Duration;
///
/// let policy = Policy::inbound("orders")
///     .deadline(Duration::from_secs(2))
///     .coarse_shed(Limit::Fixed(1_000))                                 // before it is known who asks
///     .rate_limit(Rate::token_bucket(50, Duration::from_secs(1)))       // for each identity
///     .load_shed(Shed::adaptive().queue(200))                           // the important first
///     .bulkhead(100, 0)                                                 // this route, of all that the process does
///     .build()?;
/// # let _ = policy; Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone)]
pub struct InboundPolicy {
    rules: Inbound,
    /// What was said last. One change at a time.
    spec: Arc<Mutex<InboundSpec>>,
}

impl InboundPolicy {
    /// A tower layer that wears this policy; `describe` tells it about requests.
    pub fn layer<D>(&self, describe: D) -> InboundLayer<D> {
        InboundLayer::new(self.rules.clone(), describe)
    }

    /// Other settings from now on, all of them or, if one can't be, none; of two changes at once, the later is what all
    /// rules go by. What was learnt stays: permits that are out, places in queues, buckets, measured limits. Each rule
    /// changes as one step. What was left out and is put in counts the requests that begin from then on (a bulkhead
    /// those, too, that are under way); what is taken out and put in again goes on from where it was.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting that can't mean what it says. Nothing was changed.
    pub fn reconfigure(&self, spec: &InboundSpec) -> Result<(), Invalid> {
        let checked = spec.checked()?;
        let mut present = self.spec.lock().unwrap_or_else(PoisonError::into_inner);
        let Inbound { scope, timeouts, coarse_shed, rate_limit, load_shed, bulkhead } = &self.rules;
        let shed = |settings| LoadShed::new(scope, settings);
        timeouts.reconfigure(checked.timeout);
        coarse_shed.set(checked.coarse_shed, shed, LoadShed::reconfigure);
        let limit = |settings| KeyedRateLimit::of(scope, settings);
        rate_limit.set(checked.rate_limit, limit, KeyedRateLimit::change);
        load_shed.set(checked.load_shed, shed, LoadShed::reconfigure);
        bulkhead.reconfigure(checked.bulkhead);
        *present = *spec;
        Ok(())
    }

    /// What it says at present.
    pub fn spec(&self) -> InboundSpec {
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

    /// Its coarse limit, for metrics. None while it has none.
    pub fn coarse_shed(&self) -> Option<&LoadShed> {
        self.rules.coarse_shed.get()
    }

    /// Its limit of rates by identity, for metrics. None while it has none.
    pub fn rate_limit(&self) -> Option<&KeyedRateLimit<String>> {
        self.rules.rate_limit.get()
    }

    /// Its load shedding, for metrics. None while it has none.
    pub fn load_shed(&self) -> Option<&LoadShed> {
        self.rules.load_shed.get()
    }

    /// Its bulkhead, for metrics.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.rules.bulkhead
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
