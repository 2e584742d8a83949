//! What the tests of whole stacks share: short durations, and the clock of virtual time.

#![allow(dead_code)] // each test uses its part

use std::time::Duration;

use mainstay_envelope::{Clock, Monotonic, Timestamp};

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The clock of the tests' virtual time: the one that timers run on. It began when this one was made.
#[derive(Debug)]
pub(crate) struct Virtual(tokio::time::Instant);

impl Virtual {
    pub(crate) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for Virtual {
    fn now(&self) -> Monotonic {
        Monotonic::from_origin(self.0.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}
