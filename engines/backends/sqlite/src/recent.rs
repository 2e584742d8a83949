//! The outbox rows that this process committed last, in memory: what a relay that keeps up publishes next, without a
//! reader's turn and a statement for each commit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainstay_event_store::OutboxRecord;

/// Rows that are kept, and their bytes. Less than a relay publishes at once, so a page of them is never cut.
const ROWS_MAX: usize = 1_024;
const BYTES_MAX: usize = 1 << 20;

/// What a group of jobs changes, until it is committed.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    rows: Vec<OutboxRecord>,
    /// Rows up to this one were marked, or some of them.
    marked_to: u64,
    /// What was kept before may not be what the file says.
    reset: bool,
}

impl Fresh {
    pub(crate) fn push(&mut self, row: OutboxRecord) {
        self.rows.push(row);
    }

    pub(crate) fn marked(&mut self, to: u64) {
        self.marked_to = self.marked_to.max(to);
    }

    pub(crate) fn reset(&mut self) {
        self.reset = true;
    }

    /// Rows after this one are not there after all.
    pub(crate) fn truncate(&mut self, last: u64) {
        let kept = self.rows.partition_point(|row| row.seq <= last);
        self.rows.truncate(kept);
    }
}

/// The last rows, dense in their numbers, none of them marked when it was committed.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    rows: VecDeque<OutboxRecord>,
    bytes: usize,
}

impl Kept {
    fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }

    fn pop(&mut self) {
        if let Some(row) = self.rows.pop_front() {
            self.bytes = self.bytes.saturating_sub(weight(&row));
        }
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is on disk now.
    pub(crate) fn commit(&self, fresh: &mut Fresh) {
        let Fresh { rows, marked_to, reset } = std::mem::take(fresh);
        if rows.is_empty() && marked_to == 0 && !reset {
            return;
        }
        let mut kept = self.lock();
        if reset {
            kept.clear();
        }
        for row in rows {
            if kept.rows.back().is_some_and(|last| last.seq + 1 != row.seq) {
                kept.clear();
            }
            kept.bytes += weight(&row);
            kept.rows.push_back(row);
        }
        while kept.rows.front().is_some_and(|first| first.seq <= marked_to)
            || kept.rows.len() > ROWS_MAX
            || kept.bytes > BYTES_MAX
        {
            kept.pop();
        }
    }

    /// The rows right after a number; none where they are not all known.
    pub(crate) fn after(&self, seq: u64, max: usize) -> Option<Vec<OutboxRecord>> {
        let kept = self.lock();
        let skip = seq.checked_add(1)?.checked_sub(kept.rows.front()?.seq)?;
        let rows: Vec<_> = kept.rows.iter().skip(usize::try_from(skip).ok()?).take(max).cloned().collect();
        (!rows.is_empty()).then_some(rows)
    }
}

fn weight(row: &OutboxRecord) -> usize {
    let headers: usize = row.row.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    512 + row.row.payload.len() + row.envelope.len() + row.row.key.len() + headers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainstay_envelope::Timestamp;
    use mainstay_event_store::{OutboxRow, Position, Topic};

    use super::*;

    fn row(seq: u64, bytes: usize) -> OutboxRecord {
        let topic = Topic::new("t").unwrap();
        let row = OutboxRow { topic, key: "k".into(), headers: Default::default(), payload: vec![0; bytes] };
        let (at, position) = (Timestamp::from_millis(0), Position(seq));
        OutboxRecord { seq, at, envelope: Vec::new(), row, epoch: 1, number: seq, position }
    }

    fn committed(recent: &Recent, seqs: impl IntoIterator<Item = u64>) {
        let mut fresh = Fresh::default();
        seqs.into_iter().for_each(|seq| fresh.push(row(seq, 10)));
        recent.commit(&mut fresh);
    }

    fn seqs(recent: &Recent, after: u64) -> Option<Vec<u64>> {
        recent.after(after, 3).map(|rows| rows.iter().map(|row| row.seq).collect())
    }

    #[test]
    fn only_rows_without_a_gap_are_known() {
        let recent = Recent::default();
        assert_eq!(seqs(&recent, 0), None);
        committed(&recent, 5..=8);
        assert_eq!(seqs(&recent, 3), None, "row 4 is not known");
        assert_eq!(seqs(&recent, 4), Some(vec![5, 6, 7]));
        assert_eq!(seqs(&recent, 7), Some(vec![8]));
        assert_eq!(seqs(&recent, 8), None, "what follows may be another process's");
        committed(&recent, 11..=11);
        assert_eq!((seqs(&recent, 7), seqs(&recent, 10)), (None, Some(vec![11])));
    }

    #[test]
    fn marks_and_doubts_make_rows_unknown() {
        let recent = Recent::default();
        committed(&recent, 1..=4);
        let mut fresh = Fresh::default();
        fresh.marked(2);
        recent.commit(&mut fresh);
        assert_eq!((seqs(&recent, 1), seqs(&recent, 2)), (None, Some(vec![3, 4])));
        fresh.reset();
        fresh.push(row(5, 10));
        fresh.push(row(6, 10));
        fresh.truncate(5);
        recent.commit(&mut fresh);
        assert_eq!((seqs(&recent, 2), seqs(&recent, 4)), (None, Some(vec![5])));
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let recent = Recent::default();
        committed(&recent, 1..=2_000);
        assert_eq!(recent.lock().rows.len(), ROWS_MAX);
        let mut fresh = Fresh::default();
        fresh.push(row(2_001, BYTES_MAX - 2_000));
        recent.commit(&mut fresh);
        let kept = recent.lock();
        assert!(kept.bytes <= BYTES_MAX);
        assert_eq!(kept.bytes, kept.rows.iter().map(weight).sum::<usize>());
    }
}
