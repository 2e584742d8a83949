//! Ids and names: bounded, printable, and safe in a path, a tag and a log line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Why a name was not accepted. It never repeats the text: that may be anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too long, empty, or a character that is not allowed.
    #[error(
        "not a {0}: give 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 . _ @ + -, a letter or digit first"
    )]
    Name(&'static str),
    /// No UUID.
    #[error("not an order id: give the UUID that was answered when the order was made")]
    OrderId,
}

/// The check of every name. Letters and digits first, so that none reads as `..` in a path or `-x` on a
/// command line.
fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(byte);
    let fits = (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(allowed);
    if fits { Ok(()) } else { Err(NameError::Name(what)) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "std::borrow::Cow<'_, str>", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the text.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<std::borrow::Cow<'_, str>> for $type {
            type Error = NameError;
            fn try_from(text: std::borrow::Cow<'_, str>) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// A customer, and the name of the account that pays.
    CustomerId, "customer"
);
name!(
    /// An article (stock keeping unit).
    Sku, "sku"
);

/// An order. Sorts in the order of making (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl FromStr for OrderId {
    type Err = NameError;

    /// The hyphenated form in lower case, and no other: an id is compared, logged and linked as text.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let id = Uuid::try_parse(text).map_err(|_| NameError::OrderId)?;
        let mut spelling = Uuid::encode_buffer();
        if id.hyphenated().encode_lower(&mut spelling) == text {
            Ok(Self(id))
        } else {
            Err(NameError::OrderId)
        }
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_when_it_is_empty_long_or_unprintable() {
        let longest = "a".repeat(64);
        for good in ["a", "alice", "7", "a.b_c@d+e-f", longest.as_str()] {
            assert!(CustomerId::new(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in
            ["", ".", "..", "-x", "a b", "a/b", "a\nb", "a\0", "ä", "\u{202e}a", "a%", too_long.as_str()]
        {
            assert!(CustomerId::new(bad).is_err(), "{bad:?}");
            assert!(Sku::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_order_id_has_one_spelling() {
        let id = "018f3c5e-0000-7000-8000-00000000002a";
        assert_eq!(id.parse::<OrderId>().unwrap().to_string(), id);
        for bad in [
            "",
            "7",
            "018F3C5E-0000-7000-8000-00000000002A",
            "018f3c5e0000700080000000000000002a",
            "{018f3c5e}",
        ] {
            assert!(bad.parse::<OrderId>().is_err(), "{bad}");
        }
    }
}
