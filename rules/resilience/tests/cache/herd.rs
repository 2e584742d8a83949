//! One load however many ask; who leads it, for how long, and who follows.

use std::future::pending;
use std::sync::{Arc, Mutex};

use mainstay_envelope::{Context, Priority};
use mainstay_resilience::cache::{Cached, Spec};
use mainstay_resilience::{Failed, NotDone, Why};
use tokio::task::JoinHandle;

use crate::kit::{Broken, Gate, Tested, World, ms, plain, secs, spawn, until, world};

type Answer = Result<Option<Cached<u64>>, Failed<Arc<Broken>>>;

/// Asks for "k"; a load passes the gate and brings its number.
fn ask(cache: &Tested, cx: &Context, gate: &Gate) -> JoinHandle<Answer> {
    let (cache, cx, gate) = (cache.clone(), cx.clone(), gate.clone());
    spawn(async move { cache.get_or_load(&cx, "k", |_, _| async move { Ok(gate.pass().await) }).await })
}

/// Asks for "k"; the first load panics, the others bring their number.
fn ask_fragile(cache: &Tested, cx: &Context, gate: &Gate) -> JoinHandle<Answer> {
    let (cache, cx, gate) = (cache.clone(), cx.clone(), gate.clone());
    spawn(async move {
        let load = |_, _| async move {
            let number = gate.pass().await;
            assert!(number > 1, "the first load panics: part of the test");
            Ok(number)
        };
        cache.get_or_load(&cx, "k", load).await
    })
}

fn value(answer: Answer) -> u64 {
    *answer.unwrap().unwrap()
}

fn why(answer: Answer) -> Why {
    answer.unwrap_err().refusal().unwrap().why
}

/// Nobody waits, nothing is under way.
fn is_idle(cache: &Tested) -> bool {
    let stats = cache.stats();
    (stats.waiting, stats.loading) == (0, 0)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_concurrent_misses_are_one_load() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    let asked: Vec<_> = (0..10_000).map(|_| ask(&cache, &world.cx, &gate)).collect();
    until("all wait", || cache.stats().waiting == 10_000).await;
    gate.open(10_000);
    for question in asked {
        assert_eq!(value(question.await.unwrap()), 1);
    }
    assert_eq!((gate.loads(), cache.stats().loads), (1, 1));
    until("the leader is gone", || is_idle(&cache)).await;
    assert_eq!(cache.get(&world.cx, "k").as_deref(), Some(&1));
}

