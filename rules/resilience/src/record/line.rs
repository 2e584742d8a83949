//! A decision as a line of JSON.
//!
//! ```json
//! {"v":1,"id":"00abcdef00000001","rule":"bulkhead","question":3,"at":"12a05f200","inputs":["20","40"],"verdict":"1"}
//! ```
//! Numbers of 64 bits are text, in hexadecimal, since many readers of JSON round larger ones than 2⁵³. Inputs that are not
//! there are 0.

use std::fmt::{self, Display};

use super::Decision;

/// The version that is written, and read.
pub(super) const VERSION: u64 = 1;

impl Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of rules and hexadecimal digits: nothing that JSON would escape.
        let Decision { id, rule, question, at, inputs, verdict } = self;
        write!(
            f,
            "{{\"v\":{VERSION},\"id\":\"{id}\",\"rule\":\"{rule}\",\"question\":{question},\"at\":\"{at:x}\",\"inputs\":["
        )?;
        let used = inputs.iter().rposition(|input| *input != 0).map_or(0, |last| last + 1);
        for (n, input) in inputs.iter().take(used).enumerate() {
            write!(f, "{}\"{input:x}\"", if n == 0 { "" } else { "," })?;
        }
        write!(f, "],\"verdict\":\"{verdict:x}\"}}")
    }
}

#[cfg(feature = "recording")]
pub use read::Unreadable;
#[cfg(feature = "recording")]
pub(super) use read::{Versioned, problem};

#[cfg(feature = "recording")]
mod read {
    use std::str::FromStr;

    use serde::Deserialize;

    use super::super::{Decision, INPUTS};
    use super::VERSION;
    use crate::refusal::{DecisionId, Rule};

    /// A line that is no recorded decision: it was cut, altered, or written by another version.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("not a recorded decision: {problem}. Nothing was replayed from this line")]
    pub struct Unreadable {
        pub(in super::super) problem: String,
    }

    impl From<String> for Unreadable {
        fn from(problem: String) -> Self {
            Unreadable { problem }
        }
    }

    /// Of every line, whatever else a later version puts into it.
    #[derive(Deserialize)]
    pub(in super::super) struct Versioned {
        v: u64,
    }

    impl Versioned {
        /// Refuses what another version wrote.
        pub(in super::super) fn check(line: &str) -> Result<(), String> {
            let Versioned { v } = serde_json::from_str(line).map_err(|error| problem(&error))?;
            if v == VERSION {
                return Ok(());
            }
            Err(format!(
                "it is of version {v}, and this build reads version {VERSION}; use one that wrote it"
            ))
        }
    }

    /// What JSON's reader says, without its own line number: each line is read by itself.
    pub(in super::super) fn problem(error: &serde_json::Error) -> String {
        let said = error.to_string();
        let end = said.rfind(" at line ").unwrap_or(said.len());
        said[..end].to_owned()
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line<'a> {
        #[serde(rename = "v")]
        _v: u64,
        id: &'a str,
        rule: &'a str,
        question: u8,
        at: &'a str,
        #[serde(borrow)]
        inputs: Vec<&'a str>,
        verdict: &'a str,
    }

    impl FromStr for Decision {
        type Err = Unreadable;

        fn from_str(text: &str) -> Result<Self, Unreadable> {
            Versioned::check(text)?;
            let line: Line<'_> = serde_json::from_str(text).map_err(|error| problem(&error))?;
            let rule = Rule::from_name(line.rule);
            let rule =
                rule.ok_or_else(|| format!("`rule` is {:?}, which this build does not know", line.rule))?;
            if line.inputs.len() > INPUTS {
                return Err(
                    format!("it has {} `inputs`; there are at most {INPUTS}", line.inputs.len()).into()
                );
            }
            let mut inputs = [0; INPUTS];
            for (input, text) in inputs.iter_mut().zip(&line.inputs) {
                *input = number("inputs", text)?;
            }
            Ok(Decision {
                id: DecisionId(number("id", line.id)?),
                rule,
                question: line.question,
                at: number("at", line.at)?,
                inputs,
                verdict: number("verdict", line.verdict)?,
            })
        }
    }

    fn number(field: &str, text: &str) -> Result<u64, String> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_plain.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.ok_or_else(|| format!("`{field}` is {text:?}, which is no hexadecimal number of 64 bits"))
    }
}

#[cfg(all(test, feature = "recording"))]
mod tests {
    use super::super::{Decision, Recorder, Recording};
    use crate::refusal::Rule;
    use mainstay_envelope::Monotonic;

    #[test]
    fn a_line_is_read_as_what_was_written_and_one_that_is_none_says_why() {
        let recorder = Recorder::new(Recording::Notable, 1, 1);
        recorder.notable(Rule::Bulkhead, 3, Monotonic::ORIGIN, [u64::MAX, 2, 3, 4, 5, 6, 7], 9);
        let decision = recorder.decisions()[0];
        let line = decision.to_string();
        assert_eq!(line.parse(), Ok(decision));
        let short = Decision { inputs: [0, 5, 0, 0, 0, 0, 0], ..decision };
        assert!(short.to_string().contains(r#""inputs":["0","5"]"#), "{short}");
        assert_eq!(short.to_string().parse(), Ok(short));
        for (broken, words) in [
            (String::new(), "EOF"),
            (line[..line.len() - 3].to_owned(), "EOF"),
            (line.replace(r#""v":1"#, r#""v":2"#), "version 2"),
            (line.replace(r#""v":1"#, r#""w":1"#), "missing field `v`"),
            (line.replace("bulkhead", "bulk"), "does not know"),
            (line.replace(r#""7""#, r#""7","8""#), "at most 7"),
            (line.replace(r#""7""#, r#""seven""#), "no hexadecimal number"),
            (line.replace(r#""7""#, r#""+7""#), "no hexadecimal number"),
            (line.replace(r#""7""#, "7"), "invalid type"),
            (line.replace(r#","verdict":"9""#, ""), "missing field `verdict`"),
            (line.replace(r#","verdict""#, r#","also":1,"verdict""#), "unknown field `also`"),
            (line.replace(r#""question":3"#, r#""question":300"#), "300"),
            (format!("{line} 1"), "trailing"),
        ] {
            let refused = broken.parse::<Decision>().unwrap_err().to_string();
            assert!(refused.contains(words), "{broken:?}: {refused:?} does not say {words:?}");
        }
    }
}
