//! The log's writer: one thread, one connection; whatever waits when it is free becomes one commit.

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::Timestamp;
use mainstay_messaging::{AppendError, Offset};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::append::{self, Known, Prepared, Written};
use super::bell::Ringer;
use super::error::refusal;
use super::open::{self, Identity, REOPEN};
use super::options::LogOptions;
use super::parcel;
use super::queue::{Answer, Job, Queue};
use super::retention::{self, SLICE};
use crate::error::{Kind, kind};
use crate::stats::Groups;

/// Bytes of one commit: what is kept in the write-ahead log's index at most.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Appends of one commit.
const GROUP_APPENDS_MAX: usize = 256;

/// How often a file that can't be opened any more is tried again.
const REOPEN_EVERY: Duration = Duration::from_millis(500);

/// How often, by the wall clock of the appends, the writer looks whether something is too old.
const PRUNE_EVERY_MS: i64 = 1_000;

/// Everything the writer thread owns.
pub(super) struct Writer {
    pub(super) options: LogOptions,
    pub(super) identity: Identity,
    pub(super) queue: Arc<Queue>,
    pub(super) grown: watch::Sender<u64>,
    pub(super) groups: Arc<Groups>,
}

/// An append in its turn.
struct Turn {
    prepared: Prepared,
    reply: oneshot::Sender<Answer>,
    _place: OwnedSemaphorePermit,
}

/// Pruning that is under way.
struct Pruning {
    before: Timestamp,
    replies: Vec<oneshot::Sender<Result<(), AppendError>>>,
}

/// What lives as long as a connection.
struct Session {
    conn: Connection,
    known: Known,
    ringer: Ringer,
    pruning: Option<Pruning>,
    pruned_at: Option<Timestamp>,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(self) {
        // Tells everybody when this thread ends, by a panic too.
        struct End(Arc<Queue>);
        impl Drop for End {
            fn drop(&mut self) {
                drop(self.0.end()); // their answers come as "ended before it answered"
            }
        }
        let _end = End(Arc::clone(&self.queue));
        loop {
            let mut session = match self.connect() {
                Ok(session) => session,
                Err(error) => {
                    // Not limping on: what waits is refused. What comes after that tries anew.
                    for job in self.queue.drain() {
                        refuse(job, &error);
                    }
                    if self.queue.is_over(REOPEN_EVERY) {
                        return;
                    }
                    continue;
                }
            };
            let failed = self.serve(&mut session);
            // Closing is where the engine lets go of its locks; what it says then changes nothing any more.
            let _ = session.conn.close();
            if !failed {
                return;
            }
        }
    }

    fn connect(&self) -> Result<Session, AppendError> {
        let gone = |why: String| AppendError::Unavailable { why, remedy: REOPEN.into(), passing: false };
        self.identity.still_there().map_err(gone)?;
        let conn = crate::open::writer(&self.options.for_writer()).map_err(|error| refusal(&error))?;
        // What an earlier writer left in the write-ahead log may be in the page cache only, if its sync failed: on
        // disk in the main file it can't take later commits with it. Passive: waits for nobody.
        conn.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(())).map_err(|error| refusal(&error))?;
        open::check(&conn, &self.identity)
            .map_err(|error| refusal(&error))?
            .map_err(|error| gone(error.to_string()))?;
        let ringer = Ringer::new(&self.options);
        Ok(Session { conn, known: Known::default(), ringer, pruning: None, pruned_at: None })
    }

    /// Serves until nobody is left to ask (false), or until the connection must be opened anew (true).
    fn serve(&self, session: &mut Session) -> bool {
        loop {
            let Some(first) = self.queue.pop(session.pruning.is_none()) else {
                if session.pruning.is_none() {
                    return false;
                }
                if self.queue.is_done() {
                    // What is left may be millions of rows; nobody who closes waits for that.
                    session.end_pruning(&Err(closed()));
                    return false;
                }
                // Nobody waits: a slice of the old messages.
                if session.prune(SLICE) { continue } else { return true }
            };
            let (mut group, mut bytes) = (Vec::new(), 0);
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Append { prepared, reply, place } => {
                        bytes += prepared.bytes;
                        // Who does not wait any more is not served.
                        if !reply.is_closed() {
                            group.push(Turn { prepared, reply, _place: place });
                        }
                    }
                    Job::Prune { before, reply } => session.ask_prune(before, Some(reply)),
                }
                if group.len() < GROUP_APPENDS_MAX && bytes < GROUP_BYTES_MAX {
                    next = self.queue.pop(false);
                }
            }
            let (messages, at) =
                (group.iter().map(|turn| turn.prepared.rows.len()).sum::<usize>(), latest(&group));
            if !group.is_empty() && !self.group(session, group) {
                return true;
            }
            if let (Some(at), Some(kept)) = (at, self.options.retention) {
                session.retain(at, kept);
            }
            // A slice takes more than the group brought, or old messages would pile up under load.
            if session.pruning.is_some() && !session.prune(SLICE + 2 * messages) {
                return true;
            }
        }
    }

    /// One commit, from begin to answers. False when the connection must be opened anew.
    fn group(&self, session: &mut Session, group: Vec<Turn>) -> bool {
        if let Err(why) = self.identity.still_there() {
            answer_all(group, &AppendError::Unavailable { why, remedy: REOPEN.into(), passing: false });
            return false;
        }
        let places = match session.write(&group) {
            Ok(places) => places,
            Err(error) => {
                session.roll_back();
                answer_all(group, &refusal(&error));
                return kind(&error) == Kind::Locked;
            }
        };
        if let Err(error) = session.conn.prepare_cached("commit").and_then(|mut commit| commit.execute([])) {
            session.roll_back();
            answer_all(group, &AppendError::Unknown { why: format!("the commit failed: {error}") });
            return false;
        }
        self.groups.note(group.len(), places.iter().map(Vec::len).sum::<usize>() as u64);
        // Others' work waits for it; whoever appended only wants to know.
        session.ringer.ring(|parcel| {
            let appended = group.iter().map(|turn| &turn.prepared).zip(places.iter().map(Vec::as_slice));
            parcel::pack(parcel, self.identity.id, appended)
        });
        for (turn, places) in group.into_iter().zip(places) {
            // Who does not wait any more does not want to know.
            let _ = turn.reply.send(Ok(places));
        }
        self.grown.send_modify(|count| *count = count.wrapping_add(1));
        true
    }
}

