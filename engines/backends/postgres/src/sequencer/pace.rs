//! How long a sequencer waits for its next round.

use std::time::Duration;

use super::spec::Spec;

/// So many rows in one round are a stream of commits in which nobody looks at a single one's delay.
const MANY: usize = 32;

/// Under load a round gathers for so many times [`Spec::gather`] at most.
const GATHERS_MAX: usize = 5;

/// Looks often after there was something, ever less often while there is nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    wait: Duration,
}

impl Pace {
    pub(crate) fn new(spec: &Spec) -> Self {
        Self { wait: spec.gather }
    }

    /// After a round that took so many rows: the next one begins when what is committed meanwhile has gathered. The more
    /// there was the longer: what a round costs whatever it takes (five round trips, a commit) is then shared by more,
    /// and the writers, whose cores it uses, get further.
    pub(crate) fn busy(&mut self, spec: &Spec, took: usize) -> Duration {
        self.wait = spec.gather;
        let gathers = (took / MANY).clamp(1, GATHERS_MAX);
        (spec.gather * gathers as u32).min(spec.idle_max)
    }

    /// After a round that found nothing.
    pub(crate) fn idle(&mut self, spec: &Spec) -> Duration {
        let wait = self.wait.max(Duration::from_millis(1));
        self.wait = (wait * 2).min(spec.idle_max);
        wait.min(spec.idle_max)
    }
}

/// How long to stay away from a server that failed so many times in a row: 50 ms, then twice as long each time, up to
/// 5 s, less up to a half by chance, so that the candidates of one server do not come back together.
pub(crate) fn away(failures: u32, chance: u64) -> Duration {
    let millis = 50u64.saturating_mul(1 << failures.min(10)).min(5_000);
    Duration::from_millis(millis - chance % (millis / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_look_ever_less_often_and_the_busy_at_once() {
        let spec = Spec::default();
        let mut pace = Pace::new(&spec);
        let waits: Vec<u128> = (0..8).map(|_| pace.idle(&spec).as_millis()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(pace.busy(&spec, 1), spec.gather);
        assert_eq!(pace.idle(&spec), Duration::from_millis(2));
        let eager = Spec { gather: Duration::ZERO, ..spec };
        let mut pace = Pace::new(&eager);
        assert!(pace.idle(&eager) > Duration::ZERO, "an idle sequencer never spins");
    }

    #[test]
    fn the_busy_gather_longer_the_more_there_is() {
        let spec = Spec::default();
        let waits = [1, 63, 64, 100, 160, 10_000].map(|took| Pace::new(&spec).busy(&spec, took).as_millis());
        assert_eq!(waits, [2, 2, 4, 6, 10, 10]);
        let slow = Spec { gather: Duration::from_millis(40), ..spec };
        assert_eq!(Pace::new(&slow).busy(&slow, 10_000), slow.idle_max);
    }

    #[test]
    fn who_failed_stays_away_longer_and_never_for_ever() {
        let most = |failures| away(failures, 0).as_millis();
        assert_eq!([0, 1, 2, 6, 7, 40, u32::MAX].map(most), [50, 100, 200, 3_200, 5_000, 5_000, 5_000]);
        for chance in [1, 24, 25, u64::MAX] {
            let waits = away(0, chance);
            assert!(waits > Duration::from_millis(25) && waits <= Duration::from_millis(50), "{waits:?}");
        }
    }
}
