//! The decision: pure. `now` comes in, a verdict goes out; one atomic word holds all that is remembered.
//!
//! The word is the instant at which the bucket will be full again. That is the theoretical arrival time of the
//! generic cell rate algorithm (ITU-T I.371, annex A), which is another way to write a token bucket:
//!
//! ```text
//!   tokens(now) = burst − (full_at − now) / interval        a request of cost c is admitted iff tokens ≥ c,
//!   full_at'    = max(full_at, now) + c · interval          and then full_at moves by c intervals
//! ```

mod keyed;
mod meter;
mod queue;

pub use keyed::Keyed;
pub use meter::LeakyMeter;
pub use queue::{Joined, Line, NotQueued, Queue, Ticket};

use std::time::Duration;

use mainstay_envelope::Monotonic;
use mainstay_envelope::sync::atomic::{AtomicU64, Ordering};
use mainstay_envelope::sync::{Mutex, PoisonError};

use super::spec::Checked;
use crate::record::INPUTS;

/// Why a request was not admitted. Nothing was taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// Too few permits at this moment.
    #[error("the rate limit is used up; nothing was done; come back in {retry_after:?}")]
    NotYet {
        /// The exact time from `now` after which the same request is admitted, if nobody else takes a permit.
        retry_after: Duration,
    },
    /// The request costs more than the bucket ever holds: waiting does not help.
    #[error(
        "the request costs {cost}, more than the limit ever admits at once ({burst}); nothing was done; make it smaller"
    )]
    TooLarge {
        /// What the request would cost, in permits.
        cost: u32,
        /// What a full bucket holds, in permits.
        burst: u32,
    },
}

/// The arithmetic of a bucket, in whole nanoseconds since the clock's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    interval: u64,
    refill: u64,
}

/// Later readings of a clock than this (146 years) count as this, so that no sum below overflows.
const FAR: u64 = u64::MAX / 4;

pub(super) fn nanos(now: Monotonic) -> u64 {
    now.as_nanos().min(FAR)
}

impl Rate {
    pub(super) fn of(settings: &Checked) -> Self {
        // Both are at most thirty days: `check` saw to that.
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(FAR);
        Rate { interval: nanos(settings.interval()), refill: nanos(settings.refill()) }
    }

    /// The bucket's next word, or why there is none.
    #[inline]
    pub(super) fn take(self, full_at: u64, now: u64, cost: u32) -> Result<u64, Denied> {
        let price = self.interval.saturating_mul(u64::from(cost));
        if price > self.refill {
            return Err(Denied::TooLarge { cost, burst: self.burst() });
        }
        let next = full_at.max(now) + price;
        match next.checked_sub(now + self.refill) {
            None | Some(0) => Ok(next),
            Some(short) => Err(Denied::NotYet { retry_after: Duration::from_nanos(short) }),
        }
    }

    /// Whole permits that are there at `now`.
    pub(super) fn left(self, full_at: u64, now: u64) -> u32 {
        let missing = full_at.saturating_sub(now);
        // At most `burst`, which is 32 bits.
        u32::try_from(self.refill.saturating_sub(missing) / self.interval).unwrap_or(u32::MAX)
    }

    fn burst(self) -> u32 {
        u32::try_from(self.refill / self.interval).unwrap_or(u32::MAX)
    }

    /// The word of a bucket that holds as many permits under `self` as `full_at` did under `old`, as far as its
    /// new size allows; fractions of a permit are rounded down.
    pub(super) fn carry_over(self, old: Rate, full_at: u64, now: u64) -> u64 {
        let missing = full_at.saturating_sub(now).min(old.refill);
        let held = u128::from(old.refill - missing) * u128::from(self.interval) / u128::from(old.interval);
        // Cut to the new size first: what is left then fits.
        let held = u64::try_from(held.min(u128::from(self.refill))).unwrap_or(self.refill);
        now + (self.refill - held)
    }
}

/// A token bucket, or the same limit read as a leaky meter: the state of one limit, shared by reference.
///
/// It holds `burst` tokens, begins full, gains one each interval and never more than `burst`. A request of cost
/// c takes c tokens if they are there, and otherwise none. Between any two instants t apart it admits at most
/// `burst + t / interval`.
///
/// One atomic word and one compare-and-swap a request; it never blocks (but for the moment in which its settings
/// are changed) and allocates nothing. Readings of one clock that are handed in out of order do no harm: an
/// earlier `now` only waits longer.
#[derive(Debug)]
pub struct TokenBucket {
    /// The instant at which it is full, or [`SEALED`].
    full_at: AtomicU64,
    interval: AtomicU64,
    refill: AtomicU64,
    /// Held while settings are changed; nobody else ever takes it but those who meet the seal.
    changing: Mutex<()>,
}

/// A decision and what it was made of, for a record of it.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    full_at: u64,
    rate: Rate,
    /// The verdict.
    pub result: Result<(), Denied>,
}

impl Taken {
    /// What is recorded of it: when the bucket is full, the interval and the refill (nanoseconds), the cost, and a
    /// number that stands for the key (0: no key), which nothing depends on.
    pub fn inputs(&self, cost: u32, who: u64) -> [u64; INPUTS] {
        [self.full_at, self.rate.interval, self.rate.refill, u64::from(cost), who, 0, 0]
    }

