//! The simulated disk itself: SQLite works on it, a cut leaves what the model allows, and the model bites.

#![allow(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_sqlite::faults::{Call, Calls, Disk, FailedSync, Fault};
use rusqlite::{Connection, ErrorCode};

/// How many commits one workload tries.
const COMMITS: i64 = 16;

/// A disk with an empty table, everything on it synced.
fn prepared(journal: &str) -> Disk {
    let disk = Disk::new(1);
    let db = disk.connect("store.db").unwrap();
    db.execute_batch(&format!(
        "pragma page_size = 1024; pragma journal_mode = {journal}; pragma synchronous = extra;
         create table t (n integer primary key, body blob not null); create index t_body on t (body);"
    ))
    .unwrap();
    drop(db);
    disk
}

fn body(n: i64) -> Vec<u8> {
    (0..700).map(|at| (at + n * 31) as u8).collect()
}

/// Commits rows 1, 2, 3 … one at a time, with a checkpoint at every fifth, until something fails; the number of
/// acknowledged rows and what failed.
fn run(disk: &Disk, synchronous: &str) -> (i64, Option<rusqlite::Error>) {
    let mut acknowledged = 0;
    let mut work = || {
        let db = disk.connect("store.db")?;
        db.busy_timeout(Duration::ZERO)?;
        db.execute_batch(&format!("pragma synchronous = {synchronous}; pragma wal_autocheckpoint = 0"))?;
        for n in 1..=COMMITS {
            db.execute("insert into t values (?1, ?2)", (n, body(n)))?;
            acknowledged = n;
            if n % 5 == 0 {
                let busy: i64 = db.query_row("pragma wal_checkpoint(restart)", [], |row| row.get(0))?;
                assert_eq!(busy, 0, "there is nobody to wait for");
            }
        }
        // Closing would be one more checkpoint, whose errors SQLite keeps to itself.
        std::mem::forget(db);
        Ok(())
    };
    let failed = work().err();
    (acknowledged, failed)
}

/// How many rows there are, after checking that the database is sound and the rows are 1, 2, 3 … unharmed.
fn count(disk: &Disk) -> rusqlite::Result<i64> {
    let db = disk.connect("store.db")?;
    let found: String = db.query_row("pragma integrity_check", [], |row| row.get(0))?;
    assert_eq!(found, "ok");
    let mut rows = 0;
    let mut select = db.prepare("select n, body from t order by n")?;
    let mut shown = select.query([])?;
    while let Some(row) = shown.next()? {
        rows += 1;
        assert_eq!((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?), (rows, body(rows)));
    }
    Ok(rows)
}

/// The calls of a workload that nothing disturbs: the first and the one past the last.
fn calls_of_run(from: &Disk, synchronous: &str) -> std::ops::Range<u64> {
    let disk = from.kill();
    let (acknowledged, failed) = run(&disk, synchronous);
    assert!(failed.is_none() && acknowledged == COMMITS, "{failed:?}");
    0..disk.calls()
}

/// Lets the power go off somewhere in a workload; what was acknowledged, and what the next boot finds.
fn powered_off(from: &Disk, synchronous: &str, at: u64, seed: u64) -> (i64, Disk) {
    let disk = from.kill();
    disk.power_off_at(at);
    let (acknowledged, failed) = run(&disk, synchronous);
    assert!(failed.is_some() && disk.is_off());
    (acknowledged, disk.cut(seed))
}

#[test]
fn a_writer_and_two_readers_work_in_threads() {
    let disk = prepared("wal");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let db = disk.connect("store.db").unwrap();
                    let (mut last, mut reads) = (0, 0_u64);
                    while !done.load(Ordering::Acquire) || reads == 0 {
                        // One statement sees one moment: as many rows as the highest number says.
                        let seen: (i64, i64) = db
                            .query_row("select count(*), coalesce(max(n), 0) from t", [], |row| {
                                Ok((row.get(0)?, row.get(1)?))
                            })
                            .unwrap();
                        assert_eq!(seen.0, seen.1);
                        assert!(seen.0 >= last, "a reader went back from {last} to {}", seen.0);
                        (last, reads) = (seen.0, reads + 1);
                    }
                })
            })
            .collect();
        let write = || {
            let db = disk.connect("store.db")?;
            db.execute_batch("pragma synchronous = full; pragma wal_autocheckpoint = 20")?;
            (1..=400).try_for_each(|n| db.execute("insert into t values (?1, ?2)", (n, body(n))).map(drop))
        };
        let written = write();
        done.store(true, Ordering::Release);
        written.unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(count(&disk).unwrap(), 400);
    // The last connection has checkpointed the WAL and removed it: it knew that it was the last.
    assert_eq!(disk.files().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["store.db"]);
}

