//! The processor's books: what became of each key, and the sums. All of it is decided inside one transaction.
//!
//! ```text
//!            charge              charge (the same): the same answer
//!  (nothing) ──────► CHARGED ──┐
//!      │  └────────► DECLINED  │ void
//!      │ void                  ▼
//!      └───────────────────► VOIDED     a charge that arrives after its void is refused
//! ```
//!
//! A key is kept for a day at least. When there are more keys than fit and all are younger, new charges are refused: a
//! key that is forgotten too early would be charged twice.

use std::collections::BTreeMap;

use mainstay::store::{Abort, BadName, IndexValue, Refusal, Row, Scan, ScanBy, Tx, ViewName};
use serde::{Deserialize, Serialize};

use crate::domain::{CustomerId, Money};
use crate::service::rows::{decode, encode};

/// How long a key is remembered at least, in milliseconds: a day, as processors do.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;
/// Keys that are remembered at most, some 20 MB.
const ENTRIES_MAX: u64 = 100_000;
/// Keys forgotten with each new one at most, so that no charge pays for thousands.
const FORGOTTEN_MAX: usize = 2;
const BY_AGE: &str = "at";
const SUMS: &str = "all";

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    Charged,
    Declined,
    Voided,
}

/// One key's entry, which is also the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) status: Status,
    /// None of a key that was voided before anything was charged under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) charge: Option<Charge>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Charge {
    /// Whose card.
    pub(super) card: CustomerId,
    pub(super) amount: Money,
}

/// The sums: entries that are kept, what happened since the books were opened, and what the cards have paid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) entries: u64,
    pub(super) charged: u64,
    pub(super) declined: u64,
    pub(super) voided: u64,
    /// Charged and not voided, in minor units, by currency.
    pub(super) net: BTreeMap<String, u64>,
}

/// Why nothing was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum No {
    /// The key was used for another charge.
    OtherCharge,
    /// The key was voided.
    Voided,
    /// No room for another key.
    Full,
}

/// Where the books are.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    entries: ViewName,
    sums: ViewName,
    entries_max: u64,
}

impl Ledger {
    pub(super) fn new() -> Result<Self, BadName> {
        Ok(Self {
            entries: ViewName::new("processor.charges")?,
            sums: ViewName::new("processor.sums")?,
            entries_max: ENTRIES_MAX,
        })
    }

    /// Of the entries; see [`SUMS`] for the other.
    pub(super) fn views(&self) -> (&ViewName, &ViewName, &'static str) {
        (&self.entries, &self.sums, SUMS)
    }

    /// Charges, or finds what became of the key.
    pub(super) fn charge(
        &self,
        tx: &impl Tx,
        key: &str,
        ask: &Charge,
        declines: bool,
    ) -> Result<Entry, Abort<No>> {
        if let Some(found) = self.find(tx, key)? {
            return match (&found.status, &found.charge) {
                (_, Some(charge)) if charge != ask => Err(Abort::User(No::OtherCharge)),
                (Status::Voided, _) => Err(Abort::User(No::Voided)),
                _ => Ok(found),
            };
        }
        let mut sums = self.sums(tx)?;
        let status = if declines { Status::Declined } else { Status::Charged };
        match status {
            Status::Charged => {
                sums.charged += 1;
                let net = sums.net.entry(ask.amount.currency.as_str().to_owned()).or_default();
                *net = net.saturating_add(ask.amount.minor.get());
            }
            _ => sums.declined += 1,
        }
        let entry = Entry { key: key.to_owned(), status, charge: Some(ask.clone()) };
        self.add(tx, &entry, sums)?;
        Ok(entry)
    }

    /// Makes sure that nothing is charged under this key, now or later.
    pub(super) fn void(&self, tx: &impl Tx, key: &str) -> Result<Entry, Abort<No>> {
        let found = self.find(tx, key)?;
        let mut sums = self.sums(tx)?;
        let Some(found) = found else {
            let entry = Entry { key: key.to_owned(), status: Status::Voided, charge: None };
            sums.voided += 1;
            self.add(tx, &entry, sums)?;
            return Ok(entry);
        };
        if found.status != Status::Charged {
            return Ok(found);
        }
        if let Some(Charge { amount, .. }) = &found.charge
            && let Some(net) = sums.net.get_mut(amount.currency.as_str())
        {
            *net = net.saturating_sub(amount.minor.get());
        }
        sums.voided += 1;
        let entry = Entry { status: Status::Voided, ..found };
        self.put(tx, &entry)?;
        self.put_sums(tx, &sums)?;
        Ok(entry)
    }

    /// A new key, if there is room for it.
    fn add(&self, tx: &impl Tx, entry: &Entry, mut sums: Sums) -> Result<(), Abort<No>> {
        if sums.entries >= self.entries_max {
            sums.entries -= self.forget(tx)?;
        }
        if sums.entries >= self.entries_max {
            return Err(Abort::User(No::Full));
        }
        sums.entries += 1;
        self.put(tx, entry)?;
        Ok(self.put_sums(tx, &sums)?)
    }

