//! Why an order was cancelled, as a fact that all three services understand.

use serde::{Deserialize, Serialize};

use super::{Currency, Minor, Sku};

/// Why an order did not come through. Its text is what the customer is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Nobody opened an account.
    #[error("payment refused: the customer has no account")]
    NoAccount,
    /// The balance does not suffice.
    #[error(
        "payment refused: the account holds {balance}, the order costs {amount} {currency} (minor units)"
    )]
    InsufficientFunds {
        /// What the account held, in minor units.
        balance: u64,
        /// What the order costs.
        amount: Minor,
        /// The currency of both.
        currency: Currency,
    },
    /// The account is kept in another currency.
    #[error("payment refused: the account is kept in {account}, the order costs {order}")]
    OtherCurrency {
        /// The account's.
        account: Currency,
        /// The order's.
        order: Currency,
    },
    /// The card processor said no.
    #[error("payment refused: the card was declined")]
    CardDeclined,
    /// The card processor could not be asked for too long.
    #[error(
        "payment refused: the card processor did not answer in time; the card was not charged, or gets it back"
    )]
    CardUnavailable,
    /// There is not enough of an article; nothing of the order was reserved.
    #[error("stock short: {wanted} of {sku} were ordered, {available} are there; the payment was refunded")]
    StockShort {
        /// Which article.
        sku: Sku,
        /// How many were ordered.
        wanted: u64,
        /// How many there are.
        available: u64,
    },
}
