//! In which order what was found gets its place, and which rows of the outbox are due.
//!
//! Events stand in the order of their `seq`, which inside a stream is that of its versions, since it is drawn under
//! the stream's lock. Outbox rows draw from the same sequence. A transaction stands where its last event stands, or
//! its last outbox row when it has no event: its *place*. Rows of the outbox are numbered by the place of their
//! transaction, so that their positions never go back, and each carries that of its transaction's last event:
//!
//! ```text
//! seq        1    2    3    4    5    6          A: 1 o, 4 e     B: 2 e, 3 o     C: 5 o     D: 6 e
//!            o A  e B  o B  e A  o C  e D
//! feed            1         2         3
//! outbox     B's 3 → number 1, position 1;  A's 1 → 2, position 2;  C's 5 → 3, position 2
//! ```
//! Whoever has handled all rows up to one has thereby seen every act up to that row's position. And of two
//! transactions of which one began after the other had committed, the first has the lower place.

use std::collections::HashMap;

use mainstay_event_store::{Hash, Head, Position, Version, chain};

/// An event without a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) xid: u64,
    pub(crate) version: u64,
    pub(crate) content: Hash,
}

/// An outbox row without a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) xid: u64,
    pub(crate) slot: i16,
}

/// An event with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) position: u64,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

/// An outbox row with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) seq: u64,
    pub(crate) slot: i16,
    pub(crate) position: u64,
}

/// What one round writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) feed: Vec<Placed>,
    pub(crate) outbox: Vec<Numbered>,
    /// The feed's end afterwards.
    pub(crate) head: Head,
    /// The outbox's last number afterwards.
    pub(crate) last: u64,
}

/// Gives places. Of every transaction with a row in `rows` all events that get their place now are in `events`, and
/// all its outbox rows are in `rows`. Linear in both, but for sorting them.
pub(crate) fn order(head: Head, last: u64, mut events: Vec<Event>, mut rows: Vec<Row>) -> Ordered {
    events.sort_unstable_by_key(|event| event.seq);
    let (mut head, mut feed) = (head, Vec::with_capacity(events.len()));
    let before = head.position;
    let mut places: HashMap<u64, u64> = HashMap::new();
    for event in &events {
        let position = head.position.next();
        let hash = chain::link(head.hash, position, Version(event.version), event.content);
        head = Head { position, hash };
        feed.push(Placed { position: position.0, seq: event.seq, hash });
        places.insert(event.xid, event.seq);
    }
    // A transaction without events stands at its last row.
    rows.sort_unstable_by_key(|row| row.seq);
    let mut alone: HashMap<u64, u64> = HashMap::new();
    for row in rows.iter().filter(|row| !places.contains_key(&row.xid)) {
        alone.insert(row.xid, row.seq);
    }
    places.extend(alone);
    let place = |row: &Row| places.get(&row.xid).copied().unwrap_or(row.seq);
    rows.sort_by_key(|row| (place(row), row.seq));
    let (mut last, mut outbox) = (last, Vec::with_capacity(rows.len()));
    for row in &rows {
        last += 1;
        let events = feed.partition_point(|placed| placed.seq <= place(row));
        let position = Position(before.0 + events as u64);
        outbox.push(Numbered { number: last, seq: row.seq, slot: row.slot, position: position.0 });
    }
    Ordered { feed, outbox, head, last }
}

/// How much of a large difference is taken in one round: rows up to this `seq`; none when it is all that is left.
///
/// `events` and `rows` are the next ones, in order, at most `max` of each.
pub(crate) fn cut(events: &[Event], rows: &[Row], max: usize) -> Option<u64> {
    let full = |seqs: Option<u64>, count: usize| seqs.filter(|_| count >= max);
    let events = full(events.last().map(|event| event.seq), events.len());
    let rows = full(rows.last().map(|row| row.seq), rows.len());
    match (events, rows) {
        (Some(events), Some(rows)) => Some(events.min(rows)),
        (events, rows) => events.or(rows),
    }
}

/// The last rows of a transaction, of all that it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) xid: u64,
    /// Its last event.
    pub(crate) event: Option<u64>,
    /// Its last outbox row.
    pub(crate) row: Option<u64>,
}

