//! The log that costs nothing: every promise of the contract but durability, in the memory of one process.
//!
//! For tests of whatever is built on a log, and as the shortest complete implementation to read. One lock guards
//! everything. Nothing outlives the last clone.

mod offsets;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_envelope::{ContentHash, Context, Producer, Timestamp};
use tokio::sync::{Semaphore, watch};

use crate::error::{AppendError, ReadError};
use crate::log::{Log, Promises};
use crate::message::{Delivered, Message, Page, check, limits, partition_of};
use crate::names::Topic;
use crate::offset::Offset;
pub use offsets::MemoryOffsets;

/// Appends that wait at once while the log is [stalled](Memory::stall); more are refused as busy.
const WAITING_MAX: usize = 256;

/// How long an append without a deadline waits for a stalled log.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A log in memory. Clones share it.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    partitions: u32,
    state: Mutex<State>,
    /// Counts appends, for those who wait.
    grown: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
    places: Semaphore,
}

#[derive(Default)]
struct State {
    channels: HashMap<(Topic, u32), Channel>,
    newest: HashMap<(Producer, u32, u32), (u64, ContentHash)>,
}

/// One partition of one topic.
#[derive(Default)]
struct Channel {
    /// Everything up to here is gone.
    first: Offset,
    /// What follows, without a gap.
    messages: Vec<Delivered>,
}

impl Channel {
    fn end(&self) -> Offset {
        Offset(self.first.0 + self.messages.len() as u64)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("partitions", &self.shared.partitions).finish_non_exhaustive()
    }
}

impl Default for Memory {
    /// One partition.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Memory {
    /// An empty log whose topics have so many partitions, at least one.
    pub fn new(partitions: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                partitions: partitions.max(1),
                state: Mutex::default(),
                grown: watch::channel(0).0,
                stalled: watch::channel(false).0,
                places: Semaphore::new(WAITING_MAX),
            }),
        }
    }

    /// Makes appends wait, as on a disk that does not answer, until told otherwise; for tests.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.send_replace(stalled);
    }

    /// Lets go of messages that were published before an instant: from the start of each partition, up to the
    /// first that is younger.
    pub fn prune(&self, before: Timestamp) {
        for channel in self.lock().channels.values_mut() {
            let old = channel.messages.iter().take_while(|message| message.published < before).count();
            channel.messages.drain(..old);
            channel.first.0 += old as u64;
        }
    }

    /// No step of ours panics between two writes: a poisoned lock would say nothing about the state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_partition(&self, partition: u32) -> Result<(), ReadError> {
        if partition < self.shared.partitions {
            return Ok(());
        }
        let why = format!("partition {partition}, but there are {}", self.shared.partitions);
        Err(ReadError::Invalid { what: "partition", why })
    }

    /// Waits while the log is stalled, in one of a bounded number of places.
    async fn admit(&self, cx: &Context) -> Result<(), AppendError> {
        if !*self.shared.stalled.borrow() {
            return Ok(());
        }
        let busy = |why: &str| AppendError::Busy { why: why.into() };
        let Ok(_place) = self.shared.places.try_acquire() else {
            return Err(busy("as many appends wait as may wait"));
        };
        let mut stalled = self.shared.stalled.subscribe();
        let at_most = cx.remaining().unwrap_or(WAIT_MAX).min(WAIT_MAX);
        match tokio::time::timeout(at_most, stalled.wait_for(|stalled| !stalled)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(busy("it is stalled, and the time to wait is over")),
        }
    }
}

impl Log for Memory {
    fn promises(&self) -> Promises {
        Promises {
            durable: false,
            ordered_per_key: true,
            replay: true,
            groups: false,
            deduplicates: false,
            retains: true,
            between_processes: false,
        }
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    async fn append(&self, cx: &Context, messages: Vec<Message>) -> Result<Vec<(u32, Offset)>, AppendError> {
        check(&messages)?;
        self.admit(cx).await?;
        let published = cx.wall();
        let mut state = self.lock();
        let places = messages.into_iter().map(|message| {
            let partition = partition_of(&message.key, self.shared.partitions);
            let identity = &message.identity;
            let number = (identity.seq, identity.content);
            let sequence = (identity.producer.clone(), identity.epoch, identity.partition);
            let newest = state.newest.entry(sequence).or_insert(number);
            if number.0 > newest.0 {
                *newest = number;
            }
            let channel = state.channels.entry((message.topic.clone(), partition)).or_default();
            let offset = Offset(channel.end().0 + 1);
            channel.messages.push(Delivered { offset, partition, published, message });
            (partition, offset)
        });
        let places = places.collect();
        drop(state);
        self.shared.grown.send_modify(|appends| *appends += 1);
        Ok(places)
    }

    async fn read(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> Result<Page, ReadError> {
        self.check_partition(partition)?;
        let state = self.lock();
        let empty = Channel::default();
        let channel = state.channels.get(&(topic.clone(), partition)).unwrap_or(&empty);
        let end = channel.end();
        if after < channel.first {
            return Err(ReadError::Truncated { asked: after, first: channel.first });
        }
        if after > end {
            return Err(ReadError::PastEnd { asked: after, ends: end });
        }
        let skipped = usize::try_from(after.0 - channel.first.0).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let page = channel.messages.iter().skip(skipped).take(limits::page(max)).take_while(|message| {
            let full = bytes >= limits::PAGE_BYTES_MAX;
            bytes += message.message.data.len();
            !full
        });
        let messages: Vec<_> = page.cloned().collect();
        let next = messages.last().map_or(after, |message| message.offset);
        Ok(Page { messages, next, end })
    }

    async fn end(&self, topic: &Topic, partition: u32) -> Result<Offset, ReadError> {
        self.check_partition(partition)?;
        Ok(self.lock().channels.get(&(topic.clone(), partition)).map_or(Offset::START, Channel::end))
    }

    async fn wait_past(&self, topic: &Topic, partition: u32, after: Offset, at_most: Duration) {
        let mut grown = self.shared.grown.subscribe();
        let wait = async {
            while self.end(topic, partition).await.is_ok_and(|end| end <= after) {
                if grown.changed().await.is_err() {
                    return;
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
        Ok(self.lock().newest.get(&(producer.clone(), epoch, partition)).copied())
    }
}
