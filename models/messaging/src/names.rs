//! The checked texts of the contract: topic and group.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that breaks a rule of its kind: nothing was done under it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {shown:?} is not usable: {why}; nothing was done; choose another {kind}")]
pub struct BadName {
    /// What kind of name was refused.
    pub kind: &'static str,
    /// The first characters of the refused text.
    pub shown: String,
    /// The rule it breaks.
    pub why: String,
}

fn check(kind: &'static str, bytes_max: usize, text: &str) -> Result<(), BadName> {
    let refuse = |why: String| Err(BadName { kind, shown: text.chars().take(40).collect(), why });
    if text.is_empty() {
        return refuse("it is empty".into());
    }
    if text.len() > bytes_max {
        return refuse(format!("it has {} bytes, at most {bytes_max} are allowed", text.len()));
    }
    // Control characters would let a name break a log line or a terminal.
    match text.chars().find(|c| c.is_control()) {
        Some(c) => refuse(format!("it holds the control character U+{:04X}", c as u32)),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal) => {
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

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// Where a message is published to and followed from.
    Topic, "topic", 256
);
name!(
    /// Names those who share the work of following a topic: each message is handled by one of them. Every group
    /// gets all messages.
    Group, "group", 128
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_when_empty_too_long_or_with_control_characters() {
        assert!(Topic::new("").is_err());
        assert!(Topic::new("a".repeat(257)).is_err());
        assert!(Topic::new("a".repeat(256)).is_ok());
        assert!(Group::new("a".repeat(129)).is_err());
        for bad in ["a\nb", "a\0b", "\u{85}", "a\u{1b}[2J"] {
            let error = Topic::new(bad).unwrap_err().to_string();
            assert!(error.contains("control character") && error.contains("nothing was done"), "{error}");
        }
        assert!(serde_json::from_str::<Group>("\"a\\nb\"").is_err());
        assert_eq!(serde_json::to_string(&Topic::new("orders").unwrap()).unwrap(), "\"orders\"");
    }
}
