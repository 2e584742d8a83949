//! The embedded log: messages between the services of one machine, one SQLite file for each producer.
//!
//! ```text
//!  producer's process                     log.db                        each consumer's process
//!  append ─► queue ─► writer thread ─► one commit a group ─► -wal ◄── read-only reader ◄── read ◄─┐
//!            bounded        │                                                                     │
//!                           └── what was appended, to each doorbell (Unix datagram socket) ───────┤
//!                                                                 else: a look every second ──────┘
//! ```
//! [`EmbeddedLog::open`] writes; [`EmbeddedLog::follow`] only reads, from any process, also before the file is
//! there. What is acknowledged is on disk. A doorbell is a hint and may fail: whoever waits looks by itself
//! every second. The log does not deduplicate: receivers have an inbox.
//!
//! One process writes a log: its producer's. A second writer harms no message, but order between the two is
//! whatever their commits make it.
//!
//! Messages of one partition of one topic stand together in the file, in order; their offsets are dense. Old ones
//! go away by [`LogOptions::retention`], in slices between the groups, and only while something is appended;
//! [`EmbeddedLog::prune`] does it for a log at rest. The file does not shrink: its space is used again.
//!
//! Tests: `tests/log_conformance.rs` (the contract), `tests/log_processes.rs` (several processes, a killed
//! writer, doorbells), `tests/log_files.rs` (bad files).

mod append;
mod bell;
mod ends;
mod error;
mod heard;
mod offsets;
mod open;
mod options;
mod parcel;
mod queue;
mod read;
mod retention;
mod schema;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_envelope::{ContentHash, Context, Producer, Timestamp};
use mainstay_messaging::{AppendError, Log, Message, Offset, Page, Promises, RECHECK, ReadError, Topic};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use error::LogError;
pub use options::LogOptions;

use crate::reader::Readers;
use crate::stats::{GroupCounts, Groups};
use append::Prepared;
use bell::Doorbell;
use ends::Ends;
use heard::{Heard, Next};
use open::Identity;
use queue::{Job, Queue};
use writer::Writer;

/// A log on one SQLite file. Clones share the threads; the last one gone ends them after the queue is empty.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

