//! What a policy is built in: its name, where it reads time and chance, and what it keeps of its decisions.

use std::sync::Arc;

use mainstay_envelope::{Chance, Clock, SystemChance, SystemClock};

use crate::invalid::Invalid;
use crate::record::{Recorder, Recording};
use crate::scope::Scope;

/// Where a policy reads time and chance, and what it records. The defaults are for a process; tests and simulation give
/// their own.
#[derive(Debug)]
pub(super) struct Surroundings {
    name: String,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chance: Arc<dyn Chance>,
    pub(super) recording: Recording,
    pub(super) capacity: usize,
}

/// Decisions kept by default, some 20 kB: enough to look up what a caller has just been told.
const CAPACITY: usize = 256;

impl Surroundings {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Surroundings {
            name: name.into(),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance::new()),
            recording: Recording::default(),
            capacity: CAPACITY,
        }
    }

    pub(super) fn scope(self) -> Result<Arc<Scope>, Invalid> {
        let Surroundings { name, clock, chance, recording, capacity } = self;
        let problem = match name.len() {
            0 => Some("nobody could tell whose refusals they are"),
            1..=128 => None,
            _ => Some("it is longer than 128 bytes"),
        };
        if let Some(problem) = problem {
            return Err(Invalid::new(
                "policy",
                "name",
                format!("{name:?}"),
                problem,
                "give the callee's name",
            ));
        }
        // Chance, so that ids of two policies, and of two processes, are not mixed up.
        let recorder = Recorder::new(recording, capacity, chance.next_u64());
        Ok(Arc::new(Scope::new(name, clock, chance, recorder)))
    }
}

/// Makes the methods that both builders have.
macro_rules! surroundings {
    () => {
        /// Reads time from `clock`: the one that calls' deadlines are read from. Default: the system's.
        pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
            self.surroundings.clock = clock;
            self
        }

        /// Draws chance from `chance`. Default: the system's.
        pub fn chance(mut self, chance: Arc<dyn Chance>) -> Self {
            self.surroundings.chance = chance;
            self
        }

        /// Keeps the latest `capacity` decisions of this kind. Default: the latest 256 notable ones.
        pub fn record(mut self, recording: Recording, capacity: usize) -> Self {
            self.surroundings.recording = recording;
            self.surroundings.capacity = capacity;
            self
        }
    };
}

pub(super) use surroundings;