    /// The verdict as a number.
    pub fn verdict(&self) -> u64 {
        verdict(self.result)
    }
}

/// Admitted 0, too large 1, otherwise 2 more than the nanoseconds to wait.
fn verdict(result: Result<(), Denied>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(Denied::TooLarge { .. }) => 1,
        Err(Denied::NotYet { retry_after }) => {
            u64::try_from(retry_after.as_nanos()).unwrap_or(u64::MAX).saturating_add(2)
        }
    }
}

/// The questions, as they are recorded.
pub mod question {
    /// May it take so many permits?
    pub const TAKE: u8 = 0;
    /// Is it refused a place in the queue? Only refusals are recorded.
    pub const JOIN: u8 = 1;
    /// Its turn came: is it past its deadline? Only that is recorded.
    pub const TURN: u8 = 2;
}

/// Decides a recorded decision again: `question`, `at` and `inputs` as recorded. None if they are no rate limit's.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    match question {
        question::TAKE => replay_take(at, inputs),
        question::JOIN => queue::replay(at, inputs),
        question::TURN => Some(u64::from(inputs[0] <= at)),
        _ => None,
    }
}

fn replay_take(at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let [full_at, interval, refill, cost, ..] = inputs;
    if interval == 0 || refill > FAR || full_at > 2 * FAR {
        return None;
    }
    let rate = Rate { interval, refill };
    Some(verdict(rate.take(full_at, at.min(FAR), u32::try_from(cost).ok()?).map(|_| ())))
}

/// In place of the word while settings are changed: whoever sees it waits for the new ones.
const SEALED: u64 = u64::MAX;

impl TokenBucket {
    /// A full bucket.
    pub fn new(settings: &Checked) -> Self {
        let rate = Rate::of(settings);
        TokenBucket {
            // Full since the origin of the clock.
            full_at: AtomicU64::new(0),
            interval: AtomicU64::new(rate.interval),
            refill: AtomicU64::new(rate.refill),
            changing: Mutex::new(()),
        }
    }

    /// Takes `cost` permits at `now`, or none. A cost of 0 asks whether the bucket is overdrawn, which it never is.
    ///
    /// # Errors
    /// [`Denied`] says whether and when the same request would be admitted.
    #[inline]
    pub fn take(&self, now: Monotonic, cost: u32) -> Result<(), Denied> {
        self.take_explained(now, cost).result
    }

    /// As [`take`](Self::take), with what was read for it.
    #[inline]
    pub fn take_explained(&self, now: Monotonic, cost: u32) -> Taken {
        let now = nanos(now);
        let mut seen = self.full_at.load(Ordering::Acquire);
        loop {
            if seen == SEALED {
                seen = self.unsealed();
            }
            // Settings that are newer than `seen` came with another word, so the exchange below fails.
            let rate = self.rate();
            let next = match rate.take(seen, now, cost) {
                Ok(next) => next,
                // Here nothing is exchanged: look whether it is the same word still.
                Err(denied) => match self.full_at.load(Ordering::Acquire) {
                    same if same == seen => return Taken { full_at: seen, rate, result: Err(denied) },
                    newer => {
                        seen = newer;
                        continue;
                    }
                },
            };
            match self.full_at.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Taken { full_at: seen, rate, result: Ok(()) },
                Err(newer) => seen = newer,
            }
        }
    }

    /// Whole permits that are there at `now`.
    pub fn left(&self, now: Monotonic) -> u32 {
        let mut full_at = self.word();
        loop {
            let rate = self.rate();
            // The same word still: it is one of these settings.
            match self.word() {
                same if same == full_at => return rate.left(full_at, nanos(now)),
                newer => full_at = newer,
            }
        }
    }

    /// When it is full again, from `now`; zero when it is.
    pub fn full_in(&self, now: Monotonic) -> Duration {
        Duration::from_nanos(self.word().saturating_sub(nanos(now)))
    }

    /// Changes the settings and keeps what is known: as many permits are there as before, cut to the new size.
    ///
    /// A request that is decided at the same time is decided under the old settings or the new ones, never under
    /// a mixture, and its permits are taken once.
    pub fn reconfigure(&self, settings: &Checked, now: Monotonic) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (self.rate(), Rate::of(settings));
        if old == new {
            return;
        }
        let full_at = self.full_at.swap(SEALED, Ordering::AcqRel);
        self.interval.store(new.interval, Ordering::Release);
        self.refill.store(new.refill, Ordering::Release);
        let carried = new.carry_over(old, full_at, nanos(now));
        // Another word than before, by a nanosecond, so that nobody who has read it under the old settings can
        // still exchange it.
        let carried = if carried == full_at { carried + 1 } else { carried };
        self.full_at.store(carried, Ordering::Release);
    }

    fn rate(&self) -> Rate {
        // Whoever sees a new setting sees the seal, too, or what came after it.
        Rate { interval: self.interval.load(Ordering::Acquire), refill: self.refill.load(Ordering::Acquire) }
    }

    fn word(&self) -> u64 {
        match self.full_at.load(Ordering::Acquire) {
            SEALED => self.unsealed(),
            word => word,
        }
    }

    /// The word after the change of settings that is going on.
    #[cold]
    fn unsealed(&self) -> u64 {
        loop {
            let _ended = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let word = self.full_at.load(Ordering::Acquire);
            if word != SEALED {
                return word;
            }
        }
    }
}
