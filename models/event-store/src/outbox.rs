//! The outbox's memory: which rows were sent, and by which numbers receivers know them.
//!
//! ```text
//! rows     seq 1 2 3 4 5 6 7 8 9     dense in this store; a prefix of sent rows may be removed
//! sent     1─────4     6             disjoint ranges that never touch: one row while a relay keeps up
//! epochs   (1, 0)      (2, 5)        epoch, and the row after which it begins
//! number   1 2 3 4 5 │ 1 2 3 4       seq − after
//! ```
//! A store that was restored from a copy gives out numbers again that receivers have met with another content.
//! So its relay opens an epoch after the last row that both agree on: the rows after it are new messages then.
//! What is decided here is the same in every store; they read and write what it says.

use std::collections::BTreeMap;

use crate::names::Topic;
use crate::outcome::Refusal;

/// Bytes of payloads and envelopes after which a page of rows may end, however few it holds.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// Rows that one call may mark.
pub const MARKS_MAX: usize = 10_000;

/// A store's outbox has one topic, that of its first row: is a row's topic `row` the one it has, `store`?
///
/// The rows have one numbering, by which receivers know them. Whoever follows one of two topics would miss the
/// other's numbers for ever, keep a hole for each, and when its inbox holds as many as it may, take nothing more.
pub fn check_topic(store: &Topic, row: &Topic) -> Result<(), Refusal> {
    if store == row {
        return Ok(());
    }
    let why = format!(
        "it goes to topic {:?}, but this store publishes to {:?}: all its rows have one numbering, and who follows \
         one of two topics would wait for the other's numbers for ever; publish it to {:?}, or give each topic a \
         store of its own, which is one participant a store",
        row.as_str(),
        store.as_str(),
        store.as_str()
    );
    Err(Refusal::Invalid { what: "outbox row", why })
}

/// Rows that follow each other, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The least.
    pub first: u64,
    /// The greatest; at least `first`.
    pub last: u64,
}

/// One numbering of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// The row after which it begins.
    pub after: u64,
}

impl Epoch {
    /// The one that every store begins with.
    pub const FIRST: Self = Self { epoch: 1, after: 0 };

    /// The next one, beginning after a row. `last` is the outbox's last row, `pruned_to` the last removed one.
    ///
    /// Refused before this epoch's beginning, since an earlier epoch's numbers would be given twice; past the last
    /// row, since the rows to come would be numbered by two; and among the removed rows, since the epoch's first
    /// numbers would never be sent, and receivers would wait for them for ever.
    pub fn next(self, after: u64, last: u64, pruned_to: u64) -> Result<Self, Refusal> {
        let refuse = |why: String| Err(Refusal::Invalid { what: "outbox epoch", why });
        if after < self.after {
            return refuse(format!(
                "it would begin after row {after}, but epoch {} begins after row {}",
                self.epoch, self.after
            ));
        }
        if after > last {
            return refuse(format!("it would begin after row {after}, but the outbox ends at row {last}"));
        }
        if after < pruned_to {
            return refuse(format!(
                "it would begin after row {after}, but rows up to {pruned_to} are removed"
            ));
        }
        match self.epoch.checked_add(1) {
            Some(epoch) => Ok(Self { epoch, after }),
            None => refuse(format!("epoch {} is the last there is", self.epoch)),
        }
    }
}

/// The epoch and the number of a row. `epochs` are all that were opened, in their order, [`Epoch::FIRST`] left out.
pub fn number(epochs: &[Epoch], seq: u64) -> (u32, u64) {
    let opened = epochs.iter().rev().find(|epoch| epoch.after < seq);
    let Epoch { epoch, after } = opened.copied().unwrap_or(Epoch::FIRST);
    (epoch, seq - after)
}

/// Marks as runs of rows, in order. `last` is the outbox's last row. Refused: an unknown row, more than
/// [`MARKS_MAX`] marks.
pub fn runs(seqs: &[u64], last: u64) -> Result<Vec<Run>, Refusal> {
    let refuse = |why: String| Err(Refusal::Invalid { what: "outbox mark", why });
    if seqs.len() > MARKS_MAX {
        return refuse(format!("{} rows in one call, at most {MARKS_MAX}", seqs.len()));
    }
    if let Some(unknown) = seqs.iter().find(|seq| **seq == 0 || **seq > last) {
        return refuse(format!("row {unknown}; the outbox has rows 1 to {last}"));
    }
    let mut seqs = seqs.to_vec();
    seqs.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for seq in seqs {
        match runs.last_mut() {
            Some(run) if seq <= run.last + 1 => run.last = seq,
            _ => runs.push(Run { first: seq, last: seq }),
        }
    }
    Ok(runs)
}

