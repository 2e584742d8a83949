//! The thundering herd: ten thousand ask for one value that is not there. One load; then its leader dies, and one other
//! takes over; then its source is down, and what is stale is served.
//!
//! Run it: `cargo run --example thundering_herd`. The chapter: docs/guide/thundering-herd.md.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::Context;
use mainstay::cache::{Cache, Freshness, Spec};
use mainstay::envelope::{Envelope, ManualClock, Priority, SystemChance};
use mainstay::resilience::Scope;
use mainstay::resilience::record::Recorder;
use tokio::sync::Semaphore;

const CALLERS: usize = 10_000;

/// A source that is slow until it is let go, and counts who comes.
#[derive(Clone)]
struct Source {
    asked: Arc<AtomicU64>,
    go: Arc<Semaphore>,
}

impl Source {
    async fn read(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        // Nobody closes it, so it is always given.
        if let Ok(permit) = self.go.acquire().await {
            permit.forget();
        }
        number
    }
}

type Values = Cache<String, u64, std::io::Error>;

/// Ten thousand questions at once; once all of them wait, `then` happens. How many got a value.
async fn stampede(
    cx: &Context,
    values: &Values,
    source: &Source,
    dies: u64,
    then: impl AsyncFnOnce(),
) -> Result<usize, Box<dyn Error>> {
    let ask = || {
        let (cx, values, source) = (cx.clone(), values.clone(), source.clone());
        tokio::spawn(async move {
            let load = move |_, _| async move {
                let number = source.read().await;
                if number == dies {
                    // A panic, without its message.
                    std::panic::resume_unwind(Box::new("the leader dies"));
                }
                Ok(number)
            };
            values.get_or_load(&cx, "popular", load).await.is_ok_and(|found| found.is_some())
        })
    };
    let questions: Vec<_> = (0..CALLERS).map(|_| ask()).collect();
    while values.stats().waiting < CALLERS as u64 {
        tokio::task::yield_now().await;
    }
    then().await;
    let mut got = 0;
    for question in questions {
        got += usize::from(question.await?);
    }
    Ok(got)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A clock that moves when told, so that nobody has to wait for a minute to pass.
    let (clock, chance) = (ManualClock::default(), Arc::new(SystemChance::new()));
    let envelope = Envelope::begin(Priority::Normal, &*chance);
    let cx = Context::new(envelope, Arc::new(clock.clone()), chance.clone());
    let scope = Scope::new("values", Arc::new(clock.clone()), chance, Recorder::off());

    let minute = Duration::from_secs(60);
    let settings = Spec::for_everybody(minute).stale_if_error(10 * minute);
    let values = Values::builder("values", settings).scope(Arc::new(scope)).build()?;
    let source = Source { asked: Arc::default(), go: Arc::new(Semaphore::new(0)) };

    let got = stampede(&cx, &values, &source, 0, async || source.go.add_permits(1)).await?;
    println!("{got} callers at once: {} load", source.asked.load(Ordering::SeqCst));
    assert_eq!((got, source.asked.load(Ordering::SeqCst)), (CALLERS, 1));

    // The second load dies under its ten thousand; one of them loads again, and none is lost.
    values.invalidate(&cx, "popular");
    let got = stampede(&cx, &values, &source, 2, async || source.go.add_permits(2)).await?;
    let stats = values.stats();
    println!("{got} callers and a leader that dies: {} hand-over", stats.handed_over);
    assert_eq!((got, stats.died, stats.handed_over), (CALLERS, 1, 1));

    // A minute later the source is down. What is kept is stale, and better than an error.
    clock.advance(minute);
    let down = |_, _| async { Err::<u64, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)) };
    let stale = values.get_or_load(&cx, "popular", down).await?;
    let freshness = stale.as_ref().map(|found| found.freshness());
    println!("the source is down: {:?}, {freshness:?}", stale.as_deref());
    assert_eq!(freshness, Some(Freshness::InPlaceOfAnError));
    Ok(())
}
