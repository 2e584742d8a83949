//! Bounded texts: checked once, when they are made, and cheap to hand on.

/// Why a text was not accepted as a name or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this {what} was not accepted: {problem}; give 1 to {max_bytes} bytes of {allowed}")]
pub struct TextError {
    what: &'static str,
    problem: Problem,
    max_bytes: usize,
    allowed: &'static str,
}

impl TextError {
    /// Which kind of text was given, in the words of the error's message.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it is empty")]
    Empty,
    #[error("it is {0} bytes long")]
    TooLong(usize),
    #[error("the character at byte {0} is not allowed")]
    Character(usize),
}

/// Which characters a text may have.
#[derive(Clone, Copy)]
pub(crate) enum Allowed {
    /// No control characters: a name is printed in logs and terminals, where they would forge lines.
    Printable,
    /// Space to tilde: what fits into an RFC 9651 String.
    Ascii,
}

pub(crate) fn check(
    what: &'static str,
    max_bytes: usize,
    allowed: Allowed,
    text: &str,
) -> Result<(), TextError> {
    let refuse = |problem| {
        let allowed = match allowed {
            Allowed::Printable => "text without control characters",
            Allowed::Ascii => "printable ASCII",
        };
        Err(TextError { what, problem, max_bytes, allowed })
    };
    if text.is_empty() {
        return refuse(Problem::Empty);
    }
    if text.len() > max_bytes {
        return refuse(Problem::TooLong(text.len()));
    }
    let bad = text.char_indices().find(|(_, c)| match allowed {
        // U+2028 and U+2029 are line breaks to many readers, though not control characters.
        Allowed::Printable => c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'),
        Allowed::Ascii => !matches!(c, ' '..='~'),
    });
    bad.map_or(Ok(()), |(at, _)| refuse(Problem::Character(at)))
}

/// Declares a text type: its constructor checks, its clone is a reference count, serde goes through the check.
macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The longest one, in bytes.
            pub const MAX_BYTES: usize = $max;

            #[doc = concat!("Checks `text` and keeps it as ", $what, ".")]
            ///
            /// # Errors
            /// A text that is empty, too long, or has a character that is not allowed.
            pub fn new(text: impl AsRef<str>) -> Result<Self, $crate::TextError> {
                let text = text.as_ref();
                $crate::text::check($what, $max, $crate::text::Allowed::$allowed, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::TextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(from)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use bounded_text;

#[cfg(test)]
mod tests {
    use crate::{IdempotencyKey, Tenant};

    #[test]
    fn a_text_is_refused_with_its_reason_when_empty_too_long_or_unprintable() {
        for (text, says) in [
            (String::new(), "this tenant was not accepted: it is empty"),
            ("x".repeat(129), "it is 129 bytes long; give 1 to 128 bytes"),
            ("a\nb".to_owned(), "the character at byte 1 is not allowed"),
            ("ä\u{2028}".to_owned(), "the character at byte 2 is not allowed"),
            ("\u{85}".to_owned(), "the character at byte 0 is not allowed"),
        ] {
            let error = Tenant::new(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        assert_eq!(Tenant::new("x".repeat(128)).unwrap().as_str().len(), 128);
        assert_eq!(Tenant::new("Käufer & Söhne").unwrap().to_string(), "Käufer & Söhne");
        assert!(IdempotencyKey::new("schlüssel").unwrap_err().to_string().contains("printable ASCII"));
    }

    #[test]
    fn serde_goes_through_the_same_check() {
        assert_eq!(serde_json::from_str::<Tenant>(r#""a\u00e4""#).unwrap().as_str(), "aä");
        assert_eq!(serde_json::to_string(&Tenant::new("t").unwrap()).unwrap(), r#""t""#);
        let error = serde_json::from_str::<Tenant>(r#""a\nb""#).unwrap_err().to_string();
        assert!(error.contains("byte 1 is not allowed"), "{error}");
    }
}
