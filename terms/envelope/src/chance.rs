//! Chance as a parameter, and the ids made from it.

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::time::Timestamp;

/// A source of random numbers. One is made at the top and handed down in a
/// [`Context`](crate::Context). A seeded one makes a whole run repeatable.
///
/// For spreading and for ids, never for keys or secrets.
pub trait Chance: Send + Sync + Debug {
    /// A number uniform over all of `u64`.
    fn next_u64(&self) -> u64;
}

/// Chance seeded once with 244 bits from the operating system: BLAKE3 over a counter, so that two
/// processes never walk the same sequence. One compression of 64 bytes a number; no lock, no system call.
///
/// A process that is forked, or restored from a snapshot of a virtual machine, repeats its
/// parent's numbers until it makes a new one.
pub struct SystemChance {
    key: [u8; 32],
    counter: AtomicU64,
}

impl SystemChance {
    /// Asks the operating system for a seed.
    ///
    /// # Panics
    /// When the system has no entropy to give: there would be no unique id to be had.
    pub fn new() -> Self {
        // Two version-4 UUIDs are 244 random bits; hashing spreads them over the fixed bits.
        let mut seed = blake3::Hasher::new_derive_key("mainstay-envelope SystemChance seed v1");
        seed.update(Uuid::new_v4().as_bytes()).update(Uuid::new_v4().as_bytes());
        Self { key: *seed.finalize().as_bytes(), counter: AtomicU64::new(0) }
    }
}

impl Default for SystemChance {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for SystemChance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key foretells every id to come; a log has no business with it.
        f.debug_struct("SystemChance").finish_non_exhaustive()
    }
}

impl Chance for SystemChance {
    fn next_u64(&self) -> u64 {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.key, &count.to_le_bytes());
        let mut low = [0; 8];
        low.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(low)
    }
}

/// Chance that a seed decides altogether, for tests and simulation: SplitMix64 (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
///
/// Used from several threads it gives each number once; who gets which is up to the threads.
#[derive(Debug)]
pub struct SeededChance(AtomicU64);

impl SeededChance {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The same seed gives the same numbers, on every machine and in every version.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Chance for SeededChance {
    fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(Self::GAMMA, Ordering::Relaxed).wrapping_add(Self::GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Makes version 7 UUIDs that sort in the order they were made, whatever the wall clock does.
///
/// RFC 9562 §6.2 method 1: the 12 bits after the milliseconds are a counter. It starts at 0 in each
/// new millisecond; when it runs over, or the clock stands still or goes back, the time field runs
/// ahead instead (4,096 ids per millisecond). The other 62 bits are random. Lock-free, one number of
/// chance an id. The order holds until the time field is full, in the year 10889.
#[derive(Debug, Default)]
pub struct IdSequence {
    /// Milliseconds (48 bits) and counter (12 bits) of the last id, as one number, so that "the next
    /// one" is always `+ 1` and a counter that runs over carries into the milliseconds.
    last: AtomicU64,
}

impl IdSequence {
    /// A sequence that has not made an id yet.
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0) }
    }

    /// The next id: greater than every id this sequence has returned before.
    pub fn next(&self, wall: Timestamp, chance: &dyn Chance) -> Uuid {
        let earliest = millis_48(wall) << 12;
        let step = |last: u64| earliest.max(last + 1);
        let last = match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| Some(step(l))) {
            Ok(last) | Err(last) => last,
        };
        version_7(step(last), chance.next_u64())
    }
}

/// One version 7 UUID (RFC 9562 §5.7): `wall` in the first 48 bits, chance in the 74 others.
///
/// Two of the same millisecond are in no order; use an [`IdSequence`] (a
/// [`Context`](crate::Context) has one) where order matters. Wall time before 1970 counts as 1970.
pub fn uuid_v7(wall: Timestamp, chance: &dyn Chance) -> Uuid {
    version_7(millis_48(wall) << 12 | chance.next_u64() >> 52, chance.next_u64())
}

