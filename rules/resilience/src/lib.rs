//! What is decided when calls fail, are slow, or are too many: rules that any client, server or worker can wear.
//!
//! # What it is
//!
//! One room for each pattern. A rule is data that was checked (`Spec`), a state that decides, and a tower layer that
//! carries the decision out. In a state, time and random bits are arguments, so the same inputs give the same verdict in
//! a service, in a test, in a simulation and in a replay. A [`Policy`] is the rules of one callee together, in the one order
//! that [`stack`] draws, and the live state that all who call it share.
//!
//! | room | question it answers |
//! |---|---|
//! | [`timeout`] | is anybody still waiting for this? |
//! | [`retry`] | this try failed: again, and when? |
//! | [`hedge`] | this one is late: ask once more? |
//! | [`circuit_breaker`] | is the callee well enough to be asked? |
//! | [`bulkhead`] | is there room in the callee's compartment? |
//! | [`rate_limit`] | does this come too often? |
//! | [`load_shed`] | there is too much: who is served? |
//! | [`fallback`] | it failed: something else instead? |
//! | `cache` | is the answer known already? |
//!
//! # What it is not
//!
//! It makes no call: it wears a service, or a function, that does. It does not know what an answer means: a [`Classify`]
//! says so (there are ready ones for HTTP and gRPC in [`http`]), nor what a request is: a [`Describe`] does. It has no
//! global registry; a policy is a value that its user keeps.
//!
//! # Smallest example
//!
//! ```
//! use mainstay_resilience::{Breaker, EveryErrorIsTransient, Facts, Failed, Policy, Retry, Safety, Why};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::outbound("payment")
//!     .total(Duration::from_secs(2))
//!     .attempt(Duration::from_millis(300))
//!     .retry(Retry::full_jitter(Duration::from_millis(50), Duration::from_secs(1)))
//!     .breaker(Breaker::failure_rate(0.5).over(10).minimum_calls(2).open_for(Duration::from_secs(5)))
//!     .bulkhead(32, 64)
//!     .build()?;
//!
//! let ask = async |answers: Result<&'static str, std::io::ErrorKind>| {
//!     policy.call(|now| Facts::unknown(now).with_safety(Safety::Safe), EveryErrorIsTransient, move |_| async move { answers }).await
//! };
//! assert_eq!(ask(Ok("charged")).await?, "charged");
//! let Err(Failed::Refused(refusal)) = ask(Err(std::io::ErrorKind::ConnectionReset)).await else { panic!("it opens") };
//! assert_eq!(refusal.why, Why::BreakerOpen);                      // the first tries opened it; the next one was refused
//! println!("{refusal}");                                          // what happened, what was not done, when to ask again
//! # Ok(()) }
//! ```
//!
//! On a tower service: `policy.layer(classify).describe(describe).layer(service)`. Inbound: [`Policy::inbound`]. As data:
//! [`PolicySpec`], [`InboundSpec`]. A rule by itself: see its room.
//!
//! # Promises, each with its test
//!
//! | promise | test |
//! |---|---|
//! | Our refusals are never counted against the callee, and never tried again. | `an_open_breaker_refuses_at_once_and_its_refusals_are_neither_counted_nor_tried_again`, `a_full_bulkhead_says_nothing_about_the_callee` (`tests/policy.rs`) |
//! | Impatient callers and losers of hedges open no breaker. | `impatient_callers_open_no_breaker`, `the_loser_of_a_hedge_opens_no_breaker_and_holds_no_permit` (`tests/policy.rs`) |
//! | The orders are the drawn ones. | `layers_come_into_their_places_in_whatever_order_they_are_named` (`tests/policy.rs`) |
//! | A recorded decision is decided again, bit for bit. | `every_decision_of_a_whole_run_is_decided_again_bit_for_bit` (`tests/policy.rs`) |
//! | A recording is read as what was saved; one that was cut, altered or is of another version is refused with its line. | `what_was_saved_is_read_and_nothing_else_is` (`src/record/file.rs`) |
//! | New settings keep what was learnt; bad ones change nothing. | `a_change_keeps_what_was_learnt_and_a_bad_one_changes_nothing` (`tests/policy.rs`), `other_settings_keep_what_was_learnt` (`tests/circuit_breaker.rs`) |
//! | What is taken out and put in again goes on from where it was; of two changes at once one is what all rules go by. | `what_is_taken_out_and_put_in_again_goes_on_from_where_it_was`, `of_two_changes_at_once_one_is_what_all_rules_go_by` (`tests/reconfigure.rs`) |
//! | A call through a stack of either direction allocates nothing. | `a_call_through_the_whole_stack_allocates_nothing` (`tests/allocations.rs`) |
//! | Each identity has its own rate. | `each_identity_has_its_own_rate_and_those_without_share_one` (`tests/inbound.rs`) |
//! | A breaker opens within its window, however well it went before, and never wedges. | `it_opens_within_its_window_however_many_calls_succeeded_before`, `it_never_wedges` (`tests/circuit_breaker.rs`) |
//! | One callee that hangs leaves the others as they were. | `one_callee_that_hangs_leaves_the_others_as_they_were` (`tests/policy.rs`), `a_hung_call_holds_its_own_thread_and_nobody_elses` (`tests/blocking.rs`) |
//! | A leaky meter and a token bucket are one limit; both are what the definition says, and Retry-After is exact. | `a_leaky_meter_and_a_token_bucket_give_the_same_verdicts`, `a_bucket_holds_what_the_definition_says`, `the_time_to_come_back_is_exact` (`tests/rate_limit.rs`) |
//! | No key gets more than its due, and a flood of keys pushes nobody out. | `no_key_gets_more_than_its_own_bucket_however_many_there_are`, `only_full_buckets_are_forgotten_and_a_flood_of_keys_pushes_nobody_out` (`tests/rate_limit.rs`) |
//! | Every call that waits for a permit gets one verdict, and no permit is lost, whoever is cancelled. | `every_call_gets_one_verdict_and_no_permit_is_lost` (`tests/load_shed.rs`), `whoever_is_cancelled_gives_back_what_it_had_at_every_point` (`tests/shedding_layers.rs`) |
//! | Goodput holds at many times the capacity, the highest priority is served while it alone fits. | `goodput_holds_at_every_load_up_to_a_hundred_times_the_capacity`, `while_it_alone_fits_the_highest_priority_is_served` (`tests/overload.rs`) |
//! | Over four hops, retries with tokens multiply nothing. | `with_tokens_an_outage_of_the_leaf_is_not_multiplied`, `with_tokens_one_failure_in_a_hundred_at_the_leaf_reaches_nobody` (`tests/overload.rs`) |
//! | It comes with at most sixty crates, no server, no database. | `it_brings_no_more_than_sixty_crates_and_no_server_or_database` (`tests/tree.rs`) |
//!
//! # When it fails
//!
//! A call through a policy ends with its answer or with [`Failed`]: `Upstream` is the callee's own error, `Refused` is
//! ours and says which rule, why, what was not done and when to ask again. Settings that can't mean what they say are
//! [`Invalid`], which names pattern and field.
//!
//! # How a room is built
//!
//! `spec.rs` is data and its `check`; `state.rs` decides, with `now` and chance as arguments; `layer.rs` is the tower
//! glue, behind a feature of the room's name. Every layer is a service of [`Call<R>`](Call) whose error is
//! [`Failed<E>`](Failed) around a service of the same kind; it admits in `call` and parks nothing in `poll_ready`.
//! Refusals are made by the policy's [`Scope`], which names and records them. What is taken is a guard that gives back
//! on drop.
//!
//! # Floor
//!
//! `rules`: it knows `terms` (the envelope's retry tokens) and nothing above. Engines carry its verdicts out.

