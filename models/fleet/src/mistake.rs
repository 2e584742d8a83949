//! What is wrong with a document: where, what, and what to do.

use std::error::Error;
use std::fmt::{self, Display};
use std::ops::Range;

/// Mistakes told of one document; the rest is counted.
const TOLD_MAX: usize = 100;

/// Characters of a line that are shown.
const SHOWN_MAX: usize = 120;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The setting, from the document's root, such as `policy.payment.attempt`. Empty where the text is no TOML.
    pub key: String,
    /// What is wrong, and what is allowed or nearest: one line, no full stop.
    pub what: String,
    /// The line up to and with what is meant; and how many characters of its end that is.
    shown: (String, usize),
}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { key, what, .. } = self;
        if key.is_empty() { write!(f, "{what}") } else { write!(f, "`{key}` {what}") }
    }
}

/// All that is wrong with a document: the document's fault. Nothing of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    file: String,
    told: Vec<Mistake>,
    untold: usize,
}

impl Mistakes {
    /// The document's name, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The mistakes in the order of the text: at least one, at most a hundred.
    pub fn told(&self) -> &[Mistake] {
        &self.told
    }

    /// Mistakes beyond those.
    pub fn untold(&self) -> usize {
        self.untold
    }

    pub(crate) fn new(file: &str, text: &str, mut found: Vec<Found>) -> Self {
        // Of one place, in the order of the settings.
        found.sort_by_key(|found| found.span.start);
        let untold = found.len().saturating_sub(TOLD_MAX);
        let told = found.into_iter().take(TOLD_MAX).map(|found| found.placed(text)).collect();
        Mistakes { file: file.to_owned(), told, untold }
    }
}

/// One block a mistake, with the line it is in, as compilers tell theirs.
impl Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistakes { file, told, untold } = self;
        match told.len() + untold {
            1 => write!(f, "{file}: one mistake, and nothing of it is used")?,
            n => write!(f, "{file}: {n} mistakes, and nothing of it is used")?,
        }
        for mistake in told {
            let Mistake { line, column, shown: (text, width), .. } = mistake;
            write!(f, "\n{file}:{line}:{column}: {mistake}")?;
            let margin = line.to_string().len();
            let indent = text.chars().count().saturating_sub(*width);
            write!(f, "\n {line} | {text}")?;
            write!(f, "\n {:margin$} | {:indent$}{}", "", "", "^".repeat((*width).max(1)))?;
        }
        match untold {
            0 => Ok(()),
            n => write!(f, "\nand {n} more"),
        }
    }
}

impl Error for Mistakes {}

/// A mistake before its place is counted in lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
    pub(crate) what: String,
}

impl Found {
    fn placed(self, text: &str) -> Mistake {
        let Found { span, key, what } = self;
        let start = boundary(text, span.start);
        let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[begin..].find(['\n', '\r']).map_or(text.len(), |length| begin + length);
        // Up to what is meant and no further: what stands behind an unknown key may be a secret.
        let end = boundary(text, span.end).clamp(start, line_end.max(start));
        // A tab would move the marks away from what they mark; a control character, the terminal.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let before: String = text[begin..start].chars().map(plain).collect();
        let meant: String = text[start..end].chars().map(plain).take(SHOWN_MAX).collect();
        let width = meant.chars().count();
        let mut shown = before.clone() + &meant;
        let too_long = shown.chars().count().saturating_sub(SHOWN_MAX);
        if too_long > 0 {
            shown = format!("…{}", shown.chars().skip(too_long + 1).collect::<String>());
        }
        Mistake {
            line: text[..start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            key,
            what,
            shown: (shown, width),
        }
    }
}

/// A place in the text at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
