//! The layers of rate limiting and load shedding around a service, in virtual time.

#![cfg(all(feature = "rate-limit", feature = "load-shed"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers may fail the test"
)]

mod kit;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kit::{Virtual, ms};
use mainstay_envelope::{Deadline, Priority, SeededChance};
use mainstay_resilience::load_shed::{self, LoadShed, Sample};
use mainstay_resilience::rate_limit::{self, KeyedRateLimit, Pacer, RateLimit};
use mainstay_resilience::record::{Recorder, Recording};
use mainstay_resilience::{
    Call, EveryErrorIsTransient, Facts, Failed, NotDone, Refusal, Replayed, Rule, Scope, Why, replay,
};
use tokio::time::{advance, sleep};
use tower_layer::Layer;
use tower_service::Service;

const SECOND: Duration = Duration::from_secs(1);

fn scope() -> Arc<Scope> {
    let recorder = Recorder::new(Recording::Notable, 64, 1);
    Arc::new(Scope::new("shop", Arc::new(Virtual::new()), Arc::new(SeededChance::new(1)), recorder))
}

/// Takes `work`, then answers with what it was asked; counts who is inside.
#[derive(Debug, Clone)]
struct Worker {
    work: Duration,
    inside: Arc<AtomicUsize>,
    done: Arc<Mutex<Vec<u32>>>,
}

impl Worker {
    fn new(work: Duration) -> Self {
        Worker { work, inside: Arc::default(), done: Arc::default() }
    }

    fn done(&self) -> Vec<u32> {
        self.done.lock().unwrap().clone()
    }
}

struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service<Call<u32>> for Worker {
    type Response = u32;
    type Error = Failed<&'static str>;
    type Future = Pin<Box<dyn Future<Output = Result<u32, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<u32>) -> Self::Future {
        let Worker { work, inside, done } = self.clone();
        Box::pin(async move {
            inside.fetch_add(1, Ordering::Relaxed);
            let _inside = Inside(inside);
            if !work.is_zero() {
                sleep(work).await;
            }
            done.lock().unwrap().push(call.request);
            Ok(call.request)
        })
    }
}

fn call(scope: &Scope, request: u32) -> Call<u32> {
    Call { request, facts: Facts::unknown(scope.now()) }
}

fn with_priority(mut call: Call<u32>, priority: Priority) -> Call<u32> {
    call.facts.priority = priority;
    call
}

fn with_deadline(mut call: Call<u32>, wait: Duration) -> Call<u32> {
    call.facts = call.facts.clone().lower_deadline(Deadline::after(call.facts.now, wait));
    call
}

/// The refusal. Its name leads to what it was made of, and what was decided is decided again, bit for bit.
fn refusal<T: std::fmt::Debug>(scope: &Scope, result: Result<T, Failed<&'static str>>) -> Refusal {
    match result {
        Err(Failed::Refused(refusal)) => {
            let decision = scope.recorder().find(refusal.decision).unwrap();
            assert_eq!(replay(&decision), Replayed::Same, "{decision}");
            refusal
        }
        other => panic!("{other:?}"),
    }
}

/// Polls once, as a task that is not woken again would be.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn bucket(permits: u32) -> rate_limit::Checked {
    rate_limit::Spec::token_bucket(permits, SECOND).check().unwrap()
}

