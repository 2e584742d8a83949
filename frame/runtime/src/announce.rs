//! What a child tells its supervisor: lines on its standard output that begin with a mark.
//!
//! ```text
//! @mainstay {"ready":{"address":"127.0.0.1:7101"}}
//! @mainstay {"unready":{"reason":"the disk is full"}}
//! ```
//!
//! A child writes one when it changes, and every few seconds again: a child that was ready and is not heard any more
//! ([`Spec::heard_within`](crate::supervisor::Spec::heard_within)) is shown red. What it repeats is told once.
//!
//! A program in any language can write them. Every other line on either output is a line of its log.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::logs;

/// What a line of this kind begins with.
pub const MARK: &str = "@mainstay ";

/// Whether a child serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcement {
    /// It does.
    Ready {
        /// Where: `host:port`. Empty for a child that listens nowhere.
        #[serde(default)]
        address: String,
    },
    /// It runs, and can't.
    Unready {
        /// Why, in words for the operator.
        reason: String,
    },
}

impl Announcement {
    /// The line, without its end.
    pub fn line(&self) -> String {
        // Two strings in an enum always have a JSON form.
        format!("{MARK}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// What a line announces; none for a line of the log.
    ///
    /// # Errors
    /// In words, for a line that begins with the mark and goes on with something else.
    pub fn parse(line: &str) -> Option<Result<Self, String>> {
        let rest = line.strip_prefix(MARK)?;
        Some(serde_json::from_str(rest).map_err(|error| {
            format!("a line that begins with {:?} announces nothing: {error}", MARK.trim_end())
        }))
    }

    /// Writes the line to standard output, at once. For a child.
    ///
    /// # Errors
    /// When nobody reads any more: the supervisor is gone, and [`Lifeline`](crate::Lifeline) tells so too.
    pub fn send(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", self.line())?;
        out.flush()
    }

    /// Readable and bounded, whatever the child wrote.
    pub(crate) fn cleaned(self) -> Self {
        let clean = |text: String| logs::clean(text.chars().take(1_024).collect::<String>().as_bytes());
        match self {
            Self::Ready { address } => Self::Ready { address: clean(address) },
            Self::Unready { reason } => Self::Unready { reason: clean(reason) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_other_lines_are_log() {
        for announcement in [
            Announcement::Ready { address: "127.0.0.1:7101".into() },
            Announcement::Ready { address: String::new() },
            Announcement::Unready { reason: "a \"quoted\"\nreason".into() },
        ] {
            let line = announcement.line();
            assert_eq!(line.lines().count(), 1);
            assert_eq!(Announcement::parse(&line), Some(Ok(announcement)));
        }
        assert_eq!(Announcement::parse("listening"), None);
        assert_eq!(Announcement::parse(" @mainstay {}"), None);
        let wrong = Announcement::parse("@mainstay {\"redy\":{}}").unwrap().unwrap_err();
        assert!(wrong.contains("announces nothing"), "{wrong}");
    }

    #[test]
    fn the_form_on_the_wire_stays() {
        let ready = Announcement::Ready { address: "127.0.0.1:7101".into() };
        assert_eq!(ready.line(), r#"@mainstay {"ready":{"address":"127.0.0.1:7101"}}"#);
        let unready = Announcement::Unready { reason: "the disk is full".into() };
        assert_eq!(unready.line(), r#"@mainstay {"unready":{"reason":"the disk is full"}}"#);
    }
}
