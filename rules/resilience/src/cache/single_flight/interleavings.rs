//! Leaders that die and waiters that leave, in every order that a search comes upon: one hand-over, and nobody waits for
//! ever.
//!
//! The channel in the middle is tokio's and no part of the model: each operation on it is one step here, which its own
//! lock makes it. The tasks that tokio would spawn and the timers are left out (docs/decisions/0029-shuttle.md); what a
//! waiter does is what `core/wait.rs` does.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_envelope::{Monotonic, Priority};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::{Flight, Found};
use crate::cache::flights::Places;
use crate::cache::state::Crew;
use crate::cache::tags::Tags;

const LIMIT: Monotonic = Monotonic::from_origin(Duration::from_secs(1));

fn explore(test: impl Fn() + Send + Sync + 'static) {
    let setting =
        |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, schedules) = (setting("MAINSTAY_SEED", 1), setting("MAINSTAY_SCHEDULES", 200) as usize);
    println!("to repeat a failure: MAINSTAY_SEED={seed} MAINSTAY_SCHEDULES={schedules}, and this test alone");
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(20_000);
    config.silence_warnings = true;
    let test = Arc::new(test);
    let again = Arc::clone(&test);
    Runner::new(RandomScheduler::new_from_seed(seed, schedules), config.clone()).run(move || again());
    Runner::new(PctScheduler::new_from_seed(seed, 3, schedules), config).run(move || test());
}

/// What became of all who took part.
#[derive(Default)]
struct Seen {
    leading: AtomicU32,
    hand_overs: AtomicU32,
    told: AtomicU32,
    dead: AtomicU32,
}

type Load = Arc<Flight<u32>>;

fn flight() -> Load {
    Arc::new(Flight::new(Crew::new(Priority::Normal, None, LIMIT), Tags::default().stamp()))
}

fn lead(flight: &Load, seen: &Seen, brings: Option<u32>) {
    assert_eq!(seen.leading.fetch_add(1, Ordering::SeqCst), 0, "two lead at a time");
    thread::yield_now();
    seen.leading.fetch_sub(1, Ordering::SeqCst);
    match brings {
        Some(value) => flight.end(value),
        None => {
            flight.died();
        }
    }
}

/// Waits to the end; leads with `brings` when it is the one to take over.
fn wait(flight: &Load, seen: &Arc<Seen>, brings: Option<u32>) {
    let mut able = true;
    let mut leads = None;
    let mut watch = flight.watch();
    loop {
        match shuttle::future::block_on(watch.next(able)) {
            Found::Ended(_) => {
                seen.told.fetch_add(1, Ordering::SeqCst);
            }
            Found::Dead => {
                seen.dead.fetch_add(1, Ordering::SeqCst);
            }
            Found::Vacant => {
                thread::yield_now();
                if flight.take_over(None, LIMIT, Tags::default().stamp()) {
                    able = false;
                    seen.hand_overs.fetch_add(1, Ordering::SeqCst);
                    let (flight, seen) = (Arc::clone(flight), Arc::clone(seen));
                    leads = Some(thread::spawn(move || lead(&flight, &seen, brings)));
                }
                continue;
            }
        }
        break;
    }
    flight.leave(able);
    if let Some(leads) = leads {
        leads.join().unwrap();
    }
}

/// Two wait, a third leaves before the end, and the leader dies.
fn run(successor_brings: Option<u32>) -> Arc<Seen> {
    let (flight, seen) = (flight(), Arc::new(Seen::default()));
    for _ in 0..3 {
        assert!(flight.join(Priority::Normal, None, true, None));
    }
    let mut threads: Vec<_> = (0..2)
        .map(|_| {
            let (flight, seen) = (Arc::clone(&flight), Arc::clone(&seen));
            thread::spawn(move || wait(&flight, &seen, successor_brings))
        })
        .collect();
    let leaves = Arc::clone(&flight);
    threads.push(thread::spawn(move || {
        leaves.leave(true);
    }));
    let (first, own) = (Arc::clone(&flight), Arc::clone(&seen));
    threads.push(thread::spawn(move || lead(&first, &own, None)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(!flight.is_under_way());
    seen
}

#[test]
fn a_dead_leader_is_followed_by_exactly_one_and_all_are_told() {
    explore(|| {
        let seen = run(Some(7));
        let of = |count: &AtomicU32| count.load(Ordering::SeqCst);
        assert_eq!((of(&seen.hand_overs), of(&seen.told), of(&seen.dead)), (1, 2, 0));
    });
}

#[test]
fn after_the_second_death_nobody_leads_and_nobody_waits_on() {
    explore(|| {
        let seen = run(None);
        let of = |count: &AtomicU32| count.load(Ordering::SeqCst);
        assert_eq!((of(&seen.hand_overs), of(&seen.told), of(&seen.dead)), (1, 0, 2));
    });
}

#[test]
fn when_all_leave_a_load_whose_leader_died_it_is_over() {
    explore(|| {
        let flight = flight();
        (0..2).for_each(|_| assert!(flight.join(Priority::Normal, None, true, None)));
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let flight = Arc::clone(&flight);
                thread::spawn(move || {
                    flight.leave(true);
                })
            })
            .collect();
        let first = Arc::clone(&flight);
        threads.push(thread::spawn(move || {
            first.died();
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!flight.is_under_way());
    });
}

#[test]
fn no_more_places_are_taken_than_there_are_and_all_come_back() {
    explore(|| {
        let places = Arc::new(Places::default());
        let threads = (0..3).map(|_| {
            let places = Arc::clone(&places);
            thread::spawn(move || {
                let place = places.take(2);
                assert!(places.taken() <= 2);
                drop(place);
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(places.taken(), 0);
    });
}
