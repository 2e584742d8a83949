//! The rules as things that can be timed, and how times of nanoseconds are compared on a machine that does other work.
//!
//! A *pair* is some twenty short slices of each side, by turns, and each side's median slice: a slice in which something
//! else had the core is one that the median passes over, and what makes the machine slower makes both sides slower.

use std::convert::Infallible;
use std::future::Future;
use std::hint::{black_box, spin_loop};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::Result;
use mainstay::envelope::{Deadline, Monotonic, RetryTokens};
use mainstay::resilience::circuit_breaker::CircuitBreaker;
use mainstay::resilience::{
    Breaker, Cloned, EveryErrorIsTransient, Facts, Outcome, Policy, Retry, Safety, Scope,
};
use tower_layer::Layer;
use tower_service::Service;

use super::ratio::median;

/// How long a slice lasts, about. Far less than a scheduler lets a task run.
const SLICE: Duration = Duration::from_micros(200);
/// Slices of each side in a pair.
const SLICES: usize = 21;

/// Does something so many times, and says how long it took.
pub(crate) type Timed<'a> = Box<dyn FnMut(u32) -> Duration + 'a>;

/// `operation`, one after the other on this thread.
pub(crate) fn each<'a, T>(mut operation: impl FnMut() -> T + 'a) -> Timed<'a> {
    Box::new(move |times| {
        let begun = Instant::now();
        for _ in 0..times {
            black_box(operation());
        }
        begun.elapsed()
    })
}

/// `operation` on two threads at once, so many times on each; the time is that from the start of both to the end of the
/// later one. Where the machine lets them run one after the other only, the time is that of both.
pub(crate) fn on_two_threads<'a, T>(operation: impl Fn() -> T + Sync + 'a) -> Timed<'a> {
    Box::new(move |times| {
        let arrived = AtomicUsize::new(0);
        let work = || {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 {
                spin_loop();
            }
            let begun = Instant::now();
            for _ in 0..times {
                black_box(operation());
            }
            (begun, Instant::now())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(work);
            let (begun, ended) = work();
            match other.join() {
                Ok((others_begun, others_ended)) => ended.max(others_ended) - begun.min(others_begun),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    })
}

/// The measure of all: a reading of the machine's clock.
pub(crate) fn clock() -> Timed<'static> {
    each(Instant::now)
}

/// All that is judged in readings of the clock: calls `compare` for each, with its name and the most readings that it may
/// take. A runtime with time must have been entered.
pub(crate) fn against_the_clock(mut compare: impl FnMut(&'static str, f64, Timed<'_>)) -> Result<()> {
    let scope = Arc::new(Scope::system("callee"));
    let breaker = breaker(&scope)?;
    let mut given = given();
    let at = given();
    let (mut ready, mut pending) = (stack(0)?, stack(1)?);
    compare("breaker: check and record, `now` given", 1.8, each(|| check_and_record(&breaker, &mut given)));
    let real = each(|| check_and_record(&breaker, || scope.now()));
    compare("breaker: check and record, each reads the clock", 4.8, real);
    // Divided between them; by how much that is off is said at `Breaker::shards`.
    let shared = CircuitBreaker::new(settings().shards(2).check()?, Arc::clone(&scope));
    let two = on_two_threads(|| check_and_record(&shared, || at));
    compare("breaker in 2 shards: shared by two threads, `now` given", 2.5, two);
    compare("outbound stack around a ready call", 15.0, each(|| ask(&mut ready)));
    compare("outbound stack, pending once", 90.0, each(|| ask(&mut pending)));
    Ok(())
}

/// One side of a comparison.
pub(crate) struct Side<'a> {
    run: Timed<'a>,
    times: u32,
}

impl<'a> Side<'a> {
    /// Finds out how often it fits into a slice; that warms it up, too.
    pub(crate) fn new(mut run: Timed<'a>) -> Self {
        let mut times = 16;
        while run(times) < SLICE && times < 1 << 20 {
            times *= 2;
        }
        Side { run, times }
    }

    /// Nanoseconds of one operation, in one slice.
    fn slice(&mut self) -> f64 {
        (self.run)(self.times).as_nanos() as f64 / f64::from(self.times)
    }
}

/// Nanoseconds of both sides, pair by pair.
pub(crate) fn pairs(pairs: u32, one: &mut Side<'_>, other: &mut Side<'_>) -> Vec<(f64, f64)> {
    let pair = |_| {
        let (mut ones, mut others) = (Vec::with_capacity(SLICES), Vec::with_capacity(SLICES));
        for slice in 0..SLICES {
            // Who goes first alternates.
            if slice % 2 == 0 {
                ones.push(one.slice());
                others.push(other.slice());
            } else {
                others.push(other.slice());
                ones.push(one.slice());
            }
        }
        (median(&mut ones), median(&mut others))
    };
    (0..pairs).map(pair).collect()
}

/// A time that goes on by itself, a microsecond each reading: where the clock is not what is measured.
pub(crate) fn given() -> impl FnMut() -> Monotonic {
    let mut at = 0_u64;
    move || {
        at += 1_000;
        Monotonic::from_nanos(at)
    }
}

/// The breaker of all comparisons: a count window of 100, failures and slowness.
pub(crate) fn breaker(scope: &Arc<Scope>) -> Result<CircuitBreaker> {
    Ok(CircuitBreaker::new(settings().check()?, Arc::clone(scope)))
}

fn settings() -> Breaker {
    Breaker::failure_rate(0.5).over(100).slow(Duration::from_millis(200), 0.5)
}

/// Check and record of a call that went well; each asks `now` by itself.
pub(crate) fn check_and_record(breaker: &CircuitBreaker, mut now: impl FnMut() -> Monotonic) -> bool {
    match breaker.check(now()) {
        Ok(ticket) => {
            breaker.record(ticket, now(), Outcome::Success);
            true
        }
        Err(_) => false,
    }
}

/// A callee that answers with what it is asked, after so many polls.
#[derive(Debug, Clone)]
pub(crate) struct Echo(pub(crate) u32);

/// Its answer.
#[derive(Debug)]
pub(crate) struct Answer(u64, u32);

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

/// One call, polled until it is answered. Whoever is pending is polled again at once: nobody waits for a timer here.
pub(crate) fn ask<S: Service<u64, Response = u64>>(service: &mut S) -> Option<u64> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { return None };
    let mut answer = pin!(service.call(1));
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut cx) {
            return answer.ok();
        }
    }
}

/// A callee within the full outbound stack: total and try's timeout, retry with tokens, breaker, bulkhead. It is pending
/// `polls` times; then timers are armed, which needs a runtime with time.
pub(crate) fn stack(polls: u32) -> Result<impl Service<u64, Response = u64>> {
    let ms = Duration::from_millis;
    let policy = Policy::outbound("callee")
        .total(ms(2_000))
        .attempt(ms(300))
        .retry(Retry::full_jitter(ms(50), ms(1_000)))
        .breaker(settings())
        .bulkhead(32, 64)
        .build()?;
    let tokens = RetryTokens::new(2);
    let facts = move |_: &u64, now: Monotonic| Facts {
        tokens: Some(tokens.clone()),
        ..Facts::unknown(now)
            .with_safety(Safety::Safe)
            .lower_deadline(Deadline::after(now, Duration::from_secs(1)))
    };
    Ok(policy.layer(EveryErrorIsTransient).describe(Cloned(facts)).layer(Echo(polls)))
}
