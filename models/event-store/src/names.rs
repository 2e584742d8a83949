//! The checked texts of the contract: stream, event type, tag, key, view, consumer, topic.
//!
//! A name is checked once, where it enters; after that every room may trust it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that breaks a rule of its kind: nothing was stored under it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {shown:?} is not usable: {why}; nothing was written; choose another {kind}")]
pub struct BadName {
    /// What kind of name was refused.
    pub kind: &'static str,
    /// The first characters of the refused text.
    pub shown: String,
    /// The rule it breaks.
    pub why: String,
}

fn check(kind: &'static str, bytes_max: usize, text: &str) -> Result<(), BadName> {
    let refuse = |why: String| Err(BadName { kind, shown: text.chars().take(40).collect::<String>(), why });
    if text.is_empty() {
        return refuse("it is empty".into());
    }
    if text.len() > bytes_max {
        return refuse(format!("it has {} bytes, at most {bytes_max} are allowed", text.len()));
    }
    // Control characters would let a name break a log line, a terminal or the stored tag list.
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return refuse(format!("it holds the control character U+{:04X}", c as u32));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest text allowed, in bytes of UTF-8.
            pub const BYTES_MAX: usize = $max;

            /// Checks the text: 1 to [`Self::BYTES_MAX`] bytes, no control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
                let text = text.as_ref();
                check($kind, Self::BYTES_MAX, text)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
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

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = BadName;
            fn try_from(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// The name of a stream: all facts of one thing, in order (`account-7`).
    StreamName, "stream name", 256
);
name!(
    /// The name of an event's type (`DepositMade`), stable for ever.
    EventType, "event type", 128
);
name!(
    /// A tag by which events of several streams are found together (`customer:alice`).
    Tag, "tag", 256
);
name!(
    /// Names the key an encrypted payload was sealed with. Erasure destroys that key, never bytes.
    KeyId, "key id", 128
);
name!(
    /// The name of a view: a set of rows by key, read by the query side.
    ViewName, "view name", 128
);
name!(
    /// The name of a consumer: whoever owns a checkpoint, inbox marks or a lease.
    ConsumerName, "consumer name", 128
);
name!(
    /// Where an outbox row is published to.
    Topic, "topic", 256
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_when_empty_too_long_or_with_control_characters() {
        assert!(StreamName::new("").is_err());
        assert!(StreamName::new("a".repeat(257)).is_err());
        assert!(StreamName::new("a".repeat(256)).is_ok());
        for bad in ["a\nb", "a\0b", "\u{85}", "a\u{1b}[2J"] {
            assert!(Tag::new(bad).is_err(), "{bad:?}");
        }
        assert!(StreamName::new("konto-Ä-🦀").is_ok());
    }

    #[test]
    fn a_name_from_the_wire_is_checked_too() {
        assert!(serde_json::from_str::<Tag>("\"a\\nb\"").is_err());
        assert_eq!(serde_json::to_string(&Tag::new("a").unwrap()).unwrap(), "\"a\"");
    }
}
