//! What travels with a call, and what a fact keeps of it.

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::parts::{Actor, CausationId, CorrelationId, Deadline, IdempotencyKey, Identity, Priority, Tenant};
use crate::tokens::RetryTokens;
use crate::trace::{TraceContext, TraceParent};

/// What travels with a call.
///
/// The deadline and the priority can only be lowered; there is no method that raises one. A clone shares the
/// retry tokens (see [`RetryTokens`]), so it makes none.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    trace: TraceContext,
    correlation: CorrelationId,
    causation: Option<CausationId>,
    caller: Option<Identity>,
    actor: Option<Actor>,
    tenant: Option<Tenant>,
    priority: Priority,
    deadline: Option<Deadline>,
    tokens: RetryTokens,
    idempotency_key: Option<IdempotencyKey>,
}

impl Envelope {
    /// The envelope of something that begins here: a new trace and correlation, nobody's, without deadline or
    /// tokens.
    pub fn begin(priority: Priority, chance: &dyn Chance) -> Self {
        Self::of(TraceContext::random(chance), CorrelationId::random(chance), priority)
    }

    /// The envelope of something that has its place in a trace and a correlation already.
    pub fn of(trace: TraceContext, correlation: CorrelationId, priority: Priority) -> Self {
        Self {
            trace,
            correlation,
            causation: None,
            caller: None,
            actor: None,
            tenant: None,
            priority,
            deadline: None,
            tokens: RetryTokens::none(),
            idempotency_key: None,
        }
    }

    /// The envelope in which a fact's handler works.
    ///
    /// Trace (a new span), correlation, tenant and recorded actor come from the fact, `caused_by` is its id.
    /// `deadline` comes from the consumer's settings, not from whoever made the fact, who no longer waits. Nobody
    /// is the caller: a fact tells who acted, and grants nothing in their name. Priority is normal and there are
    /// no tokens until the consumer says otherwise.
    pub fn from_fact(fact: &Fact, caused_by: CausationId, deadline: Deadline, chance: &dyn Chance) -> Self {
        let trace = match fact.trace {
            Some(parent) => TraceContext::from(parent).child(chance),
            None => TraceContext::random(chance),
        };
        // A fact from before, or from elsewhere: its own id correlates what follows, the same for each handler.
        let unknown = fact.correlation == CorrelationId::default();
        let correlation = if unknown { CorrelationId(caused_by.0) } else { fact.correlation };
        Self {
            causation: Some(caused_by),
            actor: fact.actor.clone(),
            tenant: fact.tenant.clone(),
            deadline: Some(deadline),
            ..Self::of(trace, correlation, Priority::default())
        }
    }

    /// What a fact made during this call keeps: trace, correlation, causation, tenant and the actor's name. Never
    /// a credential, a deadline, a priority, tokens or a key.
    pub fn fact(&self) -> Fact {
        Fact {
            trace: Some(self.trace.parent()),
            correlation: self.correlation,
            causation: self.causation,
            tenant: self.tenant.clone(),
            actor: self.actor().cloned().or_else(|| self.caller.as_ref().map(Actor::from)),
        }
    }

    /// The envelope of a call made while this one is served.
    ///
    /// A new span, the `tokens` that the caller moves out of this one ([`RetryTokens::take_all`] or
    /// [`RetryTokens::split`]), and, if this one has an idempotency key, one derived from it for `step` and
    /// `ordinal` (see [`IdempotencyKey::derive`]). All else is the same.
    #[must_use]
    pub fn outgoing(&self, step: &str, ordinal: u32, tokens: RetryTokens, chance: &dyn Chance) -> Self {
        Self {
            trace: self.trace.child(chance),
            tokens,
            idempotency_key: self.idempotency_key.as_ref().map(|key| key.derive(step, ordinal)),
            ..self.clone()
        }
    }

    /// Lowers the deadline: of this one and the present one, the earlier holds.
    #[must_use]
    pub fn lower_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |present| present.min(deadline)));
        self
    }

    /// Lowers the priority: of this one and the present one, the lower holds.
    #[must_use]
    pub fn lower_priority(mut self, priority: Priority) -> Self {
        self.priority = self.priority.min(priority);
        self
    }

    /// Replaces the trace context, as tracing does when it opens a span.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.trace = trace;
        self
    }

    /// Says what directly led to this.
    #[must_use]
    pub fn with_causation(mut self, causation: CausationId) -> Self {
        self.causation = Some(causation);
        self
    }

    /// Says who calls, once they are authenticated. Facts made from here on name them.
    #[must_use]
    pub fn with_caller(mut self, caller: Identity) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Says whom facts shall name as the one who acted, where that is not the caller.
    #[must_use]
    pub fn with_actor(mut self, actor: Actor) -> Self {
        self.actor = Some(actor);
        self
    }

    /// Says on whose account this is.
    #[must_use]
    pub fn with_tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Puts these tokens in place of the present ones, which are then spent unless another handle holds them.
    #[must_use]
    pub fn with_tokens(mut self, tokens: RetryTokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Names the effect that is meant.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// The place in a trace.
    pub fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// What all that came of one cause has in common.
    pub fn correlation(&self) -> CorrelationId {
        self.correlation
    }

    /// What directly led to this, if anything recorded did.
    pub fn causation(&self) -> Option<CausationId> {
        self.causation
    }

    /// Who calls, if anybody was authenticated. Rights are granted to this and to nothing else in here.
    pub fn caller(&self) -> Option<&Identity> {
        self.caller.as_ref()
    }

    /// Whom facts name as the one who acted, where that is not the caller.
    pub fn actor(&self) -> Option<&Actor> {
        self.actor.as_ref()
    }

    /// On whose account this is.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// How urgent this is.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// When nobody waits any more; none if somebody waits however long it takes.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// What retries may spend: a handle, through which they are spent, moved and given back.
    pub fn tokens(&self) -> &RetryTokens {
        &self.tokens
    }

    /// The name of the effect that is meant, if it has one.
    pub fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.idempotency_key.as_ref()
    }
}

/// What a fact keeps of the call that made it, for as long as the fact is kept.
///
/// Its JSON names are part of the stored format: they don't change, and names that are not known (of a later
/// version) are passed over. The tenant and the actor are personal data.
///
/// ```
/// # use mainstay_envelope::{Actor, Fact};
/// let fact = Fact { actor: Some(Actor::new("ada")?), ..Fact::default() };
/// let text = serde_json::to_string(&fact).unwrap();
/// assert_eq!(text, r#"{"corr":"00000000-0000-0000-0000-000000000000","actor":"ada"}"#);
/// # Ok::<(), mainstay_envelope::TextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Fact {
    /// The trace and the span in which it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// What all that came of one cause has in common; the nil UUID where it is not known.
    #[serde(rename = "corr")]
    pub correlation: CorrelationId,
    /// What directly led to it.
    #[serde(rename = "cause", skip_serializing_if = "Option::is_none")]
    pub causation: Option<CausationId>,
    /// On whose account it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Who acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
}
