//! What threads do to shared state, in every order that chance and a bounded search come upon: not what a busy machine
//! happens to do. A failure says how it is repeated, to the step.
//!
//! `MAINSTAY_SCHEDULES` (orders tried by each of the two searches, 200 if it is not set) and `MAINSTAY_SEED` (1). The full
//! lane tries 2,000. What is out of reach, and why: docs/decisions/0029-shuttle.md.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::future::Future;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainstay_envelope::{ManualClock, Monotonic, RetryBucket, RetryTokens, SeededChance};
use mainstay_resilience::bulkhead::{self, Bulkhead, Entered, Load};
use mainstay_resilience::circuit_breaker::{CircuitBreaker, Phase, Spec, Window};
use mainstay_resilience::rate_limit::{self, Keyed, TokenBucket};
use mainstay_resilience::record::Recorder;
use mainstay_resilience::{
    Breaker, EveryErrorIsTransient, Facts, Failed, Live, Outcome, Policy, PolicySpec, Scope,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner, thread};

const START: Monotonic = Monotonic::from_origin(Duration::from_secs(1_000));
const OPEN_FOR: Duration = Duration::from_secs(1);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Says how a failure is repeated.
struct Seed(u64, usize);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "to repeat it: MAINSTAY_SEED={} MAINSTAY_SCHEDULES={}, and this test alone",
                self.0, self.1
            );
        }
    }
}

/// Runs `test` in so many orders of its threads: drawn at random, and by PCT, which finds a defect of depth d (that
/// needs d orderings to be just so) with a known probability (Burckhardt et al., ASPLOS 2010).
fn explore(test: impl Fn() + Send + Sync + 'static) {
    let (seed, schedules) = (setting("MAINSTAY_SEED", 1), setting("MAINSTAY_SCHEDULES", 200) as usize);
    let _said = Seed(seed, schedules);
    // Timers are armed where a call waits; nobody drives them, so none ever fires. Never dropped: that would wake whom a
    // search that failed has left waiting, when the model they wait in is gone.
    let timers = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let _entered = Box::leak(Box::new(timers.unwrap())).enter();
    let test = Arc::new(test);
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(20_000);
    // That memory orders are not modelled is said in the decision, not a thousand times here.
    config.silence_warnings = true;
    let again = Arc::clone(&test);
    Runner::new(RandomScheduler::new_from_seed(seed, schedules), config.clone()).run(move || again());
    Runner::new(PctScheduler::new_from_seed(seed, 3, schedules), config).run(move || test());
}

fn all(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn scope() -> Arc<Scope> {
    let clock = Arc::new(ManualClock::default());
    Arc::new(Scope::new("callee", clock, Arc::new(SeededChance::new(1)), Recorder::off()))
}

// ---- circuit breaker -----------------------------------------------------------------------------------

fn breaker(spec: Spec) -> CircuitBreaker {
    CircuitBreaker::new(spec.open_for(OPEN_FOR).check().unwrap(), scope())
}

fn call(breaker: &CircuitBreaker, now: Monotonic, outcome: Outcome) -> bool {
    let ticket = breaker.check(now);
    ticket.map(|ticket| breaker.record(ticket, now, outcome)).is_ok()
}

fn two() -> Spec {
    Spec::failure_rate(0.5).over(4).minimum_calls(2)
}

/// Whatever threads did to it: calls that succeed, spread over time, close it.
fn assert_not_wedged(breaker: &CircuitBreaker, mut now: Monotonic) {
    for _ in 0..4 {
        now = now + Duration::from_secs(120);
        call(breaker, now, Outcome::Success);
    }
    assert_eq!(breaker.snapshot(now).phase, Phase::Closed);
}

#[test]
fn of_two_failures_side_by_side_neither_is_lost_and_they_open_it_once() {
    explore(|| {
        let breaker = breaker(two());
        // Admitted before either failed.
        let tickets =
            [breaker.check(START).unwrap(), breaker.check(START).unwrap(), breaker.check(START).unwrap()];
        let threads = tickets.map(|ticket| {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.record(ticket, START, Outcome::TRANSIENT))
        });
        all(threads.into());
        let seen = breaker.snapshot(START);
        assert!(matches!(seen.phase, Phase::Open { .. }), "{seen:?}");
        assert_eq!(seen.opened, 1, "its open time would have grown");
    });
}

