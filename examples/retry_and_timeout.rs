//! Retry and timeout: a try that hangs is cut, another one is made after a pause with jitter, and the budget and the
//! deadline end it all in time.
//!
//! Run it: `cargo run --example retry_and_timeout`. The chapter: docs/guide/retry-and-timeout.md.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mainstay::envelope::{Deadline, Monotonic};
use mainstay::resilience::{ByError, Classified, Facts, Failed, Outcome, Policy, Retry, Safety, Why};
use mainstay::retry::{Decision, State, Unbudgeted};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Debug)]
struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody there")
    }
}

impl Error for Unreachable {}

impl Classified for Unreachable {
    fn outcome(&self) -> Outcome {
        Outcome::TRANSIENT
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The rule by itself: no clock, no timer, no network. With jitter off, 1, 2, 4, 8 seconds.
    let spec = Retry::exact(Duration::from_secs(1), Duration::from_secs(8)).check()?;
    let mut state = State::new(spec, Monotonic::ORIGIN, None, Unbudgeted);
    let mut waits = Vec::new();
    while let Decision::RetryAfter(wait) = state.after(Monotonic::ORIGIN, Outcome::TRANSIENT, Safety::Safe, 0)
    {
        waits.push(wait.as_secs());
    }
    println!("without jitter: {waits:?} s");
    assert_eq!(waits, [1, 2, 4, 8]);

    // Worn around a call: 50 ms for a try, 1 s for all of them, pauses anywhere up to 10, 20, 40 ms.
    let policy = Policy::outbound("catalogue")
        .total(Duration::from_secs(1))
        .attempt(ms(50))
        .retry(Retry::full_jitter(ms(10), ms(100)))
        .build()?;
    let facts = |now: Monotonic| Facts::unknown(now).with_safety(Safety::Safe);
    let make = |facts: Facts| async move {
        match facts.attempt {
            0 => std::future::pending().await,
            1 => Err(Unreachable),
            n => Ok(n),
        }
    };
    let answered = policy.call(facts, ByError, make).await?;
    println!("the first try hung, the second failed, number {answered} answered");
    assert_eq!(answered, 2);

    // What may take effect twice is not tried twice.
    let tries = AtomicU32::new(0);
    let charge = |_: Facts| async {
        tries.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>(Unreachable)
    };
    let without_a_key = policy.call(Facts::unknown, ByError, charge).await;
    println!("a charge without a key: {} try, {without_a_key:?}", tries.load(Ordering::Relaxed));
    assert_eq!(tries.load(Ordering::Relaxed), 1);

    // A deadline that comes with the call is kept, however patient the policy is.
    let began = Instant::now();
    let hurried = |now: Monotonic| facts(now).lower_deadline(Deadline::after(now, ms(20)));
    let late = policy.call(hurried, ByError, |_| std::future::pending::<Result<(), Unreachable>>()).await;
    let Err(Failed::Refused(refusal)) = late else { return Err("it hung, and yet it answered".into()) };
    println!("after {:?}: {refusal}", began.elapsed());
    assert_eq!(refusal.why, Why::DeadlineRanOut);

    // The callee is down for everybody: retries stay a share of the calls, and don't multiply them.
    let impatient =
        Policy::outbound("catalogue").retry(Retry::exact(Duration::from_nanos(1), ms(1))).build()?;
    tries.store(0, Ordering::Relaxed);
    for _ in 0..1_000 {
        let _ = impatient.call(facts, ByError, charge).await;
    }
    println!("1000 calls to a callee that is down: {} tries", tries.load(Ordering::Relaxed));
    assert!(tries.load(Ordering::Relaxed) <= 1_200);
    Ok(())
}
