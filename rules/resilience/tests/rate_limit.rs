//! The rules of a rate limit as given / when / then, and its laws as properties.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers may fail the test"
)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};
use mainstay_resilience::rate_limit::{
    Checked, Denied, Joined, Keyed, LeakyMeter, NotQueued, Queue, Spec, TokenBucket, question, replay,
};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An arbitrary reading of a monotonic clock.
const START: Monotonic = Monotonic::from_origin(Duration::from_secs(5_000));

fn checked(spec: Spec) -> Checked {
    spec.check().unwrap()
}

/// A hasher without a secret, so that runs are repeatable.
type Fixed = BuildHasherDefault<DefaultHasher>;

fn keyed(spec: Spec) -> Keyed<u32, Fixed> {
    Keyed::new(&checked(spec), Fixed::default())
}

fn not_yet(result: Result<(), Denied>) -> Duration {
    match result {
        Err(Denied::NotYet { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    }
}

// ---- the bucket ----------------------------------------------------------------------------------------

#[test]
fn a_full_bucket_lets_its_burst_through_and_then_one_each_interval() {
    // given 10 a second, 3 at once
    let bucket = TokenBucket::new(&checked(Spec::token_bucket(10, SECOND).burst(3)));
    assert_eq!(bucket.left(START), 3);
    for left in [2, 1, 0] {
        assert_eq!(bucket.take(START, 1), Ok(()));
        assert_eq!(bucket.left(START), left);
    }
    // when it is empty, then it tells when the next is there, and tells the truth
    assert_eq!(not_yet(bucket.take(START, 1)), ms(100));
    assert_eq!(not_yet(bucket.take(START + (ms(100) - NANO), 1)), NANO);
    assert_eq!(bucket.take(START + ms(100), 1), Ok(()));
    assert_eq!(bucket.full_in(START + ms(100)), ms(300));
    // and after a quiet time no more than its burst is there
    assert_eq!(bucket.left(START + SECOND * 3_600), 3);
}

#[test]
fn what_costs_more_takes_more_or_nothing() {
    let bucket = TokenBucket::new(&checked(Spec::token_bucket(10, SECOND).burst(5)));
    assert_eq!(bucket.take(START, 4), Ok(()));
    assert_eq!(not_yet(bucket.take(START, 3)), ms(200));
    assert_eq!(bucket.left(START), 1, "a refusal takes nothing");
    let denied = bucket.take(START, 6).unwrap_err();
    assert_eq!(denied, Denied::TooLarge { cost: 6, burst: 5 });
    assert!(matches!(bucket.take(START, u32::MAX), Err(Denied::TooLarge { .. })));
    assert!(denied.to_string().contains("make it smaller"));
}

#[test]
fn an_earlier_reading_of_the_clock_waits_longer_and_wins_nothing() {
    let bucket = TokenBucket::new(&checked(Spec::token_bucket(10, SECOND).burst(1)));
    assert_eq!(bucket.take(START + ms(50), 1), Ok(()));
    assert_eq!(not_yet(bucket.take(START, 1)), ms(150));
    assert_eq!(not_yet(bucket.take(START + ms(50), 1)), ms(100));
}

#[test]
fn the_end_of_time_neither_overflows_nor_lets_everything_through() {
    let bucket = TokenBucket::new(&checked(Spec::token_bucket(1, SECOND)));
    let end = Monotonic::from_origin(Duration::MAX);
    assert_eq!(bucket.take(end, 1), Ok(()));
    assert_eq!(not_yet(bucket.take(end, 1)), SECOND);
}

#[test]
fn racing_takers_never_take_more_than_there_is() {
    let bucket = TokenBucket::new(&checked(Spec::token_bucket(1_000, SECOND).burst(1_000)));
    let taken: usize = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..1_000).filter(|_| bucket.take(START, 1).is_ok()).count()))
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(taken, 1_000);
}

#[test]
fn a_change_of_settings_under_load_neither_makes_nor_loses_permits() {
    // given two settings of the same rate and different bursts, changed all the time while others take
    let (small, large) =
        (Spec::token_bucket(1_000, SECOND).burst(500), Spec::token_bucket(1_000, SECOND).burst(900));
    let bucket = TokenBucket::new(&checked(large));
    let taken: usize = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..400).filter(|_| bucket.take(START, 1).is_ok()).count()))
            .collect();
        for turn in 0..200 {
            bucket.reconfigure(&checked(if turn % 2 == 0 { small } else { large }), START);
        }
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    bucket.reconfigure(&checked(large), START);
    // then what was taken and what is left are no more than there was (a smaller burst cuts, a larger adds nothing)
    assert!(taken + bucket.left(START) as usize <= 900, "{taken} taken, {} left", bucket.left(START));
    assert!(taken >= 500, "{taken}");
}

