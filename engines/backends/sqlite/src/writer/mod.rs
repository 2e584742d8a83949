//! The writer: one thread, one connection, group commit.
//!
//! ```text
//!  append ─┐            ┌──────────── one group ────────────┐
//!  append ─┼─► queue ─► │ begin · turn · turn · turn · commit │ ─► fsync ─► answers, all at once
//!  closure ┘  bounded   └───────────────────────────────────┘
//! ```
//! Whatever waits when the writer is free becomes the next group: alone, an act waits for nobody; under
//! load the cost of the disk is shared. A closure's turn has a savepoint of its own. When the engine drops
//! the group's transaction, the others are done again and only the culprit is refused. Nothing is answered,
//! not even a refusal, before the commit is on disk, since it may rest on what others of the group wrote.

mod act;
mod guard;
mod transaction;
mod tx;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mainstay_event_store::{Hash, Refusal, StoreId, chain};
use tokio::sync::{mpsc, watch};

pub(crate) use guard::{Code, Guard};
pub(crate) use transaction::Tail;
pub use transaction::Transaction;
pub(crate) use work::{Append, End, Transact, Work};

use crate::error::{Kind, kind, refusal};
use crate::health::Board;
use crate::open;
use crate::options::Options;
use transaction::Broken;
use work::Turn;

/// Bytes of one group: what is kept in the write-ahead log's index at most before a commit.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// How often a group is done again as a whole before its jobs are done one by one.
const LOST_MAX: usize = 3;

/// How often a file that can't be opened any more is tried again.
const REOPEN_EVERY: Duration = Duration::from_millis(500);

/// Tells everybody when the writer thread falls: by a panic in what a caller handed in, say.
struct Fallen(Arc<Board>);

impl Drop for Fallen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_failed(Some("the writer thread panicked; open the store anew".into()));
        }
    }
}

/// How one transaction of a group ended.
enum Attempt {
    /// Every job in it has its answer.
    Ended,
    /// This job spoiled it; the others wait.
    Lost(Box<dyn Work>, Broken),
    /// The connection can't be trusted any more; every job in it has its answer.
    Failed(String),
}

/// Everything the writer thread owns.
pub(crate) struct Writer {
    pub(crate) options: Options,
    pub(crate) store: StoreId,
    pub(crate) guard: Arc<Guard>,
    pub(crate) board: Arc<Board>,
    pub(crate) jobs: mpsc::Receiver<Box<dyn Work>>,
    pub(crate) end: watch::Sender<Tail>,
    pub(crate) groups: Arc<crate::stats::Groups>,
    pub(crate) recent: Arc<crate::recent::Recent>,
}

impl Writer {
    /// Runs until every sender is gone and the queue is empty.
    pub(crate) fn run(mut self) {
        let _fallen = Fallen(Arc::clone(&self.board));
        let genesis = chain::genesis(self.store);
        loop {
            let tx = match self.connect(genesis) {
                Ok(tx) => tx,
                Err(error) => {
                    self.board.set_failed(Some(error.to_string()));
                    // Not limping on: what waits is refused. What comes after that, even at once, tries anew.
                    for _ in 0..self.jobs.len() {
                        if let Ok(job) = self.jobs.try_recv() {
                            job.end(self.store, End::NotDone(refusal(&error)));
                        }
                    }
                    if self.wait(REOPEN_EVERY) {
                        continue;
                    }
                    return;
                }
            };
            self.board.set_failed(None);
            let failure = self.serve(&tx, genesis);
            // Closing is where the engine lets go of its locks; what it says then changes nothing any more.
            let _ = tx.into_connection().close();
            match failure {
                Some(why) => self.board.set_failed(Some(why)),
                None => return,
            }
        }
    }

    /// Waits for work, but not for long; false when nobody is left to bring any.
    fn wait(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        while self.jobs.is_empty() && Instant::now() < until {
            if self.jobs.is_closed() {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        true
    }

    fn connect(&self, genesis: Hash) -> rusqlite::Result<Transaction> {
        let mut conn = open::writer(&self.options)?;
        // What an earlier writer left in the log may be in the page cache only, if its sync failed: on disk in
        // the main file it can't take later commits with it. Passive: waits for nobody.
        conn.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()))?;
        self.guard.install(&mut conn)?;
        open::same_store(&conn, self.store)?;
        let tx = Transaction::new(conn, Arc::clone(&self.guard), genesis);
        tx.read_tail(genesis)?;
        self.end.send_replace(tx.tail());
        Ok(tx)
    }

    /// Serves groups on one connection. Ends with a reason when the connection can't be trusted any more,
    /// with none when nobody is left to ask.
    fn serve(&mut self, tx: &Transaction, genesis: Hash) -> Option<String> {
        let (mut version, mut group) = (None, Vec::new());
        while self.fill(&mut group) {
            if let Err(why) = self.group(tx, genesis, &mut version, &mut group) {
                return Some(why);
            }
        }
        None
    }

