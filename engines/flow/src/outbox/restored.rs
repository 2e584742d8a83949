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
//! acted on it, and nobody can take that back, so it is told, before anything is changed.

use std::collections::{BTreeSet, HashMap};

use mainstay_envelope::{ContentHash, Context, Producer};
use mainstay_event_store::outbox::Epoch;
use mainstay_event_store::{OutboxRecord, Store, Tx};
use mainstay_messaging::{self as messaging, Log, Offset, Topic, partition_of};

use super::change::change;
use super::error::RelayError;
use super::orphans::{Met, Orphans, PAGE_MAX, next};

/// Topics of one outbox that are compared with the log.
const TOPICS_MAX: usize = 256;

/// Where a relay begins.
pub(super) struct Found {
    pub(super) cursor: u64,
    pub(super) again_to: u64,
    pub(super) orphans: Orphans,
}

/// What is told to the operator.
pub(super) type Tell = dyn Fn(&str) + Send + Sync;

/// The present epoch's sequence: how numbers become rows.
struct Sequence {
    producer: Producer,
    epoch: u32,
    /// The row before its first.
    after: u64,
    last: u64,
    pruned_to: u64,
}

pub(super) async fn compare<S: Store, L: Log>(
    store: &S,
    log: &L,
    cx: &Context,
    tell: &Tell,
    orphans_max: usize,
) -> Result<Found, RelayError> {
    let status = store.outbox_status().await?;
    let epochs = store.outbox_epochs().await?;
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
        restored(store, log, cx, tell, &sequence, newest.map_or(0, |(number, _)| number)).await?;
        let orphans = Orphans::new(sequence.producer, &store.outbox_epochs().await?, orphans_max);
        return Ok(Found { cursor: 0, again_to: 0, orphans });
    }
    let mut orphans = Orphans::new(sequence.producer.clone(), &epochs, orphans_max);
    let reached = match newest {
        Some((number, _)) => sequence.after + number,
        None => reached_before(log, &sequence.producer, &epochs).await?,
    };
    let reached = past_published(store, log, &mut orphans, reached).await?;
    // Does a mark stand past what the log holds?
    let first_unsent = store.outbox_unsent(reached, 1).await?.first().map_or(status.last + 1, |row| row.seq);
    if first_unsent <= reached + 1 && status.unsent >= status.last - reached {
        return Ok(Found { cursor: 0, again_to: 0, orphans });
    }
    tell(&format!(
        "the log ends at number {} of epoch {}, but rows after it are marked as sent: the log lost its end, or is \
         another one; rows {} to {} are published again, as far as they are kept; receivers drop what they know",
        newest.map_or(0, |(number, _)| number),
        sequence.epoch,
        reached.max(sequence.pruned_to) + 1,
        status.last
    ));
    Ok(Found { cursor: reached, again_to: status.last, orphans })
}

/// The last row of an earlier epoch that the log has; 0 when it has none. It is asked where the log has nothing of the
/// present epoch: then it may have lost the end of an earlier one too.
async fn reached_before<L: Log>(log: &L, producer: &Producer, epochs: &[Epoch]) -> Result<u64, RelayError> {
    for (index, next) in epochs.iter().enumerate().rev() {
        let epoch = index.checked_sub(1).and_then(|before| epochs.get(before)).unwrap_or(&Epoch::FIRST);
        if let Some((number, _)) = log.newest(producer, epoch.epoch, 0).await? {
            // What lies past the next epoch's beginning is of another life.
            return Ok(epoch.after.saturating_add(number).min(next.after));
        }
    }
    Ok(0)
}

/// Goes on over rows that are marked without being in the log under their number, since another life published them.
async fn past_published<S: Store, L: Log>(
    store: &S,
    log: &L,
    orphans: &mut Orphans,
    reached: u64,
) -> Result<u64, RelayError> {
    let mut reached = reached;
    loop {
        // One more row than there are is nearly always none, or one that is new.
        let rows = store.outbox_after(reached, PAGE_MAX).await?;
        orphans.look(log, &rows).await?;
        let published = rows.iter().take_while(|row| orphans.meets(row) == Met::Published);
        match published.last() {
            Some(last) => reached = last.seq,
            None => return Ok(reached),
        }
    }
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
    tell: &Tell,
    sequence: &Sequence,
    newest: u64,
) -> Result<(), RelayError> {
    let (agreed, lost) = last_that_agrees(store, log, sequence).await?;
    // Where no row tells the topic, or the log no longer keeps them, their numbers still tell how many there were.
    let lost = lost.max(newest.saturating_sub(agreed - sequence.after));
    let mut epoch = sequence.epoch.saturating_add(1);
    // An earlier restore may have opened epochs that this copy does not know of either.
    while log.newest(&sequence.producer, epoch, 0).await?.is_some() {
        let Some(free) = epoch.checked_add(1) else { break };
        epoch = free;
    }
    // Before it is done: whoever dies in between finds the same again, but not once the epoch is there.
    tell(&format!(
        "this store was restored from an older copy: the log knows other messages of it; rows after {agreed} are \
         published as epoch {epoch}; {lost} messages that were published before have no row here, and their \
         receivers have acted on them: compare with them what is missing"
    ));
    let open = move |tx: &S::Tx| {
        while tx.outbox_new_epoch(agreed)? < epoch {}
        Ok(())
    };
    change(store, cx, open).await
}

/// The last row that the log has as it is here, and how many of the log's messages this store does not know.
///
/// Rows that are marked were published from this very history, so the comparison begins after them. The log is read
/// from its beginning: it happens once in a restore.
///
/// Where its beginning is no longer kept, a row that was handed in before the first kept message was published is
/// taken to be among what went: it keeps its number, and who knows it under that drops it. That goes by two clocks,
/// those of whoever wrote the row and of the log's writer; where they differ by more than a copy's age, a row is
/// published under a new number although it is known, or under one that is taken, which its receivers tell.
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
    // When the first kept message of each lane was published whose beginning is gone.
    let mut begins = HashMap::new();
    for topic in topics(store, first).await? {
        for partition in 0..log.partitions() {
            let (mut after, mut cut) = (Offset::START, false);
            loop {
                let (page, more) = next(log, &topic, partition, &mut after).await?;
                cut |= more;
                if let (true, Some(first)) = (cut, page.messages.first()) {
                    begins.insert((topic.as_str().to_owned(), partition), first.published);
                    cut = false;
                }
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
    let mut rest = !begins.is_empty();
    while rest {
        let rows = store.outbox_after(agreed, PAGE_MAX).await?;
        let gone = rows.iter().take_while(|row| {
            let lane = (row.row.topic.as_str().to_owned(), partition_of(&row.row.key, log.partitions()));
            begins.get(&lane).is_some_and(|begins| row.at < *begins)
        });
        match gone.last() {
            Some(last) => agreed = last.seq,
            None => rest = false,
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
