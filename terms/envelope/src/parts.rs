//! What an envelope is made of: who asks, for whom, how urgently, until when, and which call it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::chance::Chance;
use crate::text::bounded_text;
use crate::time::Monotonic;

/// Names everything that came of one cause at the edge: a request, the facts it left, and what followed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorrelationId(pub Uuid);

impl CorrelationId {
    /// A new one.
    pub fn random(chance: &dyn Chance) -> Self {
        // Version 4: nobody sorts by it, and it shall not tell when the request came.
        let bits = Uuid::from_u64_pair(chance.next_u64(), chance.next_u64());
        Self(Builder::from_random_bytes(bits.into_bytes()).into_uuid())
    }
}

/// The id of the event or the message that directly led to this call or fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CausationId(pub Uuid);

bounded_text! {
    /// Who caused a fact, as it is recorded: a name for the auditor, with no right attached. Personal data.
    Actor, "actor", 2048, Printable
}

bounded_text! {
    /// Who makes a call, as authentication established it: a SPIFFE id (whose longest is 2048 bytes), a token's
    /// subject. It is the name, never the credential that proved it.
    Identity, "identity", 2048, Printable
}

bounded_text! {
    /// On whose account a call is made: the customer whose data and limits are meant.
    Tenant, "tenant", 128, Printable
}

bounded_text! {
    /// Whoever numbers messages: the first part of a [`MessageIdentity`](crate::MessageIdentity).
    Producer, "producer", 256, Printable
}

bounded_text! {
    /// Names one intended effect, so that a receiver which sees it twice does it once.
    IdempotencyKey, "idempotency key", 255, Ascii
}

impl From<Uuid> for Producer {
    /// The id's 32 lower-case hexadecimal digits, without hyphens: a producer whose name nobody has to choose.
    fn from(id: Uuid) -> Self {
        Self(id.simple().to_string().into())
    }
}

impl From<&Identity> for Actor {
    /// The caller, as the fact will name it. Both have the same bounds.
    fn from(caller: &Identity) -> Self {
        Self(caller.0.clone())
    }
}

impl IdempotencyKey {
    /// The key for a call that is made while this one is served.
    ///
    /// Each call needs its own: one key forwarded to two calls would swallow the second. `step` names the place
    /// in the code, `ordinal` counts the calls made from there; the same three give the same key, so a repeated
    /// attempt repeats its keys. BLAKE3 over the parts, each preceded by its length; 64 hexadecimal digits.
    ///
    /// ```
    /// # use mainstay_envelope::IdempotencyKey;
    /// let key = IdempotencyKey::new("order-17")?;
    /// assert_eq!(key.derive("reserve", 0), key.derive("reserve", 0));
    /// assert_ne!(key.derive("reserve", 0), key.derive("reserve", 1));
    /// assert_ne!(key.derive("reserve", 0), key.derive("charge", 0));
    /// # Ok::<(), mainstay_envelope::TextError>(())
    /// ```
    #[must_use]
    pub fn derive(&self, step: &str, ordinal: u32) -> Self {
        // Changing anything here changes the keys of calls in flight: a retry across the upgrade would run twice.
        let mut hasher = blake3::Hasher::new_derive_key("mainstay 2026 idempotency key of a step v1");
        for part in [self.as_str(), step] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&ordinal.to_le_bytes());
        Self(hasher.finalize().to_hex().as_str().into())
    }
}

/// What is given up first when there is too much to do. The lowest goes first; a hop may only lower it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Nobody waits: backfills, warm-ups, reports.
    Background,
    /// Somebody would like it, and does well without: prefetches, suggestions.
    Low,
    /// The default: a user waits for it.
    #[default]
    Normal,
    /// Losing it costs money or trust: payments, health checks of what keeps the rest alive.
    Critical,
}

impl Priority {
    /// Every priority, the lowest first.
    pub const ALL: [Self; 4] = [Self::Background, Self::Low, Self::Normal, Self::Critical];

    /// Its name in settings and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }

    /// The priority of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == name)
    }
}

/// When nobody waits for the answer any more, on this process' monotonic clock.
///
/// A later one compares as greater; `min` of two is the one that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Monotonic);

impl Deadline {
    /// The deadline at that reading.
    pub const fn at(reading: Monotonic) -> Self {
        Self(reading)
    }

    /// The deadline that is `remaining` from `now`.
    pub fn after(now: Monotonic, remaining: Duration) -> Self {
        Self(now + remaining)
    }

    /// The reading at which it is reached.
    pub const fn reading(self) -> Monotonic {
        self.0
    }

    /// What is left at `now`; zero once it is reached.
    pub const fn remaining(self, now: Monotonic) -> Duration {
        self.0.saturating_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_never_changes() {
        // Written down on purpose: a retry that crosses an upgrade must derive the key that the first try did.
        let key = IdempotencyKey::new("order-17").unwrap().derive("reserve", 3);
        assert_eq!(key.as_str(), "24f546780610d1f666309f02a0282ffa6bc1673b08d88ccdcf3f4b6c5cc7a82c");
        assert!(IdempotencyKey::new(key.as_str()).is_ok(), "a derived key is a key");
    }

    #[test]
    fn priorities_are_ordered_and_named() {
        assert!(Priority::ALL.is_sorted_by(|a, b| a < b));
        for priority in Priority::ALL {
            assert_eq!(Priority::from_name(priority.as_str()), Some(priority));
        }
        assert_eq!(Priority::from_name("Critical"), None);
    }

    #[test]
    fn nothing_remains_at_the_deadline_or_after_it() {
        let at = |secs| Monotonic::from_origin(Duration::from_secs(secs));
        let deadline = Deadline::after(at(5), Duration::from_secs(2));
        assert_eq!(deadline.remaining(at(6)), Duration::from_secs(1));
        assert_eq!(deadline.remaining(at(7)), Duration::ZERO);
        assert_eq!(deadline.remaining(at(8)), Duration::ZERO);
        assert_eq!(Deadline::after(at(5), Duration::MAX).reading(), Monotonic::from_origin(Duration::MAX));
    }
}
