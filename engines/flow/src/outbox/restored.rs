//! Is the store the one that wrote the log, and the log the one that the store wrote? Asked once, at the start.
//!
//! ```text
//!  outbox   1 2 3 4 5 6 7            the log's newest number, and its content:
//!  log      1 2 3 4 5                 agrees                       ─► go on
//!  log      1 2 3 4 5 6 7 8 9         is past the outbox's end      ┐ the store was restored from an older copy:
//!  log      1 2 3 4 5'6'7'            has another content           ┘ a new epoch after the last row that agrees
//!  log      1 2 3         (4 5 sent)  is before the last sent row  ─► the log lost its end: publish it again
//! ```
//! Receivers know a message by (producer, epoch, number, content). A restored store gives numbers out again that
//! they have met with another content, which they call an alarm; so from where the two part the rows are new
//! messages. What the log holds beyond that is of a life that this store does not remember: its receivers have
//! acted on it, and nobody can take that back, so it is told.

use std::collections::{BTreeSet, HashMap};

use mainstay_envelope::{ContentHash, Context, Producer};
use mainstay_event_store::{OutboxRecord, Store, Tx};
use mainstay_messaging::{self as messaging, Log, Offset, Topic};

use super::change::change;
use super::error::RelayError;

/// Rows or messages looked at in one step.
const PAGE_MAX: usize = 1_000;
/// Topics of one outbox that are compared with the log.
const TOPICS_MAX: usize = 256;

/// Where a relay begins.
pub(super) struct Found {
    pub(super) cursor: u64,
    pub(super) again_to: u64,
    /// For the operator.
    pub(super) told: Option<String>,
}

/// The present epoch's sequence: how numbers become rows.
struct Sequence {
    producer: Producer,
    epoch: u32,
    /// The row before its first.
    after: u64,
    last: u64,
    pruned_to: u64,
}

pub(super) async fn compare<S: Store, L: Log>(store: &S, log: &L, cx: &Context) -> Result<Found, RelayError> {
    let status = store.outbox_status().await?;
    let sequence = Sequence {
        producer: Producer::from(store.id().0),
        epoch: status.epoch,
        after: status.epoch_after,
        last: status.last,
        pruned_to: status.pruned_to,
    };
    let newest = log.newest(&sequence.producer, sequence.epoch, 0).await?;
    let later = log.newest(&sequence.producer, sequence.epoch.saturating_add(1), 0).await?;
    let agrees = match newest {
        Some((number, content)) => agrees(store, &sequence, number, content).await?,
        None => true,
    };
    if later.is_some() || !agrees {
        return restored(store, log, cx, &sequence).await;
    }
    let reached = sequence.after + newest.map_or(0, |(number, _)| number);
    // Does a mark stand past what the log holds?
    let first_unsent = store.outbox_unsent(reached, 1).await?.first().map_or(status.last + 1, |row| row.seq);
    if first_unsent <= reached + 1 && status.unsent >= status.last - reached {
        return Ok(Found { cursor: 0, again_to: 0, told: None });
    }
    let told = format!(
        "the log ends at number {} of epoch {}, but rows after it are marked as sent: the log lost its end, or is \
         another one; rows {} to {} are published again, as far as they are kept; receivers drop what they know",
        newest.map_or(0, |(number, _)| number),
        sequence.epoch,
        reached.max(sequence.pruned_to) + 1,
        status.last
    );
    Ok(Found { cursor: reached, again_to: status.last, told: Some(told) })
}

/// Does the outbox hold this number with this content? A row that was removed was sent, so it did.
async fn agrees<S: Store>(
    store: &S,
    sequence: &Sequence,
    number: u64,
    content: ContentHash,
) -> Result<bool, RelayError> {
    let seq = sequence.after.saturating_add(number);
    if seq > sequence.last {
        return Ok(false);
    }
    if seq <= sequence.pruned_to {
        return Ok(true);
    }
    let row = store.outbox_after(seq - 1, 1).await?;
    Ok(row.first().is_some_and(|row| row.seq == seq && row.content() == content))
}