/// The marks as a value, for stores that keep them in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// First row of each range, with its last.
    ranges: BTreeMap<u64, u64>,
}

impl Sent {
    /// Adds a run. Costs as many steps as ranges that it joins.
    pub fn mark(&mut self, run: Run) {
        let mut joined = run;
        while let Some((&first, &last)) = self.ranges.range(..=joined.last + 1).next_back() {
            if last + 1 < joined.first {
                break;
            }
            self.ranges.remove(&first);
            joined = Run { first: first.min(joined.first), last: last.max(joined.last) };
        }
        self.ranges.insert(joined.first, joined.last);
    }

    /// Takes back every mark after a row.
    pub fn cut(&mut self, after: u64) {
        self.ranges.split_off(&after.saturating_add(1));
        if let Some((_, last)) = self.ranges.iter_mut().next_back() {
            *last = after.min(*last);
        }
    }

    /// The first row after `after` that is not marked, and the last one before the next mark.
    pub fn gap(&self, after: u64) -> Run {
        let next = after.saturating_add(1);
        let within = self.ranges.range(..=next).next_back().filter(|(_, last)| **last >= next);
        let first = within.map_or(next, |(_, last)| last + 1);
        let last = self.ranges.range(first..).next().map_or(u64::MAX, |(first, _)| first - 1);
        Run { first, last }
    }

    /// How many rows are marked.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_ranges_agree_with_a_set_of_every_mark(
            batches in proptest::collection::vec(proptest::collection::vec(1u64..60, 0..12), 1..20),
            cut in 0u64..60,
        ) {
            let (mut sent, mut naive) = (Sent::default(), BTreeSet::new());
            for batch in batches {
                for run in runs(&batch, 60).unwrap() {
                    sent.mark(run);
                }
                naive.extend(batch);
                agree(&sent, &naive)?;
            }
            sent.cut(cut);
            naive.retain(|seq| *seq <= cut);
            agree(&sent, &naive)?;
        }
    }

    fn agree(sent: &Sent, naive: &BTreeSet<u64>) -> Result<(), TestCaseError> {
        prop_assert_eq!(sent.count(), naive.len() as u64);
        let mut before = None;
        for (&first, &last) in &sent.ranges {
            prop_assert!(first <= last && before.is_none_or(|before| first > before + 1), "{:?}", sent);
            before = Some(last);
        }
        for after in 0..62 {
            let gap = sent.gap(after);
            let first = (after + 1..).find(|seq| !naive.contains(seq)).unwrap();
            prop_assert_eq!(gap.first, first);
            let last = naive.range(first..).next().map_or(u64::MAX, |seq| seq - 1);
            prop_assert_eq!(gap.last, last);
        }
        Ok(())
    }

    #[test]
    fn a_row_is_numbered_by_the_last_epoch_that_begins_before_it() {
        let epochs =
            [Epoch { epoch: 2, after: 5 }, Epoch { epoch: 3, after: 5 }, Epoch { epoch: 4, after: 7 }];
        let numbered = [(1, (1, 1)), (5, (1, 5)), (6, (3, 1)), (7, (3, 2)), (8, (4, 1)), (100, (4, 93))];
        for (seq, expected) in numbered {
            assert_eq!(number(&epochs, seq), expected, "{seq}");
        }
        assert_eq!(number(&[], 9), (1, 9));
    }

    #[test]
    fn an_epoch_begins_where_its_numbers_are_free_and_can_all_be_sent() {
        let present = Epoch { epoch: 2, after: 5 };
        for after in [5, 9] {
            assert_eq!(present.next(after, 9, 5), Ok(Epoch { epoch: 3, after }));
        }
        for (after, last, pruned_to) in [(4, 9, 0), (10, 9, 0), (6, 9, 7)] {
            assert!(matches!(present.next(after, last, pruned_to), Err(Refusal::Invalid { .. })), "{after}");
        }
        let last = Epoch { epoch: u32::MAX, after: 5 };
        assert!(last.next(6, 9, 0).is_err(), "there is no epoch after it");
    }
}