#[test]
fn the_window_holds_what_was_recorded_whoever_came_first() {
    explore(|| {
        // Of three calls at most two fail, so it stays closed.
        let breaker = breaker(Spec::failure_rate(1.0).over(3).minimum_calls(3));
        let threads = [(Outcome::Success, 3), (Outcome::TRANSIENT, 2)].map(|(outcome, calls)| {
            let breaker = breaker.clone();
            thread::spawn(move || assert!((0..calls).all(|_| call(&breaker, START, outcome))))
        });
        all(threads.into());
        // A full turn of the ring more, and nothing is left of what the threads wrote.
        assert!((0..3).all(|_| call(&breaker, START, Outcome::Success)));
        let counts = breaker.snapshot(START).counts;
        assert_eq!((counts.calls, counts.failures), (3, 0));
    });
}

#[test]
fn one_probe_at_a_time_whoever_is_cancelled_and_it_never_wedges() {
    explore(|| {
        let breaker = breaker(two());
        call(&breaker, START, Outcome::TRANSIENT);
        call(&breaker, START, Outcome::TRANSIENT);
        let due = START + OPEN_FOR;
        let probes = Arc::new(AtomicU32::new(0));
        let ends = [Some(Outcome::Success), Some(Outcome::TRANSIENT), None];
        let threads = ends.map(|end| {
            let (breaker, probes) = (breaker.clone(), Arc::clone(&probes));
            thread::spawn(move || {
                let Ok(ticket) = breaker.check(due) else { return };
                let is_probe = ticket.is_probe();
                if is_probe {
                    assert_eq!(probes.fetch_add(1, Ordering::SeqCst), 0, "a second probe");
                }
                thread::yield_now();
                if is_probe {
                    probes.fetch_sub(1, Ordering::SeqCst);
                }
                match end {
                    Some(outcome) => breaker.record(ticket, due, outcome),
                    None => breaker.release(ticket, due),
                }
            })
        });
        all(threads.into());
        assert_not_wedged(&breaker, due);
    });
}

#[test]
fn a_probe_belongs_to_the_phase_that_admitted_it() {
    explore(|| {
        let breaker = breaker(two().probes(2));
        call(&breaker, START, Outcome::TRANSIENT);
        call(&breaker, START, Outcome::TRANSIENT);
        let due = START + OPEN_FOR;
        // The first that fails opens it again: the other's end is none of a later phase's business.
        let threads = (0..2).map(|_| {
            let breaker = breaker.clone();
            thread::spawn(move || {
                let Ok(ticket) = breaker.check(due) else { return };
                assert!(ticket.is_probe(), "it never closes here");
                breaker.record(ticket, due, Outcome::TRANSIENT);
            })
        });
        all(threads.collect());
        let seen = breaker.snapshot(due);
        assert!(matches!(seen.phase, Phase::Open { .. }) && seen.opened == 2, "{seen:?}");
    });
}

#[test]
fn a_probe_that_ends_late_counts_for_nothing_in_the_next_half_open_phase() {
    explore(|| {
        let breaker = breaker(two().probes(2));
        call(&breaker, START, Outcome::TRANSIENT);
        call(&breaker, START, Outcome::TRANSIENT);
        let due = START + OPEN_FOR;
        let (failing, late) = (breaker.check(due).unwrap(), breaker.check(due).unwrap());
        let own = breaker.clone();
        let fails = thread::spawn(move || own.record(failing, due, Outcome::TRANSIENT));
        let own = breaker.clone();
        let again = due + OPEN_FOR * 10;
        let ends_late = thread::spawn(move || own.record(late, again, Outcome::Success));
        let own = breaker.clone();
        let next = thread::spawn(move || own.check(again).is_ok());
        all(vec![fails, ends_late]);
        if next.join().unwrap() {
            let phase = breaker.snapshot(again).phase;
            let only_its_own =
                Phase::HalfOpen { since: 1_011_000_000_000, under_way: 1, succeeded: 0, failed: 0, slow: 0 };
            assert_eq!(phase, only_its_own);
        }
    });
}

#[test]
fn settings_that_change_meanwhile_lose_no_phase_and_wedge_nothing() {
    explore(|| {
        let breaker = breaker(two());
        let opener = {
            let breaker = breaker.clone();
            thread::spawn(move || {
                let mut failures = 0;
                // Those that end in the very moment of the change may be missing from the new window; not all of them.
                while call(&breaker, START, Outcome::TRANSIENT) {
                    failures += 1;
                    assert!(failures <= 6, "it does not open");
                }
                assert!(!call(&breaker, START, Outcome::Success), "open, and it admits");
            })
        };
        let operator = {
            let breaker = breaker.clone();
            thread::spawn(move || {
                for size in [6, 3] {
                    let settings = two().over(Window::Count(size)).open_for(OPEN_FOR).check().unwrap();
                    breaker.reconfigure(settings, START);
                }
            })
        };
        all(vec![opener, operator]);
        let seen = breaker.snapshot(START);
        assert!(matches!(seen.phase, Phase::Open { .. }) && seen.opened == 1, "{seen:?}");
        assert_not_wedged(&breaker, START);
    });
}

