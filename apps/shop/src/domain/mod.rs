//! The rules of the shop: pure, without a store, a clock or a network.
//!
//! Three deciders (an order, an account, the stock of one article) and what they are made of. Every rule is
//! tested given / when / then, beside it.

pub mod account;
mod money;
mod name;
pub mod order;
mod reason;
pub mod reservation;
pub mod stock;

pub use money::{Currency, Minor, Money, MoneyError, Price, Quantity, StockQuantity};
pub use name::{CustomerId, NameError, OrderId, Sku};
pub use reason::Reason;

use serde::{Deserialize, Serialize};

/// The most lines of one order: bounds an order's row, its messages and the streams of one reservation.
pub const LINES_MAX: usize = 50;

/// What is ordered: so many of an article.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which article.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
}

/// A line with the price of one piece, as it was when the order was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricedLine {
    /// Which article.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
    /// The price of one, in minor units of the order's currency.
    pub minor: Minor,
}
