//! [`Relay`]: from the outbox to the log.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mainstay_envelope::{Context, Monotonic};
use mainstay_event_store::{OutboxRecord, OutboxStatus, Position, ReadError, Refusal, Store, Tx};
use mainstay_messaging::{self as messaging, Log, Message, RECHECK};
use mainstay_resilience::retry::{Checked, Spec};

use super::change::change;
use super::error::RelayError;
use super::message::message;
use super::orphans::{Met, ORPHANS_MAX, Orphans};
use super::restored;
use crate::pace::Pace;

/// Rows of one append: as many as a log takes at once.
const BATCH_MAX: usize = messaging::limits::APPEND_MESSAGES_MAX;
/// Bytes of one append, so that a batch of large messages does not make the others wait for long.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// A mark is worth a transaction when so many rows wait for it,
const MARKS_MAX: usize = 2_048;
/// or when the first of them has waited so long. Marks are only what a restart begins from: to make them late costs
/// a few messages published twice after a crash, and saves a flush of the disk for each message.
const MARK_AFTER: Duration = Duration::from_millis(50);
/// How long a relay that was told to stop tries to mark what it has published.
const LAST_MARK_MAX: Duration = Duration::from_secs(2);
/// How often it is looked for old rows, and while there are more.
const PRUNE_EVERY: Duration = Duration::from_secs(20);
const PRUNE_PAUSE: Duration = Duration::from_millis(100);
/// What a row weighs beside its parts, so that no batch is more than a log takes at once.
const ROW_BYTES: usize = 512;
/// Rows that are not published leave their numbers open; receivers keep a range for each run of them, and only so
/// many. After so many runs the numbers begin again, in an epoch of their own.
const GAPS_MAX: u64 = 1_000;
/// Sent rows are kept so long at least, whatever is asked for: what a log acknowledges may be in nobody's memory but
/// its machine's for as long as it takes to flush.
const RETENTION_MIN: Duration = Duration::from_secs(60);

/// Publishes a store's outbox to a log. One a store.
///
/// It reads no payload and decides nothing: a row becomes a message, in the order of the rows' numbers. Rows are
/// marked as sent after they were published, never before.
pub struct Relay<S, L> {
    pub(super) store: S,
    log: L,
    settings: Checked,
    batch_max: usize,
    pub(super) retention: Duration,
    mark_after: Duration,
    orphans_max: usize,
    pub(super) on_trouble: Arc<dyn Fn(&str) + Send + Sync>,
}

impl<S: Clone, L: Clone> Clone for Relay<S, L> {
    fn clone(&self) -> Self {
        let on_trouble = Arc::clone(&self.on_trouble);
        Self { store: self.store.clone(), log: self.log.clone(), on_trouble, ..*self }
    }
}

impl<S: fmt::Debug, L: fmt::Debug> fmt::Debug for Relay<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("store", &self.store).field("log", &self.log).finish_non_exhaustive()
    }
}

/// Where a relay is.
#[derive(Debug)]
pub struct Running {
    /// Everything up to this row is published.
    cursor: u64,
    /// The rows published last were all that this process had committed: it says when there are more.
    drained: bool,
    /// Rows up to this one go out whether they are marked or not: the log lacks them.
    again_to: u64,
    /// Rows published so far.
    pub(super) published: u64,
    /// Rows that are published and not yet marked.
    unmarked: Vec<u64>,
    /// Since when the first of them waits.
    since: Monotonic,
    /// When to look for old rows.
    prune_at: Monotonic,
    /// Rows published when that was done last.
    pub(super) pruned_at: u64,
    /// What was published and is not remembered.
    orphans: Orphans,
    /// Rows that were not published since it was told last, because they are among the orphans.
    held: u64,
    /// Was the last row one of them, and how many runs of them there were.
    holding: bool,
    gaps: u64,
}

/// Rows to be published.
struct Batch {
    rows: Vec<OutboxRecord>,
    /// The last transaction goes on after them.
    cut: bool,
    /// They are the last ones that this process has committed.
    drained: bool,
}

impl<S: Store, L: Log> Relay<S, L> {
    /// From this store's outbox to this log.
    pub fn new(store: S, log: L) -> Self {
        let settings = Spec::full_jitter(Duration::from_millis(20), Duration::from_secs(5));
        Self {
            store,
            log,
            settings: settings.max_attempts(u32::MAX).check().unwrap_or_default(),
            batch_max: BATCH_MAX,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            mark_after: MARK_AFTER,
            orphans_max: ORPHANS_MAX,
            on_trouble: Arc::new(|_| {}),
        }
    }

