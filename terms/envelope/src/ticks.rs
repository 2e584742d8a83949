//! The kernel's monotonic clock as of its last tick: read without a processor's instruction that waits for what was begun
//! before it, so that it costs a few nanoseconds and holds nothing up.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often the origin is looked for: a thread may be stopped between two readings of the same moment.
const TRIES: usize = 16;

/// The last tick on the time line of `exact`, the one exact clock of the process; never later than that says.
pub(crate) fn recent(exact: fn() -> Duration) -> Duration {
    static ORIGIN: OnceLock<Duration> = OnceLock::new();
    read(ClockId::MonotonicCoarse).saturating_sub(*ORIGIN.get_or_init(|| origin(exact)))
}

/// The kernel's reading at the origin of `exact`, or a moment later: one that is too early would make the last tick one of
/// the future.
fn origin(exact: fn() -> Duration) -> Duration {
    let look = || {
        let before = exact();
        let kernel = read(ClockId::Monotonic);
        (exact().saturating_sub(before), kernel.saturating_sub(before))
    };
    (0..TRIES).map(|_| look()).min().map_or(Duration::MAX, |(_, origin)| origin)
}

/// Since the machine's start, or so.
fn read(clock: ClockId) -> Duration {
    let at = clock_gettime(clock);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(at.tv_nsec).unwrap_or(0))
}
