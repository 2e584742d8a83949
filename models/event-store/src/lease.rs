//! Leases: at most one holder writes, proved by an epoch that the write itself checks.

use std::time::Duration;

use mainstay_envelope::Timestamp;

use crate::names::ConsumerName;
use crate::outcome::Refusal;

/// A lease as recorded. A holder that was stopped and comes back still believes in its epoch; what it
/// then writes is refused, since every write of a holder names its epoch ([`crate::Tx::fence`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Grows by one whenever the holder changes; never goes back.
    pub epoch: u64,
    /// Who holds it: 1 to [`Lease::HOLDER_BYTES_MAX`] bytes.
    pub holder: String,
    /// Until when; from this moment on anybody may take it. Wall time, so it decides only who may try, never what is right.
    pub until: Timestamp,
}

impl Lease {
    /// The longest name of a holder.
    pub const HOLDER_BYTES_MAX: usize = 256;

    /// Decides a request for a lease; `lease` is what is recorded. What is [`Leased::Held`] is to be recorded.
    ///
    /// A renewal in time keeps the epoch. Everybody else, also the last holder once it ran out, gets the next.
    pub fn acquire(
        lease: Option<&Self>,
        holder: &str,
        now: Timestamp,
        lasts: Duration,
    ) -> Result<Leased, Refusal> {
        if holder.is_empty() || holder.len() > Self::HOLDER_BYTES_MAX {
            let why = format!("a holder of {} bytes; 1 to {}", holder.len(), Self::HOLDER_BYTES_MAX);
            return Err(Refusal::Invalid { what: "lease", why });
        }
        let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
        let until = Timestamp::from_millis(now.as_millis().saturating_add(lasts));
        let held = |epoch| Leased::Held(Self { epoch, holder: holder.to_owned(), until });
        Ok(match lease {
            None => held(1),
            Some(lease) if now >= lease.until => held(lease.epoch + 1),
            Some(lease) if lease.holder == holder => held(lease.epoch),
            Some(lease) => Leased::Taken(lease.clone()),
        })
    }

    /// Gives a lease back: what is to be recorded. The epoch stays, so that the next holder gets a new one.
    pub fn release(
        name: &ConsumerName,
        lease: Option<&Self>,
        epoch: u64,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let lease = Self::fence(name, lease, epoch)?;
        Ok(Self { until: lease.until.min(now), ..lease.clone() })
    }

    /// Refuses unless `epoch` is the lease's; gives the lease. That it ran out is no reason: until somebody
    /// else takes it, nobody is harmed.
    pub fn fence<'a>(name: &ConsumerName, lease: Option<&'a Self>, epoch: u64) -> Result<&'a Self, Refusal> {
        match lease {
            Some(lease) if lease.epoch == epoch => Ok(lease),
            other => {
                let actual = other.map_or(0, |lease| lease.epoch);
                Err(Refusal::Fenced { lease: name.clone(), held: epoch, actual })
            }
        }
    }
}

/// The answer to a request for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leased {
    /// The caller holds it.
    Held(Lease),
    /// Somebody else does.
    Taken(Lease),
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_lease_is_free_from_its_last_moment_on_and_not_before() {
        let Ok(Leased::Held(first)) = Lease::acquire(None, "a", at(1_000), MINUTE) else { panic!() };
        assert_eq!(first, Lease { epoch: 1, holder: "a".into(), until: at(61_000) });
        assert_eq!(Lease::acquire(Some(&first), "b", at(60_999), MINUTE), Ok(Leased::Taken(first.clone())));
        for holder in ["a", "b"] {
            let Ok(Leased::Held(next)) = Lease::acquire(Some(&first), holder, at(61_000), MINUTE) else {
                panic!()
            };
            assert_eq!((next.epoch, next.holder.as_str()), (2, holder));
        }
        let Ok(Leased::Held(renewed)) = Lease::acquire(Some(&first), "a", at(60_999), MINUTE) else {
            panic!()
        };
        assert_eq!((renewed.epoch, renewed.until), (1, at(120_999)));
    }

    #[test]
    fn what_was_given_back_is_free_at_once_and_a_release_never_lengthens() {
        let name = ConsumerName::new("l").unwrap();
        let lease = Lease { epoch: 3, holder: "a".into(), until: at(500) };
        assert_eq!(Lease::release(&name, Some(&lease), 3, at(100)).unwrap().until, at(100));
        assert_eq!(Lease::release(&name, Some(&lease), 3, at(900)).unwrap(), lease);
        assert!(matches!(
            Lease::release(&name, Some(&lease), 2, at(100)),
            Err(Refusal::Fenced { actual: 3, .. })
        ));
        assert!(matches!(Lease::fence(&name, None, 0), Err(Refusal::Fenced { actual: 0, .. })));
    }

    #[test]
    fn the_longest_lease_does_not_overflow() {
        let Ok(Leased::Held(lease)) = Lease::acquire(None, "a", at(1), Duration::MAX) else { panic!() };
        assert_eq!(lease.until, at(i64::MAX));
    }
}
