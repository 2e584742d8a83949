//! The shop: the reference application, written as a user of the facade would write it.
//!
//! ```text
//!             POST /orders                                         each service: a process, a store, a log
//!                  │
//!            ┌─────▼─────┐ OrderCreated      ┌───────────┐ PaymentProcessed   ┌───────────┐
//!            │   order   ├──────────────────►│  payment  ├───────────────────►│ inventory │
//!            │  PENDING  │                   │  charges  │                    │ reserves  │
//!            └─▲──▲───▲──┘◄──────────────────┤           │◄───────────────────┤           │
//!              │  │   │      PaymentRefused: └─────┬─────┘     StockShort     └──┬─────┬──┘
//!              │  │   │      CANCELLED             │                             │     │
//!              │  │   └────────────────────────────┘ PaymentRefunded: CANCELLED  │     │
//!              │  └──────────────────────────────────────────────────────────────┘     │ InventoryUpdated: CONFIRMED
//!              └───────────────────────────────────────────────────────────────────────┘ StockSet: the price view
//! ```
//!
//! # What it is
//!
//! Three services. Each has rules ([`domain`]), a store of its own, a log of its own in which it publishes, and
//! follows the logs of others. None calls another: an order is a chain of facts (a choreographed saga), and each
//! link commits its effect together with the mark that says "done". [`http`] is what all three answer with.
//!
//! # What it is not
//!
//! It knows no engine and holds no SQL: a service is generic over the store and the log it is given. It
//! authenticates nobody. `apps/cli` opens the files, starts the processes and wires them.
//!
//! # Promises, each with its test (`tests/`)
//!
//! | promise | test |
//! |---|---|
//! | An order that can be paid and delivered is confirmed, and takes money and stock once. | `saga::a_paid_order_is_confirmed` |
//! | One that can't be paid is cancelled, and one that can't be delivered is refunded. | `saga::*` |
//! | All lines of an order are reserved, or none. | `saga::all_lines_are_reserved_or_none` |
//! | The same request twice is one order. | `requests::*` |
//! | A presented receipt is seen. | `receipts::*` |
//! | Hostile input is refused by the check that names it. | `hostile::*` |
//! | Every answer is as the OpenAPI document says. | all of them |

pub mod domain;
pub mod http;
pub mod inventory;
pub mod openapi;
pub mod order;
pub mod payment;
pub mod service;

use mainstay::flow::saga::Participant;

/// The three declarations, from which the choreography is drawn and checked.
pub fn participants() -> [Participant; 3] {
    [order::participant(), payment::participant(), inventory::participant()]
}
