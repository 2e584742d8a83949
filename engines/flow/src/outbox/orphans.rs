//! Messages that a life of this store published which the store does not remember, since it was restored.
//!
//! ```text
//!  log     (1,1) … (1,40) (1,41) … (1,60)
//!  store   (1,1) … (1,40) │ epoch 2             (1,41) to (1,60) are orphans
//! ```
//! A restored service that consumes handles again what it handled after the copy was made, and decides the same:
//! rows with the same ids and contents, under numbers of a new epoch. Receivers would take them for new. So a row whose
//! content is among the orphans is not published: it was.

use std::collections::{BTreeSet, HashMap};

use mainstay_envelope::{ContentHash, Producer};
use mainstay_event_store::OutboxRecord;
use mainstay_event_store::outbox::Epoch;
use mainstay_messaging::{self as messaging, Log, Offset, Page, Topic};

use super::error::RelayError;
use super::row::ID;

/// Orphans that are remembered, about 100 bytes each.
pub(super) const ORPHANS_MAX: usize = 1_000_000;

/// Messages or rows looked at in one step.
pub(super) const PAGE_MAX: usize = 1_000;

/// How a row stands to what was published in a life that is not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// Nothing is known of it.
    New,
    /// It was published, as it is.
    Published,
    /// Its id was published with another content.
    Altered,
}

/// What is known of the log's orphans.
#[derive(Debug)]
pub(super) struct Orphans {
    producer: Producer,
    max: usize,
    /// How many rows each epoch before the present one has here.
    ends: HashMap<u32, u64>,
    /// Topics that were looked through.
    seen: BTreeSet<Topic>,
    /// What they say, and under which ids, each with the first epoch in which it was said.
    contents: HashMap<ContentHash, u32>,
    ids: HashMap<ContentHash, u32>,
}

impl Orphans {
    /// `epochs` are those that the store has opened.
    pub(super) fn new(producer: Producer, epochs: &[Epoch], max: usize) -> Self {
        let begun = std::iter::once(&Epoch::FIRST).chain(epochs);
        let ends = begun.zip(epochs).map(|(epoch, next)| (epoch.epoch, next.after - epoch.after)).collect();
        Self { producer, max, ends, seen: BTreeSet::new(), contents: HashMap::new(), ids: HashMap::new() }
    }

    /// Looks through the topics of some rows, each once. Reads the whole of what the log keeps of a topic; a store
    /// that was never restored has no orphans, and reads nothing.
    pub(super) async fn look<L: Log>(&mut self, log: &L, rows: &[OutboxRecord]) -> Result<(), RelayError> {
        if self.ends.is_empty() {
            return Ok(());
        }
        for row in rows {
            if self.seen.iter().any(|topic| topic.as_str() == row.row.topic.as_str()) {
                continue;
            }
            let invalid = |bad| RelayError::Compare(messaging::ReadError::from(bad));
            let topic = Topic::new(row.row.topic.as_str()).map_err(invalid)?;
            for partition in 0..log.partitions() {
                self.look_through(log, &topic, partition).await?;
            }
            self.seen.insert(topic);
        }
        Ok(())
    }

    async fn look_through<L: Log>(
        &mut self,
        log: &L,
        topic: &Topic,
        partition: u32,
    ) -> Result<(), RelayError> {
        let mut after = Offset::START;
        loop {
            let (page, _) = next(log, topic, partition, &mut after).await?;
            for message in page.messages.into_iter().map(|delivered| delivered.message) {
                let identity = &message.identity;
                let past = self.ends.get(&identity.epoch).is_some_and(|rows| identity.seq > *rows);
                if !past || identity.producer != self.producer {
                    continue;
                }
                let id = ContentHash::of(message.event.id().as_bytes());
                for (said, what) in [(&mut self.contents, identity.content), (&mut self.ids, id)] {
                    let epoch = said.entry(what).or_insert(identity.epoch);
                    *epoch = identity.epoch.min(*epoch);
                }
                if self.contents.len() > self.max {
                    return Err(RelayError::Orphans { topic: topic.clone(), max: self.max });
                }
            }
            if page.next <= after {
                return Ok(());
            }
            after = page.next;
        }
    }

    /// Was this row published in a life that is not remembered? Its topic must have been looked through.
    ///
    /// Only what an epoch before the row's own said counts: a row that was published keeps its number, and goes out
    /// under it again where the log has lost it. A row without an id is a message of its own: it gets its id from its
    /// number.
    pub(super) fn meets(&self, row: &OutboxRecord) -> Met {
        if self.contents.is_empty() {
            return Met::New;
        }
        let Some((_, id)) = row.row.headers.iter().rev().find(|(name, _)| name == ID) else {
            return Met::New;
        };
        let before =
            |said: &HashMap<ContentHash, u32>, what| said.get(&what).is_some_and(|epoch| *epoch < row.epoch);
        if before(&self.contents, row.content()) {
            Met::Published
        } else if before(&self.ids, ContentHash::of(id.as_bytes())) {
            Met::Altered
        } else {
            Met::New
        }
    }
}

/// The next page after a place, and whether some before it is no longer kept: then the place moves past that.
pub(super) async fn next<L: Log>(
    log: &L,
    topic: &Topic,
    partition: u32,
    after: &mut Offset,
) -> Result<(Page, bool), RelayError> {
    let mut cut = false;
    loop {
        match log.read(topic, partition, *after, PAGE_MAX).await {
            Err(messaging::ReadError::Truncated { first, .. }) if first > *after => {
                (*after, cut) = (first, true);
            }
            page => return Ok((page?, cut)),
        }
    }
}
