//! What a supervisor tells while it runs.

use std::fmt;

use serde::Serialize;

/// Something happened to a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Which child.
    pub service: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// Its process was started.
    Started {
        /// The process.
        pid: u32,
    },
    /// Its process could not be started.
    NotStarted {
        /// What the system said.
        cause: String,
    },
    /// It is green.
    Ready {
        /// Where it serves; empty when it said nothing about it.
        address: String,
    },
    /// It is red.
    Unready {
        /// Why.
        reason: String,
    },
    /// It said something that its supervisor does not understand.
    Misspoke {
        /// What is wrong with it.
        problem: String,
    },
    /// Its process ended.
    Ended {
        /// How: `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
    },
    /// It starts again after a wait.
    Restarting {
        /// The wait, in milliseconds.
        in_ms: u64,
    },
    /// It was asked to finish and end.
    Draining,
    /// It was killed, because it did not start, or did not end, in its time.
    Killed,
    /// It is gone, and stays so.
    Stopped,
    /// It is not started again.
    GaveUp,
    /// It wrote a line.
    Log {
        /// The line, readable and bounded.
        line: String,
    },
    /// All children are ready now.
    AllReady,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pid } => write!(f, "started, process {pid}"),
            Self::NotStarted { cause } => write!(f, "could not be started: {cause}"),
            Self::Ready { address } if address.is_empty() => f.write_str("ready"),
            Self::Ready { address } => write!(f, "ready on {address}"),
            Self::Unready { reason } => write!(f, "can't serve: {reason}"),
            Self::Misspoke { problem } => f.write_str(problem),
            Self::Ended { status } => write!(f, "ended ({status})"),
            Self::Restarting { in_ms } => write!(f, "starts again in {in_ms} ms"),
            Self::Draining => f.write_str("draining"),
            Self::Killed => f.write_str("killed: it took too long"),
            Self::Stopped => f.write_str("stopped"),
            Self::GaveUp => f.write_str("given up"),
            Self::Log { line } => f.write_str(line),
            Self::AllReady => f.write_str("all ready"),
        }
    }
}