#[test]
fn a_breaker_that_closes_while_its_settings_change_begins_with_an_empty_window() {
    explore(|| {
        let breaker = breaker(two());
        call(&breaker, START, Outcome::TRANSIENT);
        call(&breaker, START, Outcome::TRANSIENT);
        let due = START + OPEN_FOR;
        let probe = breaker.check(due).unwrap();
        let own = breaker.clone();
        let ends = thread::spawn(move || own.record(probe, due, Outcome::Success));
        let own = breaker.clone();
        let settings = two().over(6).open_for(OPEN_FOR).check().unwrap();
        let changes = thread::spawn(move || {
            own.reconfigure(settings, due);
        });
        all(vec![ends, changes]);
        let seen = breaker.snapshot(due);
        assert_eq!((seen.phase, seen.counts.failures), (Phase::Closed, 0));
    });
}

// ---- bulkhead ------------------------------------------------------------------------------------------

fn bulkhead(permits: u32, queue: u32) -> Bulkhead {
    Bulkhead::new(Some(bulkhead::Spec::permits(permits).queue(queue).check().unwrap()), scope())
}

/// Takes a permit, in its turn, and holds it for a while; whether it was let in.
fn visit(bulkhead: &Bulkhead, inside: &AtomicU32, most: u32) -> bool {
    let permit = match bulkhead.enter(START, None) {
        Ok(Entered::Permit(permit)) => permit,
        // Never woken, the search sees a deadlock.
        Ok(Entered::Queued(queued)) => shuttle::future::block_on(queued).unwrap(),
        Err(_) => return false,
    };
    assert!(inside.fetch_add(1, Ordering::SeqCst) < most, "more are inside than there are permits");
    thread::yield_now();
    inside.fetch_sub(1, Ordering::SeqCst);
    drop(permit);
    true
}

