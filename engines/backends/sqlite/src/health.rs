//! What may be wrong with an open store, for readiness and alarms.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The state of an open store. Ready means that appends are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// A closure that has run past its limit, and for how long. New appends are refused as busy.
    pub stuck: Option<(&'static str, Duration)>,
    /// The write-ahead log has grown past its alarm: some process keeps a read transaction open.
    pub wal_bytes: Option<u64>,
    /// The engine failed and the writer has not come back yet.
    pub failed: Option<String>,
}

impl Health {
    /// Are appends taken?
    pub fn ready(&self) -> bool {
        self.stuck.is_none() && self.failed.is_none()
    }

    /// Is nothing wrong at all?
    pub fn green(&self) -> bool {
        *self == Self::default()
    }
}

/// What the threads of a store tell each other about its state.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) wal_bytes: AtomicU64,
    running: Mutex<&'static str>,
    failed: Mutex<Option<String>>,
}

impl Board {
    pub(crate) fn runs(&self, name: &'static str) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    pub(crate) fn running(&self) -> &'static str {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_failed(&self, why: Option<String>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