fn closed() -> AppendError {
    AppendError::Unavailable {
        why: "it was closed before all old messages were gone; some are".into(),
        remedy: "open the log anew and prune again".into(),
        passing: false,
    }
}

/// The latest wall time of a group.
fn latest(group: &[Turn]) -> Option<Timestamp> {
    group.iter().map(|turn| turn.prepared.published).max()
}

fn refuse(job: Job, error: &AppendError) {
    // Who does not wait any more does not want to know.
    match job {
        Job::Append { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Prune { reply, .. } => drop(reply.send(Err(error.clone()))),
    }
}

fn answer_all(group: Vec<Turn>, error: &AppendError) {
    for turn in group {
        let _ = turn.reply.send(Err(error.clone()));
    }
}

impl Session {
    fn write(&mut self, group: &[Turn]) -> rusqlite::Result<Vec<Vec<(u32, Offset)>>> {
        self.conn.prepare_cached("begin immediate")?.execute([])?;
        let mut written = Written::default();
        let places = group
            .iter()
            .map(|turn| append::write(&self.conn, &mut self.known, &mut written, &turn.prepared))
            .collect::<Result<_, _>>()?;
        append::finish(&self.conn, &written)?;
        Ok(places)
    }

    fn roll_back(&mut self) {
        // Numbers that were given in this transaction are given to others now.
        self.known = Known::default();
        if !self.conn.is_autocommit() {
            // A failure to roll back shows at the next begin.
            let _ = self.conn.execute_batch("rollback");
        }
    }

    /// Begins to prune when it is time to look.
    fn retain(&mut self, at: Timestamp, kept: Duration) {
        let due =
            self.pruned_at.is_none_or(|last| (at.as_millis() - last.as_millis()).abs() >= PRUNE_EVERY_MS);
        if due {
            self.pruned_at = Some(at);
            let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
            self.ask_prune(Timestamp::from_millis(at.as_millis().saturating_sub(kept)), None);
        }
    }

    fn ask_prune(&mut self, before: Timestamp, reply: Option<oneshot::Sender<Result<(), AppendError>>>) {
        let pruning = self.pruning.get_or_insert_with(|| Pruning { before, replies: Vec::new() });
        pruning.before = pruning.before.max(before);
        pruning.replies.extend(reply);
    }

    /// One slice. False when the connection must be opened anew.
    fn prune(&mut self, max: usize) -> bool {
        let Some(pruning) = &self.pruning else { return true };
        let ended = match retention::slice(&self.conn, pruning.before, max) {
            Ok(true) => return true,
            Ok(false) => Ok(()),
            Err(error) => Err((refusal(&error), kind(&error) == Kind::Locked)),
        };
        let goes_on = ended.as_ref().map_or_else(|(_, locked)| *locked, |()| true);
        self.end_pruning(&ended.map_err(|(error, _)| error));
        goes_on
    }

    fn end_pruning(&mut self, ended: &Result<(), AppendError>) {
        for reply in self.pruning.take().map(|pruning| pruning.replies).unwrap_or_default() {
            // Who does not wait any more does not want to know.
            let _ = reply.send(ended.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mainstay_envelope::{CloudEvent, ContentHash, Context, MessageIdentity, Producer};
    use mainstay_messaging::{Log, Message, ReadError, Topic};

    use super::super::EmbeddedLog;
    use super::*;

    fn message(topic: &Topic, number: u64) -> Message {
        let (epoch, partition, content) = (1, 0, ContentHash::of(b""));
        let producer = Producer::new("p").unwrap();
        Message {
            identity: MessageIdentity { producer, epoch, partition, seq: number, content },
            topic: topic.clone(),
            key: "k".into(),
            event: CloudEvent::new(number.to_string(), "/p", "E").unwrap(),
            data: Bytes::new(),
            mark: number,
        }
    }

    /// Waits until a ring has brought what follows an offset.
    async fn brought(follower: &EmbeddedLog, topic: &Topic, after: Offset) {
        let waits = async {
            while !follower.inner.heard.has(topic, 0, after) {
                follower.wait_past(topic, 0, after, Duration::from_secs(1)).await;
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, waits).await.expect("no ring has brought it");
    }

    #[tokio::test]
    async fn a_ring_brings_what_was_appended() {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions::new(folder.path().join("log.db")).runtime_folder(folder.path());
        let (log, follower) =
            (EmbeddedLog::open(options.clone()).unwrap(), EmbeddedLog::follow(options.clone()).unwrap());
        let topic = Topic::new("t").unwrap();
        for number in 1..=3_u64 {
            let after = Offset(number - 1);
            let sent = vec![message(&topic, number)];
            let cx = Context::system();
            let (appended, ()) =
                tokio::join!(log.append(&cx, sent.clone()), brought(&follower, &topic, after));
            assert_eq!(appended.unwrap(), [(0, Offset(number))]);
            let page = follower.read(&topic, 0, after, 10).await.unwrap();
            // What the file says, of somebody who has heard nothing.
            let read = EmbeddedLog::follow(options.clone()).unwrap().read(&topic, 0, after, 10).await;
            assert_eq!(Ok(&page), read.as_ref());
            assert_eq!((page.messages[0].message == sent[0], page.at_end()), (true, true));
            assert!(!follower.inner.heard.has(&topic, 0, Offset(number)));
        }
        // Nobody reads from a file that is not there any more, whatever was heard of it.
        log.append(&Context::system(), vec![message(&topic, 4)]).await.unwrap();
        brought(&follower, &topic, Offset(3)).await;
        std::fs::rename(&options.path, folder.path().join("moved")).unwrap();
        let read = follower.read(&topic, 0, Offset(3), 10).await;
        assert!(matches!(read, Err(ReadError::Unavailable { passing: false, .. })), "{read:?}");
    }

    #[tokio::test]
    async fn a_log_that_closes_does_not_finish_its_pruning() {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions::new(folder.path().join("log.db")).retention(None);
        let (topic, batch) = (Topic::new("t").unwrap(), SLICE as u64);
        let log = EmbeddedLog::open(options.clone()).unwrap();
        for first in (1..=5).map(|nth| (nth - 1) * batch + 1) {
            let messages = (first..first + batch).map(|number| message(&topic, number)).collect();
            log.append(&Context::system(), messages).await.unwrap();
        }
        log.close();
        // As it is when the last handle goes just after somebody asked.
        let (queue, (reply, answer)) = (Arc::new(Queue::new()), oneshot::channel());
        queue.push(Job::Prune { before: Timestamp::from_millis(i64::MAX), reply }).unwrap();
        queue.close();
        let identity = open::prepare(&options).unwrap();
        let (grown, groups) = (watch::channel(0).0, Arc::default());
        let writer = Writer { options: options.clone(), identity, queue, grown, groups };
        tokio::task::spawn_blocking(|| writer.run()).await.unwrap();
        let told = answer.await.unwrap().unwrap_err();
        assert!(matches!(told, AppendError::Unavailable { passing: false, .. }), "{told}");
        let log = EmbeddedLog::follow(options).unwrap();
        let read = log.read(&topic, 0, Offset::START, 1).await;
        assert_eq!(read, Err(ReadError::Truncated { asked: Offset::START, first: Offset(batch) }));
        assert_eq!(log.end(&topic, 0).await, Ok(Offset(5 * batch)));
    }
}
