//! What is to be asked of the card processor: rows, written with the facts that ask for it.

use std::time::Duration;

use mainstay::envelope::{Fact, Timestamp};
use mainstay::store::{BadName, IndexValue, ReadError, Refusal, Row, Scan, ScanBy, Store, Tx, ViewName};
use serde::{Deserialize, Serialize};

use crate::domain::{CustomerId, Money, OrderId, PricedLine};
use crate::service::rows::{decode, encode};

/// Index of the rows: when each is due, in milliseconds of the wall clock. Of a durable timer: it has to hold over
/// restarts. A clock that is set moves when it is asked, never what comes of it.
const BY_TIME: &str = "at";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub(in crate::payment) enum Ask {
    /// Charge the order.
    Charge {
        /// What for.
        lines: Vec<PricedLine>,
    },
    /// See to it that the order is not charged.
    Void,
}

/// One order's row. There is one at a time: a void takes the place of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::payment) struct Due {
    pub(in crate::payment) order: OrderId,
    pub(in crate::payment) customer: CustomerId,
    pub(in crate::payment) amount: Money,
    pub(in crate::payment) ask: Ask,
    /// When it was asked for first, and when it is due, in milliseconds of the wall clock.
    pub(super) since: i64,
    pub(super) at: i64,
    /// How often it was asked, and no answer came.
    pub(super) tries: u32,
    /// On whose account, in which correlation.
    pub(super) fact: Fact,
}

impl Due {
    /// To be asked from now on.
    pub(in crate::payment) fn new(
        order: OrderId,
        customer: CustomerId,
        amount: Money,
        ask: Ask,
        at: Timestamp,
        fact: &Fact,
    ) -> Self {
        let (since, at) = (at.as_millis(), at.as_millis());
        Self { order, customer, amount, ask, since, at, tries: 0, fact: fact.clone() }
    }

    /// The same, due so long after now.
    pub(super) fn after(self, now: Timestamp, wait: Duration) -> Self {
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Self { at: now.as_millis().saturating_add(wait), ..self }
    }

    /// How long it has been asked for.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(now.as_millis().saturating_sub(self.since)).unwrap_or(0))
    }
}

/// Where the rows are.
#[derive(Debug, Clone)]
pub(in crate::payment) struct Dues(ViewName);

impl Dues {
    pub(in crate::payment) fn new() -> Result<Self, BadName> {
        Ok(Self(ViewName::new("shop.card_due")?))
    }

    pub(in crate::payment) fn put(&self, tx: &impl Tx, due: &Due) -> Result<(), Refusal> {
        let row = Row::new(due.order.to_string(), encode(due)?);
        tx.view_put(&self.0, &row.indexed(BY_TIME, IndexValue::Integer(due.at)))
    }

    /// Is this still what is asked? Not if somebody has recorded how it ended.
    pub(super) fn holds(&self, tx: &impl Tx, due: &Due) -> Result<bool, Refusal> {
        let Some(bytes) = tx.view_get(&self.0, &due.order.to_string())? else { return Ok(false) };
        Ok(decode::<Due>(&bytes)?.ask == due.ask)
    }

    pub(super) fn remove(&self, tx: &impl Tx, order: OrderId) -> Result<(), Refusal> {
        tx.view_delete(&self.0, &order.to_string()).map(drop)
    }

    /// The first rows by their time: those that are due at `now`, and how long until the next one is.
    pub(super) async fn first<S: Store>(
        &self,
        store: &S,
        now: Timestamp,
        rows_max: usize,
    ) -> Result<(Vec<Due>, Option<Duration>), ReadError> {
        let (from, to) = (IndexValue::Integer(i64::MIN), IndexValue::Integer(i64::MAX));
        let by = ScanBy::Index { index: BY_TIME, from, to };
        let scan = Scan { view: self.0.clone(), by, after: None, rows_max };
        let rows = store.view_scan(&scan).await?.rows;
        let mut rows: Vec<Due> = rows.iter().map(|(_, bytes)| decode(bytes)).collect::<Result<_, _>>()?;
        let later = rows.split_off(rows.partition_point(|due| due.at <= now.as_millis()));
        let wait = |next: &Due| u64::try_from(next.at.saturating_sub(now.as_millis())).unwrap_or(0);
        Ok((rows, later.first().map(wait).map(Duration::from_millis)))
    }
}
