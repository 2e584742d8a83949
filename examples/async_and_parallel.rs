//! What waits is asynchronous, what computes is parallel: and what happens when the two are mixed up.
//!
//! Run it: `cargo run --example async_and_parallel`. The chapter: docs/guide/async-and-parallel.md.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mainstay::Context;
use mainstay::runtime::cpu::{self, Cancellation, Failed};
use mainstay::runtime::watchdog::{self, Report, Watchdog};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Calls that are under way at the same time.
const CALLS: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    many_waits_at_once().await?;
    computing_beside_serving().await?;
    a_task_that_blocks()
}

/// I/O-bound: one thread, a hundred calls to a server that answers none of them before it has all.
async fn many_waits_at_once() -> Result<(), Box<dyn Error>> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let address = server.local_addr()?;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(async move {
            let mut call = TcpStream::connect(address).await?;
            call.read_u8().await
        });
    }
    // All of them wait, at the same time, or nobody is ever answered.
    let everybody = Arc::new(Barrier::new(CALLS));
    let mut answers = JoinSet::new();
    for _ in 0..CALLS {
        let (mut connection, _) = server.accept().await?;
        let everybody = Arc::clone(&everybody);
        answers.spawn(async move {
            everybody.wait().await;
            connection.write_u8(1).await
        });
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        answered += u32::from(call??);
    }
    while let Some(answer) = answers.join_next().await {
        answer??;
    }
    println!("async: {answered} calls waited at the same time, on one thread");
    Ok(())
}

/// Something that keeps a core busy, and asks now and then whether anybody still waits for it.
fn primes(range: std::ops::Range<u32>, cancellation: &Cancellation) -> Result<u32, cpu::Cancelled> {
    let mut found = 0;
    for number in range {
        if number % 1_024 == 0 {
            cancellation.check()?;
        }
        let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
        found += u32::from(number > 1 && divisors.into_iter().all(|divisor| number % divisor != 0));
    }
    Ok(found)
}

/// CPU-bound: as many pieces at a time as there are threads; the thread that serves computes nothing.
async fn computing_beside_serving() -> Result<(), Box<dyn Error>> {
    let cx = Context::system();
    let pool = cpu::Pool::start(&cx, cpu::Spec::threads(2).queue(16).check()?)?;
    let mut pieces = JoinSet::new();
    for piece in 0..8 {
        let (pool, cx) = (pool.clone(), cx.clone());
        let range = piece * 12_500..(piece + 1) * 12_500;
        pieces.spawn(async move {
            let thread = || std::thread::current().name().map(str::to_owned);
            pool.run(&cx, "count primes", move |stop| (primes(range, stop), thread())).await
        });
    }
    let (mut found, mut threads) = (0, BTreeSet::new());
    while let Some(piece) = pieces.join_next().await {
        let (primes, thread) = piece??;
        found += primes?;
        threads.extend(thread);
    }
    println!("parallel: {found} primes below 100000, by {threads:?}");
    assert_eq!(found, 9_592);

    // The pool knows by now how long a piece takes. Who can't wait so long is told before anything is computed.
    let expected = pool.stats().jobs[0].expected;
    let in_a_hurry = cx.with_deadline(expected / 100);
    match pool.run(&in_a_hurry, "count primes", |stop| primes(0..12_500, stop)).await {
        Err(refused @ (Failed::TooLate { .. } | Failed::DeadlineReached { .. })) => {
            println!("parallel: {refused}")
        }
        other => return Err(format!("it should have been refused: {other:?}").into()),
    }

    // Work that was begun is told when its caller leaves; this search would go on for a very long time.
    let (begin, begun) = mpsc::channel();
    let search = tokio::spawn({
        let (pool, cx) = (pool.clone(), cx.clone());
        async move {
            let search = move |stop: &Cancellation| {
                let _ = begin.send(());
                primes(0..u32::MAX, stop)
            };
            pool.run(&cx, "search", search).await
        }
    });
    while begun.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    search.abort();
    while pool.stats().stopped == 0 {
        tokio::task::yield_now().await;
    }
    println!("parallel: a search whose caller left has stopped");
    Ok(())
}

/// The mistake: a task that blocks its thread. The watchdog names it while it does.
fn a_task_that_blocks() -> Result<(), Box<dyn Error>> {
    let (tell, told) = mpsc::channel();
    let settings = watchdog::Spec { limit: Duration::from_millis(50), ..watchdog::Spec::default() };
    let watchdog = Watchdog::start(&Context::system(), settings.check()?, move |report| {
        let _ = tell.send(report);
    })?;
    let (mend, mended) = mpsc::channel::<()>();
    let serving = std::thread::Builder::new().name("serving".to_owned()).spawn({
        let watchdog = watchdog.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            // A call of an old library in the middle of a task; it comes back when this was told of.
            runtime.block_on(watchdog.watch("month-end report", async move { mended.recv().is_err() }));
            std::io::Result::Ok(())
        }
    })?;
    let blocks = told.recv()?;
    println!("watchdog: {blocks}");
    assert!(matches!(&blocks, Report::Blocks { task, .. } if &**task == "month-end report"));
    drop(mend);
    println!("watchdog: {}", told.recv()?);
    serving.join().map_err(|_| "the serving thread panicked")??;
    Ok(())
}
