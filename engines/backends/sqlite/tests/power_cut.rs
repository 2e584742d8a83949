//! Power cuts and failing disks under the real store: whatever the disk forgets, nothing acknowledged is lost.
//!
//! The disk is `faults::Disk`; what it may forget is written in `src/faults/model.rs`. The store is the real one,
//! opened through that file layer, with several appenders and a follower. Two ways to hurt it:
//!
//! - **Power cuts.** The power goes off at a drawn call: while the file is made, migrated or recovered, in the
//!   middle of a commit, in a checkpoint. The next boot finds what the model lets survive, everything is checked
//!   against the ledger, and the same disk goes on to its next cut.
//! - **Failing calls.** Each I/O call of a fixed workload fails once: EIO, ENOSPC, a short write. The store must
//!   not lie about it, must come back by itself, and what was unknown must be there once after it was tried again.
//!
//! `MAINSTAY_CUTS` and `MAINSTAY_SEED` choose how many cuts and from which seed: `cargo xtask powercut` sets them.
//! A seed fixes acts, moments and what survives; how the threads of the store interleave is up to the machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

mod workload;

use std::sync::{Arc, Mutex, MutexGuard};

use mainstay_envelope::Context;
use mainstay_event_store::{Direction, Store, StreamName, Version};
use mainstay_sqlite::faults::{Call, Calls, Disk, FailedSync, Fault};
use mainstay_sqlite::{Options, Sqlite};

use workload::acts::{self, Kind, Outcome, Plan};
use workload::check::{self, Report};
use workload::drive::{self, Job, Log};
use workload::ledger::{self, Ledger};
use workload::{Draw, feed};

/// Appenders of one store.
const WRITERS: u64 = 4;

/// Cuts of one disk, one after another, before a new one is taken.
const CUTS_PER_DISK: u64 = 10;

/// The ledger, beside the disk it is about.
struct Books {
    ledger: Mutex<Ledger>,
    disk: Disk,
}

impl Books {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}

impl Log for Books {
    fn line(&self, line: String) {
        assert!(!line.starts_with("failed ") || self.disk.is_off(), "with the power on: {line}");
        self.ledger().line(&line).unwrap();
    }

    fn stopped(&self) -> bool {
        self.disk.is_off()
    }
}

