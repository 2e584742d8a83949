//! The envelope on its way out: which of it a callee is told, and the retry tokens that go along.

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_envelope::{Context, Envelope, IdempotencyKey, RetryTokens, wire};
use mainstay_resilience::Facts;

use crate::error::HttpError;

/// Who the callee is to us: what it is told, and whether tokens go to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Callee {
    /// One of our own services: it is told everything, is lent the call's retry tokens, and gives back the rest.
    #[default]
    Ours,
    /// One of our own that calls nobody on: it is told everything and lent nothing. It could spend no token, and one
    /// that is lent is lost with a lost answer; kept here, it pays for the next try.
    Leaf,
    /// Somebody else's: it gets the trace, the idempotency key and nothing else, neither names nor tokens.
    Stranger,
}

/// Retry tokens that went along with a try. Dropped, they are spent: an answer that is lost gives nothing back.
#[derive(Debug)]
pub(crate) struct Lent {
    from: RetryTokens,
    tokens: RetryTokens,
}

impl Lent {
    /// All that the call has; none for a callee that is lent none.
    pub(crate) fn to(callee: Callee, facts: Option<&Facts>) -> Self {
        let from = facts.and_then(|facts| facts.tokens.clone()).filter(|_| callee == Callee::Ours);
        let from = from.unwrap_or_default();
        Lent { tokens: from.take_all(), from }
    }

    /// Nothing was sent.
    pub(crate) fn back(self) {
        self.from.give_back(self.tokens);
    }

    /// An answer came: it says what is left.
    pub(crate) fn settle(self, answer: &HeaderMap) {
        wire::settle(&self.tokens, answer.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        self.back();
    }
}

/// What strangers get.
const FOR_STRANGERS: [&str; 3] = ["traceparent", "tracestate", "idempotency-key"];

/// Writes the envelope of this try into `headers`: what remains of the deadline now, the tokens lent to it, a span of
/// its own.
pub(crate) fn write(
    headers: &mut HeaderMap,
    callee: Callee,
    cx: &Context,
    facts: Option<&Facts>,
    key: Option<&IdempotencyKey>,
    lent: &Lent,
) -> Result<(), HttpError> {
    let present = cx.envelope();
    let trace = present.trace().child(&**cx.chance());
    let mut envelope: Envelope = present.clone().with_trace(trace).with_tokens(lent.tokens.clone());
    if let Some(deadline) = facts.and_then(|facts| facts.deadline) {
        envelope = envelope.lower_deadline(deadline);
    }
    if let Some(key) = key {
        envelope = envelope.with_idempotency_key(key.clone());
    }
    for (name, value) in wire::encode(&envelope, cx.now()) {
        let is_told = match (callee, name) {
            // The key of the call being served names another effect; sent along, it would swallow this one. And
            // without one of its own, this call must not look as if the cause named its effect (see `key`).
            (_, "idempotency-key" | "mainstay-causation-id") if key.is_none() => false,
            (Callee::Stranger, name) => FOR_STRANGERS.contains(&name),
            _ => true,
        };
        if is_told {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| HttpError::request(format!("`{name}` can't be written into a header")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(())
}

/// The key of the effect that is called `label` in this context, the same however often it is asked for.
///
/// Derived from the idempotency key of the call that is being served. Without one, from the fact that is being handled
/// (which has the same id each time it is delivered); without that, from the span, which is new each time the work is
/// begun: then only the tries of one begin share the key.
pub(crate) fn key(cx: &Context, label: &str) -> Result<IdempotencyKey, HttpError> {
    let envelope = cx.envelope();
    if let Some(key) = envelope.idempotency_key() {
        return Ok(key.derive(label, 0));
    }
    // The prefix keeps one kind of name from being taken for the other.
    let base = match envelope.causation() {
        Some(cause) => format!("fact {}", cause.0),
        None => format!("span {}", envelope.trace().parent()),
    };
    let base = IdempotencyKey::new(base.as_str()).map_err(|error| HttpError::request(error.to_string()))?;
    Ok(base.derive(label, 0))
}

#[cfg(test)]
mod tests {
    use mainstay_envelope::{CausationId, ManualClock, Priority, SeededChance};
    use std::sync::Arc;

    use super::*;

    fn cx(seed: u64, change: impl FnOnce(Envelope) -> Envelope) -> Context {
        let chance = SeededChance::new(seed);
        let envelope = change(Envelope::begin(Priority::Normal, &chance));
        Context::new(envelope, Arc::new(ManualClock::default()), Arc::new(chance))
    }

    #[test]
    fn a_key_is_the_same_for_the_same_effect_and_another_for_another() {
        let keyed = |key: &str| {
            let key = IdempotencyKey::new(key).unwrap();
            move |envelope: Envelope| envelope.with_idempotency_key(key)
        };
        let fact = CausationId(uuid(7));
        // Delivered again, a command or a fact comes in another span.
        for (first, again, is_same) in [
            (cx(1, keyed("order-17")), cx(2, keyed("order-17")), true),
            (cx(1, keyed("order-17")), cx(1, keyed("order-18")), false),
            (cx(1, |e| e.with_causation(fact)), cx(2, |e| e.with_causation(fact)), true),
            (cx(1, |e| e.with_causation(fact)), cx(1, |e| e.with_causation(CausationId(uuid(8)))), false),
            (cx(1, |e| e), cx(1, |e| e), true),
            (cx(1, |e| e), cx(2, |e| e), false),
        ] {
            assert_eq!(key(&first, "charge").unwrap() == key(&again, "charge").unwrap(), is_same);
            assert_ne!(key(&first, "charge").unwrap(), key(&first, "refund").unwrap());
        }
    }

    fn uuid(n: u64) -> uuid::Uuid {
        uuid::Uuid::from_u64_pair(0, n)
    }

    #[test]
    fn a_stranger_is_told_no_names_and_lent_no_tokens() {
        let cx = cx(1, |envelope| {
            envelope
                .with_caller(mainstay_envelope::Identity::new("ada").unwrap())
                .with_tenant(mainstay_envelope::Tenant::new("acme").unwrap())
                .with_tokens(RetryTokens::new(2))
        });
        let facts = Facts::of(cx.envelope(), cx.now());
        let key = key(&cx, "charge").unwrap();
        for (callee, kept, names) in [(Callee::Ours, 0, 7), (Callee::Leaf, 2, 7), (Callee::Stranger, 2, 2)] {
            let lent = Lent::to(callee, Some(&facts));
            assert_eq!(cx.envelope().tokens().left(), kept, "{callee:?}");
            let mut headers = HeaderMap::new();
            write(&mut headers, callee, &cx, Some(&facts), Some(&key), &lent).unwrap();
            assert_eq!(headers.len(), names, "{callee:?} {headers:?}");
            lent.back();
            assert_eq!(cx.envelope().tokens().left(), 2, "{callee:?}");
        }
    }
}
