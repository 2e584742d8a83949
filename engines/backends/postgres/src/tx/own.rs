//! What an open transaction has appended itself, in its order.

use mainstay_event_store::{StreamName, Version};

/// What a transaction has appended itself.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// It holds the lock of every event alone.
    pub(super) alone: bool,
    /// Its events so far.
    count: u64,
    runs: Vec<Run>,
}

/// Events that were appended together.
#[derive(Debug)]
struct Run {
    stream: StreamName,
    /// The first one's version, and its number among the transaction's events.
    first: Version,
    number: u64,
    len: u64,
}

impl Own {
    pub(super) fn add(&mut self, stream: &StreamName, last: Version, len: u64) {
        let first = Version((last.0 + 1).saturating_sub(len));
        self.runs.push(Run { stream: stream.clone(), first, number: self.count + 1, len });
        self.count += len;
    }

    /// An event's number, from 1; none when it is of another transaction.
    pub(super) fn number(&self, stream: &StreamName, version: Version) -> Option<u64> {
        let holds =
            |run: &&Run| run.stream == *stream && version >= run.first && version.0 - run.first.0 < run.len;
        self.runs.iter().find(holds).map(|run| run.number + (version.0 - run.first.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use super::*;

    #[test]
    fn events_are_numbered_as_they_were_appended() {
        let (a, b) = (StreamName::new("a").unwrap(), StreamName::new("b").unwrap());
        let mut own = Own::default();
        own.add(&a, Version(7), 2);
        own.add(&b, Version(1), 1);
        own.add(&a, Version(8), 1);
        let numbers =
            |stream| (5..=9).map(|version| own.number(stream, Version(version))).collect::<Vec<_>>();
        assert_eq!(numbers(&a), [None, Some(1), Some(2), Some(4), None]);
        assert_eq!((own.number(&b, Version(1)), own.number(&b, Version(2))), (Some(3), None));
    }
}
