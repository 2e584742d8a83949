//! A breaker's window of the last hundred calls, beside a peer's: how many failures in a row open it after ten thousand
//! successes. No measurement: what is compared is what they do, on one thread, with no clock that matters.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainstay::resilience::circuit_breaker::{CircuitBreaker, Phase, Spec};
use mainstay::resilience::{Outcome, Scope};
use tower_layer::Layer;
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, CircuitState};
use tower_service::Service;

const WINDOW: u32 = 100;
const SUCCESSES: u32 = 10_000;
/// Who has not opened by then never mind: it is a multiple of what half of its window can hold.
const PATIENCE: u32 = 2 * SUCCESSES;

/// Failures in a row until `fail`, which makes one and says whether the breaker is open by it, has opened it.
fn failures_to_open(mut fail: impl FnMut() -> bool) -> Option<u32> {
    (1..=PATIENCE).find(|_| fail())
}

#[test]
fn ours_opens_when_half_of_its_window_has_failed() {
    let spec = Spec::failure_rate(0.5).over(WINDOW).minimum_calls(20).open_for(Duration::from_secs(60));
    let breaker = CircuitBreaker::new(spec.check().unwrap(), Arc::new(Scope::system("callee")));
    let now = mainstay::envelope::Monotonic::ORIGIN;
    let ask = |outcome| {
        breaker.record(breaker.check(now).unwrap(), now, outcome);
        breaker.snapshot(now).phase != Phase::Closed
    };
    assert!((0..SUCCESSES).all(|_| !ask(Outcome::Success)));
    assert_eq!(failures_to_open(|| ask(Outcome::TRANSIENT)), Some(WINDOW / 2));
}

/// Its count-based window counts every call since it closed: ten thousand successes have to be outweighed by ten
/// thousand failures. If this fails, the peer has mended it, and what the documents say of it is to be taken back.
#[test]
fn tower_resilience_needs_as_many_failures_as_there_were_successes() {
    #[derive(Clone)]
    struct Callee;
    impl Service<bool> for Callee {
        type Response = ();
        type Error = &'static str;
        type Future = Ready<Result<(), &'static str>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, well: bool) -> Self::Future {
            ready(if well { Ok(()) } else { Err("failed") })
        }
    }
    let layer = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(WINDOW as usize)
        .minimum_number_of_calls(20)
        .wait_duration_in_open(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut service = layer.layer(Callee);
    let mut ask = |well| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let done = pin!(service.call(well)).poll(&mut cx).is_ready();
        assert!(done, "a call that is ready at once");
        service.state_sync() == CircuitState::Open
    };
    assert!((0..SUCCESSES).all(|_| !ask(true)));
    let needed = failures_to_open(|| ask(false));
    assert!(needed.is_none_or(|needed| needed > 100 * WINDOW - WINDOW), "{needed:?}: mended?");
}