struct Inner {
    options: LogOptions,
    /// Which file it is; not known of a followed file that is not there yet.
    identity: Arc<OnceLock<Identity>>,
    /// None for a follower.
    queue: Option<Arc<Queue>>,
    readers: Readers,
    /// Counts what may have made the log grow.
    grown: watch::Sender<u64>,
    ends: Ends,
    /// What rings brought; nothing for the writer.
    heard: Arc<Heard>,
    /// None for the writer, which needs nobody to tell it.
    bell: Option<Doorbell>,
    groups: Arc<Groups>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("path", &self.options.path)
            .field("follows", &self.queue.is_none())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

impl EmbeddedLog {
    /// Opens a log to write, making its file when it is not there. Blocks for milliseconds.
    ///
    /// # Errors
    /// See [`LogError`]; the file was not changed.
    pub fn open(mut options: LogOptions) -> Result<Self, LogError> {
        options.settle_path();
        let identity = open::prepare(&options)?;
        let readers = Readers::start(&options.for_readers()).map_err(|error| thread(&options, &error))?;
        let queue = Arc::new(Queue::new());
        let grown = watch::channel(0).0;
        let groups = Arc::new(Groups::default());
        let work = Writer {
            options: options.clone(),
            identity: identity.clone(),
            queue: Arc::clone(&queue),
            grown: grown.clone(),
            groups: Arc::clone(&groups),
        };
        let spawned = std::thread::Builder::new().name("mainstay-log".into()).spawn(move || work.run());
        let writer = Mutex::new(Some(spawned.map_err(|error| thread(&options, &error))?));
        let identity = Arc::new(OnceLock::from(identity));
        let inner = Inner {
            options,
            identity,
            queue: Some(queue),
            readers,
            grown,
            ends: Ends::default(),
            heard: Arc::default(),
            bell: None,
            groups,
            writer,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Follows a log that another process writes. Nothing is written; the file need not be there yet: until it
    /// is, every page is empty, wherever the reader stands.
    ///
    /// The doorbell is heard by the runtime's own I/O: waiting for a followed log panics on a runtime that was built
    /// without it (`enable_io`).
    ///
    /// # Errors
    /// When the file is there and is no log, or no thread can be started. What becomes wrong with it later is
    /// told by the reads.
    pub fn follow(mut options: LogOptions) -> Result<Self, LogError> {
        options.settle_path();
        let identity = Arc::new(OnceLock::new());
        if let Some(found) = open::look(&options)? {
            let _ = identity.set(found); // empty until now
        }
        let readers = Readers::start(&options.for_readers()).map_err(|error| thread(&options, &error))?;
        let grown = watch::channel(0).0;
        let (heard, ends, groups) = (Arc::<Heard>::default(), Ends::default(), Arc::default());
        let bell = Some(Doorbell::hang(&options, grown.clone(), Arc::clone(&heard)));
        let (queue, writer) = (None, Mutex::new(None));
        let inner = Inner { options, identity, queue, readers, grown, ends, heard, bell, groups, writer };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.options.path
    }

    /// How appends were grouped into commits so far, with messages in the place of events; nothing for a follower.
    pub fn groups(&self) -> GroupCounts {
        self.inner.groups.read()
    }

    /// Why no doorbell can be hung out now, if so: then this follower learns of new messages by its look every
    /// second only.
    pub fn doorbell_failure(&self) -> Option<String> {
        self.inner.bell.as_ref().and_then(Doorbell::failure)
    }

    /// Lets go of messages that were published before an instant, in slices between appends, until none is left:
    /// from the start of each partition, up to the first that is younger.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn prune(&self, before: Timestamp) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        self.queue()?.push(Job::Prune { before, reply })?;
        answer.await.unwrap_or_else(|_| Err(AppendError::Unknown { why: GONE.into() }))
    }

    /// Gives up this handle. If it is the last one, waits until the writer has emptied its queue and all threads
    /// have let go of the file. Pruning that is under way ends after its slice. Blocks.
    pub fn close(self) {
        let Some(mut inner) = Arc::into_inner(self.inner) else { return };
        let writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Before the writer, which moves everything into the file when it is the last to let go of it.
        inner.readers.close();
        drop(inner); // closes the queue
        if let Some(writer) = writer {
            // A writer that panicked has let go of the file too.
            let _ = writer.join();
        }
    }

    fn queue(&self) -> Result<&Arc<Queue>, AppendError> {
        self.inner.queue.as_ref().ok_or_else(|| AppendError::Unavailable {
            why: format!("{} is only followed here", self.path().display()),
            remedy: "append where its producer runs".into(),
            passing: false,
        })
    }

    /// Runs a read on a reader thread; `none` where the followed file is not there yet.
    async fn read_with<T: Send + 'static>(
        &self,
        none: T,
        read: impl FnOnce(&Connection, u32) -> rusqlite::Result<Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (options, identity) = (self.inner.options.clone(), Arc::clone(&self.inner.identity));
        let Some(known) = open::known(&options, &identity)? else { return Ok(none) };
        let partitions = known.partitions;
        let job = self.inner.readers.read(move |conn, _, _| match open::check(conn, &known)? {
            Ok(()) => read(conn, partitions).map(Ok),
            Err(error) => Ok(Ok(Err(error))),
        });
        job.await.map_err(error::read)?
    }

    /// The next page, if a ring has brought it.
    fn heard(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> Result<Option<Next>, ReadError> {
        let Inner { options, identity, heard, .. } = &*self.inner;
        if !heard.has(topic, partition, after) {
            return Ok(None);
        }
        // Of the log that is known here, which has to be there still, as for every read.
        let Some(known) = open::known(options, identity)? else { return Ok(None) };
        Ok(heard.next(known.id, topic, partition, after, max))
    }

    fn check_partition(&self, partition: u32) -> Result<(), ReadError> {
        let partitions = self.partitions();
        if partition < partitions {
            return Ok(());
        }
        let why = format!("partition {partition}, but there are {partitions}");
        Err(ReadError::Invalid { what: "partition", why })
    }
}

const GONE: &str = "the log's writer thread ended before it answered";

fn thread(options: &LogOptions, error: &std::io::Error) -> LogError {
    LogError::Failed { path: options.path.clone(), why: format!("no thread could be started: {error}") }
}

impl Log for EmbeddedLog {
    fn promises(&self) -> Promises {
        Promises {
            durable: true,
            ordered_per_key: true,
            replay: true,
            groups: false,
            deduplicates: false,
            retains: true,
            between_processes: true,
        }
    }

