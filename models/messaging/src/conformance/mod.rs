//! The suite that holds the contract's promises. Every log runs it; each case is a test with its own name.
//!
//! ```
//! // tests/conformance.rs of a log's crate; tokio (macros, rt-multi-thread) is among its dev-dependencies.
//! use mainstay_envelope::Timestamp;
//! use mainstay_messaging::conformance::Harness;
//! use mainstay_messaging::memory::{Memory, MemoryOffsets};
//!
//! struct InMemory;
//!
//! impl Harness for InMemory {
//!     type Log = Memory;
//!     type Offsets = MemoryOffsets;
//!
//!     async fn open(&self, partitions: u32) -> Memory {
//!         Memory::new(partitions)
//!     }
//!
//!     async fn again(&self, log: &Memory) -> Memory {
//!         log.clone()
//!     }
//!
//!     async fn offsets(&self) -> MemoryOffsets {
//!         MemoryOffsets::default()
//!     }
//!
//!     async fn prune(&self, log: &Memory, before: Timestamp) {
//!         log.prune(before);
//!     }
//!
//!     async fn stall(&self, log: &Memory, stalled: bool) {
//!         log.stall(stalled);
//!     }
//! }
//!
//! mainstay_messaging::conformance_suite!(InMemory);
//! # fn main() {}
//! ```
//! A case opens a fresh log and a second handle on the same data, which shares nothing in memory with the first
//! one where the log can do that: what is acknowledged through one must be there through the other.
//!
//! A case is worth what it catches. Each was seen to fail on a mutation of a real log (`mutations/`), and a case
//! without such a mutation is one to distrust.

// The cases are tests in everything but `cfg(test)`: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod append;
pub mod groups;
pub mod input;
mod kit;
pub mod order;
pub mod retention;

use std::future::Future;

use mainstay_envelope::Timestamp;

pub use kit::run;

use crate::{Log, Offsets};

/// How the suite gets logs of one kind.
pub trait Harness: Send + Sync + 'static {
    /// The kind.
    type Log: Log;
    /// Where its groups keep their places.
    type Offsets: Offsets;

    /// A fresh, empty log whose topics have so many partitions.
    fn open(&self, partitions: u32) -> impl Future<Output = Self::Log> + Send;

    /// Another handle on the same data, as another process would have it to read: opened anew, sharing nothing in
    /// memory with `log`. A log that lives in memory may clone.
    fn again(&self, log: &Self::Log) -> impl Future<Output = Self::Log> + Send;

    /// A fresh place to keep places in.
    fn offsets(&self) -> impl Future<Output = Self::Offsets> + Send;

    /// Lets retention take what was published before an instant, and returns when it has. Called only where the
    /// log [retains](crate::Promises::retains).
    fn prune(&self, log: &Self::Log, before: Timestamp) -> impl Future<Output = ()> + Send;

    /// Makes the log's disk, or what stands for it, not answer writes, until told otherwise. Called only where
    /// [`Features::stalls`].
    fn stall(&self, log: &Self::Log, stalled: bool) -> impl Future<Output = ()> + Send;

    /// What the harness can do with this kind of log.
    fn features(&self) -> Features {
        Features::default()
    }
}

/// What the harness can do with a kind of log. What the log promises, it says itself
/// ([`Log::promises`]); a case that needs a promise that is not made checks the rest and says so in its
/// documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// [`Harness::stall`] works.
    pub stalls: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { stalls: true }
    }
}

/// Writes one test for each case of the suite. Takes an expression that makes a [`Harness`]; each test makes its
/// own. The crate that calls it needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_suite {
    (@tests $harness:expr; $($group:ident::$case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let harness = $harness;
                $crate::conformance::run(stringify!($case), $crate::conformance::$group::$case(&harness)).await;
            }
        )*
    };
    (@names; $($group:ident::$case:ident),* $(,)?) => {
        &[$(stringify!($case)),*]
    };
    (@each $($then:tt)*) => {
        $crate::conformance_suite! {
            $($then)*
            append::acknowledged_is_visible_to_a_fresh_reader,
            append::what_is_handed_out_is_what_was_handed_in,
            append::an_append_is_all_or_nothing,
            append::the_newest_of_each_producer_is_known,
            append::a_repeated_append_stands_twice_or_is_dropped_as_promised,
            append::what_waits_is_bounded,
            order::order_is_kept_per_key,
            order::a_key_stays_in_its_partition,
            order::topics_and_partitions_are_apart,
            order::pages_lose_and_double_nothing,
            order::many_readers_see_the_same,
            order::a_waiting_reader_is_woken_and_may_be_cancelled,
            groups::groups_are_independent,
            groups::replay_begins_at_the_start,
            groups::what_is_not_acknowledged_comes_again,
            groups::a_lost_acknowledgement_redelivers,
            groups::competing_commits_are_fenced,
            groups::members_of_a_group_share_the_work,
            groups::places_are_apart,
            retention::what_retention_took_is_told,
            retention::the_end_outlives_what_was_taken,
            retention::retention_takes_only_a_prefix,
            input::bad_input_is_refused_before_anything_is_appended,
            input::reads_are_cut_or_refused,
            input::a_place_past_the_end_is_told,
        }
    };
    ($harness:expr) => {
        $crate::conformance_suite! { @each @tests $harness; }
    };
}

/// The names of all cases.
pub const CASES: &[&str] = crate::conformance_suite! { @each @names; };

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn every_promise_of_the_crate_names_a_case_that_exists() {
        let promises = include_str!("../lib.rs");
        let promises =
            promises.split("# Promises").nth(1).and_then(|rest| rest.split("# What it is not").next());
        let words = promises.unwrap().split('`').skip(1).step_by(2);
        let named: Vec<_> = words.filter(|word| word.contains('_')).collect();
        assert!(named.len() > 12, "found {named:?}");
        for name in named {
            assert!(CASES.contains(&name), "{name} is promised, but the suite has no such case");
        }
    }
}
