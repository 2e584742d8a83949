//! The CPU pool on real threads, held up by channels and barriers: what is begun, what is not, and who is told what.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::task::{Context as Waiting, Poll, Waker};
use std::time::Duration;

use mainstay_envelope::{Clock, Context, Envelope, ManualClock, Priority, SystemChance, Timestamp};
use mainstay_runtime::cpu::{Cancellation, Failed, Pool, Spec};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn pool(cx: &Context, threads: u32, queue: u32) -> Pool {
    Pool::start(cx, Spec::threads(threads).queue(queue).check().unwrap()).unwrap()
}

fn manual() -> (ManualClock, Context) {
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let chance = SystemChance::new();
    let envelope = Envelope::begin(Priority::default(), &chance);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    (clock, Context::new(envelope, shared, Arc::new(chance)))
}

/// Work that says when it is begun and goes on when it is told to.
fn gate() -> (Receiver<()>, Sender<()>, impl FnOnce(&Cancellation) + Send) {
    let ((begin, begun), (open, opened)) = (channel(), channel::<()>());
    let work = move |_: &Cancellation| {
        begin.send(()).unwrap();
        // A gate that is dropped is open.
        let _ = opened.recv();
    };
    (begun, open, work)
}

/// Polls it once, so that it is handed in, and finds it waiting.
fn hand_in<F: Future>(mut future: std::pin::Pin<&mut F>) {
    let polled = future.as_mut().poll(&mut Waiting::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending), "it was answered at once");
}

#[tokio::test]
async fn as_much_runs_at_a_time_as_there_are_threads_and_no_more() {
    let cx = Context::system();
    let pool = pool(&cx, 2, 18);
    let (under_way, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    // Each meets another one in the middle: with one thread none would ever end.
    let meeting = Arc::new(Barrier::new(2));
    let mut tasks = Vec::new();
    for n in 0..20_u32 {
        let (pool, cx) = (pool.clone(), cx.clone());
        let (under_way, most, meeting) = (under_way.clone(), most.clone(), meeting.clone());
        let work = move |_: &Cancellation| {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            meeting.wait();
            under_way.fetch_sub(1, Ordering::SeqCst);
            n
        };
        tasks.push(tokio::spawn(async move { pool.run(&cx, "meet", work).await }));
    }
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(task.await.unwrap(), Ok(n));
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let stats = pool.stats();
    assert_eq!((stats.done, stats.jobs[0].name, stats.jobs[0].runs), (20, "meet", 20));
}

#[tokio::test]
async fn a_full_pool_refuses_at_once() {
    let cx = Context::system();
    let pool = pool(&cx, 1, 1);
    let (begun, open, work) = gate();
    let mut running = pin!(pool.run(&cx, "gate", work));
    hand_in(running.as_mut());
    begun.recv().unwrap();
    let mut waiting = pin!(pool.run(&cx, "hash", |_| 7));
    hand_in(waiting.as_mut());
    let refused = pool.run(&cx, "hash", |_| 8).await.unwrap_err();
    assert_eq!(refused, Failed::QueueFull { job: "hash", capacity: 1 });
    assert!(!refused.began());
    drop(open);
    running.await.unwrap();
    assert_eq!(waiting.await, Ok(7));
}

#[tokio::test]
async fn work_whose_caller_left_before_its_turn_is_never_begun() {
    let cx = Context::system();
    let pool = pool(&cx, 1, 1);
    let (begun, open, work) = gate();
    let mut running = pin!(pool.run(&cx, "gate", work));
    hand_in(running.as_mut());
    begun.recv().unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    {
        let ran = ran.clone();
        let mut left = pin!(pool.run(&cx, "hash", move |_| ran.store(true, Ordering::SeqCst)));
        hand_in(left.as_mut());
    }
    // Its place is free, and who has it comes after where it stood.
    let mut next = pin!(pool.run(&cx, "hash", |_| ()));
    hand_in(next.as_mut());
    drop(open);
    running.await.unwrap();
    next.await.unwrap();
    assert!(!ran.load(Ordering::SeqCst));
    assert_eq!(pool.stats().given_up, 1);
}

#[tokio::test]
async fn work_whose_caller_leaves_while_it_runs_is_told() {
    let cx = Context::system();
    let pool = pool(&cx, 1, 1);
    let (begin, begun) = channel();
    {
        let work = move |cancellation: &Cancellation| {
            begin.send(()).unwrap();
            while cancellation.check().is_ok() {
                std::thread::yield_now();
            }
        };
        let mut left = pin!(pool.run(&cx, "search", work));
        hand_in(left.as_mut());
        begun.recv().unwrap();
    }
    assert_eq!(pool.run(&cx, "hash", |_| 7).await, Ok(7), "the thread is free again");
    let stats = pool.stats();
    assert_eq!((stats.stopped, stats.done), (1, 1));
}

/// The runtime's time goes on by itself when nothing is left to do but wait.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_of_what_waits_and_of_what_runs() {
    let cx = Context::system();
    let pool = pool(&cx, 1, 1);
    let (told, was_told) = channel();
    let (begun, open, work) = gate();
    let work = move |cancellation: &Cancellation| {
        work(cancellation);
        told.send(cancellation.is_cancelled()).unwrap();
    };
    let limited = cx.with_deadline(HOUR);
    let mut running = pin!(pool.run(&limited, "gate", work));
    hand_in(running.as_mut());
    begun.recv().unwrap();
    let waiting = pool.run(&limited, "hash", |_| panic!("it is never begun"));
    assert_eq!(waiting.await, Err(Failed::DeadlineReached { job: "hash" }));
    let ran_out = running.await.unwrap_err();
    assert_eq!((ran_out.began(), ran_out), (true, Failed::DeadlineRanOut { job: "gate" }));
    drop(open);
    assert!(was_told.recv().unwrap(), "so that it may stop");
    assert_eq!(pool.run(&cx, "hash", |_| 7).await, Ok(7));
}