// ---- rate limit ----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn beyond_the_rate_a_call_is_refused_with_the_exact_time_and_the_service_is_not_asked() {
    let scope = scope();
    let worker = Worker::new(Duration::ZERO);
    let limit = RateLimit::new(&scope, bucket(1)).unwrap();
    let mut service = limit.layer().layer(worker.clone());
    assert_eq!(service.call(call(&scope, 1)).await, Ok(1));
    advance(ms(400)).await;
    let refused = refusal(&scope, service.call(call(&scope, 2)).await);
    assert_eq!(
        (refused.rule, refused.why, refused.retry_after),
        (Rule::RateLimit, Why::RateExceeded, Some(ms(600)))
    );
    assert_eq!((refused.not_done, worker.done()), (NotDone::Call, vec![1]));
    advance(ms(600)).await;
    assert_eq!(service.call(call(&scope, 3)).await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_limit_of_its_own_and_no_record_names_it() {
    let scope = scope();
    let limit: KeyedRateLimit<&str> = KeyedRateLimit::new(&scope, bucket(1)).unwrap();
    let mut service = limit
        .layer(|request: &u32| if request % 10 == 2 { "ada" } else { "bob" })
        .layer(Worker::new(Duration::ZERO));
    for request in [12, 13] {
        assert_eq!(service.call(call(&scope, request)).await, Ok(request));
    }
    let refused = refusal(&scope, service.call(call(&scope, 22)).await);
    assert_eq!(refused.why, Why::RateExceeded);
    let decision = scope.recorder().find(refused.decision).unwrap();
    assert_eq!(decision.inputs[4], scope.recorder().redacted(&"ada"));
    assert!(!format!("{limit:?}").contains("ada"), "{limit:?}");
}

#[tokio::test]
async fn a_kind_that_a_limit_does_not_have_is_refused_and_not_ignored() {
    let scope = scope();
    let queue = rate_limit::Spec::leaky_queue(10, SECOND, 5).check().unwrap();
    assert_eq!(RateLimit::new(&scope, queue).unwrap_err().field(), "kind");
    assert_eq!(KeyedRateLimit::<u32>::new(&scope, queue).unwrap_err().field(), "kind");
    assert_eq!(Pacer::new(&scope, bucket(1)).unwrap_err().field(), "kind");
    let limit = RateLimit::new(&scope, bucket(1)).unwrap();
    assert!(limit.reconfigure(queue).is_err() && limit.left(scope.now()) == 1);
}

// ---- pacing --------------------------------------------------------------------------------------------

fn pacer(scope: &Arc<Scope>, queue: u32) -> Pacer {
    Pacer::new(scope, rate_limit::Spec::leaky_queue(10, SECOND, queue).check().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn calls_leave_one_interval_apart_in_the_order_they_came() {
    let scope = scope();
    let worker = Worker::new(Duration::ZERO);
    let mut service = pacer(&scope, 10).layer().layer(worker.clone());
    let began = scope.now();
    let calls: Vec<_> = (0..5).map(|n| tokio::spawn(service.call(call(&scope, n)))).collect();
    let mut times = Vec::new();
    for call in calls {
        call.await.unwrap().unwrap();
        times.push(scope.now().saturating_since(began).as_millis() / 10);
    }
    assert_eq!(times, [0, 10, 20, 30, 40]);
    assert_eq!(worker.done(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiters_slot_goes_to_the_next_and_a_full_queue_or_a_late_turn_is_refused_at_once() {
    let scope = scope();
    let pacer = pacer(&scope, 2);
    let mut service = pacer.layer().layer(Worker::new(Duration::ZERO));
    let began = scope.now();
    assert_eq!(service.call(call(&scope, 0)).await, Ok(0));
    let cancelled = service.call(call(&scope, 1));
    // one behind it, whose turn is 200 ms away
    let late = refusal(&scope, service.call(with_deadline(call(&scope, 9), ms(200))).await);
    assert_eq!(late.why, Why::TurnTooLate);
    let waits = tokio::spawn(service.call(call(&scope, 2)));
    let full = refusal(&scope, service.call(call(&scope, 3)).await);
    assert_eq!((full.why, full.retry_after), (Why::QueueFull { capacity: 2 }, Some(ms(100))));
    assert_eq!(scope.now(), began, "refused without waiting");
    // the one behind sleeps until its own turn, when the one before it leaves
    tokio::task::yield_now().await;
    drop(cancelled);
    assert_eq!(waits.await.unwrap(), Ok(2));
    let waited = scope.now().saturating_since(began);
    assert!(waited >= ms(100) && waited < ms(110), "{waited:?}");
    assert_eq!(pacer.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_polled_holds_nobody_up() {
    let scope = scope();
    let mut service = pacer(&scope, 10).layer().layer(Worker::new(Duration::ZERO));
    assert_eq!(service.call(call(&scope, 0)).await, Ok(0));
    // given a first in line whose task does something else
    let mut forgotten = pin!(service.call(call(&scope, 1)));
    assert!(poll_once(forgotten.as_mut()).is_pending());
    let began = scope.now();
    assert_eq!(service.call(call(&scope, 2)).await, Ok(2));
    let waited = scope.now().saturating_since(began);
    // then it costs one slot at most
    assert!(waited >= ms(200) && waited <= ms(300), "{waited:?}");
    assert_eq!(forgotten.await, Ok(1));
}

// ---- load shedding -------------------------------------------------------------------------------------

fn shed(scope: &Arc<Scope>, spec: load_shed::Spec) -> LoadShed {
    LoadShed::new(scope, spec.check().unwrap())
}

#[tokio::test(start_paused = true)]
async fn no_more_are_inside_than_the_limit_and_the_highest_priority_enters_first() {
    let scope = scope();
    let worker = Worker::new(ms(40));
    let shed = shed(&scope, load_shed::Spec::fixed(1).queue(10));
    let mut service = shed.layer(EveryErrorIsTransient).layer(worker.clone());
    let order =
        [(0, Priority::Normal), (1, Priority::Background), (2, Priority::Normal), (3, Priority::Critical)];
    let calls: Vec<_> = order
        .into_iter()
        .map(|(n, priority)| tokio::spawn(service.call(with_priority(call(&scope, n), priority))))
        .collect();
    sleep(ms(10)).await;
    assert_eq!((worker.inside.load(Ordering::Relaxed), shed.in_flight(), shed.waiting()), (1, 1, 3));
    // Two are served within the 100 ms that one may wait; the lowest is given up.
    for (n, call) in calls.into_iter().enumerate() {
        match call.await.unwrap() {
            Ok(_) => assert_ne!(n, 1),
            Err(Failed::Refused(refused)) => {
                assert_eq!(n, 1);
                assert!(
                    matches!(refused.why, Why::WaitedTooLong { .. } | Why::QueueDelayTooLong),
                    "{refused}"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(worker.done(), [0, 3, 2]);
    assert_eq!((shed.in_flight(), shed.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cancelled_gives_back_what_it_had_at_every_point() {
    let scope = scope();
    let worker = Worker::new(ms(20));
    let shed = shed(&scope, load_shed::Spec::fixed(1).queue(10));
    let mut service = shed.layer(EveryErrorIsTransient).layer(worker.clone());
    // while under way
    let under_way = service.call(call(&scope, 0));
    assert_eq!(shed.in_flight(), 1);
    // while waiting
    let waits = service.call(call(&scope, 1));
    assert_eq!(shed.waiting(), 1);
    drop(waits);
    assert_eq!((shed.in_flight(), shed.waiting()), (1, 0));
    // after its turn has come and before it was polled
    let named = service.call(call(&scope, 2));
    drop(under_way);
    assert_eq!((shed.in_flight(), shed.waiting()), (1, 0), "it was named");
    drop(named);
    assert_eq!((shed.in_flight(), shed.waiting()), (0, 0));
    // and nothing of it was done
    assert_eq!(service.call(call(&scope, 3)).await, Ok(3));
    assert_eq!(worker.done(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_the_lowest_with_its_reason() {
    let scope = scope();
    let shed = shed(&scope, load_shed::Spec::fixed(1).queue(1));
    let mut service = shed.layer(EveryErrorIsTransient).layer(Worker::new(ms(20)));
    let first = tokio::spawn(service.call(call(&scope, 0)));
    let low = tokio::spawn(service.call(with_priority(call(&scope, 1), Priority::Low)));
    let critical = tokio::spawn(service.call(with_priority(call(&scope, 2), Priority::Critical)));
    let equal = refusal(&scope, service.call(with_priority(call(&scope, 3), Priority::Critical)).await);
    assert_eq!(equal.why, Why::PriorityShed { priority: Priority::Critical });
    let low = refusal(&scope, low.await.unwrap());
    assert_eq!((low.rule, low.why), (Rule::LoadShed, Why::PriorityShed { priority: Priority::Low }));
    assert!(low.to_string().contains("low is given up"), "{low}");
    assert_eq!((first.await.unwrap(), critical.await.unwrap()), (Ok(0), Ok(2)));
}

#[tokio::test(start_paused = true)]
async fn one_whose_deadline_comes_while_it_waits_is_told_then_though_nothing_else_happens() {
    let scope = scope();
    let shed = shed(&scope, load_shed::Spec::fixed(1).queue(10));
    let mut service = shed.layer(EveryErrorIsTransient).layer(Worker::new(SECOND));
    let _under_way = tokio::spawn(service.call(call(&scope, 0)));
    let began = scope.now();
    for (wait, at_least) in [(ms(3), ms(3)), (ms(30), ms(30))] {
        let refused = refusal(&scope, service.call(with_deadline(call(&scope, 1), wait)).await);
        assert_eq!(refused.why, Why::DeadlineReached);
        assert!(scope.now().saturating_since(began) >= at_least);
    }
    // and without a deadline, after the interval
    let began = scope.now();
    let refused = refusal(&scope, service.call(call(&scope, 2)).await);
    assert_eq!(refused.why, Why::WaitedTooLong { limit: ms(100) });
    let waited = scope.now().saturating_since(began);
    assert!(waited >= ms(100) && waited < ms(110), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guard_counts_until_it_is_finished_or_dropped() {
    let scope = scope();
    let shed = shed(&scope, load_shed::Spec::fixed(1).queue(1));
    let guard = shed.enter(Priority::Normal, None).await.unwrap();
    let refused = shed.enter_now(Priority::Critical, None).unwrap_err();
    assert_eq!(refused.why, Why::ConcurrencyExceeded { limit: 1 });
    let mut waits = pin!(shed.enter(Priority::Normal, None));
    assert!(poll_once(waits.as_mut()).is_pending());
    guard.finish(Sample::Answered);
    let second = waits.await.unwrap();
    assert_eq!(shed.in_flight(), 1);
    drop(second);
    assert_eq!(shed.in_flight(), 0);
    // what is raised lets go at once who waits
    let _held = shed.enter(Priority::Normal, None).await.unwrap();
    let mut waits = pin!(shed.enter(Priority::Normal, None));
    assert!(poll_once(waits.as_mut()).is_pending());
    shed.reconfigure(load_shed::Spec::fixed(2).check().unwrap());
    assert!(poll_once(waits.as_mut()).is_ready());
}
