//! Where in the feed: positions, heads, receipts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::hash::Hash;

/// A place in the feed of one store. The first event has 1; 0 is before the first. Dense: no number is skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The place after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one store for ever; given at its creation. A receipt of one store means nothing to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub Uuid);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The end of the feed: its last position and the chain's hash there. Kept elsewhere, it later proves
/// that nothing before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last position.
    pub position: Position,
    /// The chain's hash there.
    pub hash: Hash,
}

/// The proof of an act, opaque to its holder: present it to read your own writes.
///
/// Its text form fits in a header: `r1.<store>.<mark>`. What the mark counts is the backend's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    store: StoreId,
    mark: u64,
}

impl Receipt {
    /// For backends: the receipt of an act of `store`.
    pub fn new(store: StoreId, mark: u64) -> Self {
        Self { store, mark }
    }

    /// The store that gave it.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// For backends: what was given to [`Receipt::new`].
    pub fn mark(&self) -> u64 {
        self.mark
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r1.{}.{}", self.store.0.simple(), self.mark)
    }
}

/// A text that is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt: {0:?}; nothing was read; send the receipt exactly as it was answered")]
pub struct BadReceipt(String);

impl FromStr for Receipt {
    type Err = BadReceipt;

    fn from_str(text: &str) -> Result<Self, BadReceipt> {
        let bad = || BadReceipt(text.chars().take(80).collect());
        let mut parts = text.split('.');
        let (Some("r1"), Some(store), Some(mark), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        // One spelling only: a receipt is compared and logged as text.
        if store.len() != 32 || mark.starts_with('+') || (mark.len() > 1 && mark.starts_with('0')) {
            return Err(bad());
        }
        let store = Uuid::try_parse(store).map_err(|_| bad())?;
        Ok(Self { store: StoreId(store), mark: mark.parse().map_err(|_| bad())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_survives_its_text_form_and_a_spoilt_one_is_refused() {
        let receipt = Receipt::new(StoreId(Uuid::from_u128(7)), 42);
        assert_eq!(receipt.to_string().parse::<Receipt>(), Ok(receipt));
        for bad in ["", "r1", "r1..", "r2.00000000000000000000000000000007.42", "r1.7.42"] {
            assert!(bad.parse::<Receipt>().is_err(), "{bad}");
        }
        for mark in ["", "-1", "+1", "01", "99999999999999999999", "1.2"] {
            assert!(
                format!("r1.00000000000000000000000000000007.{mark}").parse::<Receipt>().is_err(),
                "{mark}"
            );
        }
    }
}
