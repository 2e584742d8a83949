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
//! ```text
//! calls, under policies:   browser ─GET /catalogue─► order ─(cache)─► inventory        payment ─POST /charges─► processor
//! ```
//!
//! Three services, and a card processor that is somebody else's ([`processor`], simulated). Each has rules ([`domain`]), a store of its own, a log of its own in which it publishes, and
//! follows the logs of others. No order waits for a call: it is a chain of facts (a choreographed saga), and each
//! link commits its effect together with the mark that says "done". What is called is called beside that, under a
//! policy: a card's charge between two links, from a row that outlives the process (`payment/card`), and the catalogue
//! for those who only look around (`order/catalogue.rs`). [`http`] is what all of them answer with.
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
//! | One that can't be paid is cancelled and takes nothing. | `saga::an_order_that_can_not_be_paid_is_cancelled_and_takes_nothing` |
//! | One that can't be delivered is refunded and cancelled. | `saga::an_order_beyond_the_stock_is_refunded_and_cancelled` |
//! | All lines of an order are reserved, or none. | `saga::all_lines_are_reserved_or_none` |
//! | The same request twice is one order. | `requests::the_same_request_again_is_one_order_and_gets_the_same_answer` |
//! | A presented receipt is seen. | `receipts::a_presented_receipt_is_seen` |
//! | A card is charged once for an order, whatever is lost, and never for one that was cancelled. | the module `card`; over kill -9 `apps/cli/tests/shop/card.rs` |
//! | A processor that hangs holds up nobody who does not need it. | `card::a_processor_that_hangs_holds_its_own_places_and_nobody_elses_then_the_breaker_recovers` |
//! | When there is too much to do, browsing is given up before checkout. | `when_there_is_too_much_to_do_browsing_is_refused_and_checkout_served` (`src/service/edge.rs`) |
//! | The catalogue loads once for many, and anew when Inventory says so. | `browsing::the_catalogue_is_loaded_once_for_many_and_anew_when_inventory_says_so` |
//! | Hostile input is refused by the check that names it. | the module `hostile` |
//! | Every answer is as the OpenAPI document says. | all of them: the tests' client looks at each |
//!
//! # When it fails
//!
//! A request is answered with problem details that say what was not done ([`http::problem`] has the table). A
//! fact that can't be handled is set aside with what follows it under its key, and operators are told. A service
//! whose relay or follower stops for good ends with [`service::ServeError`]; started again, it goes on where it was.
//!
//! # Smallest example
//!
//! `cargo run -p mainstay-shop --example in_memory`: all of it in one process, with nothing on disk.
//!
//! # Floor
//!
//! `apps`: it knows the facade, and of the facade what has no engine behind it.

pub mod domain;
pub mod http;
pub mod inventory;
pub mod openapi;
pub mod order;
pub mod payment;
pub mod processor;
pub mod service;

use mainstay::flow::saga::Participant;

/// The three declarations, from which the choreography is drawn and checked.
pub fn participants() -> [Participant; 3] {
    [order::participant(), payment::participant(), inventory::participant()]
}