/// The transactions whose outbox rows are due in this round: those whose place is after `done` and up to the cut.
/// The others' were numbered in an earlier round, or wait for an event of a later one.
pub(crate) fn due(ends: &[Ends], done: u64, cut: Option<u64>) -> Vec<u64> {
    let due = |ends: &&Ends| {
        let place = ends.event.or(ends.row);
        place.is_some_and(|place| place > done && cut.is_none_or(|cut| place <= cut))
    };
    ends.iter().filter(due).map(|ends| ends.xid).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mainstay_event_store::StoreId;
    use proptest::prelude::*;

    use super::*;

    fn event(seq: u64, xid: u64) -> Event {
        Event { seq, xid, version: seq, content: Hash([seq as u8; 32]) }
    }

    fn row(seq: u64, xid: u64) -> Row {
        Row { seq, xid, slot: 0 }
    }

    fn start() -> Head {
        let store = StoreId(uuid::Uuid::from_u128(1));
        Head { position: Position(10), hash: chain::genesis(store) }
    }

    #[test]
    fn the_picture_is_what_happens() {
        let events = vec![event(6, 4), event(2, 2), event(4, 1)];
        let rows = vec![row(5, 3), row(1, 1), row(3, 2)];
        let ordered = order(start(), 7, events, rows);
        let feed: Vec<_> = ordered.feed.iter().map(|placed| (placed.position, placed.seq)).collect();
        assert_eq!(feed, [(11, 2), (12, 4), (13, 6)]);
        let outbox: Vec<_> = ordered.outbox.iter().map(|row| (row.number, row.seq, row.position)).collect();
        assert_eq!(outbox, [(8, 3, 11), (9, 1, 12), (10, 5, 12)]);
        assert_eq!((ordered.head.position, ordered.last), (Position(13), 10));
    }

    #[test]
    fn the_chain_goes_on_from_the_head() {
        let ordered = order(start(), 0, vec![event(3, 1), event(9, 1)], vec![]);
        let first = chain::link(start().hash, Position(11), Version(3), Hash([3; 32]));
        let second = chain::link(first, Position(12), Version(9), Hash([9; 32]));
        assert_eq!(ordered.feed.iter().map(|placed| placed.hash).collect::<Vec<_>>(), [first, second]);
        assert_eq!(ordered.head, Head { position: Position(12), hash: second });
        assert_eq!(order(start(), 5, vec![], vec![]).head, start());
    }

    /// Rows of transactions: (transaction, is it an event), by `seq` from 1.
    fn split(written: &[(u64, bool)]) -> (Vec<Event>, Vec<Row>) {
        let (mut events, mut rows) = (Vec::new(), Vec::new());
        for (seq, (xid, is_event)) in (1..).zip(written) {
            if *is_event { events.push(event(seq, *xid)) } else { rows.push(row(seq, *xid)) }
        }
        (events, rows)
    }

    /// As a round takes a large difference: `max` rows at a time.
    fn in_rounds(written: &[(u64, bool)], max: usize) -> (Vec<Placed>, Vec<Numbered>) {
        let (events, rows) = split(written);
        let ends = |xid: u64| Ends {
            xid,
            event: events.iter().rev().find(|event| event.xid == xid).map(|event| event.seq),
            row: rows.iter().rev().find(|row| row.xid == xid).map(|row| row.seq),
        };
        let (mut head, mut last, mut done) = (start(), 0, 0);
        let (mut feed, mut outbox) = (Vec::new(), Vec::new());
        loop {
            let mut next: Vec<Event> = events.iter().filter(|event| event.seq > done).copied().collect();
            next.truncate(max);
            let mut seen: Vec<Row> = rows.iter().filter(|row| row.seq > done).copied().collect();
            seen.truncate(max);
            let to = cut(&next, &seen, max);
            next.retain(|event| to.is_none_or(|to| event.seq <= to));
            seen.retain(|row| to.is_none_or(|to| row.seq <= to));
            let mut xids: Vec<u64> =
                next.iter().map(|event| event.xid).chain(seen.iter().map(|row| row.xid)).collect();
            xids.sort_unstable();
            xids.dedup();
            let ends: Vec<Ends> = xids.into_iter().map(ends).collect();
            let due = due(&ends, done, to);
            let rows = rows.iter().filter(|row| due.contains(&row.xid)).copied().collect();
            let ordered = order(head, last, next, rows);
            (head, last) = (ordered.head, ordered.last);
            feed.extend(ordered.feed);
            outbox.extend(ordered.outbox);
            match to {
                Some(to) => done = to,
                None => return (feed, outbox),
            }
        }
    }

    proptest! {
        #[test]
        fn bounded_rounds_say_what_one_round_says(
            written in proptest::collection::vec((1u64..8, any::<bool>()), 0..60),
            max in 1usize..20,
        ) {
            let (events, rows) = split(&written);
            let whole = order(start(), 0, events, rows);
            prop_assert_eq!(in_rounds(&written, max), (whole.feed, whole.outbox));
        }

        #[test]
        fn positions_of_outbox_rows_answer_receipts(
            written in proptest::collection::vec((1u64..8, any::<bool>()), 0..60),
        ) {
            let (events, rows) = split(&written);
            let ordered = order(start(), 0, events.clone(), rows.clone());
            let mut marks: BTreeMap<u64, u64> = BTreeMap::new();
            for placed in &ordered.feed {
                let event = events.iter().find(|event| event.seq == placed.seq).unwrap();
                marks.insert(event.xid, placed.position);
            }
            let writer = |row: &Numbered| rows.iter().find(|found| found.seq == row.seq).unwrap().xid;
            prop_assert_eq!(ordered.outbox.len(), rows.len());
            prop_assert!(ordered.outbox.windows(2).all(|pair| pair[0].position <= pair[1].position));
            for (i, row) in ordered.outbox.iter().enumerate() {
                if let Some(mark) = marks.get(&writer(row)) {
                    prop_assert_eq!(row.position, *mark, "a row carries the mark of its transaction");
                }
                // No row that comes later tells of an act whose mark this one answers already, but for its
                // own transaction's.
                for later in &ordered.outbox[i + 1..] {
                    let mark = marks.get(&writer(later)).copied().unwrap_or(u64::MAX);
                    prop_assert!(mark > row.position || writer(later) == writer(row));
                }
            }
        }
    }
}
