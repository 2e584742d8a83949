//! The watchdog on real threads: what blocks does so until it was told of, so that no test depends on a time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mainstay_envelope::{
    Clock, Context, Envelope, Monotonic, Priority, SystemChance, SystemClock, Timestamp,
};
use mainstay_runtime::watchdog::{Report, Spec, Watchdog};
use tokio::runtime::{Builder, Runtime};

/// Some polls here are to be short ones, also on a busy machine.
const LIMIT: Duration = Duration::from_millis(20);

fn watchdog(cx: &Context) -> (Watchdog, Receiver<Report>) {
    let (tell, told) = channel();
    let milli = Duration::from_millis(1);
    let settings = Spec { limit: LIMIT, look_every: milli, beat_every: milli }.check().unwrap();
    (Watchdog::start(cx, settings, move |report| drop(tell.send(report))).unwrap(), told)
}

/// Something that blocks until its sender is dropped.
fn block() -> (Sender<()>, impl FnOnce() + Send) {
    let (open, opened) = channel::<()>();
    let wait = move || {
        let _ = opened.recv();
    };
    (open, wait)
}

/// A runtime of one thread, which runs on a thread of this name until the sender is dropped.
fn one_thread(name: &str) -> (tokio::runtime::Handle, tokio::sync::oneshot::Sender<()>) {
    let runtime: Runtime = Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || runtime.block_on(ended)).unwrap();
    (handle, end)
}

#[test]
fn a_task_that_blocks_is_named_while_it_does() {
    let (watchdog, told) = watchdog(&Context::system());
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("worker").build().unwrap();
    let _entered = runtime.enter();
    let (open, block) = block();
    let task = watchdog.spawn("month-end report", async move { block() });
    let Report::Blocks { task: name, thread, lasts, .. } = told.recv().unwrap() else { panic!("it blocks") };
    assert_eq!((&*name, &*thread.name), ("month-end report", "worker"));
    assert!(lasts >= LIMIT && !task.is_finished(), "{lasts:?}");
    drop(open);
    let Report::Ended { task: name, thread: same, lasted } = told.recv().unwrap() else { panic!("it ended") };
    assert_eq!((&*name, same), ("month-end report", thread));
    assert!(lasted >= lasts, "{lasted:?} {lasts:?}");
    runtime.block_on(task).unwrap();
    let stats = watchdog.stats();
    assert_eq!((stats.blocked, stats.tasks, stats.longest), (1, 0, lasted));
}

#[test]
fn a_part_of_a_task_is_the_task() {
    let (watchdog, told) = watchdog(&Context::system());
    let (handle, _end) = one_thread("reactor");
    let (open, block) = block();
    let inner = watchdog.watch("inner", async { block() });
    let short = watchdog.watch("short", async {});
    handle.spawn(watchdog.watch("outer", async move {
        short.await;
        inner.await;
    }));
    let Report::Blocks { task, .. } = told.recv().unwrap() else { panic!("it blocks") };
    assert_eq!(&*task, "outer");
    drop(open);
}

#[test]
fn a_poll_that_panics_is_over() {
    let (watchdog, told) = watchdog(&Context::system());
    let (handle, _end) = one_thread("reactor");
    let (open, block) = block();
    handle.spawn(watchdog.watch("broken", async {
        // Not `panic!`: what that prints takes its time.
        std::panic::resume_unwind(Box::new("on purpose"))
    }));
    handle.spawn(watchdog.watch("next", async { block() }));
    let Report::Blocks { task, .. } = told.recv().unwrap() else { panic!("it blocks") };
    assert_eq!(&*task, "next");
    drop(open);
}

#[test]
fn a_task_without_a_name_silences_the_heartbeat_of_its_runtime() {
    let (watchdog, told) = watchdog(&Context::system());
    let (handle, end) = one_thread("reactor");
    watchdog.heartbeat("main", &handle);
    let (open, block) = block();
    handle.spawn(async { block() });
    // A busy machine may be silent for a while, too; this silence lasts until it was told of.
    let silent = told.iter().find_map(|report| match report {
        Report::Silent { runtime, threads, lasts } if !threads.is_empty() => Some((runtime, threads, lasts)),
        _ => None,
    });
    let (runtime, threads, lasts) = silent.unwrap();
    let threads: Vec<&str> = threads.iter().map(|(thread, _)| thread.name.as_str()).collect();
    assert_eq!((&*runtime, &threads[..]), ("main", &["reactor"][..]));
    assert!(lasts >= LIMIT, "{lasts:?}");
    drop(open);
    let beats = |report| matches!(report, Report::Beats { runtime, .. } if &*runtime == "main");
    assert!(told.iter().any(beats), "it goes on");
    drop((end, watchdog));
    // The thread ends, and with it what it told with.
    assert!(told.iter().count() < 1_000);
}

#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Monotonic {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemClock.now()
    }

    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }
}

#[test]
fn a_poll_reads_no_clock_and_only_looks_do() {
    let clock = Arc::new(Counting::default());
    let chance = SystemChance::new();
    let shared: Arc<dyn Clock> = clock.clone();
    let cx = Context::new(Envelope::begin(Priority::default(), &chance), shared, Arc::new(chance));
    let (watchdog, _told) = watchdog(&cx);
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(watchdog.watch("busy", async {
        for _ in 0..100_000 {
            tokio::task::yield_now().await;
        }
    }));
    // One look may be under way: it has read the clock and is not counted yet.
    let readings = clock.0.load(Ordering::SeqCst);
    assert!(readings <= watchdog.stats().looks + 1, "{readings} readings");
}

#[test]
fn who_is_told_and_panics_is_told_the_next_time_and_the_end_ends_the_thread() {
    let (tell, told) = channel();
    let mut is_first = true;
    let milli = Duration::from_millis(1);
    let settings = Spec { limit: LIMIT, look_every: milli, beat_every: milli }.check().unwrap();
    let watchdog = Watchdog::start(&Context::system(), settings, move |report| {
        tell.send(report).unwrap();
        assert!(!std::mem::take(&mut is_first), "on purpose");
    })
    .unwrap();
    let (handle, _end) = one_thread("reactor");
    for _ in 0..2 {
        let (open, block) = block();
        handle.spawn(watchdog.watch("again", async { block() }));
        assert!(matches!(told.recv().unwrap(), Report::Blocks { .. }));
        drop(open);
        assert!(matches!(told.recv().unwrap(), Report::Ended { .. }));
    }
    drop(watchdog);
    assert!(told.recv().is_err(), "the thread dropped what it told with");
}