/// The same on real threads: whoever comes while it is loaded, or after it, gets the one load's value.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_misses_on_several_threads_are_one_load() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    let asked: Vec<_> = (0..10_000).map(|_| ask(&cache, &world.cx, &gate)).collect();
    gate.open(10_000);
    for question in asked {
        assert_eq!(value(question.await.unwrap()), 1);
    }
    assert_eq!(gate.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn audiences_never_share_a_load_or_a_value() {
    let world = world();
    let people = [
        world.with(None, None),
        world.with(Some("a"), None),
        world.with(Some("b"), None),
        world.with(Some("a"), Some("ada")),
        world.with(Some("a"), Some("bob")),
        world.with(None, Some("ada")),
    ];
    for (spec, loads) in [
        (Spec::for_everybody(secs(60)), 1),
        (Spec::for_each_tenant(secs(60)), 3),
        (Spec::for_each_caller(secs(60)), 6),
    ] {
        let (cache, gate) = (world.cache(spec), Gate::new());
        let asked: Vec<_> = people.iter().chain(&people).map(|cx| ask(&cache, cx, &gate)).collect();
        until("all wait", || cache.stats().waiting == 12).await;
        assert_eq!(gate.loads(), loads);
        gate.open(12);
        let mut answers = Vec::new();
        for question in asked {
            answers.push(value(question.await.unwrap()));
        }
        assert_eq!(answers[..6], answers[6..], "the same person, the same answer");
        for (cx, answer) in people.iter().zip(answers) {
            assert_eq!(cache.get(cx, "k").as_deref(), Some(&answer));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_carries_nothing_of_whom_its_audience_is_not_about() {
    let world = world();
    let asks = world.with(Some("a"), Some("ada"));
    for (spec, tenant, caller) in [
        (Spec::for_everybody(secs(60)), None, None),
        (Spec::for_each_tenant(secs(60)), Some("a"), None),
        (Spec::for_each_caller(secs(60)), Some("a"), Some("ada")),
    ] {
        let cache = world.cache(spec);
        let seen = Arc::new(Mutex::new(None));
        let told = Arc::clone(&seen);
        let load = |load: mainstay_resilience::cache::Load, _| async move {
            *told.lock().unwrap() = Some(load.cx());
            Ok(1)
        };
        cache.get_or_load(&asks, "k", load).await.unwrap();
        let cx = seen.lock().unwrap().take().unwrap();
        let envelope = cx.envelope();
        assert_eq!(envelope.tenant().map(|t| t.as_str()), tenant);
        assert_eq!(envelope.caller().map(|c| c.as_str()), caller);
        assert_eq!(envelope.fact().actor.as_ref().map(|a| a.as_str()), caller);
        assert_eq!(envelope.correlation(), asks.envelope().correlation());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_never_cancels_the_load() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    let first = ask(&cache, &world.cx, &gate);
    until("the load is under way", || gate.loads() == 1).await;
    let second = ask(&cache, &world.cx, &gate);
    until("both wait", || cache.stats().waiting == 2).await;
    first.abort();
    until("one has left", || cache.stats().waiting == 1).await;
    gate.open(1);
    assert_eq!(value(second.await.unwrap()), 1);
    assert_eq!((gate.loads(), cache.stats().died), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_for_callers_who_all_left_is_kept_for_the_next() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    let asked: Vec<_> = (0..3).map(|_| ask(&cache, &world.cx, &gate)).collect();
    until("all wait", || cache.stats().waiting == 3).await;
    asked.iter().for_each(JoinHandle::abort);
    until("all have left", || cache.stats().waiting == 0).await;
    gate.open(1);
    until("it is loaded", || is_idle(&cache)).await;
    assert_eq!(value(ask(&cache, &world.cx, &gate).await.unwrap()), 1);
    assert_eq!(gate.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_leader_hands_over_to_exactly_one() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    let asked: Vec<_> = (0..1_000).map(|_| ask_fragile(&cache, &world.cx, &gate)).collect();
    until("all wait", || cache.stats().waiting == 1_000).await;
    gate.open(1);
    until("another load is under way", || gate.loads() == 2).await;
    assert_eq!(cache.stats().waiting, 1_000, "nobody was lost, not even who began it");
    gate.open(1_000);
    for question in asked {
        assert_eq!(value(question.await.unwrap()), 2);
    }
    until("all is over", || is_idle(&cache)).await;
    let stats = cache.stats();
    assert_eq!((gate.loads(), stats.loads, stats.died, stats.handed_over), (2, 2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_leader_out_of_time_hands_over_to_exactly_one() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain().load_limit(secs(5)));
    let asked: Vec<_> = (0..100).map(|_| ask(&cache, &world.cx, &gate)).collect();
    until("all wait", || cache.stats().waiting == 100).await;
    let begun = world.now();
    tokio::time::advance(secs(5)).await;
    until("another load is under way", || gate.loads() == 2).await;
    assert_eq!(world.now(), begun + secs(5));
    gate.open(1);
    for question in asked {
        assert_eq!(value(question.await.unwrap()), 2);
    }
    assert_eq!((cache.stats().died, cache.stats().handed_over), (1, 1));
}

/// The leader's task is dropped with its runtime; those who wait on another one go on.
#[test]
fn a_cancelled_leader_hands_over_to_exactly_one() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (lost, kept) = (runtime(), runtime());
    let (world, gate) = kept.block_on(async { (world(), Gate::new()) });
    let cache = world.cache(plain());
    lost.block_on(async {
        let _first = ask(&cache, &world.cx, &gate);
        until("the load is under way", || gate.loads() == 1).await;
    });
    kept.block_on(async {
        let others: Vec<_> = (0..100).map(|_| ask(&cache, &world.cx, &gate)).collect();
        until("all wait", || cache.stats().waiting == 101).await;
        drop_elsewhere(lost);
        until("another load is under way", || gate.loads() == 2).await;
        gate.open(1);
        for question in others {
            assert_eq!(value(question.await.unwrap()), 2);
        }
        until("all is over", || is_idle(&cache)).await;
        assert_eq!((cache.stats().died, cache.stats().handed_over), (1, 1));
    });
}

/// A runtime can't be dropped inside of another one.
fn drop_elsewhere(runtime: tokio::runtime::Runtime) {
    std::thread::spawn(move || drop(runtime)).join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_the_second_death_all_are_told_and_the_next_question_begins_anew() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain().load_limit(secs(5)));
    let asked: Vec<_> = (0..100).map(|_| ask(&cache, &world.cx, &gate)).collect();
    until("all wait", || cache.stats().waiting == 100).await;
    tokio::time::advance(secs(5)).await;
    until("another load is under way", || gate.loads() == 2).await;
    tokio::time::advance(secs(5)).await;
    for question in asked {
        let answer = question.await.unwrap();
        assert_eq!(answer.as_ref().unwrap_err().refusal().unwrap().not_done, NotDone::Answer);
        assert_eq!(why(answer), Why::LoadFailed);
    }
    until("all is over", || is_idle(&cache)).await;
    assert_eq!((gate.loads(), cache.stats().died), (2, 2));
    gate.open(1);
    assert_eq!(value(ask(&cache, &world.cx, &gate).await.unwrap()), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lone_caller_of_a_dying_load_is_told_at_once() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    gate.open(1);
    assert_eq!(why(ask_fragile(&cache, &world.cx, &gate).await.unwrap()), Why::LoadFailed);
    assert!(is_idle(&cache));
}

#[tokio::test(start_paused = true)]
async fn everybody_waits_until_their_own_deadline_and_the_load_until_the_last() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain().load_limit(secs(60)));
    let begun = world.now();
    let asked: Vec<_> = [3, 1, 9].map(|n| ask(&cache, &world.cx.with_deadline(secs(n)), &gate)).into();
    let mut ended = Vec::new();
    for question in asked {
        assert_eq!(why(question.await.unwrap()), Why::DeadlineRanOut);
        ended.push(world.now());
    }
    // The second left before the first, and was asked for after it.
    assert_eq!(ended, [begun + secs(3), begun + secs(3), begun + secs(9)]);
    until("the load has ended with the last", || is_idle(&cache)).await;
    assert_eq!((gate.loads(), cache.stats().died, world.now()), (1, 1, begun + secs(9)));
    assert_eq!(why(ask(&cache, &world.cx.with_deadline(ms(0)), &gate).await.unwrap()), Why::DeadlineReached);
    assert_eq!(gate.loads(), 1, "for nobody nothing is loaded");
}

#[tokio::test(start_paused = true)]
async fn the_load_has_the_highest_priority_and_the_latest_deadline_of_those_who_wait() {
    let world = world();
    let cache = world.cache(plain().load_limit(secs(60)));
    let (first, second) = (Gate::new(), Gate::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let leads = {
        let (cache, first, second, seen) = (cache.clone(), first.clone(), second.clone(), Arc::clone(&seen));
        let cx = world.urgent(Priority::Low).with_deadline(secs(10));
        spawn(async move {
            let load = |load: mainstay_resilience::cache::Load, _| async move {
                for gate in [first, second] {
                    let cx = load.cx();
                    seen.lock().unwrap().push((cx.envelope().priority(), cx.remaining().unwrap()));
                    gate.pass().await;
                }
                Ok(1)
            };
            cache.get_or_load(&cx, "k", load).await
        })
    };
    until("the load is under way", || first.loads() == 1).await;
    let joins: Vec<_> = [(Priority::Critical, 5), (Priority::Background, 20)]
        .map(|(priority, n)| ask(&cache, &world.urgent(priority).with_deadline(secs(n)), &first))
        .into();
    until("all wait", || cache.stats().waiting == 3).await;
    // Who has left is still counted: the load is under way with what they brought.
    joins[0].abort();
    first.open(1);
    until("its second call is under way", || second.loads() == 1).await;
    assert_eq!(*seen.lock().unwrap(), [(Priority::Low, secs(10)), (Priority::Critical, secs(20))]);
    second.open(1);
    assert_eq!(value(leads.await.unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_goes_on_for_those_who_have_more_time_than_who_began_it() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain().load_limit(secs(60)));
    let hurried = ask(&cache, &world.cx.with_deadline(secs(1)), &gate);
    until("the load is under way", || gate.loads() == 1).await;
    let patient = ask(&cache, &world.cx.with_deadline(secs(9)), &gate);
    assert_eq!(why(hurried.await.unwrap()), Why::DeadlineRanOut);
    tokio::time::sleep(secs(4)).await;
    gate.open(1);
    assert_eq!(value(patient.await.unwrap()), 1);
    assert_eq!((gate.loads(), cache.stats().died), (1, 0));
}

/// A loader that was given the deadline of a hurried caller and fails by it says nothing about the source: who has
/// more time takes over.
#[tokio::test(start_paused = true)]
async fn an_error_by_the_deadline_of_who_has_left_is_no_answer_for_the_others() {
    let world = world();
    let cache = world.cache(plain().load_limit(secs(60)));
    let gate = Gate::new();
    let question = |cx: Context| {
        let (cache, gate) = (cache.clone(), gate.clone());
        spawn(async move {
            let load = |load: mainstay_resilience::cache::Load, _| async move {
                let remaining = load.cx().remaining().unwrap();
                tokio::time::timeout(remaining, gate.pass()).await.map_err(|_| Broken("out of time"))
            };
            cache.get_or_load(&cx, "k", load).await
        })
    };
    let hurried = question(world.cx.with_deadline(secs(1)));
    until("the load is under way", || gate.loads() == 1).await;
    let patient = question(world.cx.with_deadline(secs(30)));
    assert_eq!(why(hurried.await.unwrap()), Why::DeadlineRanOut);
    until("another load is under way", || gate.loads() == 2).await;
    gate.open(1);
    assert_eq!(value(patient.await.unwrap()), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_shared_by_all_who_wait_and_kept_for_nobody_else() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain());
    let question = || {
        let (cache, cx, gate) = (cache.clone(), world.cx.clone(), gate.clone());
        spawn(async move {
            let load = |_, _| async move {
                gate.pass().await;
                Err::<u64, _>(Broken("no"))
            };
            cache.get_or_load(&cx, "k", load).await
        })
    };
    let asked: Vec<_> = (0..100).map(|_| question()).collect();
    until("all wait", || cache.stats().waiting == 100).await;
    gate.open(1);
    for question in asked {
        assert_eq!(*question.await.unwrap().unwrap_err().upstream().unwrap(), Arc::new(Broken("no")));
    }
    assert_eq!((gate.loads(), cache.stats().failed), (1, 1));
    gate.open(1);
    assert!(question().await.unwrap().is_err());
    assert_eq!(gate.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn more_loads_or_waiters_than_may_be_are_refused_and_nothing_is_loaded() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain().loads_max(2).waiters_max(4));
    let load = |key: &'static str| {
        let (cache, cx, gate) = (cache.clone(), world.cx.clone(), gate.clone());
        spawn(async move { cache.get_or_load(&cx, key, |_, _| async move { Ok(gate.pass().await) }).await })
    };
    let under_way = [load("a"), load("b")];
    until("two loads are under way", || gate.loads() == 2).await;
    assert_eq!(why(load("c").await.unwrap()), Why::CacheBusy { limit: 2 });
    let joined = [load("a"), load("b")];
    until("four wait", || cache.stats().waiting == 4).await;
    assert_eq!(why(load("a").await.unwrap()), Why::CacheBusy { limit: 4 });
    gate.open(2);
    for question in under_way.into_iter().chain(joined) {
        question.await.unwrap().unwrap();
    }
    until("places are given back", || is_idle(&cache)).await;
    gate.open(1);
    assert_eq!(value(load("c").await.unwrap()), 3);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_never_ends_is_bounded_though_nobody_has_a_deadline() {
    let World { cx, scope } = world();
    let cache = World { cx: cx.clone(), scope }.cache(plain().load_limit(secs(7)));
    let answer = cache.get_or_load(&cx, "k", |_, _| pending::<Result<u64, Broken>>()).await;
    assert_eq!(why(answer), Why::LoadFailed);
}
