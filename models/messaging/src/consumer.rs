//! A member of a group: reads, hands out, and moves the group's place when told that it is done.

use std::time::Duration;

use mainstay_envelope::Context;

use crate::error::{CommitError, ReadError};
use crate::log::{Log, Offsets};
use crate::message::Delivered;
use crate::names::{Group, Topic};
use crate::offset::Offset;

/// Why a consumer can't go on as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The log gave nothing.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The group's place was not moved, or can't be read.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// One member of a group that follows one topic, all of its partitions in turn.
///
/// At least once: what was handed out and not [acknowledged](Consumer::ack) is handed out again, by this member or
/// by another one. Members of one group may compete; whoever acknowledges first wins, and the other one is told
/// and goes on from there. Effects that must not happen twice need an inbox.
///
/// ```text
///   next ──► batch of one partition ──► handle ──► ack ──► commit from → to
///    ▲                                    │ failed           │ moved by another member: told, place taken over
///    └────────────────────────────────────┴──────────────────┘
/// ```
#[derive(Debug)]
pub struct Consumer<L, O> {
    log: L,
    offsets: O,
    group: Group,
    topic: Topic,
    /// The group's place in each partition, as far as this member knows.
    places: Vec<Offset>,
    /// Where the next look begins, so that no partition starves.
    turn: u32,
}

/// Messages of one partition, handed out together and acknowledged together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// In order; at least one.
    pub messages: Vec<Delivered>,
    partition: u32,
    from: Offset,
    to: Offset,
}

impl Batch {
    /// The partition they are of.
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl<L: Log, O: Offsets> Consumer<L, O> {
    /// Joins a group, at its place.
    ///
    /// # Errors
    /// When the group's place can't be read.
    pub async fn join(log: L, offsets: O, group: Group, topic: Topic) -> Result<Self, ConsumeError> {
        let mut places = Vec::new();
        for partition in 0..log.partitions() {
            places.push(offsets.committed(&group, &topic, partition).await?);
        }
        Ok(Self { log, offsets, group, topic, places, turn: 0 })
    }

    /// The next messages after the group's place, at most `max`; none when nothing came within `at_most`. The same
    /// again until they are acknowledged.
    ///
    /// # Errors
    /// As [`Log::read`]. After [`ReadError::Truncated`] or [`ReadError::PastEnd`] the caller decides where to go
    /// on, by [`seek`](Self::seek).
    pub async fn next(
        &mut self,
        cx: &Context,
        max: usize,
        at_most: Duration,
    ) -> Result<Option<Batch>, ConsumeError> {
        let begun = cx.now();
        let partitions = self.log.partitions();
        loop {
            for step in 0..partitions {
                let partition = (self.turn + step) % partitions;
                let from = self.place(partition);
                let page = self.log.read(&self.topic, partition, from, max.max(1)).await?;
                if !page.messages.is_empty() {
                    self.turn = (partition + 1) % partitions;
                    return Ok(Some(Batch { messages: page.messages, partition, from, to: page.next }));
                }
            }
            let left = at_most.saturating_sub(cx.now().saturating_since(begun));
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(left).await;
        }
    }

    /// Until any partition may have grown.
    async fn wait(&self, at_most: Duration) {
        let mut waits: Vec<_> = (0..self.log.partitions())
            .map(|partition| {
                Box::pin(self.log.wait_past(&self.topic, partition, self.place(partition), at_most))
            })
            .collect();
        std::future::poll_fn(|task| {
            let woken = waits.iter_mut().any(|wait| wait.as_mut().poll(task).is_ready());
            if woken { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    fn place(&self, partition: u32) -> Offset {
        self.places.get(partition as usize).copied().unwrap_or_default()
    }

    fn set_place(&mut self, partition: u32, place: Offset) {
        if let Some(known) = self.places.get_mut(partition as usize) {
            *known = place;
        }
    }

    /// Says that a batch was handled: the group stands after it, durably.
    ///
    /// # Errors
    /// [`CommitError::Moved`] when another member was faster: what it handled is not handed out here again, and
    /// the batch counts as handled twice.
    pub async fn ack(&mut self, cx: &Context, batch: &Batch) -> Result<(), ConsumeError> {
        self.commit(cx, batch.partition, batch.from, batch.to).await
    }

    /// Sets the group's place: to the start for a replay, or on from where the log begins after
    /// [`ReadError::Truncated`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn seek(&mut self, cx: &Context, partition: u32, to: Offset) -> Result<(), ConsumeError> {
        self.commit(cx, partition, self.place(partition), to).await
    }

    async fn commit(
        &mut self,
        cx: &Context,
        partition: u32,
        from: Offset,
        to: Offset,
    ) -> Result<(), ConsumeError> {
        match self.offsets.commit(cx, &self.group, &self.topic, partition, from, to).await {
            Ok(()) => {
                self.set_place(partition, to);
                Ok(())
            }
            Err(error) => {
                if let CommitError::Moved { actual, .. } = error {
                    self.set_place(partition, actual);
                }
                Err(error.into())
            }
        }
    }
}