fn millis_48(wall: Timestamp) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(0).min((1 << 48) - 1)
}

fn version_7(millis_and_counter: u64, random: u64) -> Uuid {
    let high = (millis_and_counter >> 12) << 16 | 0x7000 | (millis_and_counter & 0x0fff);
    let low = 1 << 63 | random >> 2;
    Uuid::from_u64_pair(high, low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeded_chance_is_splitmix64() {
        // The published reference's first outputs for seed 1234567.
        let chance = SeededChance::new(1_234_567);
        assert_eq!(chance.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(chance.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(chance.next_u64(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn two_system_chances_differ_and_neither_repeats_or_shows_its_key() {
        let (a, b) = (SystemChance::new(), SystemChance::new());
        let mut seen: Vec<u64> = (0..100).flat_map(|_| [a.next_u64(), b.next_u64()]).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 200);
        assert_eq!(format!("{a:?}"), "SystemChance { .. }");
    }

    #[test]
    fn a_version_7_id_carries_its_millisecond_version_and_variant() {
        let wall = Timestamp::from_millis(0x0190_1234_5678);
        // Several seeds: one alone may draw the variant's two bits by luck.
        for seed in 0..16 {
            let (once, of_sequence) = (SeededChance::new(seed), SeededChance::new(seed));
            for id in [uuid_v7(wall, &once), IdSequence::new().next(wall, &of_sequence)] {
                assert_eq!(id.get_version_num(), 7);
                assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
                assert_eq!(id.as_u128() >> 80, 0x0190_1234_5678);
            }
        }
    }

    #[test]
    fn two_processes_that_make_their_ids_in_one_millisecond_make_different_ones() {
        let wall = Timestamp::from_millis(1);
        let made = |seed| {
            (uuid_v7(wall, &SeededChance::new(seed)), IdSequence::new().next(wall, &SeededChance::new(seed)))
        };
        let ((one, first), (other, second)) = (made(1), made(2));
        assert_ne!(one, other);
        assert_ne!(first, second);
        // 62 bits of them, whatever the counters say.
        assert_ne!(one.as_u64_pair().1, other.as_u64_pair().1);
    }

    #[test]
    fn a_wall_clock_beyond_48_bits_stands_at_their_end() {
        for far in [1 << 48, i64::MAX] {
            let wall = Timestamp::from_millis(far);
            for id in
                [uuid_v7(wall, &SeededChance::new(1)), IdSequence::new().next(wall, &SeededChance::new(1))]
            {
                assert_eq!(id.as_u128() >> 80, (1 << 48) - 1, "{far}");
            }
        }
    }

    #[test]
    fn ids_of_several_threads_are_all_different() {
        let (ids, chance) = (IdSequence::new(), SeededChance::new(7));
        let mut made: Vec<Uuid> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let wall = Timestamp::from_millis(5);
                        (0..5_000).map(|_| ids.next(wall, &chance)).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        // The first 64 bits alone: with the random ones, a lost update would hardly show.
        made.sort_unstable();
        made.dedup_by_key(|id| id.as_u64_pair().0);
        assert_eq!(made.len(), 20_000);
    }

    proptest! {
        #[test]
        fn ids_sort_in_order_of_creation_whatever_the_wall_clock_does(
            seed: u64,
            walls in prop::collection::vec(prop_oneof![-10_i64..10, any::<i64>(), Just(5)], 1..200),
            burst in 0_usize..5_000,
        ) {
            let (ids, chance) = (IdSequence::new(), SeededChance::new(seed));
            // The 48 bits of time are full in the year 10889; order is not promised after that.
            let walls = walls.into_iter().map(|w| w.min((1 << 48) - 100)).chain(vec![5; burst]);
            let mut before = Uuid::nil();
            for wall in walls {
                let id = ids.next(Timestamp::from_millis(wall), &chance);
                prop_assert!(id > before, "{id} after {before}");
                prop_assert_eq!(id.get_version_num(), 7);
                before = id;
            }
        }
    }
}