    /// Forgets some keys that nobody may ask for any more; how many.
    fn forget(&self, tx: &impl Tx) -> Result<u64, Refusal> {
        let old = tx.at().as_millis().saturating_sub(KEPT_MS);
        let by = ScanBy::Index {
            index: BY_AGE,
            from: IndexValue::Integer(i64::MIN),
            to: IndexValue::Integer(old),
        };
        let scan = Scan { view: self.entries.clone(), by, after: None, rows_max: FORGOTTEN_MAX };
        let mut forgotten = 0;
        for (key, _) in tx.view_scan(&scan)?.rows {
            forgotten += u64::from(tx.view_delete(&self.entries, &key)?);
        }
        Ok(forgotten)
    }

    fn find(&self, tx: &impl Tx, key: &str) -> Result<Option<Entry>, Refusal> {
        tx.view_get(&self.entries, key)?.map(|bytes| decode(&bytes)).transpose()
    }

    fn put(&self, tx: &impl Tx, entry: &Entry) -> Result<(), Refusal> {
        let row = Row::new(&*entry.key, encode(entry)?);
        tx.view_put(&self.entries, &row.indexed(BY_AGE, IndexValue::Integer(tx.at().as_millis())))
    }

    fn sums(&self, tx: &impl Tx) -> Result<Sums, Refusal> {
        Ok(tx.view_get(&self.sums, SUMS)?.map(|bytes| decode(&bytes)).transpose()?.unwrap_or_default())
    }

    fn put_sums(&self, tx: &impl Tx, sums: &Sums) -> Result<(), Refusal> {
        tx.view_put(&self.sums, &Row::new(SUMS, encode(sums)?))
    }
}

#[cfg(test)]
mod tests {
    use mainstay::Context;
    use mainstay::store::memory::Memory;
    use mainstay::store::{Store, TransactError};

    use super::*;
    use crate::domain::{Currency, Minor};

    fn of(minor: u64) -> Charge {
        let amount = Money::new(Currency::EUR, Minor::new(minor).unwrap());
        Charge { card: CustomerId::new("alice").unwrap(), amount }
    }

    async fn run(
        store: &Memory,
        ledger: &Ledger,
        ask: impl Fn(&Ledger, &<Memory as Store>::Tx) -> Result<Entry, Abort<No>> + Send + Sync + 'static,
    ) -> Result<Status, No> {
        let ledger = ledger.clone();
        match store.transact(&Context::system(), move |tx| ask(&ledger, tx)).await {
            Ok(done) => Ok(done.value.status),
            Err(TransactError::User(no)) => Err(no),
            Err(TransactError::Store(error)) => panic!("{error}"),
        }
    }

    async fn sums(store: &Memory, ledger: &Ledger) -> Sums {
        let bytes = store.view_get(&ledger.sums, SUMS).await.unwrap().unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_key_is_charged_once_voided_once_and_never_charged_after_its_void() {
        let (store, ledger) = (Memory::new(), Ledger::new().unwrap());
        for _ in 0..2 {
            let charged = run(&store, &ledger, |ledger, tx| ledger.charge(tx, "a", &of(300), false)).await;
            assert_eq!(charged, Ok(Status::Charged));
        }
        let other = run(&store, &ledger, |ledger, tx| ledger.charge(tx, "a", &of(301), false)).await;
        assert_eq!(other, Err(No::OtherCharge));
        assert_eq!((sums(&store, &ledger).await.charged, sums(&store, &ledger).await.net["EUR"]), (1, 300));
        for _ in 0..2 {
            assert_eq!(run(&store, &ledger, |ledger, tx| ledger.void(tx, "a")).await, Ok(Status::Voided));
        }
        // Its answer was lost, it was given up, and now it arrives.
        assert_eq!(run(&store, &ledger, |ledger, tx| ledger.void(tx, "late")).await, Ok(Status::Voided));
        for key in ["a", "late"] {
            let again = run(&store, &ledger, move |ledger, tx| ledger.charge(tx, key, &of(300), false)).await;
            assert_eq!(again, Err(No::Voided), "{key}");
        }
        // What was declined stays declined.
        for declines in [true, false] {
            let no = run(&store, &ledger, move |ledger, tx| ledger.charge(tx, "no", &of(5), declines)).await;
            assert_eq!(no, Ok(Status::Declined));
        }
        let net = [("EUR".to_owned(), 0)].into();
        let expected = Sums { entries: 3, charged: 1, declined: 1, voided: 2, net };
        assert_eq!(sums(&store, &ledger).await, expected);
    }

    #[tokio::test]
    async fn a_full_ledger_refuses_new_keys_rather_than_to_forget_young_ones() {
        let (store, ledger) = (Memory::new(), Ledger { entries_max: 2, ..Ledger::new().unwrap() });
        for (key, ends) in [("a", Ok(Status::Charged)), ("b", Ok(Status::Charged)), ("c", Err(No::Full))] {
            let ended = run(&store, &ledger, move |ledger, tx| ledger.charge(tx, key, &of(1), false)).await;
            assert_eq!(ended, ends, "{key}");
        }
        let known = run(&store, &ledger, |ledger, tx| ledger.charge(tx, "a", &of(1), false)).await;
        assert_eq!(known, Ok(Status::Charged));
    }
}
