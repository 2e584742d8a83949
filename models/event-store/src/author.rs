//! Who hands something in, and when, as stores keep it.

use bytes::Bytes;
use mainstay_envelope::{Context, Fact, Timestamp};

use crate::outcome::Refusal;

/// For backends: what is recorded beside an act's events and messages. One form for every store, since the chain hashes
/// these very bytes ([`crate::chain`]).
#[derive(Debug, Clone)]
pub struct Author {
    /// When it was handed in, by the context's wall clock.
    pub at: Timestamp,
    /// The fact of the context, as JSON: trace, correlation, causation, tenant, actor.
    pub envelope: Bytes,
}

impl Author {
    /// Of an act that is handed in now, in this context.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a fact that has no JSON form.
    pub fn of(cx: &Context) -> Result<Self, Refusal> {
        Self::new(cx.wall(), &cx.fact())
    }

    /// The same from its parts: at a time, on account of a fact.
    ///
    /// # Errors
    /// As [`Author::of`].
    pub fn new(at: Timestamp, fact: &Fact) -> Result<Self, Refusal> {
        let envelope = serde_json::to_vec(fact)
            .map_err(|error| Refusal::Invalid { what: "envelope", why: error.to_string() })?;
        Ok(Self { at, envelope: envelope.into() })
    }
}
