//! What a receipt's mark counts here.
//!
//! An act is acknowledged before the sequencer has given its events their positions. So its mark is not yet a position:
//!
//! ```text
//! bit 62, 61    00: a position       10: the seq of the act's last event      11: the transaction's id
//! ```
//! The last kind is for transactions without events. A mark above every position is never taken for one that was
//! reached: who compares it with positions waits, and does not answer too early. [`crate::Postgres::settle`] turns it
//! into a position.

use mainstay_event_store::{Receipt, StoreId};

const UNPLACED: u64 = 1 << 62;
const BY_XID: u64 = 1 << 61;

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// This position.
    Position(u64),
    /// Where the event with this seq stands.
    Seq(u64),
    /// Where the feed stands when this transaction is settled.
    Xid(u64),
}

impl Mark {
    pub(crate) fn receipt(self, store: StoreId) -> Receipt {
        let mark = match self {
            Self::Position(position) => position,
            Self::Seq(seq) => UNPLACED | seq,
            Self::Xid(xid) => UNPLACED | BY_XID | xid,
        };
        Receipt::new(store, mark)
    }

    pub(crate) fn of(receipt: &Receipt) -> Self {
        let mark = receipt.mark();
        match (mark & UNPLACED != 0, mark & BY_XID != 0) {
            (false, _) => Self::Position(mark),
            (true, false) => Self::Seq(mark & !UNPLACED),
            (true, true) => Self::Xid(mark & !(UNPLACED | BY_XID)),
        }
    }

    /// The mark that covers both: of two events of one transaction the later one.
    pub(crate) fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::Seq(a), Self::Seq(b)) => Self::Seq(a.max(b)),
            (Self::Xid(_), other) => other,
            (one, _) => one,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_its_receipt_and_is_above_every_position_while_it_is_none() {
        let store = StoreId(uuid::Uuid::from_u128(1));
        for mark in [Mark::Position(0), Mark::Position(1 << 40), Mark::Seq(7), Mark::Xid(1 << 50)] {
            assert_eq!(Mark::of(&mark.receipt(store)), mark);
        }
        assert!(Mark::Seq(1).receipt(store).mark() > Mark::Position(1 << 60).receipt(store).mark());
        assert_eq!(Mark::Xid(3).later(Mark::Seq(5)).later(Mark::Xid(9)).later(Mark::Seq(4)), Mark::Seq(5));
    }
}
