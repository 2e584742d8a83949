//! The rate limit in its three forms: a token bucket, its mirror the leaky meter, and a leaky queue.
//!
//! Run it: `cargo run --example rate_limit`. The chapter: docs/guide/rate-limiting.md.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use mainstay::envelope::Monotonic;
use mainstay::resilience::Scope;
use mainstay::resilience::rate_limit::{Denied, KeyedRateLimit, LeakyMeter, Pacer, Spec, TokenBucket};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    // Ten a second, three at once. Time is an argument, so this ends at once.
    let bucket = TokenBucket::new(&Spec::token_bucket(10, SECOND).burst(3).check()?);
    let start = Monotonic::from_origin(SECOND);
    for _ in 0..3 {
        bucket.take(start, 1)?;
    }
    let Err(Denied::NotYet { retry_after }) = bucket.take(start, 1) else { return Err("a fourth?".into()) };
    println!("three at once, and the fourth in {retry_after:?}");
    assert_eq!(retry_after, Duration::from_millis(100));
    assert_eq!(bucket.take(start + retry_after, 1), Ok(()));

    // The same told the other way round: what comes pours in, the rate leaks out, 3 is the brim.
    let mut meter = LeakyMeter::new(Spec::leaky_meter(10, SECOND).burst(3).check()?);
    for _ in 0..3 {
        meter.pour(start, 1)?;
    }
    assert_eq!(meter.pour(start, 1), Err(Denied::NotYet { retry_after }));
    println!("a meter is at {} of 3 and says the same", meter.level(start));

    // New settings keep what is there: nobody gets a full bucket because an operator turned a knob.
    bucket.reconfigure(&Spec::token_bucket(100, SECOND).burst(50).check()?, start + retry_after);
    assert_eq!(bucket.left(start + retry_after), 0);

    // By customer: each has their own, and a flood of made-up names pushes nobody out.
    let scope = Arc::new(Scope::system("search"));
    let by_customer = KeyedRateLimit::new(&scope, Spec::token_bucket(2, SECOND).keys_max(1_000).check()?)?;
    let now = scope.now();
    for _ in 0..2 {
        by_customer.take(now, &"ada", 1)?;
    }
    let refused = by_customer.take(now, &"ada", 1).err().ok_or("ada has used hers up")?;
    println!("{refused}");
    by_customer.take(now, &"bob", 1)?;

    // A queue instead: nothing bursts, and who comes waits for its turn.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let pacer = Pacer::new(&scope, Spec::leaky_queue(200, SECOND, 10).check()?)?;
        let began = scope.now();
        for n in 0..4 {
            pacer.turn(None).await?;
            println!("{n} leaves after {:.0?}", scope.now().saturating_since(began));
        }
        assert!(scope.now().saturating_since(began) >= Duration::from_millis(15));
        Ok(())
    })
}
