//! Write-back on SQLite files: a process is killed between journal, flush and settlement, again and again, and the
//! database ends with the last acknowledged value of each key.
//!
//! ```text
//!   parent ──starts──► worker: puts k0..k4, always larger values, each told before and after:  > try k1 17   > ack k1 17
//!      │                  │      its journal and its database stop for ever at a chosen step:   > halted
//!      │ ◄────lines───────┘
//!      └── kill -9 at that line; another worker goes on with the same files; at the end everything is flushed:
//!          each key's row is its last acknowledged value, or the one that was never answered after it
//! ```
//! The worker is this test program again. Nothing waits for a time: it stops at the step and says so.
//!
//! `cargo xtask crash cache --rounds 100` kills a hundred times, at these steps and at moments that are nobody's step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[path = "write_back/workload.rs"]
mod workload;

use workload::{Halt, KEYS, Ledger, STEPS};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn say(line: &str) {
    // On a line of its own, whatever the harness has begun to print.
    let mut out = std::io::stdout().lock();
    write!(out, "\n> {line}\n").unwrap();
    out.flush().unwrap();
}

/// No test, but what the test below starts as its worker.
#[test]
fn worker() {
    let Some(folder) = std::env::var_os("MAINSTAY_FOLDER") else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let halt = Halt::at_step(&std::env::var("MAINSTAY_STEP").unwrap(), number("MAINSTAY_NTH"), say);
    let work = workload::append(Path::new(&folder), halt, number("MAINSTAY_FROM"), u64::MAX, say);
    runtime().block_on(work).unwrap();
}

/// A worker that is killed at the end of the test, whatever its end is.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Once it is gone, both change nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a worker, kills it at its step, and notes what it said until then.
fn kill_at(folder: &Path, step: &str, nth: u64, ledger: &mut Ledger) {
    let from = ledger.0.values().map(|said| said.tried).max().unwrap_or(0) + 1;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
        .env("MAINSTAY_FOLDER", folder)
        .env("MAINSTAY_STEP", step)
        .env("MAINSTAY_NTH", nth.to_string())
        .env("MAINSTAY_FROM", from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut worker = Killed(child);
    let mut lines = BufReader::new(worker.0.stdout.take().unwrap()).lines();
    loop {
        let line =
            lines.next().unwrap_or_else(|| panic!("{step} {nth}: the worker ended by itself")).unwrap();
        match line.strip_prefix("> ") {
            Some("halted") => break,
            Some(said) => assert!(ledger.note(said), "{step} {nth}: the worker says {said:?}"),
            None => {}
        }
    }
    worker.0.kill().unwrap();
    worker.0.wait().unwrap();
    // What it said before it was killed is still in the pipe; the last line may be cut, and is none then.
    for line in lines.map_while(Result::ok) {
        if let Some(said) = line.strip_prefix("> ").filter(|said| said.split(' ').count() == 3) {
            ledger.note(said);
        }
    }
}

#[test]
fn whatever_it_is_killed_between_the_database_ends_with_the_last_acknowledged_values() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, mut pending) = (Ledger::default(), 0);
    for (kill, step) in (0..).zip(STEPS) {
        // Early and late in a process's life: 1, 8, 15, 22, 6, 13.
        let nth = 1 + (kill * 7) % 23;
        kill_at(folder.path(), step, nth, &mut ledger);
        // Now and then only, so that what several processes left is flushed together.
        let flush = kill % 5 == 4 || kill + 1 == STEPS.len() as u64;
        let checked = runtime().block_on(workload::check(folder.path(), &ledger, flush)).unwrap();
        assert!(checked.violations.is_empty(), "{step} {nth}: {checked:?}");
        pending += checked.pending;
        for (key, version, value) in checked.rows {
            assert!(ledger.note(&format!("seen {key} {version} {value}")));
        }
    }
    assert!(pending > 0, "no kill left anything to flush");
    assert_eq!(ledger.0.len() as u64, KEYS);
    assert!(ledger.0.values().all(|said| said.acknowledged > 0));
}