#[tokio::test]
async fn what_is_late_when_its_turn_comes_is_not_begun() {
    let (clock, cx) = manual();
    let pool = pool(&cx, 1, 1);
    let (begun, open, work) = gate();
    let mut running = pin!(pool.run(&cx, "gate", work));
    hand_in(running.as_mut());
    begun.recv().unwrap();
    let limited = cx.with_deadline(HOUR);
    let mut waiting = pin!(pool.run(&limited, "hash", |_| 7));
    hand_in(waiting.as_mut());
    clock.advance(HOUR);
    drop(open);
    assert_eq!(waiting.await, Err(Failed::DeadlineReached { job: "hash" }));
    running.await.unwrap();
    assert_eq!(pool.stats().expired, 1);
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_refused_before_anything_is_done() {
    let (clock, cx) = manual();
    let pool = pool(&cx, 1, 8);
    let own = clock.clone();
    pool.run(&cx, "report", move |_| own.advance(HOUR)).await.unwrap();
    let refused = pool.run(&cx.with_deadline(HOUR / 2), "report", |_| panic!("begun")).await.unwrap_err();
    assert_eq!(
        refused,
        Failed::TooLate { job: "report", remaining: HOUR / 2, wait: Duration::ZERO, run: HOUR }
    );
    assert_eq!(pool.run(&cx.with_deadline(HOUR), "report", |_| 7).await, Ok(7));
}

#[tokio::test]
async fn a_panic_is_its_callers_and_costs_no_thread() {
    let cx = Context::system();
    let pool = pool(&cx, 1, 8);
    for _ in 0..3 {
        let failed = pool.run(&cx, "parse", |_| panic!("line {}", 3)).await.unwrap_err();
        assert_eq!(failed, Failed::Panicked { job: "parse", message: "line 3".into() });
        assert!(failed.began());
    }
    assert_eq!(pool.run(&cx, "parse", |_| 7).await, Ok(7));
    assert_eq!(pool.stats().panicked, 3);
}

#[tokio::test]
async fn its_threads_end_with_the_last_handle() {
    struct Tells(Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    thread_local! {
        static AT_THE_END: RefCell<Option<Tells>> = const { RefCell::new(None) };
    }
    let cx = Context::system();
    let pool = pool(&cx, 1, 8);
    let (end, ended) = channel();
    let name = pool.run(&cx, "stay", move |_| {
        AT_THE_END.set(Some(Tells(end)));
        std::thread::current().name().map(str::to_owned)
    });
    assert_eq!(name.await.unwrap().unwrap(), "cpu-0");
    let other = pool.clone();
    drop(pool);
    assert!(ended.try_recv().is_err());
    assert_eq!(other.run(&cx, "hash", |_| 7).await, Ok(7));
    drop(other);
    // What a thread holds is dropped at its end.
    ended.recv().unwrap();
}
