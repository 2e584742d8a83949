//! The suite that holds the contract's promises. Every store runs it; each case is a test with its own name.
//!
//! ```
//! // tests/conformance.rs of a store's crate; tokio (macros, rt-multi-thread) is among its dev-dependencies.
//! use mainstay_event_store::{conformance::Harness, memory::Memory};
//!
//! struct InMemory;
//!
//! impl Harness for InMemory {
//!     type Store = Memory;
//!
//!     async fn open(&self) -> Memory {
//!         Memory::new()
//!     }
//!
//!     async fn again(&self, store: &Memory) -> Memory {
//!         store.clone()
//!     }
//! }
//!
//! mainstay_event_store::conformance_suite!(InMemory);
//! # fn main() {}
//! ```
//! A case opens a fresh store and a second handle on the same data, which shares nothing in memory with the
//! first one where the store can do that: what is acknowledged through one must be there through the other.
//!
//! A case is worth what it catches. Each was seen to fail on a mutation of a real store (`mutations/`), and a
//! case without such a mutation is one to distrust.

// The cases are tests in everything but `cfg(test)`: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod append;
pub mod chain;
pub mod checkpoints;
pub mod conditions;
pub mod feed;
pub mod inbox;
pub mod input;
mod kit;
pub mod leases;
pub mod outbox;
pub mod relay;
pub mod streams;
pub mod subscribe;
pub mod transaction;
pub mod views;

use std::future::Future;

pub use kit::run;

use crate::Store;

/// How the suite gets stores of one kind.
pub trait Harness: Send + Sync + 'static {
    /// The kind.
    type Store: Store;

    /// A fresh, empty store.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    /// Another handle on the same data, as another process would have it: opened anew, sharing nothing in
    /// memory with `store`. A store that lives in memory may clone.
    fn again(&self, store: &Self::Store) -> impl Future<Output = Self::Store> + Send;

    /// What this kind of store promises beyond the contract.
    fn features(&self) -> Features {
        Features::default()
    }
}

/// What a kind of store promises beyond the contract. A case that needs more than the store promises checks
/// the rest and says so in its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Events have their positions when they are acknowledged: `position(receipt)` never says `NotYet`.
    /// True of a store with one writer; false of one with a sequencer behind its writers.
    pub positions_at_commit: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { positions_at_commit: true }
    }
}

/// Writes one test for each case of the suite. Takes an expression that makes a [`Harness`]; each test makes
/// its own. The crate that calls it needs tokio with `macros` and `rt-multi-thread`.
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
            append::refused_is_never_visible,
            append::expected_versions_are_checked,
            append::one_winner_among_racers,
            append::the_same_act_again_is_acknowledged_and_not_doubled,
            append::the_same_act_at_the_same_time_is_recorded_once,
            append::an_id_taken_by_another_event_is_refused,
            append::several_streams_in_one_act,
            append::a_stream_without_events_is_only_checked,
            conditions::conditions_are_checked,
            conditions::overlapping_conditions_never_both_commit,
            streams::a_stream_reads_both_ways,
            streams::similar_names_are_different_streams,
            streams::what_is_handed_out_is_what_was_handed_in,
            streams::wall_time_is_data_and_orders_nothing,
            streams::sealed_payloads_keep_their_key_id,
            feed::positions_are_dense,
            feed::queries_select_by_type_and_tag,
            feed::reading_past_the_end_is_refused,
            feed::a_receipt_locates_its_act,
            subscribe::catch_up_then_live_misses_nothing,
            subscribe::a_selective_subscriber_gets_all_that_matches,
            subscribe::a_waiting_subscriber_is_woken_and_may_be_cancelled,
            chain::the_chain_proves_the_feed,
            transaction::a_transaction_is_all_or_nothing,
            transaction::what_commits_together_is_seen_together,
            transaction::a_transaction_reads_its_own_writes,
            transaction::a_swallowed_refusal_still_refuses,
            transaction::a_panic_in_a_closure_harms_nobody,
            transaction::failing_transactions_leave_no_trace_among_neighbours,
            transaction::concurrent_transactions_lose_no_update,
            transaction::only_the_last_run_of_a_closure_counts,
            transaction::events_of_a_transaction_are_checked_and_idempotent,
            outbox::outbox_rows_are_numbered_in_commit_order,
            outbox::an_outbox_row_carries_the_mark_of_its_receipt,
            outbox::acting_for_changes_the_envelope_of_what_follows,
            outbox::a_waiting_relay_is_woken,
            relay::sent_rows_are_marked_by_number,
            relay::marks_are_part_of_their_transaction,
            relay::a_prune_removes_a_sent_prefix,
            relay::a_new_epoch_numbers_rows_anew,
            relay::an_outbox_has_one_topic,
            relay::what_is_recent_is_what_is_recorded,
            checkpoints::checkpoints_move_only_from_where_they_are,
            inbox::inbox_marks_make_an_effect_happen_once,
            inbox::the_inbox_remembers_for_ever_in_bounded_space,
            views::views_are_rows_by_key_and_index,
            views::a_scan_loses_and_doubles_no_row_at_any_page_size,
            views::a_prefix_is_no_pattern,
            views::a_view_is_cleared_in_steps,
            leases::leases_fence_the_late_holder,
            leases::a_lease_is_taken_by_one_of_many,
            input::limits_are_refused_before_anything_is_written,
            input::limits_hold_inside_a_transaction,
            input::reads_are_cut_or_refused,
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
        assert!(named.len() > 15, "found {named:?}");
        for name in named {
            assert!(CASES.contains(&name), "{name} is promised, but the suite has no such case");
        }
    }
}
