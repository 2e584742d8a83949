//! Load shedding: the highest priority first, the lowest refused, and an overload told from a burst.
//!
//! Run it: `cargo run --example load_shedding`. The chapter: docs/guide/load-shedding.md. Ten times the load, callees that
//! hang and storms of retries are simulated by `cargo xtask sim`, around the same code.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use mainstay::envelope::Priority;
use mainstay::resilience::load_shed::{LoadShed, Sample, Spec};
use mainstay::resilience::{Scope, Why};
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two at a time, two may wait.
    let scope = Arc::new(Scope::system("checkout"));
    let shed = LoadShed::new(&scope, Spec::fixed(2).queue(2).check()?);
    let serve = async |name: &'static str, priority| {
        let guard = shed.enter(priority, None).await?;
        sleep(Duration::from_millis(20)).await;
        // How long it took is measured; a guard that is only dropped was cancelled, and says nothing.
        guard.finish(Sample::Answered);
        Ok::<_, mainstay::resilience::Refusal>(name)
    };
    let (first, second, browsing, report, checkout) = tokio::join!(
        serve("first", Priority::Normal),
        serve("second", Priority::Normal),
        serve("browsing", Priority::Low),
        serve("report", Priority::Background),
        // Everything is taken, and this is more important than what waits.
        serve("checkout", Priority::Critical),
    );
    assert_eq!((first?, second?, checkout?, browsing?), ("first", "second", "checkout", "browsing"));
    let refused = report.err().ok_or("the lowest makes room")?;
    assert_eq!(refused.why, Why::PriorityShed { priority: Priority::Background });
    println!("{refused}");

    // A capacity that nobody knows is measured. A callee that works on ten at a time, 2 ms each:
    let callee = Arc::new(tokio::sync::Semaphore::new(10));
    let measured = LoadShed::new(&scope, Spec::adaptive().queue(1_000).check()?);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (measured, callee) = (measured.clone(), Arc::clone(&callee));
        tasks.spawn(async move {
            for _ in 0..20 {
                if let Ok(guard) = measured.enter(Priority::Normal, None).await {
                    let worker = callee.acquire().await;
                    sleep(Duration::from_millis(2)).await;
                    drop(worker);
                    guard.finish(Sample::Answered);
                }
            }
        });
    }
    while tasks.join_next().await.transpose()?.is_some() {}
    println!("200 asked of a callee for 10 at a time; the limit that was measured: {}", measured.limit());
    assert!(measured.limit() < 200 && measured.in_flight() == 0);
    Ok(())
}