#[cfg(feature = "bulkhead")]
pub mod bulkhead;
#[cfg(feature = "cache")]
pub mod cache;
mod call;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
#[cfg(feature = "stack")]
mod edge;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "hedge")]
pub mod hedge;
#[cfg(feature = "http")]
pub mod http;
mod invalid;
mod live;
pub mod load_shed;
mod outcome;
#[cfg(feature = "stack")]
mod policy;
pub mod rate_limit;
pub mod record;
mod refusal;
mod replay;
pub mod retry;
mod scope;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "stack")]
pub mod stack;
#[cfg(feature = "layers")]
mod switch;
#[cfg(feature = "timeout")]
pub mod timeout;

pub use call::{Call, Cloned, Describe, Facts, Identified, Undescribed};
#[cfg(feature = "stack")]
pub use edge::{Inside, InsideFuture, InsideLayer, Outside};
pub use invalid::Invalid;
pub use live::{Link, Live};
pub use outcome::{
    ByError, Classified, Classify, EveryErrorIsTransient, Outcome, Safety, grpc_status, http_status,
};
#[cfg(feature = "stack")]
pub use policy::{InboundBuilder, InboundPolicy, InboundSpec, OutboundBuilder, Policy, PolicySpec};
pub use refusal::{DecisionId, Failed, NotDone, Refusal, Rule, Why, judge};
pub use replay::{Replayed, replay};
pub use scope::Scope;
#[cfg(feature = "layers")]
pub use switch::Switch;
#[cfg(feature = "stack")]
pub use {
    circuit_breaker::Spec as Breaker, hedge::Spec as Hedge, load_shed::Adaptive, load_shed::Limit,
    load_shed::Spec as Shed, rate_limit::Spec as Rate, retry::Spec as Retry,
};
