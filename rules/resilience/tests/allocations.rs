//! Nothing is allocated on the way of a call: counted, not believed.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic, RetryTokens};
use mainstay_resilience::load_shed::LoadShed;
use mainstay_resilience::record::Recording;
use mainstay_resilience::{
    Adaptive, Breaker, Cloned, EveryErrorIsTransient, Facts, Failed, Identified, InsideLayer, Limit, Outside,
    Policy, Rate, Retry, Safety, Scope, Shed, Undescribed,
};
use tower_layer::Layer;
use tower_service::Service;

/// Answers with what it is asked, after so many polls.
#[derive(Clone)]
struct Echo(u32);

struct Answer(u64, u32);

impl Future for Answer {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.1.checked_sub(1) {
            None => Poll::Ready(Ok(self.0)),
            Some(left) => {
                self.1 = left;
                Poll::Pending
            }
        }
    }
}

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answer {
        Answer(request, self.0)
    }
}

/// Allocations of so many calls through a whole outbound stack.
fn allocations(calls: u64, polls: u32, recording: Recording) -> u64 {
    let ms = Duration::from_millis;
    let policy = Policy::outbound("callee")
        .total(ms(2_000))
        .attempt(ms(300))
        .retry(Retry::full_jitter(ms(50), ms(1_000)))
        .breaker(Breaker::failure_rate(0.5).over(100).slow(ms(200), 0.5))
        .bulkhead(32, 64)
        .rate_limit(Rate::token_bucket(1_000_000, ms(1_000)))
        .adaptive(Adaptive::default())
        .record(recording, 1_024)
        .build()
        .unwrap();
    let tokens = RetryTokens::new(2);
    let facts = move |_: &u64, now: Monotonic| Facts {
        tokens: Some(tokens.clone()),
        ..Facts::unknown(now)
            .with_safety(Safety::Safe)
            .lower_deadline(Deadline::after(now, Duration::from_secs(1)))
    };
    counted(policy.layer(EveryErrorIsTransient).describe(Cloned(facts)).layer(Echo(polls)), calls, polls)
}

/// The same inbound, with every rule that there is, for a caller that is known.
fn inbound_allocations(calls: u64, recording: Recording) -> u64 {
    let second = Duration::from_secs(1);
    let policy = Policy::inbound("route")
        .deadline(second)
        .coarse_shed(Limit::Fixed(100))
        .rate_limit(Rate::token_bucket(1_000_000, second))
        .load_shed(Shed::adaptive())
        .bulkhead(32, 64)
        .record(recording, 1_024)
        .build()
        .unwrap();
    let facts = Cloned(|_: &u64, now: Monotonic| Facts::unknown(now));
    let describe = Identified::new(facts, |_: &u64| Some("somebody"));
    counted(policy.layer(describe).layer(Echo(0)), calls, 0)
}

/// Allocations of so many calls to a service.
fn counted<S, E>(mut service: S, calls: u64, polls: u32) -> u64
where
    S: Service<u64, Response = u64, Error = E>,
    E: PartialEq + Debug,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |n| {
        assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
        let mut answer = pin!(service.call(n));
        for _ in 0..polls {
            assert_eq!(answer.as_mut().poll(&mut cx), Poll::Pending);
        }
        assert_eq!(answer.as_mut().poll(&mut cx), Poll::Ready(Ok(n)));
    };
    // What is made once: the clock's origin, the runtime's timer, the caller's bucket.
    (0..10).for_each(&mut call);
    allocation_counter::measure(|| (0..calls).for_each(&mut call)).count_total
}

/// Allocations of so many refusals of a limit that nobody may wait for.
fn refusals(calls: u64) -> u64 {
    let scope = std::sync::Arc::new(Scope::system("route"));
    let shed = LoadShed::new(&scope, Shed::fixed(1).queue(0).check().unwrap());
    let _held = shed.enter_now(Default::default(), None).unwrap();
    let inside = InsideLayer::new(Undescribed).layer(Echo(0));
    let mut service = Outside::new(shed.layer(EveryErrorIsTransient).layer(inside), scope, Undescribed);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        let answer = pin!(service.call(1)).poll(&mut cx);
        assert!(matches!(answer, Poll::Ready(Err(Failed::Refused(_)))));
    };
    call();
    allocation_counter::measure(|| (0..calls).for_each(|_| call())).count_total
}

#[test]
fn a_call_through_the_whole_stack_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // Timers are armed where a call is pending.
    let _entered = runtime.enter();
    for recording in [Recording::Off, Recording::Notable, Recording::All] {
        assert_eq!(allocations(1_000, 0, recording), 0, "ready at once, {recording:?}");
        assert_eq!(allocations(1_000, 1, recording), 0, "pending once, {recording:?}");
        assert_eq!(inbound_allocations(1_000, recording), 0, "inbound, {recording:?}");
    }
}

#[test]
fn a_refusal_of_what_nobody_may_wait_for_allocates_nothing() {
    assert_eq!(refusals(1_000), 0);
}