#[test]
fn a_synced_commit_survives_every_cut() {
    let disk = prepared("wal");
    let calls = calls_of_run(&disk, "full");
    let mut recovered = 0;
    for seed in 0..200 {
        let at = calls.end * seed / 200;
        let (acknowledged, after) = powered_off(&disk, "full", at, seed);
        // The power may go again while the next boot recovers.
        let recovering = after.kill();
        recovering.power_off_at(seed % 40);
        let read = recovering.connect("store.db").and_then(|db| db.execute_batch("select * from t"));
        recovered += u64::from(read.is_ok());
        for boot in [after, recovering.cut(seed)] {
            let rows = count(&boot).unwrap();
            assert!(
                rows == acknowledged || rows == acknowledged + 1,
                "seed {seed}: {acknowledged} acknowledged, {rows} found after the cut at call {at}"
            );
        }
    }
    assert!((1..200).contains(&recovered), "every cut came before, or after, the recovery: {recovered}");
}

#[test]
fn an_unsynced_commit_is_lost_within_100_cuts() {
    let disk = prepared("wal");
    let calls = calls_of_run(&disk, "normal");
    let lost = (0..100_u64).filter(|seed| {
        let (acknowledged, after) = powered_off(&disk, "normal", calls.end * seed / 100, *seed);
        count(&after).unwrap() < acknowledged
    });
    assert!(lost.count() > 0);
}

#[test]
fn an_unsynced_delete_of_the_journal_can_be_undone() {
    let disk = prepared("delete");
    let lost = |synchronous: &str| {
        let calls = calls_of_run(&disk, synchronous);
        let cuts = (0..100_u64).filter(|seed| {
            let (acknowledged, after) = powered_off(&disk, synchronous, calls.end * seed / 100, *seed);
            count(&after).unwrap() < acknowledged
        });
        cuts.count()
    };
    assert!(lost("full") > 0, "sqlite.org/pragma.html#pragma_synchronous: FULL does not sync the directory");
    assert_eq!(lost("extra"), 0);
}

#[test]
fn each_call_failing_once_harms_nothing_and_is_told() {
    let disk = prepared("wal");
    let calls = calls_of_run(&disk, "full");
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite] {
        let mut struck = 0;
        for at in calls.clone() {
            let disk = disk.kill();
            disk.fail_at(at, fault, Calls::ALL);
            let (acknowledged, failed) = run(&disk, "full");
            let Some(hit) = disk.struck().pop() else { continue };
            if hit.number != at {
                continue; // This call can't fail so; the one that did has its own turn.
            }
            struck += 1;
            let failed = failed.unwrap_or_else(|| panic!("{hit:?} was not told"));
            let code = failed.sqlite_error_code();
            let told = [ErrorCode::SystemIoFailure, ErrorCode::DiskFull, ErrorCode::CannotOpen];
            assert!(code.is_some_and(|code| told.contains(&code)), "{hit:?}: {failed}");
            for (then, after) in [("alive", disk.clone()), ("killed", disk.kill()), ("cut", disk.cut(at))] {
                let rows = count(&after).unwrap();
                assert!(
                    rows == acknowledged || rows == acknowledged + 1,
                    "{hit:?}, then {then}: {acknowledged} acknowledged, {rows} found"
                );
            }
        }
        assert!(struck >= COMMITS, "{fault:?} struck {struck} times");
    }
}

#[test]
fn a_kill_keeps_every_write_and_no_lock() {
    let disk = prepared("wal");
    let (acknowledged, failed) = run(&disk, "off");
    assert!(failed.is_none());
    let holder = disk.connect("store.db").unwrap();
    holder.execute_batch("begin immediate").unwrap();
    let refused = disk.connect("store.db").unwrap();
    refused.busy_timeout(Duration::ZERO).unwrap();
    assert!(refused.execute_batch("begin immediate").is_err());

    let after = disk.kill();
    assert_eq!(count(&after).unwrap(), acknowledged);
    after
        .connect("store.db")
        .unwrap()
        .execute_batch("begin immediate; insert into t values (17, x'00'); commit")
        .unwrap();
    // Neither disk reaches the other.
    holder.execute_batch("delete from t; commit").unwrap();
    assert_eq!(count(&disk).unwrap(), 0);
    let kept: i64 =
        after.connect("store.db").unwrap().query_row("select max(n) from t", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 17);
}