/// Enters and leaves again without waiting for its turn.
fn leave_early(bulkhead: &Bulkhead) {
    if let Ok(Entered::Queued(queued)) = bulkhead.enter(START, None) {
        {
            let mut queued = pin!(queued);
            if let Poll::Ready(permit) = queued.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                drop(permit);
                return;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn every_permit_finds_who_waits_for_it_and_comes_back_whoever_leaves_the_queue() {
    explore(|| {
        let (bulkhead, inside) = (bulkhead(1, 3), Arc::new(AtomicU32::new(0)));
        let mut threads: Vec<_> = (0..3)
            .map(|_| {
                let (bulkhead, inside) = (bulkhead.clone(), Arc::clone(&inside));
                thread::spawn(move || assert!(visit(&bulkhead, &inside, 1), "there is room for all"))
            })
            .collect();
        let own = bulkhead.clone();
        threads.push(thread::spawn(move || leave_early(&own)));
        all(threads);
        assert_eq!(bulkhead.snapshot().load, Load::default());
    });
}

#[test]
fn permits_that_come_and_go_with_the_settings_strand_nobody() {
    explore(|| {
        let (bulkhead, inside) = (bulkhead(1, 2), Arc::new(AtomicU32::new(0)));
        let mut threads: Vec<_> = (0..3)
            .map(|_| {
                let (bulkhead, inside) = (bulkhead.clone(), Arc::clone(&inside));
                thread::spawn(move || {
                    visit(&bulkhead, &inside, 2);
                })
            })
            .collect();
        let own = bulkhead.clone();
        threads.push(thread::spawn(move || {
            for permits in [2, 1] {
                own.reconfigure(Some(bulkhead::Spec::permits(permits).queue(2).check().unwrap()));
            }
        }));
        all(threads);
        assert_eq!(bulkhead.snapshot().load, Load::default());
    });
}

#[test]
fn a_permit_that_comes_back_when_there_are_too_many_is_not_passed_on() {
    explore(|| {
        let bulkhead = bulkhead(2, 1);
        let [Ok(Entered::Permit(first)), Ok(Entered::Permit(second)), Ok(Entered::Queued(waits))] =
            [(); 3].map(|()| bulkhead.enter(START, None))
        else {
            panic!("two are in, one waits");
        };
        let leaves = thread::spawn(move || drop(first));
        let own = bulkhead.clone();
        let lowers = thread::spawn(move || {
            own.reconfigure(Some(bulkhead::Spec::permits(1).queue(1).check().unwrap()));
            // Whoever is refused now has seen that somebody waits still.
            own.enter(START, None).is_err()
        });
        all(vec![leaves]);
        if lowers.join().unwrap() {
            assert_eq!(bulkhead.snapshot().load, Load { in_use: 1, waiting: 1 });
        }
        drop((second, waits));
        assert_eq!(bulkhead.snapshot().load, Load::default());
    });
}

// ---- rate limit ----------------------------------------------------------------------------------------

fn tokens(burst: u32) -> rate_limit::Checked {
    rate_limit::Spec::token_bucket(1, Duration::from_secs(1)).burst(burst).check().unwrap()
}

#[test]
fn a_bucket_gives_as_many_tokens_as_it_holds() {
    explore(|| {
        let (bucket, given) = (Arc::new(TokenBucket::new(&tokens(3))), Arc::new(AtomicU32::new(0)));
        let threads = (0..3).map(|_| {
            let (bucket, given) = (Arc::clone(&bucket), Arc::clone(&given));
            thread::spawn(move || {
                let taken = (0..2).filter(|_| bucket.take(START, 1).is_ok()).count();
                given.fetch_add(taken as u32, Ordering::SeqCst);
            })
        });
        all(threads.collect());
        assert_eq!((given.load(Ordering::SeqCst), bucket.left(START)), (3, 0));
    });
}

#[test]
fn a_change_of_its_settings_makes_no_token_and_loses_none() {
    explore(|| {
        let (bucket, given) = (Arc::new(TokenBucket::new(&tokens(3))), Arc::new(AtomicU32::new(0)));
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let (bucket, given) = (Arc::clone(&bucket), Arc::clone(&given));
                thread::spawn(move || {
                    let taken = (0..2).filter(|_| bucket.take(START, 1).is_ok()).count();
                    given.fetch_add(taken as u32, Ordering::SeqCst);
                })
            })
            .collect();
        let own = Arc::clone(&bucket);
        // A bigger bucket holds what the smaller one held.
        threads.push(thread::spawn(move || own.reconfigure(&tokens(9), START)));
        all(threads);
        assert_eq!((given.load(Ordering::SeqCst), bucket.left(START)), (3, 0));
    });
}

#[test]
fn a_request_is_decided_under_one_set_of_settings() {
    explore(|| {
        let slow = rate_limit::Spec::token_bucket(1, Duration::from_secs(2)).burst(3).check().unwrap();
        let bucket = Arc::new(TokenBucket::new(&slow));
        // One token is left. A bucket of five, one a second, lacks four seconds then, as this one does: the same word.
        bucket.take(START, 2).unwrap();
        let own = Arc::clone(&bucket);
        let takes = thread::spawn(move || own.take(START + Duration::from_millis(1), 1));
        let own = Arc::clone(&bucket);
        let changes = thread::spawn(move || own.reconfigure(&tokens(5), START));
        all(vec![changes]);
        assert_eq!(takes.join().unwrap(), Ok(()), "both have a token for it");
        let full_in = bucket.full_in(START);
        let five = Duration::from_secs(5);
        assert!(
            full_in == five || full_in == five + Duration::from_nanos(1),
            "{full_in:?}: a token costs a second"
        );
    });
}

#[test]
fn what_is_left_is_read_under_one_set_of_settings() {
    explore(|| {
        let bucket = Arc::new(TokenBucket::new(&tokens(3)));
        let own = Arc::clone(&bucket);
        let reads = thread::spawn(move || assert_eq!(own.left(START), 3, "as many before as after"));
        let own = Arc::clone(&bucket);
        let changes = thread::spawn(move || own.reconfigure(&tokens(9), START));
        all(vec![reads, changes]);
    });
}

#[test]
fn a_key_that_several_bring_at_once_has_one_bucket() {
    explore(|| {
        let keyed =
            Arc::new(Keyed::<u32, _>::new(&tokens(1), BuildHasherDefault::<DefaultHasher>::default()));
        let given = Arc::new(AtomicU32::new(0));
        let threads = (0..3).map(|_| {
            let (keyed, given) = (Arc::clone(&keyed), Arc::clone(&given));
            thread::spawn(move || {
                given.fetch_add(keyed.take(START, &7, 1).is_ok().into(), Ordering::SeqCst);
            })
        });
        all(threads.collect());
        assert_eq!(given.load(Ordering::SeqCst), 1);
    });
}

// ---- retry budget --------------------------------------------------------------------------------------

#[test]
fn no_token_of_the_retry_budget_is_spent_twice_or_lost() {
    explore(|| {
        let bucket = Arc::new(RetryBucket::empty());
        // Nine tenths and the requests' own: one token, and a tenth.
        (0..9).for_each(|_| bucket.gain());
        let spent = Arc::new(AtomicU32::new(0));
        let threads = (0..2).map(|_| {
            let (bucket, spent) = (Arc::clone(&bucket), Arc::clone(&spent));
            thread::spawn(move || {
                let tokens = bucket.lend();
                spent.fetch_add(tokens.spend().into(), Ordering::SeqCst);
                bucket.give_back(tokens);
            })
        });
        all(threads.collect());
        assert_eq!(spent.load(Ordering::SeqCst) + bucket.whole(), 1);
    });
}

#[test]
fn the_tokens_of_a_request_are_never_more_than_it_was_lent() {
    explore(|| {
        let (tokens, spent) = (RetryTokens::new(2), Arc::new(AtomicU32::new(0)));
        let threads = (0..3).map(|n| {
            let (tokens, spent) = (tokens.clone(), Arc::clone(&spent));
            thread::spawn(move || {
                let own = if n == 0 { tokens.take_all() } else { tokens.split() };
                spent.fetch_add(own.spend().into(), Ordering::SeqCst);
                tokens.give_back(own);
                spent.fetch_add(tokens.spend().into(), Ordering::SeqCst);
            })
        });
        all(threads.collect());
        assert_eq!(spent.load(Ordering::SeqCst) + u32::from(tokens.left()), 2);
    });
}

// ---- settings ------------------------------------------------------------------------------------------

#[test]
fn racing_replacements_are_all_made_and_nobody_sees_an_older_value_after_a_newer() {
    explore(|| {
        let live = Live::new(0);
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let live = live.clone();
                thread::spawn(move || live.replace(|old| Ok::<_, ()>(old + 1)).unwrap())
            })
            .collect();
        let own = live.clone();
        threads.push(thread::spawn(move || {
            let seen: Vec<i32> = (0..3).map(|_| *own.get()).collect();
            assert!(seen.is_sorted(), "{seen:?}");
        }));
        all(threads);
        assert_eq!(*live.get(), 2);
    });
}

