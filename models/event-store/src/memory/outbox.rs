//! The outbox's rows, marks and epochs.

use std::collections::VecDeque;

use mainstay_envelope::Timestamp;

use crate::message::{OutboxRecord, OutboxRow, OutboxStatus};
use crate::names::Topic;
use crate::outbox::{Epoch, Sent, number};
use crate::position::Position;

/// A row, without what is worked out when it is read.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) at: Timestamp,
    pub(super) envelope: Vec<u8>,
    pub(super) row: OutboxRow,
    /// Set at the commit.
    pub(super) position: Position,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Row n is `rows[n - 1 - pruned_to]`.
    pub(super) rows: VecDeque<Stored>,
    pub(super) pruned_to: u64,
    /// Of all rows, from the first one on.
    pub(super) topic: Option<Topic>,
    pub(super) sent: Sent,
    /// Those after [`Epoch::FIRST`].
    pub(super) epochs: Vec<Epoch>,
    /// How many rows at the end have no position yet.
    pub(super) unplaced: usize,
}

impl Outbox {
    pub(super) fn last(&self) -> u64 {
        self.pruned_to + self.rows.len() as u64
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epochs.last().copied().unwrap_or(Epoch::FIRST)
    }

    /// Gives the transaction's rows their position.
    pub(super) fn place(&mut self, position: Position) {
        // Fewer are left where some of them were removed again: then all that are left are new.
        let placed = self.rows.len().saturating_sub(self.unplaced);
        for row in self.rows.iter_mut().skip(placed) {
            row.position = position;
        }
        self.unplaced = 0;
    }

    fn get(&self, seq: u64) -> Option<&Stored> {
        let index = seq.checked_sub(self.pruned_to + 1)?;
        self.rows.get(usize::try_from(index).ok()?)
    }

    fn record(&self, seq: u64, stored: &Stored) -> OutboxRecord {
        let (epoch, number) = number(&self.epochs, seq);
        let Stored { at, envelope, row, position } = stored.clone();
        OutboxRecord { seq, at, envelope, row, epoch, number, position }
    }

    pub(super) fn after(&self, seq: u64, max: usize) -> Vec<OutboxRecord> {
        let first = seq.max(self.pruned_to).saturating_add(1);
        let rows = (first..=self.last()).take(max);
        rows.filter_map(|seq| Some(self.record(seq, self.get(seq)?))).collect()
    }

    pub(super) fn unsent(&self, after: u64, max: usize) -> Vec<OutboxRecord> {
        let (mut records, mut after) = (Vec::new(), after);
        while after < self.last() && records.len() < max {
            let gap = self.sent.gap(after);
            let rows = (gap.first..=gap.last.min(self.last())).take(max - records.len());
            records.extend(rows.filter_map(|seq| Some(self.record(seq, self.get(seq)?))));
            after = gap.last;
        }
        records
    }

    pub(super) fn status(&self) -> OutboxStatus {
        let last = self.last();
        OutboxStatus {
            last,
            unsent: last - self.sent.count(),
            oldest_unsent: self.get(self.sent.gap(0).first).map(|row| row.at),
            epoch: self.epoch().epoch,
            epoch_after: self.epoch().after,
            pruned_to: self.pruned_to,
        }
    }

    /// How many rows at the beginning are sent and older than `before`, as far as `max`.
    pub(super) fn removable(&self, before: Timestamp, max: usize) -> usize {
        let sent = self.sent.gap(0).first - 1;
        let sent = usize::try_from(sent - self.pruned_to.min(sent)).unwrap_or(usize::MAX);
        self.rows.iter().take(sent.min(max)).take_while(|row| row.at < before).count()
    }
}
