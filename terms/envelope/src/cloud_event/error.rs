//! What can be wrong with an event.

use std::fmt;

/// An attribute, or a document, that the specification does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this CloudEvent can't be used: {subject} {problem}; nothing was done with it; its sender has to mend it",
        subject = Shown(.attribute))]
pub struct CloudEventError {
    /// Empty where the document as a whole is meant.
    attribute: String,
    problem: Problem,
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("its document");
        }
        // A hostile name is shown escaped, and not whole.
        write!(f, "the attribute {:?}", self.0.chars().take(40).collect::<String>())
    }
}

impl CloudEventError {
    pub(super) fn new(attribute: &str, problem: Problem) -> Self {
        Self { attribute: attribute.chars().take(64).collect(), problem }
    }

    pub(super) fn document(problem: Problem) -> Self {
        Self { attribute: String::new(), problem }
    }

    /// The attribute that is at fault; none when it is the document as a whole.
    pub fn attribute(&self) -> Option<&str> {
        Some(self.attribute.as_str()).filter(|name| !name.is_empty())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("is missing")]
    Missing,
    #[error("is there more than once")]
    Twice,
    #[error("is empty")]
    Empty,
    #[error("has {0} bytes, at most {1} are allowed")]
    TooLong(usize, usize),
    #[error("has the character U+{0:04X}, which is not allowed")]
    Character(u32),
    #[error("is not {0}")]
    NotA(&'static str),
    #[error("has more than {0} {1}")]
    TooMany(usize, &'static str),
    #[error("has a name that is not allowed: 1 to 20 of a-z and 0-9")]
    Name,
    #[error("is not JSON of an event: {0}")]
    Json(String),
}