    /// How often, and after which waits, a step is tried again that failed for a passing reason. Default: without
    /// end, full jitter from 20 ms to 5 s.
    pub fn retry(mut self, settings: Checked) -> Self {
        self.settings = settings;
        self
    }

    /// How long sent rows are kept, at least a minute; default 7 days. They are what a log that lost its end gets
    /// again, and what tells whether a store was restored.
    pub fn retention(mut self, keep: Duration) -> Self {
        self.retention = keep.max(RETENTION_MIN);
        self
    }

    /// Rows of one append, 1 to 1,000; default 1,000.
    pub fn batch_max(mut self, rows: usize) -> Self {
        self.batch_max = rows.clamp(1, BATCH_MAX);
        self
    }

    /// How long a published row may wait for its mark; default 50 ms.
    pub fn mark_after(mut self, wait: Duration) -> Self {
        self.mark_after = wait;
        self
    }

    /// How many messages a restored store's relay remembers that the store does not, 1 to 1,000,000, about 100 bytes
    /// each; default 1,000,000. Where the log has more of them, it refuses to run ([`RelayError::Orphans`]).
    pub fn orphans_max(mut self, messages: usize) -> Self {
        self.orphans_max = messages.clamp(1, ORPHANS_MAX);
        self
    }

    /// Tells of each failure that is waited out, and of a store that was restored, in the operator's words.
    pub fn on_trouble(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_trouble = Arc::new(tell);
        self
    }

    /// How far the outbox has come: for metrics.
    pub async fn status(&self) -> Result<OutboxStatus, ReadError> {
        self.store.outbox_status().await
    }