// ---- the queue -----------------------------------------------------------------------------------------

fn queue(permits: u32, capacity: u32) -> Queue<&'static str> {
    Queue::new(&checked(Spec::leaky_queue(permits, SECOND, capacity)))
}

fn waiting(joined: Result<Joined, NotQueued>) -> (mainstay_resilience::rate_limit::Ticket, Monotonic) {
    match joined {
        Ok(Joined::Waiting(ticket, turn)) => (ticket, turn),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_lets_one_go_each_interval_in_the_order_they_came() {
    let mut queue = queue(10, 10);
    assert_eq!(queue.join(START, None, || "a"), Ok(Joined::Now));
    let (_, turn_b) = waiting(queue.join(START, None, || "b"));
    let (_, turn_c) = waiting(queue.join(START + ms(30), None, || "c"));
    assert_eq!((turn_b, turn_c), (START + ms(100), START + ms(200)));
    assert_eq!(queue.depart(START + (ms(100) - NANO)), None);
    assert_eq!(queue.depart(START + ms(100)).map(|(_, who)| who), Some("b"));
    assert_eq!(queue.depart(START + ms(100)), None, "never two at a time");
    assert_eq!(queue.next_departure(), Some(START + ms(200)));
    assert_eq!(queue.depart(START + ms(200)).map(|(_, who)| who), Some("c"));
    // after a quiet time: one goes at once, and no more than one
    assert_eq!(queue.join(START + SECOND, None, || "d"), Ok(Joined::Now));
    assert_eq!(waiting(queue.join(START + SECOND, None, || "e")).1, START + SECOND + ms(100));
}

#[test]
fn what_overflows_the_queue_is_dropped_and_told_when_there_is_a_place() {
    let mut queue = queue(10, 1);
    assert_eq!(queue.join(START, None, || "a"), Ok(Joined::Now));
    waiting(queue.join(START, None, || "b"));
    let full = queue.join(START + ms(20), None, || "c");
    assert_eq!(full, Err(NotQueued::Full { retry_after: ms(80) }));
    queue.depart(START + ms(100)).unwrap();
    waiting(queue.join(START + ms(100), None, || "c"));
}

#[test]
fn a_cancelled_waiters_slot_goes_to_the_next() {
    let mut queue = queue(10, 10);
    assert_eq!(queue.join(START, None, || "a"), Ok(Joined::Now));
    let (b, _) = waiting(queue.join(START, None, || "b"));
    let (c, turn_c) = waiting(queue.join(START, None, || "c"));
    assert_eq!(turn_c, START + ms(200));
    assert_eq!(queue.cancel(b), Some("b"));
    assert_eq!(queue.cancel(b), None, "only once");
    assert_eq!(queue.turn_mut(c).map(|(turn, _)| turn), Some(START + ms(100)));
    assert_eq!(queue.depart(START + ms(100)).map(|(_, who)| who), Some("c"));
}

#[test]
fn whose_turn_lies_at_the_deadline_or_past_it_is_refused_at_once() {
    let mut queue = queue(10, 10);
    assert_eq!(queue.join(START, None, || "a"), Ok(Joined::Now));
    let at = |wait| Some(Deadline::after(START, wait));
    let refused = queue.join(START, at(ms(100)), || "b");
    assert_eq!(refused, Err(NotQueued::TurnTooLate { turn_in: ms(100) }));
    assert!(queue.is_empty(), "it left no trace");
    waiting(queue.join(START, at(ms(100) + NANO), || "b"));
    // nor is anything begun whose deadline has passed already
    let mut idle = self::queue(10, 10);
    assert!(matches!(idle.join(START, at(Duration::ZERO), || "x"), Err(NotQueued::TurnTooLate { .. })));
    assert_eq!(idle.join(START, None, || "y"), Ok(Joined::Now), "the slot was not used up");
}

#[test]
fn a_timer_that_is_a_little_late_costs_no_slot_and_a_long_stop_makes_no_burst() {
    let mut queue = queue(1_000, 100);
    assert_eq!(queue.join(START, None, || "first"), Ok(Joined::Now));
    for _ in 0..50 {
        waiting(queue.join(START, None, || "w"));
    }
    let departures = |queue: &mut Queue<_>, at| std::iter::from_fn(|| queue.depart(at)).count();
    assert_eq!(departures(&mut queue, START + ms(3)), 3, "late by two: made up for");
    // a second later: what 5 ms make up for, not a thousand
    assert_eq!(departures(&mut queue, START + SECOND), 6);
    assert_eq!(departures(&mut queue, START + SECOND), 0);
}

// ---- the laws ------------------------------------------------------------------------------------------

/// A few settings with small numbers, so that edges are hit, and odd intervals, so that rounding is.
fn specs() -> impl Strategy<Value = Spec> {
    (1_u32..50, 1_u64..2_000, 1_u32..20)
        .prop_map(|(permits, per_ms, burst)| Spec::token_bucket(permits, ms(per_ms)).burst(burst))
}

/// Requests: nanoseconds since the one before, and the cost.
fn requests() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let gap = prop_oneof![Just(0), 0_u64..1_000, 0_u64..2_000_000_000, Just(1_000_000)];
    prop::collection::vec((gap, prop_oneof![4 => Just(1), 1 => 0_u32..25]), 1..80)
}

proptest! {
    /// The mirror: the meter is written down by itself, as a level that leaks.
    #[test]
    fn a_leaky_meter_and_a_token_bucket_give_the_same_verdicts(spec in specs(), requests in requests()) {
        let bucket = TokenBucket::new(&checked(spec));
        let mut meter = LeakyMeter::new(checked(Spec { kind: mainstay_resilience::rate_limit::Kind::LeakyMeter, ..spec }));
        let mut now = START;
        for (gap, cost) in requests {
            now = now + Duration::from_nanos(gap);
            prop_assert_eq!(bucket.take(now, cost), meter.pour(now, cost), "cost {} at {:?}", cost, now);
            let level = meter.level(now);
            prop_assert_eq!(f64::from(bucket.left(now)), (f64::from(spec.burst) - level + 1e-9).floor(), "level {}", level);
        }
    }

    /// Against the definition, in exact fractions: tokens that drip in one by one, up to the burst.
    #[test]
    fn a_bucket_holds_what_the_definition_says(spec in specs(), requests in requests()) {
        let settings = checked(spec);
        let bucket = TokenBucket::new(&settings);
        let interval = settings.interval().as_nanos();
        let full = interval * u128::from(spec.burst);
        // Tokens times the interval, so that they are whole.
        let (mut tokens, mut now) = (full, START);
        for (gap, cost) in requests {
            now = now + Duration::from_nanos(gap);
            tokens = (tokens + u128::from(gap)).min(full);
            let price = u128::from(cost) * interval;
            let expected = if price > full {
                Err(Denied::TooLarge { cost, burst: spec.burst })
            } else if price > tokens {
                let short = Duration::from_nanos(u64::try_from(price - tokens).unwrap());
                Err(Denied::NotYet { retry_after: short })
            } else {
                tokens -= price;
                Ok(())
            };
            prop_assert_eq!(bucket.take(now, cost), expected);
            prop_assert_eq!(u128::from(bucket.left(now)), tokens / interval);
        }
    }

    /// What is promised to whoever is refused: then, and not a nanosecond before.
    #[test]
    fn the_time_to_come_back_is_exact(spec in specs(), requests in requests(), cost in 1_u32..20) {
        let bucket = TokenBucket::new(&checked(spec));
        let mut now = START;
        for (gap, cost) in requests {
            now = now + Duration::from_nanos(gap);
            let _ = bucket.take(now, cost);
        }
        if let Err(Denied::NotYet { retry_after }) = bucket.take(now, cost) {
            prop_assert_eq!(bucket.take(now + (retry_after - NANO), cost), Err(Denied::NotYet { retry_after: NANO }));
            prop_assert_eq!(bucket.take(now + retry_after, cost), Ok(()));
        }
    }

    /// New settings keep the permits that are there, cut to the new size, and never add any.
    #[test]
    fn a_change_of_settings_keeps_the_permits(
        before in specs(), after in specs(), requests in requests(), later in 0_u64..2_000_000_000,
    ) {
        let bucket = TokenBucket::new(&checked(before));
        let keyed = keyed(before);
        let mut now = START;
        for (gap, cost) in requests {
            now = now + Duration::from_nanos(gap);
            prop_assert_eq!(bucket.take(now, cost), keyed.take(now, &7, cost));
        }
        now = now + Duration::from_nanos(later);
        let left = bucket.left(now);
        bucket.reconfigure(&checked(after), now);
        keyed.reconfigure(&checked(after), now);
        let expected = left.min(after.burst);
        // By a nanosecond at most: the word is never left as it was.
        prop_assert!(bucket.left(now) == expected || bucket.left(now + NANO) == expected, "{} {}", bucket.left(now), expected);
        prop_assert!(bucket.left(now) <= expected);
        prop_assert_eq!(keyed.left(now, &7), expected);
    }

    /// No key ever gets more than a bucket of its own would give it, however small the memory; and where there is
    /// room for all, exactly that.
    #[test]
    fn no_key_gets_more_than_its_own_bucket_however_many_there_are(
        spec in specs(), keys_max in 1_usize..12, requests in prop::collection::vec((0_u64..500_000_000, 0_u32..10), 1..200),
    ) {
        let limit = keyed(spec.keys_max(keys_max));
        let mut own: HashMap<u32, TokenBucket> = HashMap::new();
        let mut now = START;
        for (gap, key) in requests {
            now = now + Duration::from_nanos(gap);
            let verdict = limit.take(now, &key, 1);
            let bucket = own.entry(key).or_insert_with(|| TokenBucket::new(&checked(spec)));
            if keys_max >= 10 {
                prop_assert_eq!(verdict, bucket.take(now, 1), "key {}", key);
            } else if verdict.is_ok() {
                // What was admitted fits into the bucket it is due: so it never was more.
                prop_assert_eq!(bucket.take(now, 1), Ok(()), "key {} got more than its due", key);
            }
            prop_assert!(limit.keys() <= keys_max);
        }
    }

    /// A queue's departures are its slots: an interval apart, in order, whoever cancels in between.
    #[test]
    fn departures_are_an_interval_apart_and_in_order(
        requests in prop::collection::vec((0_u64..40, any::<bool>()), 1..60), permits in 20_u32..200, capacity in 1_u32..20,
    ) {
        let settings = checked(Spec::leaky_queue(permits, SECOND, capacity));
        let mut queue: Queue<usize> = Queue::new(&settings);
        let (mut now, mut departures, mut tickets) = (START, Vec::new(), Vec::new());
        for (number, (gap, cancels)) in requests.into_iter().enumerate() {
            let until = now + ms(gap);
            // A timer that is exact: each leaves at its slot.
            while let Some(slot) = queue.next_departure().filter(|slot| *slot <= until) {
                let (_, who) = queue.depart(slot).unwrap();
                departures.push((slot, who));
            }
            now = until;
            if cancels && !tickets.is_empty() {
                let _ = queue.cancel(tickets.swap_remove(number % tickets.len()));
            }
            match queue.join(now, None, || number) {
                Ok(Joined::Now) => departures.push((now, number)),
                Ok(Joined::Waiting(ticket, _)) => tickets.push(ticket),
                Err(NotQueued::Full { retry_after }) => {
                    prop_assert!(queue.len() == capacity as usize && retry_after <= settings.interval());
                }
                Err(other) => prop_assert!(false, "{:?}", other),
            }
        }
        for pair in departures.windows(2) {
            prop_assert!(pair[1].0.saturating_since(pair[0].0) >= settings.interval(), "{:?}", pair);
            prop_assert!(pair[1].1 > pair[0].1, "{:?}", pair);
        }
    }

    /// A recorded decision decided again is the same.
    #[test]
    fn a_recorded_decision_is_decided_the_same_again(spec in specs(), requests in requests()) {
        let bucket = TokenBucket::new(&checked(spec));
        let mut now = START;
        for (gap, cost) in requests {
            now = now + Duration::from_nanos(gap);
            let taken = bucket.take_explained(now, cost);
            let at = u64::try_from(now.since_origin().as_nanos()).unwrap();
            prop_assert_eq!(replay(question::TAKE, at, taken.inputs(cost, 0)), Some(taken.verdict()));
        }
    }
}

/// Rows: question, when, what was recorded of it, the verdict.
#[test]
fn a_record_says_what_was_decided_and_what_is_no_record_is_not_decided() {
    const S: u64 = 1_000_000_000;
    /// The latest reading that is told apart.
    const FAR: u64 = u64::MAX / 4;
    let take = |full_at, interval, refill, cost| [full_at, interval, refill, cost, 0, 0, 0];
    let join = |waiting| [5 * S, S, waiting, 3, u64::MAX, 0, 0];
    for (question, at, inputs, verdict) in [
        (question::TAKE, 5 * S, take(0, S, 2 * S, 2), Some(0)),
        (question::TAKE, 5 * S, take(0, S, 2 * S, 3), Some(1)),
        (question::TAKE, 5 * S, take(6 * S, S, 2 * S, 2), Some(S + 2)),
        // The largest numbers that a bucket has.
        (question::TAKE, 0, take(2 * FAR, 1, FAR, 1), Some(FAR + 3)),
        (question::TAKE, 0, take(2 * FAR + 1, 1, FAR, 1), None),
        (question::TAKE, 0, take(0, 1, FAR + 1, 1), None),
        (question::TAKE, 0, take(0, 0, S, 1), None),
        (question::TAKE, 0, take(0, 1, S, 1 << 32), None),
        (question::JOIN, 5 * S, join(0), Some(u64::MAX - 1)),
        (question::TURN, 5 * S, [5 * S, 0, 0, 0, 0, 0, 0], Some(1)),
        (question::TURN, 5 * S, [5 * S + 1, 0, 0, 0, 0, 0, 0], Some(0)),
        (3, 5 * S, take(0, S, 2 * S, 1), None),
    ] {
        assert_eq!(replay(question, at, inputs), verdict, "{question} at {at} of {inputs:?}");
    }
    let bucket = TokenBucket::new(&checked(Spec::token_bucket(1, SECOND).burst(2)));
    let verdicts = [1, 3, 2].map(|cost| bucket.take_explained(START, cost).verdict());
    assert_eq!(verdicts, [0, 1, S + 2]);
}

// ---- keys ----------------------------------------------------------------------------------------------

#[test]
fn keys_do_not_share_their_permits() {
    let limit = keyed(Spec::token_bucket(1, SECOND));
    assert_eq!(limit.take(START, &1, 1), Ok(()));
    assert_eq!(not_yet(limit.take(START, &1, 1)), SECOND);
    assert_eq!(limit.take(START, &2, 1), Ok(()));
}

#[test]
fn a_key_that_is_only_borrowed_finds_its_bucket() {
    let limit: Keyed<String, Fixed> = Keyed::new(&checked(Spec::token_bucket(1, SECOND)), Fixed::default());
    assert_eq!(limit.take(START, "ada", 1), Ok(()));
    assert!(limit.take(START, "ada", 1).is_err());
    assert_eq!((limit.keys(), limit.left(START, "ada"), limit.left(START, "bob")), (1, 0, 1));
}

#[test]
fn only_full_buckets_are_forgotten_and_a_flood_of_keys_pushes_nobody_out() {
    // given a memory of four keys, all of them in use
    let limit = keyed(Spec::token_bucket(10, SECOND).burst(2).keys_max(4));
    for key in 0..4 {
        assert_eq!(limit.take(START, &key, 2), Ok(()));
    }
    // when a thousand strangers come, then they share one bucket and nobody's is emptied or filled by it
    let strangers = (1_000..2_000).filter(|key| limit.take(START, key, 1).is_ok()).count();
    assert_eq!(strangers, 2);
    assert_eq!(limit.keys(), 4);
    for key in 0..4 {
        assert_eq!(not_yet(limit.take(START, &key, 1)), ms(100), "key {key} was pushed out");
    }
    // and once buckets are full again, their places are free
    let later = START + ms(200);
    assert_eq!(limit.take(later, &5_000, 2), Ok(()));
    assert_eq!(limit.take(later, &5_001, 2), Ok(()));
    assert_eq!(limit.keys(), 2);
}

#[test]
fn forgetting_on_request_changes_no_verdict() {
    let limit = keyed(Spec::token_bucket(10, SECOND).burst(2));
    assert_eq!(limit.take(START, &1, 1), Ok(()));
    assert_eq!(limit.take(START, &2, 2), Ok(()));
    limit.forget_full(START + ms(100));
    assert_eq!(limit.keys(), 1);
    assert_eq!(limit.left(START + ms(100), &2), 1);
    assert_eq!(limit.left(START + ms(100), &1), 2);
}
