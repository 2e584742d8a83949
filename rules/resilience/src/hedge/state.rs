//! What calls took lately, and whether a second try may be made. `now` is an argument; nothing here waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};

use super::spec::Checked;
use crate::outcome::Safety;
use crate::record::{INPUTS, nanos};

/// Parts of each power of two: a percentile is at most an eighth too high, never too low.
const PARTS: usize = 8;
/// Powers of two of nanoseconds told apart; the last one holds all from 2.4 hours on.
const OCTAVES: usize = 44;
/// Calls between two looks at the percentile.
const EVERY: u32 = 64;
/// Calls held at most; then each count is halved, so that the old ones fade.
const HALVED_AT: u64 = 4_096;

/// How long recent calls took: a histogram that forgets, written without a lock.
///
/// A call counts half after some two to four thousand later ones, a quarter after as many again. Counts that are
/// written while they are halved may be off by one.
#[derive(Debug)]
pub struct Latencies {
    buckets: Box<[AtomicU32]>,
    recorded: AtomicU32,
    /// In nanoseconds; [`UNMEASURED`] until enough were measured.
    delay: AtomicU64,
}

const UNMEASURED: u64 = u64::MAX;

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            buckets: (0..OCTAVES * PARTS).map(|_| AtomicU32::new(0)).collect(),
            recorded: AtomicU32::new(0),
            delay: AtomicU64::new(UNMEASURED),
        }
    }
}

impl Latencies {
    /// Takes in what a call took. Every 64th call looks at the percentile anew.
    pub fn record(&self, settings: &Checked, took: Duration) {
        if let Some(bucket) = self.buckets.get(bucket(took)) {
            bucket.fetch_add(1, Relaxed);
        }
        let recorded = self.recorded.fetch_add(1, Relaxed).wrapping_add(1);
        // The first look as soon as there is enough to look at.
        if recorded.is_multiple_of(EVERY) || recorded == settings.spec().minimum_calls {
            self.look(settings);
        }
    }

    /// When a second try is due, from the first.
    pub fn delay(&self, settings: &Checked) -> Duration {
        let spec = settings.spec();
        match self.delay.load(Relaxed) {
            UNMEASURED => spec.at_most,
            nanos => Duration::from_nanos(nanos).clamp(spec.at_least, spec.at_most),
        }
    }

    /// Takes the percentile anew: at once after a change of settings.
    pub fn look(&self, settings: &Checked) {
        let counts = || self.buckets.iter().map(|bucket| u64::from(bucket.load(Relaxed)));
        let all: u64 = counts().sum();
        let spec = settings.spec();
        if all < u64::from(spec.minimum_calls).min(HALVED_AT / 4) {
            return self.delay.store(UNMEASURED, Relaxed);
        }
        // The rank of the call that is just within the share.
        let rank = ((all as f64) * spec.percentile).ceil() as u64;
        let mut below = 0;
        let place = counts().position(|count| {
            below += count;
            below >= rank
        });
        self.delay.store(place.map_or(UNMEASURED, upper_end), Relaxed);
        if all >= HALVED_AT {
            for bucket in &self.buckets {
                bucket.store(bucket.load(Relaxed) / 2, Relaxed);
            }
        }
    }
}

fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(PARTS as u64);
    let octave = nanos.ilog2() as usize;
    let part = (nanos >> (octave - 3)) as usize & (PARTS - 1);
    ((octave - 3) * PARTS + part).min(OCTAVES * PARTS - 1)
}

/// The longest time that falls into a bucket, in nanoseconds.
fn upper_end(bucket: usize) -> u64 {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    ((PARTS + part + 1) as u64) << octave
}

/// Whether a second try may be made at `now`. The budget is asked last, and only if all else allows it.
pub(super) fn may_hedge(
    now: Monotonic,
    safety: Safety,
    deadline: Option<Deadline>,
    spend: impl FnOnce() -> bool,
) -> bool {
    let in_time = deadline.is_none_or(|deadline| now < deadline.reading());
    safety.allows_repeating() && in_time && spend()
}

// ---- recorded decisions ---------------------------------------------------------------------------------

/// "A second try now?"
pub(super) const HEDGE: u8 = 0;

pub(super) fn inputs(safety: Safety, deadline: Option<Deadline>, had_a_token: bool) -> [u64; INPUTS] {
    let mut inputs = [0; INPUTS];
    let deadline = deadline.map_or(u64::MAX, |deadline| nanos(deadline.reading()));
    let words = [u64::from(safety.allows_repeating()), deadline, u64::from(had_a_token)];
    inputs.iter_mut().zip(words).for_each(|(input, word)| *input = word);
    inputs
}

pub(super) fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let [safe, deadline, had_a_token, ..] = inputs;
    let deadline = Deadline::at(Monotonic::from_nanos(deadline));
    let safety = if safe == 1 { Safety::Safe } else { Safety::Unsafe };
    let now = Monotonic::from_nanos(at);
    (question == HEDGE).then(|| u64::from(may_hedge(now, safety, Some(deadline), || had_a_token == 1)))
}

