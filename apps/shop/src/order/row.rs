//! The order as it is shown: one row of a view, which is the answer's JSON itself.

use mainstay::envelope::Timestamp;
use mainstay::store::{BadName, IndexValue, Refusal, Row, ViewName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::order::Status;
use crate::domain::{CustomerId, Money, OrderId, PricedLine, Reason};
use crate::service::rows::encode;

/// Index of [`view`]: the rows of one customer.
pub(super) const BY_CUSTOMER: &str = "customer";
/// Index of [`view`]: the rows in one state.
pub(super) const BY_STATUS: &str = "status";

/// The orders, by id. Ids grow with time, so the view's own order is that of their making.
pub(super) fn view() -> Result<ViewName, BadName> {
    ViewName::new("shop.orders")
}

/// What an article costs, by sku: what Inventory last said, as far as it has arrived here.
pub(super) fn prices() -> Result<ViewName, BadName> {
    ViewName::new("shop.prices")
}

/// An order as it is shown. Its history grows by two entries at most, so the row stays small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderRow {
    pub(super) id: OrderId,
    pub(super) customer: CustomerId,
    pub(super) status: Status,
    pub(super) amount: Money,
    pub(super) lines: Vec<PricedLine>,
    pub(super) reason: Option<String>,
    pub(super) correlation_id: Uuid,
    pub(super) history: Vec<Entry>,
}

/// Something that happened: at the service of that name, or here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// RFC 3339, by the wall clock of whoever recorded it. Data, not an order: the list is in the order in which
    /// this service learned of things.
    pub(super) at: String,
    pub(super) event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Entry {
    pub(super) fn new(at: Timestamp, event: &str) -> Self {
        Self { at: rfc3339(at), event: event.to_owned(), service: None, reason: None }
    }

    pub(super) fn of(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }
}

impl OrderRow {
    /// The order is final.
    pub(super) fn end(&mut self, status: Status, reason: Option<&Reason>, cause: Entry, mut end: Entry) {
        self.status = status;
        self.reason = reason.map(Reason::to_string);
        end.reason.clone_from(&self.reason);
        self.history.extend([cause, end]);
    }

    /// The row to write.
    pub(super) fn row(&self) -> Result<Row, Refusal> {
        Ok(Row::new(self.id.to_string(), encode(self)?)
            .indexed(BY_CUSTOMER, IndexValue::Text(self.customer.as_str().to_owned()))
            .indexed(BY_STATUS, IndexValue::Text(self.status.as_str().to_owned())))
    }
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_rfc_3339() {
        assert_eq!(rfc3339(Timestamp::from_millis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }
}