#[test]
fn without_power_nothing_is_read_written_or_locked() {
    let disk = prepared("wal");
    let db = disk.connect("store.db").unwrap();
    db.execute("insert into t values (1, ?1)", [body(1)]).unwrap();
    let (files, calls) = (disk.files(), disk.calls());
    disk.power_off();
    for sql in
        ["select * from t", "insert into t values (2, x'00')", "pragma wal_checkpoint", "begin immediate"]
    {
        let told = db.query_row(sql, [], |_| Ok(())).unwrap_err();
        assert_eq!(told.sqlite_error_code(), Some(ErrorCode::SystemIoFailure), "{sql}: {told}");
    }
    assert!(disk.connect("store.db").and_then(|db| db.execute_batch("select * from t")).is_err());
    drop(db);
    assert_eq!((disk.files(), disk.calls()), (files, calls));
}

#[test]
fn a_full_disk_is_told_and_room_helps() {
    let disk = prepared("wal");
    let db = disk.connect("store.db").unwrap();
    disk.set_capacity(disk.used() + 20_000);
    let insert = |n: i64| db.execute("insert into t values (?1, ?2)", (n, body(n)));
    let (rows, told) = (1..1000).find_map(|n| Some((n - 1, insert(n).err()?))).unwrap();
    assert_eq!(told.sqlite_error_code(), Some(ErrorCode::DiskFull));
    assert!(rows > 0);
    disk.set_capacity(disk.used() + 200_000);
    assert_eq!(count(&disk).unwrap(), rows);
    insert(rows + 1).unwrap();
    assert_eq!(count(&disk.cut(3)).unwrap(), rows + 1);
}

#[test]
fn locks_conflict_as_sqlite_expects() {
    let code = |result: rusqlite::Result<()>| result.map_err(|error| error.sqlite_error_code().unwrap());
    let connect = |disk: &Disk| {
        let db = disk.connect("store.db").unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        db
    };
    let reading = |db: &Connection| db.execute_batch("begin; select * from t").unwrap();

    let disk = prepared("delete");
    let (a, b) = (connect(&disk), connect(&disk));
    a.execute_batch("begin immediate; insert into t values (1, x'01')").unwrap();
    assert_eq!(code(b.execute_batch("begin immediate")), Err(ErrorCode::DatabaseBusy));
    reading(&b);
    // A reader keeps the commit waiting, and the waiting commit keeps new readers out.
    assert_eq!(code(a.execute_batch("commit")), Err(ErrorCode::DatabaseBusy));
    assert_eq!(code(connect(&disk).execute_batch("select * from t")), Err(ErrorCode::DatabaseBusy));
    b.execute_batch("commit").unwrap();
    a.execute_batch("commit").unwrap();

    let disk = prepared("wal");
    let (a, b) = (connect(&disk), connect(&disk));
    reading(&b);
    a.execute_batch("begin immediate; insert into t values (1, x'01'); commit").unwrap();
    let blocked = |db: &Connection| -> i64 {
        db.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(blocked(&a), 1, "a reader of the old state must hold the WAL");
    b.execute_batch("commit").unwrap();
    assert_eq!(blocked(&a), 0);
    assert_eq!(disk.contents("store.db-wal").unwrap().len(), 0);
}

#[test]
fn one_seed_leaves_one_image() {
    let disk = prepared("wal");
    let (_, failed) = run(&disk, "normal");
    assert!(failed.is_none());
    let image = |seed| {
        let after = disk.cut(seed);
        after.files().into_iter().map(|(name, _)| after.contents(&name)).collect::<Vec<_>>()
    };
    assert_eq!(image(5), image(5));
    assert!((6..20).any(|seed| image(seed) != image(5)));
}

#[test]
fn a_failed_sync_that_marks_clean_loses_what_comes_after() {
    let lost = |meaning: FailedSync| {
        let disk = prepared("wal");
        disk.set_failed_sync(meaning);
        // Keeps the WAL there, so that the next connection recovers the frames of the failed commit from it.
        let other = disk.connect("store.db").unwrap();
        other.execute_batch("begin; select * from t").unwrap();
        let db = disk.connect("store.db").unwrap();
        db.execute_batch("pragma synchronous = full").unwrap();
        db.execute("insert into t values (1, ?1)", [body(1)]).unwrap();
        disk.fail_at(disk.calls(), Fault::Eio, Calls::of(&[Call::Sync]));
        db.execute("insert into t values (2, ?1)", [body(2)]).unwrap_err();

        let disk = disk.kill();
        let db = disk.connect("store.db").unwrap();
        assert_eq!(db.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
        db.execute_batch("pragma synchronous = full").unwrap();
        db.execute("insert into t values (3, ?1)", [body(3)]).unwrap();
        (0..20).any(|seed| count(&disk.cut(seed)).unwrap() < 3)
    };
    assert!(lost(FailedSync::MarksClean));
    assert!(!lost(FailedSync::StaysDirty));
}