    /// Publishes until `stop` is ready, then marks what was published. Returns early only for what will not pass
    /// by itself.
    pub async fn run(&self, cx: &Context, stop: impl Future<Output = ()> + Send) -> Result<(), RelayError> {
        let mut stop = pin!(stop);
        let mut running = None;
        let ended = {
            let mut work = pin!(async {
                let running = running.insert(self.begin(cx).await?);
                loop {
                    let published = self.step(cx, running).await?;
                    if cx.now() >= running.prune_at {
                        let pause =
                            if self.prune_some(cx, running).await? { PRUNE_PAUSE } else { PRUNE_EVERY };
                        running.prune_at = cx.now() + pause;
                    }
                    if !published || std::mem::take(&mut running.drained) {
                        self.idle(cx, running).await?;
                    }
                }
            });
            std::future::poll_fn(|task| match stop.as_mut().poll(task) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => work.as_mut().poll(task),
            })
            .await
        };
        // Cut off anywhere: what was published and is not marked is published again, and swallowed by receivers.
        // Marking it now only spares them that, so nobody waits for it for long.
        if let Some(running) = &mut running
            && let Ok(marked) = tokio::time::timeout(LAST_MARK_MAX, self.mark(cx, running)).await
        {
            return ended.and(marked);
        }
        ended
    }

    /// Publishes everything that is in the outbox when this is called; how many rows.
    pub async fn run_until_empty(&self, cx: &Context) -> Result<u64, RelayError> {
        let mut running = self.begin(cx).await?;
        while self.step(cx, &mut running).await? {}
        self.mark(cx, &mut running).await?;
        Ok(running.published)
    }

    /// Compares the outbox with the log, and says where to begin.
    pub async fn begin(&self, cx: &Context) -> Result<Running, RelayError> {
        let mut pace = Pace::new(cx, self.settings);
        let found = loop {
            let tell = &*self.on_trouble;
            match restored::compare(&self.store, &self.log, cx, tell, self.orphans_max).await {
                Ok(found) => break found,
                Err(error) => self.wait_out(cx, &mut pace, error).await?,
            }
        };
        let restored::Found { cursor, again_to, orphans } = found;
        Ok(Running {
            cursor,
            drained: false,
            again_to,
            published: 0,
            unmarked: Vec::new(),
            since: cx.now(),
            prune_at: cx.now(),
            pruned_at: 0,
            orphans,
            held: 0,
            holding: false,
            gaps: 0,
        })
    }

    /// Publishes the next rows; were there any?
    pub async fn step(&self, cx: &Context, running: &mut Running) -> Result<bool, RelayError> {
        let mut pace = Pace::new(cx, self.settings);
        loop {
            let mut batch = self.batch(cx, running).await?;
            if running.again_to > 0 && (batch.rows.is_empty() || running.cursor >= running.again_to) {
                // The log has again what it lacked, as far as it is kept. Now what has no mark, from the beginning.
                self.mark(cx, running).await?;
                (running.cursor, running.again_to) = (0, 0);
                batch = self.batch(cx, running).await?;
            }
            let Batch { rows, cut, drained } = batch;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
                self.tell_held(running);
                return Ok(false);
            };
            let (first, last) = (first.seq, last.seq);
            let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
            if let Err(error) = running.orphans.look(&self.log, &rows).await {
                self.wait_out(cx, &mut pace, error).await?;
                continue;
            }
            let met: Vec<Met> = rows.iter().map(|row| running.orphans.meets(row)).collect();
            let new = rows.into_iter().zip(&met).filter(|(_, met)| **met != Met::Published);
            let messages = self.messages(new.map(|(row, _)| row).collect(), cut)?;
            let published = messages.len() as u64;
            let append = async {
                if messages.is_empty() {
                    return Ok(());
                }
                let appended = self.log.append(cx, messages).await;
                appended.map(drop).map_err(|why| RelayError::Append { first, last, why })
            };
            let appended = if self.mark_is_due(cx, running) {
                // The log's flush and the store's are two files' work.
                let (appended, marked) = tokio::join!(append, self.mark(cx, running));
                marked?;
                appended
            } else {
                append.await
            };
            match appended {
                Ok(()) => {
                    if running.unmarked.is_empty() {
                        running.since = cx.now();
                    }
                    running.published += published;
                    self.note_met(running, &seqs, &met);
                    running.unmarked.extend(seqs);
                    (running.cursor, running.drained) = (last, drained);
                    if running.gaps >= GAPS_MAX {
                        self.close_gaps(cx, running).await?;
                    }
                    return Ok(true);
                }
                // After an unknown outcome too: the same rows are read and published again, and receivers know them.
                Err(error) => self.wait_out(cx, &mut pace, error).await?,
            }
        }
    }

    /// `cut`: their last transaction goes on after them.
    fn messages(&self, rows: Vec<OutboxRecord>, cut: bool) -> Result<Vec<Message>, RelayError> {
        let id = self.store.id();
        let message = |row: OutboxRecord| {
            let seq = row.seq;
            let mut message = message(row, id).map_err(|why| RelayError::row(seq, &why))?;
            if cut {
                // Its receipt may be answered with its last message. What came before it is whole.
                message.mark = message.mark.saturating_sub(1);
            }
            Ok(message)
        };
        rows.into_iter().map(message).collect()
    }

    /// Counts what was not published, and tells of what was published although its id was before.
    fn note_met(&self, running: &mut Running, seqs: &[u64], met: &[Met]) {
        let held = running.held;
        for met in met {
            let holding = *met == Met::Published;
            running.held += u64::from(holding);
            running.gaps += u64::from(holding && !running.holding);
            running.holding = holding;
        }
        if running.held == held {
            self.tell_held(running);
        }
        let altered: Vec<u64> =
            seqs.iter().zip(met).filter(|(_, met)| **met == Met::Altered).map(|(seq, _)| *seq).collect();
        if let Some(first) = altered.first() {
            (self.on_trouble)(&format!(
                "{} rows, the first of them row {first}, have ids under which this store, before it was restored, \
                 published something else; they were published, and receivers act on both: compare them",
                altered.len()
            ));
        }
    }

    /// Tells how many rows were not published, once they have come to an end.
    fn tell_held(&self, running: &mut Running) {
        if running.held > 0 {
            (self.on_trouble)(&format!(
                "{} rows up to row {} were not published: the log holds the same messages from before this store was \
                 restored",
                running.held, running.cursor
            ));
        }
        running.held = 0;
    }

    /// Begins the numbers again, so that receivers need not remember those that will never come.
    async fn close_gaps(&self, cx: &Context, running: &mut Running) -> Result<(), RelayError> {
        let after = running.cursor;
        if running.again_to > 0 {
            return Ok(());
        }
        self.mark(cx, running).await?;
        // What can't be asked now is asked after the next rows.
        let Ok(status) = self.store.outbox_status().await else { return Ok(()) };
        // Rows that were published under their number keep it.
        if status.unsent != status.last.saturating_sub(after) {
            return Ok(());
        }
        let mut pace = Pace::new(cx, self.settings);
        loop {
            // After an unknown outcome there may be two: the first one has no rows then.
            match change(&self.store, cx, move |tx| tx.outbox_new_epoch(after)).await {
                Ok(_) => break,
                // Where none can begin the numbers go on: that is no reason to stop.
                Err(RelayError::Mark(Refusal::Invalid { .. })) => break,
                Err(error) => self.wait_out(cx, &mut pace, error).await?,
            }
        }
        running.gaps = 0;
        Ok(())
    }

    /// Marks what is due, and waits for more rows.
    async fn idle(&self, cx: &Context, running: &mut Running) -> Result<(), RelayError> {
        if self.mark_is_due(cx, running) {
            return self.mark(cx, running).await;
        }
        let mut at_most = RECHECK;
        if !running.unmarked.is_empty() {
            at_most = self.mark_after.saturating_sub(cx.now().saturating_since(running.since)).min(RECHECK);
        }
        self.store.wait_outbox(running.cursor, at_most).await;
        Ok(())
    }

    /// The rows to publish next: whole transactions, as far as they fit.
    async fn batch(&self, cx: &Context, running: &Running) -> Result<Batch, RelayError> {
        let again = running.cursor < running.again_to;
        // After the cursor nothing is marked: only this relay marks, and it has not come there yet.
        let recent = if again { None } else { self.store.outbox_recent(running.cursor, self.batch_max) };
        let was_recent = recent.is_some();
        let mut rows = match recent {
            Some(rows) => rows,
            None => self.read(cx, running.cursor, again).await?,
        };
        let (mut bytes, mut fit) = (0, 0);
        for row in &rows {
            bytes += weight(row);
            if fit > 0 && bytes > BATCH_BYTES_MAX {
                break;
            }
            fit += 1;
        }
        // A store's page that ended by its bytes weighs more than a batch may.
        let ended = fit < rows.len() || rows.len() == self.batch_max;
        rows.truncate(fit);
        let mut cut = false;
        if ended && let Some((seq, last)) = rows.last().map(|last| (last.seq, last.position)) {
            // A reader at the end of the log takes it that it has seen the whole of each transaction there.
            let whole = rows.iter().rposition(|row| row.position != last).map_or(rows.len(), |at| at + 1);
            // One that is larger than a batch goes in parts, and its last one says so.
            if whole == rows.len() {
                cut = self.goes_on(cx, seq, last).await?;
            }
            rows.truncate(whole);
        }
        Ok(Batch { rows, cut, drained: was_recent && !ended })
    }

    /// Rows after the cursor, those that are marked only where they go out again.
    async fn read(&self, cx: &Context, cursor: u64, again: bool) -> Result<Vec<OutboxRecord>, RelayError> {
        let mut pace = Pace::new(cx, self.settings);
        loop {
            let read = match again {
                true => self.store.outbox_after(cursor, self.batch_max).await,
                false => self.store.outbox_unsent(cursor, self.batch_max).await,
            };
            match read {
                Ok(rows) => return Ok(rows),
                Err(error) => self.wait_out(cx, &mut pace, error.into()).await?,
            }
        }
    }

    /// Is the row after this one of the same transaction?
    async fn goes_on(&self, cx: &Context, seq: u64, position: Position) -> Result<bool, RelayError> {
        let mut pace = Pace::new(cx, self.settings);
        loop {
            match self.store.outbox_after(seq, 1).await {
                Ok(rows) => return Ok(rows.first().is_some_and(|next| next.position == position)),
                Err(error) => self.wait_out(cx, &mut pace, error.into()).await?,
            }
        }
    }

    fn mark_is_due(&self, cx: &Context, running: &Running) -> bool {
        let waited = cx.now().saturating_since(running.since);
        running.unmarked.len() >= MARKS_MAX || (!running.unmarked.is_empty() && waited >= self.mark_after)
    }

    /// Marks what was published.
    async fn mark(&self, cx: &Context, running: &mut Running) -> Result<(), RelayError> {
        if running.unmarked.is_empty() {
            return Ok(());
        }
        let seqs: Arc<[u64]> = running.unmarked.as_slice().into();
        let mut pace = Pace::new(cx, self.settings);
        loop {
            let seqs = Arc::clone(&seqs);
            match change(&self.store, cx, move |tx| tx.outbox_sent(&seqs)).await {
                Ok(()) => break,
                Err(error) => self.wait_out(cx, &mut pace, error).await?,
            }
        }
        running.unmarked.clear();
        Ok(())
    }

    async fn wait_out(&self, cx: &Context, pace: &mut Pace, error: RelayError) -> Result<(), RelayError> {
        if !error.is_passing() {
            return Err(error);
        }
        (self.on_trouble)(&error.to_string());
        pace.again(cx).await.map_err(|_| error)
    }
}

/// About how many bytes a row takes in a log; not less, and not less than it takes in a store's page.
fn weight(row: &OutboxRecord) -> usize {
    let headers: usize = row.row.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    ROW_BYTES + row.row.payload.len() + row.row.key.len() + row.envelope.len() + headers
}
