//! Where tests make a sequencer fail.

use std::fmt;
use std::time::Duration;

/// What becomes of a sequencer at the worst moment: everything of a round is written, and nothing is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It commits.
    Lives,
    /// Its connection is lost. It connects again and goes on.
    IsCutOff,
    /// Its process is killed: no further word to the server, nothing given back, nothing remembered.
    Dies,
    /// Its process is stopped for so long, and then goes on as if nothing had been (SIGSTOP, SIGCONT).
    Stands(Duration),
}

/// Asked before each commit of a round.
pub trait Faults: fmt::Debug + Send + Sync {
    /// What becomes of the sequencer now.
    fn before_commit(&self, round: u64) -> Fate;
}