    fn partitions(&self) -> u32 {
        self.inner.options.partitions
    }

    async fn append(&self, cx: &Context, messages: Vec<Message>) -> Result<Vec<(u32, Offset)>, AppendError> {
        mainstay_messaging::check(&messages)?;
        let queue = self.queue()?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let prepared = Prepared::of(cx, messages, self.partitions());
        let at_most = cx.remaining().unwrap_or(self.inner.options.busy);
        let place = queue.admit(prepared.bytes, at_most.min(self.inner.options.busy)).await?;
        let (reply, answer) = oneshot::channel();
        queue.push(Job::Append { prepared, reply, place })?;
        answer.await.unwrap_or_else(|_| Err(AppendError::Unknown { why: GONE.into() }))
    }

    async fn read(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> Result<Page, ReadError> {
        self.check_partition(partition)?;
        // Before the read: what is rung for later may not be in it.
        let rung = *self.inner.grown.borrow();
        if let Some(Next { page, is_end }) = self.heard(topic, partition, after, max)? {
            if is_end {
                self.inner.ends.note(topic, partition, page.end, rung);
            }
            return Ok(page);
        }
        let own = topic.clone();
        let read = move |conn: &Connection, _| {
            read::page(conn, &own, partition, after, max).map(|page| page.map(Some))
        };
        let Some(page) = self.read_with(None, read).await? else {
            // Without a file nobody knows an end: the producer starts later, or its disk is not mounted yet.
            return Ok(Page { messages: Vec::new(), next: after, end: after });
        };
        if after > page.end {
            return Err(ReadError::PastEnd { asked: after, ends: page.end });
        }
        if page.at_end() {
            self.inner.ends.note(topic, partition, page.end, rung);
        }
        Ok(page)
    }

    async fn end(&self, topic: &Topic, partition: u32) -> Result<Offset, ReadError> {
        self.check_partition(partition)?;
        let topic = topic.clone();
        self.read_with(Offset::START, move |conn, _| read::end(conn, &topic, partition).map(Ok)).await
    }

    async fn wait_past(&self, topic: &Topic, partition: u32, after: Offset, at_most: Duration) {
        let mut grown = self.inner.grown.subscribe();
        if let Some(bell) = &self.inner.bell {
            bell.listen();
        }
        let wait = async {
            let rung = *grown.borrow_and_update();
            // Who has just read up to the end need not look there once more.
            let mut looked = self.inner.ends.is(topic, partition, after, rung);
            loop {
                // A read that fails tells its reason to whoever reads next; the waiter is not the one to judge.
                let more = !looked
                    && (self.inner.heard.has(topic, partition, after)
                        || self.end(topic, partition).await.map_or(true, |end| end > after));
                if more {
                    return;
                }
                match tokio::time::timeout(RECHECK, grown.changed()).await {
                    // Whoever waits reads next, and sees by that whether it was this partition.
                    Ok(_) => return,
                    Err(_) => looked = false,
                }
                if let Some(bell) = &self.inner.bell {
                    bell.mend();
                }
            }
        };
        // Over time or woken: both mean "look again".
        let _ = tokio::time::timeout(at_most, wait).await;
    }

    async fn newest(
        &self,
        producer: &Producer,
        epoch: u32,
        partition: u32,
    ) -> Result<Option<(u64, ContentHash)>, ReadError> {
        let producer = producer.clone();
        self.read_with(None, move |conn, _| read::newest(conn, &producer, epoch, partition)).await
    }
}
