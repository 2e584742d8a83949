//! What somebody who outlives the store has written down about it: one line before each act, one after it.

use std::collections::BTreeMap;

use mainstay_event_store::{Head, Position, Version};

use super::acts::Outcome;

/// The books.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
    pub(crate) acts: BTreeMap<u64, Entry>,
    /// Ends of the feed that some reader has seen.
    pub(crate) seen: Vec<Head>,
    /// Refusals that are the store's own fault, or its machine's.
    pub(crate) failed: Vec<String>,
    /// What a reader found wrong while it followed the feed.
    pub(crate) broken: Vec<String>,
    /// The highest position acknowledged so far.
    acknowledged: u64,
}

/// One act.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// See [`super::acts::Plan::submit`].
    pub(crate) basis: u64,
    /// The highest position acknowledged before it was tried first: its own can only be higher.
    pub(crate) after: u64,
    pub(crate) state: State,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Tried, and never answered, or answered as unknown: it is there whole or not at all.
    Open,
    /// There. A repetition's position is that of the answer, not of the act.
    Acknowledged { position: u64, repeated: bool, versions: Vec<(String, u64)> },
    /// Not there.
    Refused,
}

/// The line before an act.
pub(crate) fn tried(number: u64, basis: u64) -> String {
    format!("try {number} {basis}")
}

/// The line after it.
pub(crate) fn ended(number: u64, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Acknowledged { position, repeated, versions } => {
            let mut line = format!("ack {number} {position} {}", if *repeated { "again" } else { "new" });
            for (stream, Version(version)) in versions {
                line.push_str(&format!(" {stream}={version}"));
            }
            line
        }
        Outcome::Refused(why) => format!("refused {number} {why}"),
        Outcome::Failed(why) => format!("failed {number} {why}"),
        Outcome::Unknown(why) => format!("unknown {number} {why}"),
    }
}

/// The line of a reader that has come to an end of the feed.
pub(crate) fn seen(head: Head) -> String {
    format!("seen {} {}", head.position, head.hash)
}

/// The line of a reader that was told something wrong.
pub(crate) fn broken(why: &str) -> String {
    format!("broken {why}")
}

impl Ledger {
    /// Reads a whole transcript.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut ledger = Self::default();
        for line in text.lines() {
            ledger.line(line)?;
        }
        Ok(ledger)
    }

    /// Takes in one line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), String> {
        self.take(line).ok_or_else(|| format!("not a line of a ledger: {line:?}"))
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        if word == "broken" {
            self.broken.push(rest.to_owned());
            return Some(());
        }
        let mut words = rest.split(' ');
        let number: u64 = words.next()?.parse().ok()?;
        match word {
            "seen" => self.seen.push(Head { position: Position(number), hash: words.next()?.parse().ok()? }),
            "try" => {
                let (basis, after) = (words.next()?.parse().ok()?, self.acknowledged);
                self.acts.entry(number).or_insert(Entry { basis, after, state: State::Open });
            }
            "unknown" => {
                self.acts.get_mut(&number)?;
            }
            "refused" => self.acts.get_mut(&number)?.state = State::Refused,
            "failed" => {
                self.acts.get_mut(&number)?.state = State::Refused;
                self.failed.push(rest.to_owned());
            }
            "ack" => {
                let position = words.next()?.parse().ok()?;
                let repeated = words.next()? == "again";
                let versions = words.map(|word| {
                    let (stream, version) = word.split_once('=')?;
                    Some((stream.to_owned(), version.parse().ok()?))
                });
                let versions = versions.collect::<Option<_>>()?;
                self.acts.get_mut(&number)?.state = State::Acknowledged { position, repeated, versions };
                self.acknowledged = self.acknowledged.max(position);
            }
            _ => return None,
        }
        Some(())
    }

    /// The acts nobody knows the end of, with their basis.
    pub(crate) fn open(&self) -> Vec<(u64, u64)> {
        let open = self.acts.iter().filter(|(_, entry)| entry.state == State::Open);
        open.map(|(number, entry)| (*number, entry.basis)).collect()
    }

    /// The number from which on no act was tried.
    pub(crate) fn next(&self) -> u64 {
        self.acts.last_key_value().map_or(0, |(number, _)| number + 1)
    }
}