#[cfg(test)]
mod tests {
    use super::super::spec::Spec;
    use super::*;
    use proptest::prelude::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn settings(spec: Spec) -> Checked {
        spec.between(Duration::ZERO, Duration::from_secs(60)).check().unwrap()
    }

    #[test]
    fn until_enough_is_measured_the_delay_is_the_longest() {
        let settings = settings(Spec::percentile(0.95).minimum_calls(10));
        let latencies = Latencies::default();
        for _ in 0..9 {
            latencies.record(&settings, ms(5));
        }
        assert_eq!(latencies.delay(&settings), Duration::from_secs(60));
        latencies.record(&settings, ms(5));
        assert!(latencies.delay(&settings) < ms(6));
    }

    /// A minimum that the histogram never holds would never be reached: a quarter of what it holds is enough.
    #[test]
    fn how_many_calls_are_enough() {
        for (minimum_calls, calls, is_measured) in
            [(100, 64, false), (100, 100, true), (u32::MAX, 1_023, false), (u32::MAX, 1_024, true)]
        {
            let settings = settings(Spec::percentile(0.95).minimum_calls(minimum_calls));
            let latencies = Latencies::default();
            (0..calls).for_each(|_| latencies.record(&settings, ms(5)));
            let measured = latencies.delay(&settings) < ms(6);
            assert_eq!(measured, is_measured, "{calls} calls, {minimum_calls} wanted");
        }
    }

    #[test]
    fn what_is_full_is_halved_and_not_forgotten() {
        let settings = settings(Spec::percentile(0.5).minimum_calls(1_000));
        let latencies = Latencies::default();
        (0..4_096).for_each(|_| latencies.record(&settings, ms(5)));
        // Half of these weigh more than as many new ones.
        (0..1_984).for_each(|_| latencies.record(&settings, ms(80)));
        assert!(latencies.delay(&settings) < ms(6), "{:?}", latencies.delay(&settings));
        (0..128).for_each(|_| latencies.record(&settings, ms(80)));
        assert!(latencies.delay(&settings) >= ms(80), "{:?}", latencies.delay(&settings));
    }

    #[test]
    fn the_delay_follows_the_callee_when_it_gets_slower() {
        let settings = settings(Spec::percentile(0.95));
        let latencies = Latencies::default();
        (0..20_000).for_each(|_| latencies.record(&settings, ms(5)));
        (0..20_000).for_each(|_| latencies.record(&settings, ms(80)));
        let delay = latencies.delay(&settings);
        assert!((ms(80)..=ms(90)).contains(&delay), "{delay:?}");
    }

    #[test]
    fn it_is_kept_within_its_bounds() {
        let settings = Spec::percentile(0.9).between(ms(10), ms(20)).minimum_calls(1).check().unwrap();
        let latencies = Latencies::default();
        latencies.record(&settings, ms(1));
        assert_eq!(latencies.delay(&settings), ms(10));
        (0..64).for_each(|_| latencies.record(&settings, Duration::MAX));
        assert_eq!(latencies.delay(&settings), ms(20));
    }

    proptest! {
        #[test]
        fn a_percentile_is_the_exact_one_or_at_most_an_eighth_above(
            mut took in prop::collection::vec(1_000_u64..10_000_000_000, 1..200), percentile in 0.5..=0.999,
        ) {
            let settings = settings(Spec::percentile(percentile).minimum_calls(1));
            let latencies = Latencies::default();
            took.iter().for_each(|nanos| latencies.record(&settings, Duration::from_nanos(*nanos)));
            latencies.look(&settings);
            took.sort_unstable();
            let rank = ((took.len() as f64) * percentile).ceil() as usize;
            let exact = Duration::from_nanos(took[rank - 1]);
            let measured = latencies.delay(&settings);
            prop_assert!(measured >= exact && measured <= exact + exact / 8 + Duration::from_nanos(1));
        }

        #[test]
        fn every_time_falls_into_a_bucket_that_ends_above_it(nanos: u64) {
            let bucket = bucket(Duration::from_nanos(nanos));
            prop_assert!(bucket < OCTAVES * PARTS);
            prop_assert!(nanos < upper_end(bucket) || bucket == OCTAVES * PARTS - 1);
        }
    }

    #[test]
    fn a_second_try_needs_safety_time_and_a_token_in_this_order() {
        let at = |ms| Monotonic::from_origin(Duration::from_millis(ms));
        for (safety, deadline, token, expected, asked) in [
            (Safety::Safe, None, true, true, true),
            (Safety::Keyed, Some(11), true, true, true),
            (Safety::Keyed, Some(11), false, false, true),
            (Safety::Keyed, Some(10), true, false, false),
            (Safety::Unsafe, None, true, false, false),
        ] {
            let deadline = deadline.map(|ms| Deadline::at(at(ms)));
            let mut was_asked = false;
            let may = may_hedge(at(10), safety, deadline, || {
                was_asked = true;
                token
            });
            assert_eq!((may, was_asked), (expected, asked), "{safety:?} {deadline:?}");
            let again = replay(HEDGE, nanos(at(10)), inputs(safety, deadline, token));
            assert_eq!(again, Some(u64::from(expected)));
        }
    }
}
