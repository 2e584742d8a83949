//! The circuit breaker: a callee fails, is left alone, and gets one probe to show that it is well again.
//!
//! Run it: `cargo run --example circuit_breaker`. The chapter: docs/guide/circuit-breaker.md.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::envelope::{ManualClock, Monotonic};
use mainstay::resilience::circuit_breaker::Phase;
use mainstay::resilience::{
    Breaker, ByError, Classified, Facts, Failed, Outcome, Policy, Replayed, Safety, Why, replay,
};

/// What the card processor fails with.
#[derive(Debug)]
struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the card processor is down")
    }
}

impl Error for Down {}

impl Classified for Down {
    fn outcome(&self) -> Outcome {
        // Its fault, not the request's: it counts against it.
        Outcome::TRANSIENT
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A clock that we turn by hand, so that this ends at once.
    let clock = ManualClock::default();
    let policy = Policy::outbound("card-processor")
        .clock(Arc::new(clock.clone()))
        .breaker(Breaker::failure_rate(0.5).over(10).minimum_calls(4).open_for(Duration::from_secs(5)))
        .build()?;

    let (is_down, asked) = (AtomicBool::new(true), AtomicU32::new(0));
    let charge = async || {
        let facts = |now: Monotonic| Facts::unknown(now).with_safety(Safety::Keyed);
        let make = |_: Facts| async {
            asked.fetch_add(1, Ordering::Relaxed);
            if is_down.load(Ordering::Relaxed) { Err(Down) } else { Ok("charged") }
        };
        policy.call(facts, ByError, make).await
    };

    // It is down. Four failures of four calls are enough; the six calls after them are not made.
    let mut refused = None;
    for _ in 0..10 {
        if let Err(Failed::Refused(refusal)) = charge().await {
            refused = Some(refusal);
        }
    }
    let refused = refused.ok_or("the breaker never opened")?;
    println!("asked {} times out of 10", asked.load(Ordering::Relaxed));
    println!("the others were told: {refused}");
    assert_eq!((asked.load(Ordering::Relaxed), refused.why), (4, Why::BreakerOpen));

    // Whoever reads that refusal in a log finds what it was made of, and can decide it again.
    let decision = policy.decision(refused.decision).ok_or("the decision is no longer kept")?;
    println!("made of: {decision}");
    assert_eq!(replay(&decision), Replayed::Same);

    // Five seconds later one call may try. It fails, so the breaker stays open, for twice as long.
    clock.advance(Duration::from_secs(5));
    assert!(matches!(charge().await, Err(Failed::Upstream(Down))));
    let again =
        charge().await.err().and_then(|failed| failed.refusal().and_then(|refusal| refusal.retry_after));
    println!("the probe failed; ask again in {again:?}");
    assert_eq!(again, Some(Duration::from_secs(10)));

    // The processor comes back, and the next probe closes the breaker.
    is_down.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_secs(10));
    println!("the next probe: {}", charge().await?);
    let phase = policy.breaker().snapshot(policy.scope().now()).phase;
    println!("and the breaker is {phase:?}");
    assert_eq!(phase, Phase::Closed);
    Ok(())
}