fn options(disk: &Disk) -> Options {
    // Relative, as the file layer wants it; one reader is enough for one follower.
    Options::new(disk.path("store.db")).vfs("mainstay-faults").readers(1)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Works on a disk until its power is gone.
fn work(books: &Arc<Books>, options: Options, seed: u64) {
    let Ok(store) = Sqlite::open(options) else {
        assert!(books.disk.is_off(), "seed {seed}: the file can't be opened, and the power is on");
        return;
    };
    let from = books.ledger().next();
    let job = Job { seed, writers: WRITERS, from, acts: 100_000 };
    let (cx, runtime) = (Context::system(), runtime());
    let ran = runtime.block_on(async {
        match acts::prepare(&store, &cx).await {
            Ok(()) => drive::run(&store, &cx, job, books).await,
            Err(error) => Err(error.into()),
        }
    });
    assert!(books.disk.is_off(), "seed {seed}: the work ended with the power on: {ran:?}");
    drop(runtime);
    store.close();
}

/// Boots: opens the store and checks everything against the ledger. With `resolved`, what nobody knows the end of
/// is tried again first.
fn boot(disk: &Disk, ledger: &mut Ledger, (seed, writers): (u64, u64), resolved: bool) -> Report {
    let (cx, store) = (Context::system(), Sqlite::open(options(disk)).unwrap());
    let report = runtime().block_on(async {
        let mut found = feed::read(&store, &cx, seed, writers, |_| {}).await.unwrap();
        if resolved {
            let open = ledger.open();
            for line in feed::resolve(&store, &cx, (seed, writers), &found, &open).await.unwrap() {
                ledger.line(&line).unwrap();
            }
            assert_eq!(ledger.open(), []);
            found = feed::read(&store, &cx, seed, writers, |_| {}).await.unwrap();
        }
        check::check(ledger, &found, seed, writers).unwrap()
    });
    store.close();
    if let Some(head) = report.head {
        ledger.line(&ledger::seen(head)).unwrap();
    }
    let integrity: String =
        disk.connect("store.db").unwrap().query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok", "seed {seed}");
    report
}

/// What some cuts have shown.
#[derive(Default)]
struct Shown {
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    unknown_there: u64,
    /// Cuts that came while, or after, a checkpoint wrote to the database itself.
    checkpointed: u64,
}

fn size(disk: &Disk) -> u64 {
    disk.files().iter().find(|(name, _)| name == "store.db").map_or(0, |(_, bytes)| *bytes)
}

/// One disk and its cuts. After the last one what is unknown is tried again. `Err`: what was found, and when.
fn cuts(seed: u64, count: u64, options: fn(&Disk) -> Options, shown: &mut Shown) -> Result<(), String> {
    let (mut draw, mut disk, mut ledger) = (Draw::new(seed), Disk::new(seed), Ledger::default());
    let judge = |cut: u64, at: u64, report: &Report| match report.sound() {
        true => Ok(()),
        false => Err(format!("seed {seed}, cut {cut} at call {at}: {:?}", report.violations)),
    };
    for cut in 1..=count {
        // A quarter strikes while the file is made, migrated or recovered; the rest under load, or in one of the
        // checkpoints that the load brings about. Every other one comes at a sync, when a commit that nobody was
        // told of may survive.
        let at = if draw.below(4) == 0 { draw.below(150) } else { 150 + draw.below(4_000) };
        let calls = if draw.below(2) == 0 { Calls::of(&[Call::Sync]) } else { Calls::ALL };
        disk.power_off_at_next(at, calls);
        let (books, before) =
            (Arc::new(Books { ledger: Mutex::new(ledger), disk: disk.clone() }), size(&disk));
        work(&books, options(&disk), seed);
        shown.checkpointed += u64::from(before > 0 && size(&disk) > before);
        disk = disk.cut(draw.next());
        ledger = Arc::into_inner(books).unwrap().ledger.into_inner().unwrap();
        // Mostly a copy is looked at, so that the next work has to recover what this cut has left.
        let looked_at = if draw.below(4) == 0 { disk.clone() } else { disk.kill() };
        let report = boot(&looked_at, &mut ledger, (seed, WRITERS), false);
        judge(cut, at, &report)?;
        if cut == count {
            (shown.unknown, shown.unknown_there) =
                (shown.unknown + report.open, shown.unknown_there + report.open_there);
            let report = boot(&disk, &mut ledger, (seed, WRITERS), true);
            judge(cut, at, &report)?;
            shown.acknowledged += report.acknowledged;
            shown.refused += report.refused;
        }
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_in_any_cut() {
    let (wanted, first) = (setting("MAINSTAY_CUTS", 100), setting("MAINSTAY_SEED", 1));
    let (mut done, mut shown) = (0, Shown::default());
    for seed in first.. {
        let count = CUTS_PER_DISK.min(wanted - done);
        if let Err(found) = cuts(seed, count, options, &mut shown) {
            panic!("{found}; to repeat it: cargo xtask powercut --seed {seed} --cuts {count}");
        }
        done += count;
        if done % 500 == 0 || done == wanted {
            let Shown { acknowledged, refused, unknown, unknown_there, checkpointed } = shown;
            eprintln!(
                "{done} cuts ({checkpointed} in or after a checkpoint), {acknowledged} acknowledged, {refused} refused, \
                 {unknown} unknown ({unknown_there} of them there), lost 0; next seed {}",
                seed + 1
            );
        }
        if done == wanted {
            break;
        }
    }
    // Cuts that meet no work and no checkpoint would prove nothing.
    assert!(
        wanted < 100
            || (shown.acknowledged > wanted && shown.checkpointed > wanted / 10 && shown.unknown_there > 0)
    );
}

#[test]
fn a_store_that_does_not_sync_its_commits_is_found_within_100_cuts() {
    let planted = |disk: &Disk| options(disk).planted_synchronous_normal();
    let found = (0..10).find_map(|seed| cuts(seed, CUTS_PER_DISK, planted, &mut Shown::default()).err());
    let found = found.unwrap();
    assert!(found.contains("was acknowledged at") || found.contains("a reader saw"), "{found}");
}

const FAULTS: [Fault; 3] = [Fault::Eio, Fault::Enospc, Fault::ShortWrite];

/// Acts of the workload in which each call fails once.
const ACTS: u64 = 24;

/// Its seed: all kinds of acts are among them.
const ACTS_SEED: u64 = 2;

/// Opens a store, which may take a second try when a call fails.
async fn open(disk: &Disk) -> Sqlite {
    let cx = Context::system();
    let again = |error: String| assert_eq!(disk.struck().len(), 1, "{error}");
    let store = match Sqlite::open(options(disk)) {
        Ok(store) => store,
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains("nothing was changed") || told.contains("no store was made"), "{told}");
            again(told);
            Sqlite::open(options(disk)).unwrap()
        }
    };
    if let Err(error) = acts::prepare(&store, &cx).await {
        again(error.to_string());
        acts::prepare(&store, &cx).await.unwrap();
    }
    store
}

/// A disk and what was known when it looked so.
type Then = (Disk, Ledger);

/// What to do when a call fails under an act.
enum Struck<'a> {
    /// No more acts.
    Stop,
    /// Try it again: whatever it was told, the writer has to be back by now. If it was refused, keep what a kill
    /// and a power cut leave right then: the refusal must hold there, too.
    Again(&'a mut Vec<Then>),
}

/// Appends acts one after another; how each ended.
async fn append_all(store: &Sqlite, disk: &Disk, ledger: &mut Ledger, mut then: Struck<'_>) -> Vec<Outcome> {
    let (cx, struck, from) = (Context::system(), || disk.struck().len(), ledger.next());
    let (own, none) = (StreamName::new("own-0").unwrap(), struck());
    let mut page = store.read_stream(&own, Version(1), Direction::Forwards, 1).await;
    if struck() > none {
        page = store.read_stream(&own, Version(1), Direction::Forwards, 1).await;
    }
    let (mut outcomes, mut version) = (Vec::new(), page.unwrap().version.0);
    for number in from..from + ACTS {
        let plan = Plan::new(ACTS_SEED, 1, number).unwrap();
        ledger.line(&ledger::tried(number, version)).unwrap();
        let before = struck();
        let mut outcome = plan.submit(store, &cx, version).await;
        if struck() > before && matches!(outcome, Outcome::Failed(_) | Outcome::Unknown(_)) {
            ledger.line(&ledger::ended(number, &outcome)).unwrap();
            match &mut then {
                Struck::Stop => break,
                Struck::Again(refused) => {
                    if let Outcome::Failed(why) = &outcome {
                        assert!(why.contains("nothing was written"), "{why}");
                        refused.extend([(disk.kill(), ledger.clone()), (disk.cut(number), ledger.clone())]);
                    }
                }
            }
            outcome = plan.submit(store, &cx, version).await;
        }
        ledger.line(&ledger::ended(number, &outcome)).unwrap();
        if let (Kind::Next, Outcome::Acknowledged { versions, .. }) = (plan.kind, &outcome) {
            version = versions[0].1.0;
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn endings(outcomes: &[Outcome]) -> Vec<&'static str> {
    let ending = |outcome: &Outcome| match outcome {
        Outcome::Acknowledged { .. } => "acknowledged",
        Outcome::Refused(_) => "refused",
        Outcome::Failed(_) => "failed",
        Outcome::Unknown(_) => "unknown",
    };
    outcomes.iter().map(ending).collect()
}

/// Fails the calls of the workload once each, from a disk on which the acts of `before` were done. Between two
/// failed calls `step` are left out.
fn fail_calls(start: &Disk, before: &Ledger, step: u64, kinds: Calls, faults: &[Fault]) {
    let run = |disk: &Disk| {
        let mut ledger = before.clone();
        let mut refused = Vec::new();
        let (store, outcomes) = runtime().block_on(async {
            let store = open(disk).await;
            let outcomes = append_all(&store, disk, &mut ledger, Struck::Again(&mut refused)).await;
            (store, outcomes)
        });
        for (then, mut ledger) in refused {
            let report = boot(&then, &mut ledger, (ACTS_SEED, 1), false);
            assert!(report.sound(), "{:?}, then gone: {:?}", disk.struck(), report.violations);
        }
        (store, outcomes, ledger)
    };
    let undisturbed = start.kill();
    let (store, expected, _) = run(&undisturbed);
    let expected = endings(&expected);
    assert!(
        expected.iter().all(|ending| ["acknowledged", "refused"].contains(ending))
            && expected.contains(&"acknowledged")
            && expected.contains(&"refused")
    );
    store.close();
    let calls = undisturbed.calls();
    for &fault in faults {
        let (mut at, mut struck) = (0, 0);
        while at < calls {
            let disk = start.kill();
            disk.fail_at(at, fault, kinds);
            let (store, outcomes, mut ledger) = run(&disk);
            // What was told, after one more try of the act that was struck, is what would have been told anyway.
            assert_eq!(endings(&outcomes), expected, "{:?}", disk.struck());
            assert_eq!(store.health().failed, None, "{:?}", disk.struck());
            let cut = disk.cut(at);
            store.close();
            // The first call from `at` on that can fail so.
            let Some(hit) = disk.struck().pop() else { break };
            for (then, disk) in [("cut", cut), ("alive", disk)] {
                let report = boot(&disk, &mut ledger, (ACTS_SEED, 1), false);
                assert!(report.sound(), "{hit:?}, then {then}: {:?}", report.violations);
                assert_eq!(report.open, 0);
            }
            (at, struck) = (hit.number + 1 + step, struck + 1);
        }
        assert!(struck >= ACTS, "{fault:?} struck {struck} of {calls} calls");
        eprintln!("{fault:?} struck {struck} of {calls} calls");
    }
}

#[test]
fn each_call_failing_once_is_told_and_healed() {
    fail_calls(&Disk::new(1), &Ledger::default(), 0, Calls::ALL, &FAULTS);
}

#[test]
fn a_failed_sync_that_forgets_its_writes_takes_nothing_later_with_it() {
    let forgetful = || {
        let disk = Disk::new(1);
        // What Linux does after a failed fsync: the pages count as clean and are never written.
        disk.set_failed_sync(FailedSync::MarksClean);
        disk
    };
    let syncs = Calls::of(&[Call::Sync]);
    fail_calls(&forgetful(), &Ledger::default(), 0, syncs, &[Fault::Eio]);
    // The process is killed at once, and the next one finds the forgotten pages in the log, as good as any.
    let (mut at, mut struck) = (0, 0);
    loop {
        let (disk, mut ledger) = (forgetful(), Ledger::default());
        disk.fail_at(at, Fault::Eio, syncs);
        runtime().block_on(async {
            let store = open(&disk).await;
            append_all(&store, &disk, &mut ledger, Struck::Stop).await;
        });
        let Some(hit) = disk.struck().pop() else { break };
        let disk = disk.kill();
        // Some other process has the file open, so the log is not cleared away when it is opened and closed.
        let other = disk.connect("store.db").unwrap();
        other.query_row("select count(*) from sqlite_schema", [], |_| Ok(())).unwrap();
        runtime().block_on(async {
            let store = open(&disk).await;
            append_all(&store, &disk, &mut ledger, Struck::Stop).await;
        });
        for seed in 0..4 {
            let report = boot(&disk.cut(seed), &mut ledger.clone(), (ACTS_SEED, 1), false);
            assert!(report.sound(), "{hit:?}, then killed, then cut by {seed}: {:?}", report.violations);
        }
        (at, struck) = (hit.number + 1, struck + 1);
    }
    assert!(struck > ACTS, "{struck}");
}

#[test]
fn calls_of_a_recovery_and_of_a_checkpoint_failing_once_are_told_and_healed() {
    let (disk, mut ledger) = (Disk::new(1), Ledger::default());
    let wal = |disk: &Disk| {
        disk.files().iter().find(|(name, _)| name == "store.db-wal").map_or(0, |(_, bytes)| *bytes)
    };
    // A long log, of which 1,000 pages of 4 KiB would bring a checkpoint about, then a kill.
    let start = runtime().block_on(async {
        let store = open(&disk).await;
        while wal(&disk) < 500 * 4_096 {
            append_all(&store, &disk, &mut ledger, Struck::Stop).await;
        }
        disk.kill()
    });
    // Of the disk as it was left: the store that was killed clears its own log away when its threads end.
    assert!(size(&start) < wal(&start) / 4, "the checkpoint was to come later: {:?}", start.files());
    let later = start.kill();
    runtime().block_on(open(&later)).close();
    assert!(
        size(&later) > 2 * size(&start),
        "the checkpoint was to come now: {:?}, {:?}",
        start.files(),
        later.files()
    );
    fail_calls(&start, &ledger, 12, Calls::ALL, &FAULTS);
}
