//! Threads of one callee's own: what a hung call holds, and what it does not. Real threads, held up by channels.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::{Clock, Context, Deadline, SystemClock};
use mainstay_resilience::bulkhead::{BlockingLoad, BlockingPool, BlockingSpec};
use mainstay_resilience::{NotDone, Refusal, Scope, Why};

fn pool(threads: u32, queue: u32) -> BlockingPool {
    let settings = BlockingSpec::threads(threads).queue(queue).check().unwrap();
    BlockingPool::new(settings, Arc::new(Scope::system("driver")))
}

/// Work that says when it is begun and goes on when it is told to.
struct Gate {
    begun: Receiver<()>,
    open: Sender<()>,
    work: Option<Box<dyn FnOnce() + Send>>,
}

impl Gate {
    fn new() -> Self {
        let ((begin, begun), (open, opened)) = (channel(), channel());
        let work: Box<dyn FnOnce() + Send> = Box::new(move || {
            begin.send(()).unwrap();
            // A gate that is dropped is open.
            let _ = opened.recv();
        });
        Gate { begun, open, work: Some(work) }
    }
}

/// Runs it until it is begun, and leaves it running.
async fn hang(pool: &BlockingPool) -> (Gate, tokio::task::JoinHandle<Result<(), Refusal>>) {
    let mut gate = Gate::new();
    let (own, work) = (pool.clone(), gate.work.take().unwrap());
    let running = tokio::spawn(async move { own.run(None, work).await });
    let gate = tokio::task::spawn_blocking(move || {
        gate.begun.recv().unwrap();
        gate
    });
    (gate.await.unwrap(), running)
}

fn load(pool: &BlockingPool) -> (u32, u32) {
    let BlockingLoad { busy, waiting, .. } = pool.load();
    (busy, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_call_holds_its_own_thread_and_nobody_elses() {
    let (sick, well) = (pool(2, 0), pool(2, 0));
    let (first, _running) = hang(&sick).await;
    let (second, _also) = hang(&sick).await;
    let refused = sick.run(None, || ()).await.unwrap_err();
    assert_eq!((refused.why, refused.not_done), (Why::BulkheadFull { permits: 2 }, NotDone::Call));
    for n in 0..100 {
        assert_eq!(well.run(None, move || n).await, Ok(n));
    }
    assert_eq!(load(&sick), (2, 0));
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded_and_first_come_first_served() {
    let pool = pool(1, 3);
    let (gate, running) = hang(&pool).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut queued = Vec::new();
    for n in 0..3_u32 {
        let (own, order) = (pool.clone(), Arc::clone(&order));
        queued.push(tokio::spawn(async move { own.run(None, move || order.lock().unwrap().push(n)).await }));
        while load(&pool).1 <= n {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(pool.run(None, || ()).await.unwrap_err().why, Why::QueueFull { capacity: 3 });
    gate.open.send(()).unwrap();
    running.await.unwrap().unwrap();
    for task in queued {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_any_more_is_never_begun_and_frees_its_place() {
    let pool = pool(1, 1);
    let (gate, running) = hang(&pool).await;
    let (tell, told) = channel();
    // given one that waits, when its deadline comes, then it was not begun and says so
    let soon = Some(Deadline::after(SystemClock.now(), Duration::from_millis(20)));
    let own = tell.clone();
    let refused = pool.run(soon, move || own.send("begun").unwrap()).await.unwrap_err();
    assert_eq!((refused.why, refused.not_done), (Why::DeadlineReached, NotDone::Call));
    assert_eq!(load(&pool), (1, 0));
    // when its future is dropped, then likewise
    let dropped = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(None, move || tell.send("begun").unwrap()).await }
    });
    while load(&pool).1 == 0 {
        tokio::task::yield_now().await;
    }
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    assert_eq!(load(&pool), (1, 0));
    gate.open.send(()).unwrap();
    running.await.unwrap().unwrap();
    // Both senders are gone, and neither said anything.
    assert!(told.recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_is_not_waited_for_past_the_deadline() {
    let pool = pool(1, 0);
    let mut gate = Gate::new();
    let deadline = Some(Deadline::after(Context::system().now(), Duration::from_millis(200)));
    let refused = pool.run(deadline, gate.work.take().unwrap()).await.unwrap_err();
    assert_eq!((refused.why, refused.not_done), (Why::DeadlineRanOut, NotDone::Answer));
    assert_eq!(load(&pool), (1, 0), "its thread is still held");
    let over = Some(Deadline::at(SystemClock.now()));
    assert_eq!(pool.run(over, || ()).await.unwrap_err().why, Why::DeadlineReached);
    drop(gate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_the_works_own_and_its_thread_goes_on() {
    let pool = pool(1, 4);
    for _ in 0..3 {
        let result: Result<(), _> = pool.run(None, || std::panic::resume_unwind(Box::new("no"))).await;
        assert_eq!(result.unwrap_err().why, Why::WorkPanicked);
    }
    assert_eq!(pool.run(None, || 1).await, Ok(1));
    assert_eq!(pool.load().threads, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_come_as_needed_and_leave_with_the_last_handle() {
    thread_local! {
        static LEFT: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
    }
    let (leave, left) = channel();
    let pool = pool(8, 8);
    assert_eq!(pool.load().threads, 0);
    for _ in 0..20 {
        let leave = leave.clone();
        pool.run(None, move || LEFT.with(|own| *own.borrow_mut() = Some(leave))).await.unwrap();
    }
    assert!(pool.load().threads <= 2, "one after the other needs no more: {:?}", pool.load());
    let clone = pool.clone();
    drop(pool);
    assert_eq!(clone.run(None, || 2).await, Ok(2));
    drop((clone, leave));
    // Ends when the threads, whose own senders these are, are gone.
    assert!(left.recv().is_err());
}