/// Opens an epoch after the last row that store and log agree on.
async fn restored<S: Store, L: Log>(
    store: &S,
    log: &L,
    cx: &Context,
    sequence: &Sequence,
) -> Result<Found, RelayError> {
    let (agreed, lost) = last_that_agrees(store, log, sequence).await?;
    let mut epoch = change(store, cx, move |tx| tx.outbox_new_epoch(agreed)).await?;
    // An earlier restore may have opened epochs that this copy does not know of either.
    while log.newest(&sequence.producer, epoch, 0).await?.is_some() {
        epoch = change(store, cx, move |tx| tx.outbox_new_epoch(agreed)).await?;
    }
    let told = format!(
        "this store was restored from an older copy: the log knows other messages of it; rows after {agreed} are \
         published as epoch {epoch}; {lost} messages that were published before have no row here, and their \
         receivers have acted on them: compare with them what is missing"
    );
    Ok(Found { cursor: 0, again_to: 0, told: Some(told) })
}

/// The last row that the log has as it is here, and how many of the log's messages this store does not know.
///
/// Rows that are marked were published from this very history, so the comparison begins after them. The log is read
/// from its beginning: it happens once in a restore.
async fn last_that_agrees<S: Store, L: Log>(
    store: &S,
    log: &L,
    sequence: &Sequence,
) -> Result<(u64, u64), RelayError> {
    let first =
        store.outbox_unsent(sequence.after, 1).await?.first().map_or(sequence.last + 1, |row| row.seq);
    let mut rows = Window { store, rows: HashMap::new(), from: 0, to: 0 };
    // The last row up to which everything agrees, the least that does not, and what is unknown here.
    let (mut agreed, mut differs, mut lost) = (first - 1, u64::MAX, 0);
    for topic in topics(store, first).await? {
        for partition in 0..log.partitions() {
            let mut after = Offset::START;
            loop {
                let page = match log.read(&topic, partition, after, PAGE_MAX).await {
                    Err(messaging::ReadError::Truncated { first, .. }) if first > after => {
                        after = first;
                        continue;
                    }
                    page => page?,
                };
                for delivered in &page.messages {
                    let identity = &delivered.message.identity;
                    if identity.producer != sequence.producer {
                        continue;
                    }
                    let seq = sequence.after.saturating_add(identity.seq);
                    if identity.epoch != sequence.epoch {
                        lost += u64::from(identity.epoch > sequence.epoch);
                    } else if seq >= first {
                        let known =
                            seq <= sequence.last && rows.content(seq).await? == Some(identity.content);
                        if known {
                            agreed = agreed.max(seq);
                        } else {
                            differs = differs.min(seq);
                            lost += 1;
                        }
                    }
                }
                if page.next <= after {
                    break;
                }
                after = page.next;
            }
        }
    }
    Ok((agreed.min(differs - 1).min(sequence.last), lost))
}

/// The topics that this outbox publishes to, as far as its kept rows tell.
async fn topics<S: Store>(store: &S, from: u64) -> Result<BTreeSet<Topic>, RelayError> {
    let mut topics = BTreeSet::new();
    // The last rows that agree tell the topic too, where there is none after them.
    let mut after = from.saturating_sub(PAGE_MAX as u64);
    loop {
        let rows = store.outbox_after(after, PAGE_MAX).await?;
        let Some(last) = rows.last() else { return Ok(topics) };
        after = last.seq;
        for row in rows {
            if topics.len() < TOPICS_MAX {
                let invalid = |bad| RelayError::Compare(messaging::ReadError::from(bad));
                topics.insert(Topic::new(row.row.topic.as_str()).map_err(invalid)?);
            }
        }
    }
}

/// The contents of some rows that follow each other, read when they are asked for.
struct Window<'a, S> {
    store: &'a S,
    rows: HashMap<u64, ContentHash>,
    from: u64,
    to: u64,
}

impl<S: Store> Window<'_, S> {
    async fn content(&mut self, seq: u64) -> Result<Option<ContentHash>, RelayError> {
        if !(self.from..=self.to).contains(&seq) {
            let rows: Vec<OutboxRecord> = self.store.outbox_after(seq - 1, PAGE_MAX).await?;
            self.from = seq;
            self.to = rows.last().map_or(seq, |last| last.seq);
            self.rows = rows.iter().map(|row| (row.seq, row.content())).collect();
        }
        Ok(self.rows.get(&seq).copied())
    }
}
