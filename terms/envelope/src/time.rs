//! Time as a parameter: intervals are monotonic, wall time is data only.
//!
//! Nothing that decides may read a clock by itself; it is given a [`Monotonic`] instant. Wall time
//! ([`Timestamp`]) says when something happened; it never says what came first.

use std::fmt::Debug;
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Wall time: milliseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// Data only (an event's time, an id's prefix): wall clocks jump, so order is never read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

/// An instant on a clock that never goes back: the time since the clock's origin, in whole nanoseconds, up to 584 years of
/// them. Where the origin lies is the clock's matter; [`SystemClock`]'s is the machine's start, or that of the first reading.
///
/// Meaningless elsewhere, so it has no serialized form; what travels is a remaining duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The origin of the clock.
    pub const ORIGIN: Self = Self(0);

    /// The far end of time.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `elapsed` after the origin; [`MAX`](Self::MAX) for what is later than that.
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(nanos(elapsed))
    }

    /// The instant so many nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The time since the origin.
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The same in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    /// Saturates at the far end of time instead of overflowing: a hostile duration must not panic.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// Saturates.
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}

/// Where a process gets its time from. One is made at the top and handed down in a
/// [`Context`](crate::Context); decisions receive the instants, not the clock.
pub trait Clock: Send + Sync + Debug {
    /// The instant now. Never less than an instant returned before.
    fn now(&self) -> Monotonic;

    /// An instant that was now a moment ago: never later than `now`, and cheaper, since it holds no other work of the
    /// processor up. For whoever would decide the same a moment earlier, and reads `now` where it comes close.
    ///
    /// How far it lags is up to the clock. Of the operating system's on Linux, it is the last tick: 1 to 10 ms ago, more
    /// where the machine's timer is held up. Others give `now`.
    fn recent(&self) -> Monotonic {
        self.now()
    }

    /// The wall time now. May jump either way between two calls.
    fn wall(&self) -> Timestamp;

    /// Whether [`SystemClock`] would say the same: whoever reads often may then read that, without a virtual call.
    fn is_system(&self) -> bool {
        false
    }
}

/// The operating system's clocks.
///
/// All values share one origin, so that instants taken through two of them can be compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Monotonic {
        system::now()
    }

    #[inline]
    fn recent(&self) -> Monotonic {
        system::recent()
    }

    fn is_system(&self) -> bool {
        true
    }

    fn wall(&self) -> Timestamp {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Timestamp(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        })
    }
}

/// The kernel's own readings, since the machine's start: as numbers, without a detour over the standard library's
/// instants, which are checked and subtracted with each reading.
#[cfg(target_os = "linux")]
mod system {
    use rustix::time::{ClockId, clock_gettime};

    use super::Monotonic;

    #[inline]
    pub(super) fn now() -> Monotonic {
        read(ClockId::Monotonic)
    }

    /// As of the last tick: read without a processor's instruction that waits for what was begun before it, so that it
    /// costs a few nanoseconds and holds nothing up.
    #[inline]
    pub(super) fn recent() -> Monotonic {
        read(ClockId::MonotonicCoarse)
    }

    #[inline]
    fn read(clock: ClockId) -> Monotonic {
        let at = clock_gettime(clock);
        // Neither is ever negative.
        Monotonic((at.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(at.tv_nsec as u64))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::OnceLock;
    use std::time::Instant;

    use super::Monotonic;

    /// Since the first reading.
    pub(super) fn now() -> Monotonic {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        Monotonic::from_origin(ORIGIN.get_or_init(Instant::now).elapsed())
    }

    pub(super) use now as recent;
}

/// A clock that moves only when told, for tests and simulation. Clones share the same time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    now: Monotonic,
    /// What wall time was when `now` was `set_at`; the two advance together from there.
    wall: Timestamp,
    set_at: Monotonic,
}

impl ManualClock {
    /// A clock that stands at its origin, with the given wall time.
    pub fn new(wall: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Hands { now: Monotonic::ORIGIN, wall, set_at: Monotonic::ORIGIN })))
    }

    /// Moves both hands forward.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands();
        hands.now = hands.now + by;
    }

    /// Makes wall time jump, either way, as a time daemon may; monotonic time stays where it is.
    pub fn set_wall(&self, wall: Timestamp) {
        let mut hands = self.hands();
        hands.wall = wall;
        hands.set_at = hands.now;
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    /// Stands at 2020-01-01T00:00:00Z: a plausible date, so that ids made from it look like ids.
    fn default() -> Self {
        Self::new(Timestamp(1_577_836_800_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Monotonic {
        self.hands().now
    }

    fn wall(&self) -> Timestamp {
        let hands = self.hands();
        let passed = i64::try_from(hands.now.saturating_since(hands.set_at).as_millis()).unwrap_or(i64::MAX);
        Timestamp(hands.wall.0.saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_arithmetic_saturates() {
        let early = Monotonic::from_origin(Duration::from_secs(1));
        let late = early + Duration::from_secs(2);
        assert_eq!(late.saturating_since(early), Duration::from_secs(2));
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert_eq!(
            (late + Duration::MAX, Monotonic::from_origin(Duration::MAX)),
            (Monotonic::MAX, Monotonic::MAX)
        );
        assert_eq!(Monotonic::from_nanos(late.as_nanos()), late);
    }

    #[test]
    fn a_manual_clock_stops_at_the_end_of_time_instead_of_overflowing() {
        let clock = ManualClock::new(Timestamp::from_millis(i64::MAX));
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Monotonic::MAX);
        assert_eq!(clock.wall(), Timestamp::from_millis(i64::MAX));
    }

    #[test]
    fn clones_of_a_manual_clock_share_their_time_and_a_wall_jump_leaves_monotonic_time_alone() {
        let clock = ManualClock::new(Timestamp::from_millis(10_000));
        let same = clock.clone();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(same.now().since_origin(), Duration::from_millis(1_500));
        assert_eq!(same.wall(), Timestamp::from_millis(11_500));
        same.set_wall(Timestamp::from_millis(-5));
        assert_eq!(clock.now().since_origin(), Duration::from_millis(1_500));
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.wall(), Timestamp::from_millis(2));
    }

    #[test]
    fn a_recent_reading_is_never_later_than_now_and_goes_on() {
        let begun = SystemClock.now();
        // Ends with the next tick; a clock that stands would never let it.
        loop {
            let (recent, now) = (SystemClock.recent(), SystemClock.now());
            assert!(recent <= now, "{recent:?} is later than {now:?}");
            if recent > begun {
                break;
            }
        }
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.recent(), clock.now(), "a clock that has no other reading gives its only one");
    }

    #[test]
    fn the_system_clock_never_goes_back_and_knows_the_century() {
        let first = SystemClock.now();
        assert!(SystemClock.now() >= first);
        assert!(SystemClock.wall() > Timestamp::from_millis(1_577_836_800_000));
    }

    #[test]
    fn a_timestamp_serializes_as_its_number() {
        let json = serde_json::to_string(&Timestamp::from_millis(-3)).unwrap();
        assert_eq!(json, "-3");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), Timestamp::from_millis(-3));
    }
}
