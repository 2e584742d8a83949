//! Bulkheads: the reporting service hangs, in asynchronous calls and in blocking ones; the catalogue does not notice.
//!
//! Run it: `cargo run --example bulkhead`. The chapter: docs/guide/bulkhead.md.

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, mpsc};

use mainstay::resilience::bulkhead::{BlockingPool, BlockingSpec};
use mainstay::resilience::{EveryErrorIsTransient, Facts, Failed, Policy, Scope};
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two at a time at each callee; of those that come then, one may wait for its turn.
    let reports = Policy::outbound("reports").bulkhead(2, 1).build()?;
    let catalogue = Policy::outbound("catalogue").bulkhead(2, 1).build()?;

    // The reporting service hangs until it is mended.
    let mended = Arc::new(Notify::new());
    let mut hung = Vec::new();
    for _ in 0..3 {
        let (reports, mended) = (reports.clone(), Arc::clone(&mended));
        hung.push(tokio::spawn(async move {
            let make = |_: Facts| {
                let mended = Arc::clone(&mended);
                async move {
                    mended.notified().await;
                    Ok::<_, Infallible>("report")
                }
            };
            reports.call(Facts::unknown, EveryErrorIsTransient, make).await
        }));
    }
    while reports.bulkhead().snapshot().load.waiting == 0 {
        tokio::task::yield_now().await;
    }

    // Whoever asks it now is told so at once, instead of hanging as well.
    let answer = |_: Facts| async { Ok::<_, Infallible>("page") };
    match reports.call(Facts::unknown, EveryErrorIsTransient, answer).await {
        Err(Failed::Refused(refusal)) => println!("reports: {refusal}"),
        other => return Err(format!("it should have been refused: {other:?}").into()),
    }
    for _ in 0..1_000 {
        catalogue.call(Facts::unknown, EveryErrorIsTransient, answer).await?;
    }
    println!("catalogue: 1000 calls answered meanwhile");

    // Calls that block a thread have threads of their callee's own.
    let pool = |name: &str| -> Result<_, Box<dyn Error>> {
        Ok(BlockingPool::new(BlockingSpec::threads(1).check()?, Arc::new(Scope::system(name))))
    };
    let (driver, files) = (pool("old-driver")?, pool("files")?);
    let (mend, broken) = mpsc::channel::<()>();
    let stuck = tokio::spawn({
        let driver = driver.clone();
        // In a library that knows no timeout.
        async move { driver.run(None, move || broken.recv().is_err()).await }
    });
    while driver.load().busy == 0 {
        tokio::task::yield_now().await;
    }
    println!("old-driver: {}", driver.run(None, || ()).await.err().ok_or("it should have been refused")?);
    println!("files: {} bytes read meanwhile", files.run(None, || "contents".len()).await?);

    // Everything that hung was only waiting.
    drop(mend);
    assert!(stuck.await??);
    mended.notify_waiters();
    for call in hung {
        mended.notify_one();
        println!("reports, late: {}", call.await??);
    }
    assert_eq!(reports.bulkhead().snapshot().load.in_use, 0);
    Ok(())
}
