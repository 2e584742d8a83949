//! A recording as a file: a line that says what it is, then a line for each decision.
//!
//! ```json
//! {"v":1,"policy":"payment","decisions":2,"lost":0}
//! ```
//! The first line counts those that follow, so that a file that was cut is not taken for a whole one. A rule, or a question of
//! one, that is new needs no new version: it is a name, or a number, that older builds refuse.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::line::{VERSION, Versioned, problem};
use super::{Decision, Recorder};

/// The longest line, in bytes; that of a decision is below 300, and a policy's name is at most 128.
const LINE_MAX: u64 = 4_096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    v: u64,
    policy: String,
    decisions: u64,
    lost: u64,
}

/// Writes `decisions` of the policy of that name; `lost` is how many could not be recorded. Nothing but numbers and that
/// name is in it.
///
/// # Errors
/// What `out` says.
pub fn write(mut out: impl Write, policy: &str, lost: u64, decisions: &[Decision]) -> io::Result<()> {
    let header = Header { v: VERSION, policy: policy.to_owned(), decisions: decisions.len() as u64, lost };
    writeln!(out, "{}", serde_json::to_string(&header)?)?;
    for decision in decisions {
        writeln!(out, "{decision}")?;
    }
    out.flush()
}

/// A recording that can't be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum BrokenRecording {
    /// The reader said so.
    #[error("line {line} of the recording could not be read: {cause}. Nothing from there on was replayed")]
    Io {
        /// The line, from 1.
        line: u64,
        /// Why.
        cause: io::Error,
    },
    /// It is no recording, was cut or altered, or was written by another version.
    #[error("line {line} of the recording is wrong: {problem}. Nothing from there on was replayed")]
    Wrong {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads a recording, one decision after the other: in constant memory, and no more than
/// [`Recorder::LARGEST`] of them. Ends with the first line that is wrong.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    policy: String,
    lost: u64,
    expected: u64,
    /// Lines that were read.
    line: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// [`BrokenRecording`]: there is none, or it is not that of a recording.
    pub fn new(input: R) -> Result<Self, BrokenRecording> {
        let mut reader =
            Reader { input, policy: String::new(), lost: 0, expected: 0, line: 0, is_over: false };
        let first = reader.line()?.ok_or_else(|| reader.wrong("it is empty".to_owned()))?;
        let header = || {
            Versioned::check(&first)?;
            serde_json::from_str::<Header>(&first).map_err(|error| problem(&error))
        };
        let header =
            header().map_err(|problem| reader.wrong(format!("it begins no recording: {problem}")))?;
        if header.decisions > Recorder::LARGEST as u64 {
            return Err(reader.wrong(format!("it is of {} decisions; none has so many", header.decisions)));
        }
        Ok(Reader { policy: header.policy, lost: header.lost, expected: header.decisions, ..reader })
    }

    /// The policy whose decisions they are.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Decisions that could not be recorded.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The line that was read last, from 1.
    pub fn line_number(&self) -> u64 {
        self.line
    }

    fn wrong(&self, problem: String) -> BrokenRecording {
        BrokenRecording::Wrong { line: self.line, problem }
    }

    /// The next line, without its end. None: there is none.
    fn line(&mut self) -> Result<Option<String>, BrokenRecording> {
        self.line += 1;
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(LINE_MAX + 1).read_until(b'\n', &mut bytes);
        read.map_err(|cause| BrokenRecording::Io { line: self.line, cause })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 > LINE_MAX {
            return Err(self.wrong(format!("it is longer than {LINE_MAX} bytes")));
        }
        let line = String::from_utf8(bytes).map_err(|_| self.wrong("it is no UTF-8".to_owned()))?;
        Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
    }

    fn decision(&mut self) -> Result<Option<Decision>, BrokenRecording> {
        let (read, expected) = (self.line - 1, self.expected);
        let Some(line) = self.line()? else {
            if read == expected {
                return Ok(None);
            }
            return Err(self.wrong(format!("the recording ends after {read} of its {expected} decisions")));
        };
        if read == expected {
            return Err(self.wrong(format!("it comes after the {expected} decisions of the recording")));
        }
        let decision = line.parse::<Decision>();
        decision.map(Some).map_err(|unreadable| self.wrong(unreadable.problem))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Decision, BrokenRecording>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.decision().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Recording;
    use crate::refusal::Rule;
    use mainstay_envelope::Monotonic;

    fn recorded(decisions: u64) -> (Vec<Decision>, String) {
        let recorder = Recorder::new(Recording::Notable, 8, 7);
        for n in 0..decisions {
            recorder.notable(Rule::Retry, 0, Monotonic::ORIGIN, [n; crate::record::INPUTS], u64::MAX);
        }
        let mut file = Vec::new();
        write(&mut file, "pay\"ment", 3, &recorder.decisions()).unwrap();
        (recorder.decisions(), String::from_utf8(file).unwrap())
    }

    /// What was read up to the first mistake, and the mistake.
    fn read(file: &str) -> (usize, String) {
        let reader = match Reader::new(file.as_bytes()) {
            Ok(reader) => reader,
            Err(error) => return (0, error.to_string()),
        };
        let mut whole = 0;
        for decision in reader {
            match decision {
                Ok(_) => whole += 1,
                Err(error) => return (whole, error.to_string()),
            }
        }
        (whole, String::new())
    }

    #[test]
    fn what_was_saved_is_read_and_nothing_else_is() {
        let (decisions, file) = recorded(3);
        let reader = Reader::new(file.as_bytes()).unwrap();
        assert_eq!((reader.policy(), reader.lost()), ("pay\"ment", 3));
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), decisions);
        assert_eq!(read(&recorded(0).1), (0, String::new()));
        let lines: Vec<&str> = file.lines().collect();
        let cut = format!("{}\n{}\n", lines[0], lines[1]);
        let more = format!("{file}{}\n", lines[3]);
        let torn = &file[..file.len() - 20];
        for (file, whole, words) in [
            ("", 0, "line 1 of the recording is wrong: it is empty"),
            ("\n", 0, "line 1 of the recording is wrong: it begins no recording: EOF"),
            (lines[1], 0, "line 1 of the recording is wrong: it begins no recording: unknown field `id`"),
            (
                &file.replacen("\"v\":1", "\"v\":9", 1),
                0,
                "line 1 of the recording is wrong: it begins no recording: it is of version 9",
            ),
            (
                &file.replacen(":3,", ":1048577,", 1),
                0,
                "line 1 of the recording is wrong: it is of 1048577 decisions",
            ),
            (&cut, 1, "line 3 of the recording is wrong: the recording ends after 1 of its 3"),
            (&more, 3, "line 5 of the recording is wrong: it comes after the 3"),
            (torn, 2, "line 4 of the recording is wrong: EOF"),
            (
                &file.replace(lines[2], &lines[2].replace(":1,", ":2,")),
                1,
                "line 3 of the recording is wrong: it is of version 2",
            ),
            (
                &file.replace(lines[2], &"x".repeat(5_000)),
                1,
                "line 3 of the recording is wrong: it is longer than 4096",
            ),
            (&file.replace(lines[2], ""), 1, "line 3 of the recording is wrong: EOF"),
        ] {
            let (read, said) = read(file);
            assert_eq!(read, whole, "{file}");
            assert!(said.starts_with(words) && said.ends_with("was replayed"), "{file}: {said}");
        }
        assert!(matches!(Reader::new(&b"\xff\n"[..]), Err(BrokenRecording::Wrong { line: 1, .. })));
    }
}