#[test]
fn a_policy_that_is_reconfigured_under_load_gives_every_call_its_end_and_keeps_no_permit() {
    explore(|| {
        let spec = |permits| PolicySpec {
            breaker: Some(Breaker::failure_rate(0.5).over(4).minimum_calls(4)),
            bulkhead: Some(bulkhead::Spec::permits(permits).queue(2)),
            ..PolicySpec::default()
        };
        let clock = Arc::new(ManualClock::default());
        let policy = Policy::outbound("callee").clock(clock).spec(spec(1)).build().unwrap();
        let mut threads: Vec<_> = (0..2)
            .map(|n| {
                let policy = policy.clone();
                thread::spawn(move || {
                    let facts = |now| Facts::unknown(now);
                    let callee = move |_| async move { if n == 0 { Ok(()) } else { Err(()) } };
                    let called = policy.call(facts, EveryErrorIsTransient, callee);
                    match shuttle::future::block_on(called) {
                        Ok(()) => assert_eq!(n, 0),
                        Err(Failed::Upstream(())) => assert_eq!(n, 1),
                        Err(Failed::Refused(refusal)) => panic!("there is room for both: {refusal}"),
                    }
                })
            })
            .collect();
        // One that leaves before it has its answer.
        let own = policy.clone();
        threads.push(thread::spawn(move || {
            let facts = |now| Facts::unknown(now);
            let hangs = |_| std::future::pending::<Result<(), ()>>();
            let mut called = Box::pin(own.call(facts, EveryErrorIsTransient, hangs));
            let polled = called.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(!matches!(polled, Poll::Ready(Ok(()))), "it hangs");
            thread::yield_now();
        }));
        let own = policy.clone();
        threads.push(thread::spawn(move || {
            own.reconfigure(&spec(2)).unwrap();
        }));
        all(threads);
        assert_eq!(policy.bulkhead().snapshot().load, Load::default());
        let counts = policy.breaker().snapshot(policy.scope().now()).counts;
        assert_eq!((counts.calls, counts.failures), (2, 1), "the one that left says nothing");
    });
}