    /// Waits for work, then takes what is there.
    fn fill(&mut self, group: &mut Vec<Box<dyn Work>>) -> bool {
        let Some(first) = self.jobs.blocking_recv() else { return false };
        let mut bytes = first.weight();
        group.push(first);
        while group.len() < self.options.group && bytes < GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            bytes += job.weight();
            group.push(job);
        }
        true
    }

    fn refuse(&self, group: &mut Vec<Box<dyn Work>>, refusal: &Refusal) {
        for job in group.drain(..) {
            job.end(self.store, End::NotDone(refusal.clone()));
        }
    }

    /// One group, from begin to answers. `Err`: the connection must be opened anew.
    fn group(
        &self,
        tx: &Transaction,
        genesis: Hash,
        version: &mut Option<i64>,
        group: &mut Vec<Box<dyn Work>>,
    ) -> Result<(), String> {
        group.retain(|job| !job.abandoned());
        let mut culprits = Vec::new();
        let (mut ended, mut failing) = (Ok(()), None);
        while !group.is_empty() && ended.is_ok() {
            // Where several spoil it, each goes alone: dear, but nobody suffers for the others.
            let mut rest = if culprits.len() < LOST_MAX { Vec::new() } else { group.split_off(1) };
            match self.attempt(tx, genesis, version, group) {
                Attempt::Ended => {}
                Attempt::Lost(job, broken) => {
                    if broken.reopen {
                        failing = Some(broken.refusal.to_string());
                    }
                    culprits.push((job, broken.refusal));
                }
                Attempt::Failed(why) => {
                    let refusal = Refusal::Unavailable {
                        why: why.clone(),
                        remedy: "it was not begun; try again".into(),
                        passing: true,
                    };
                    self.refuse(&mut rest, &refusal);
                    ended = Err(why);
                }
            }
            group.append(&mut rest);
        }
        // What a culprit says may rest on what its neighbours wrote: they are on disk by now.
        for (job, refusal) in culprits {
            job.end(self.store, End::NotDone(refusal));
        }
        ended.and(failing.map_or(Ok(()), Err))
    }

    /// Does the jobs in one transaction and answers them, unless one of them spoils it: that one is taken out,
    /// and nothing is written.
    fn attempt(
        &self,
        tx: &Transaction,
        genesis: Hash,
        version: &mut Option<i64>,
        jobs: &mut Vec<Box<dyn Work>>,
    ) -> Attempt {
        if let Err(error) = tx.begin(version, genesis) {
            tx.roll_back();
            self.refuse(jobs, &refusal(&error));
            return if kind(&error) == Kind::Locked {
                Attempt::Ended
            } else {
                Attempt::Failed(error.to_string())
            };
        }
        let tail = tx.tail();
        let culprit = jobs.iter_mut().enumerate().find_map(|(i, job)| match job.turn(tx, &self.board) {
            Turn::Kept => None,
            Turn::GroupLost(broken) => Some((i, broken)),
        });
        match culprit {
            None => match self.commit(tx, tail, jobs) {
                Ok(()) => Attempt::Ended,
                Err(why) => Attempt::Failed(why),
            },
            Some((i, broken)) => {
                tx.roll_back();
                tx.restore(tail);
                Attempt::Lost(jobs.remove(i), broken)
            }
        }
    }

    fn commit(&self, tx: &Transaction, before: Tail, group: &mut Vec<Box<dyn Work>>) -> Result<(), String> {
        if let Err(error) = tx.commit() {
            let why = format!("the commit failed: {error}");
            tx.roll_back();
            for job in group.drain(..) {
                job.end(self.store, End::Unknown(why.clone()));
            }
            return Err(why);
        }
        let end = tx.tail();
        // Before anybody is told that there is more.
        tx.hand_over(&self.recent);
        self.groups.note(group.len(), end.position.0 - before.position.0);
        // Others' work waits for this; the answers are for those whose work is done.
        if end != before {
            self.end.send_replace(end);
        }
        for job in group.drain(..) {
            job.end(self.store, End::Committed);
        }
        Ok(())
    }
}

/// Looks at the size of the write-ahead log now and then. Ends when the store is gone.
pub(crate) fn watch(board: &std::sync::Weak<Board>, wal: &std::path::Path, wal_alarm: u64) {
    while let Some(board) = board.upgrade() {
        let bytes = std::fs::metadata(wal).map_or(0, |file| file.len());
        board.wal_bytes.store(if bytes > wal_alarm { bytes } else { 0 }, Ordering::Relaxed);
        drop(board);
        std::thread::park_timeout(Duration::from_millis(250));
    }
}
