//! Money in integer minor units, and counts. Nothing here wraps, rounds or goes below zero.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a number or a currency was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Outside its range.
    #[error("{what} {given} is out of range; give {least} to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// As given.
        given: u64,
        /// The least that is accepted.
        least: u64,
        /// The most that is accepted.
        most: u64,
    },
    /// Not three capital letters.
    #[error("a currency is three capital letters (ISO 4217), such as EUR")]
    Currency,
}

/// Declares a number with a range, checked when it is made and when it is read.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $what:literal, $least:literal, $most:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(u64);

        impl $name {
            /// The least.
            pub const MIN: u64 = $least;
            /// The most.
            pub const MAX: u64 = $most;

            /// Checks the range.
            pub fn new(number: u64) -> Result<Self, MoneyError> {
                if (Self::MIN..=Self::MAX).contains(&number) {
                    return Ok(Self(number));
                }
                Err(MoneyError::Range { what: $what, given: number, least: Self::MIN, most: Self::MAX })
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = MoneyError;
            fn try_from(number: u64) -> Result<Self, MoneyError> {
                Self::new(number)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> u64 {
                number.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bounded!(
    /// An amount in minor units (cents): 0 to 10¹².
    ///
    /// Far below 2⁵³, up to which all readers of JSON keep integers exactly (RFC 8259 §6). An order's sum has the same
    /// bound.
    Minor, "amount", 0, 1_000_000_000_000
);
bounded!(
    /// How many of an article one line orders: 1 to 10⁶.
    Quantity, "quantity", 1, 1_000_000
);
bounded!(
    /// How many of an article there are: 0 to 10⁹.
    StockQuantity, "stock", 0, 1_000_000_000
);

/// A currency: three capital letters (ISO 4217).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "std::borrow::Cow<'_, str>", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// What an account is kept in unless its owner says otherwise.
    pub const EUR: Self = Self(*b"EUR");

    /// Checks the letters. Whether such a currency exists is not looked up.
    pub fn new(text: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(MoneyError::Currency),
        }
    }

    /// The three letters.
    pub fn as_str(&self) -> &str {
        // Only capital letters get in, so this is always text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TryFrom<std::borrow::Cow<'_, str>> for Currency {
    type Error = MoneyError;
    fn try_from(text: std::borrow::Cow<'_, str>) -> Result<Self, MoneyError> {
        Self::new(&text)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So much of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Which.
    pub currency: Currency,
    /// How much.
    pub minor: Minor,
}

/// The price of one piece.
pub type Price = Money;

impl Money {
    /// So much of that.
    pub fn new(currency: Currency, minor: Minor) -> Self {
        Self { currency, minor }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (minor units)", self.minor, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_refused_unless_it_is_a_whole_one_in_range() {
        assert_eq!(serde_json::from_str::<Minor>("0").unwrap().get(), 0);
        assert_eq!(serde_json::from_str::<Minor>("1000000000000").unwrap().get(), Minor::MAX);
        for bad in ["-1", "1.0", "1e3", "\"1\"", "1000000000001", "18446744073709551616", "null", "true"] {
            assert!(serde_json::from_str::<Minor>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Quantity>("0").is_err());
        assert!(serde_json::from_str::<StockQuantity>("0").is_ok());
    }

    #[test]
    fn a_currency_is_three_capital_letters() {
        assert_eq!(serde_json::from_str::<Currency>("\"EUR\"").unwrap(), Currency::EUR);
        for bad in ["\"eur\"", "\"EU\"", "\"EURO\"", "\"E1R\"", "\"Ä\"", "7"] {
            assert!(serde_json::from_str::<Currency>(bad).is_err(), "{bad}");
        }
    }
}
