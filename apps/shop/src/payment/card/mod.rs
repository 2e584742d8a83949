//! Cards: what is charged by somebody who is not ours, and may be slow, fail, hang, or never answer again.
//!
//! ```text
//!  OrderCreated ──► react: CardChargeRequested + a row "charge this" (one transaction, no call)
//!                      │
//!             row ──► collect: POST /charges, key = the order ──► charged   ──► PaymentProcessed, row gone
//!              ▲  ▲                                           ├─► declined  ──► PaymentRefused, row gone
//!              │  └───────── busy, failed, hung: later ───────┤
//!              │                                              └─► for too long ──► PaymentRefused, row "void this"
//!              └ StockShort ──► react: PaymentRefunded + a row "void this" ──► POST /voids until it is done
//! ```
//!
//! No call is made while a transaction is open, so a processor that hangs holds up nobody whose account is prepaid. What
//! is to be asked is a row, so no death of this process loses it, and it is asked again under the same key, so none is
//! charged twice. How the answer is recorded and the row removed is one transaction.
//!
//! An open breaker, a full bulkhead or a failure says nothing about the charge: the order stays PENDING and it is asked
//! again, for [`Limits::card_time`](crate::http::limits::Limits::card_time). Then the order is refused, and whatever the
//! processor may have charged is voided, however long that takes: nobody pays for an order that was cancelled.

mod calls;
mod collect;
mod due;

pub(super) use calls::Calls;
pub(super) use collect::{Collector, collect};
pub(super) use due::{Ask, Due, Dues};
