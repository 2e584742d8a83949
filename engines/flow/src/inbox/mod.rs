//! The inbox: a message that comes twice takes effect once, and one that can't be handled holds up only its own.
//!
//! ```text
//!  another service's log ──page──► one transaction {checkpoint: from ─► to,
//!                                    for each message: mark, effect (events, outbox, views)}
//!                                        │ fails                              │ commits
//!                                        ▼                                    ▼
//!                       parked, with what follows under its key     Followed: receipts up to here are met
//!                       tried again: Waiting ─► … ─► Dead ─► an operator: retry | discard
//! ```
//! **Protects from** what "at least once" brings: messages that come again after a lost acknowledgement, a relay's
//! crash, a restored log. Mark and effect commit together, and the marks remember for ever in bounded space
//! ([`mainstay_event_store::inbox`]). **Use it** for whatever comes from another service. **Not** for effects
//! outside the store: an e-mail sent from a reactor is sent again when its transaction is.
//!
//! [`once`] is the same for requests: the idempotency key of an HTTP call.
//!
//! ```
//! use std::sync::Arc;
//! use mainstay_envelope::Context;
//! use mainstay_event_store::{Abort, Row, Store, StreamName, Tx, ViewName, memory::Memory};
//! use mainstay_flow::inbox::Follower;
//! use mainstay_flow::outbox::Relay;
//! use mainstay_flow::saga::{Failure, Incoming, Participant, Reactor};
//! use mainstay_flow::unit_of_work::{Entity, Publisher, Work, transact};
//! use mainstay_flow::{Decider, Event};
//! use mainstay_messaging::memory::Memory as Log;
//!
//! #[derive(Clone, Debug, PartialEq, Event)]
//! #[event(crate = "mainstay_flow")]                        // not needed by those who use the facade `mainstay`
//! enum OrderEvent { OrderCreated { customer: String } }
//!
//! #[derive(Default)]
//! struct Order;
//! impl Decider for Order {
//!     type Command = String;
//!     type Event = OrderEvent;
//!     type Refusal = std::convert::Infallible;
//!     fn decide(&self, customer: &String) -> Result<Vec<OrderEvent>, Self::Refusal> {
//!         Ok(vec![OrderEvent::OrderCreated { customer: customer.clone() }])
//!     }
//!     fn evolve(&mut self, _: &OrderEvent) {}
//! }
//!
//! // Another service, with a store of its own, greets whoever orders.
//! struct Greeter;
//! impl<S: Store> Reactor<S> for Greeter {
//!     fn participant(&self) -> Participant {
//!         Participant::new("greeter").on("OrderCreated", "order").ends().into()
//!     }
//!     fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
//!         let OrderEvent::OrderCreated { customer } = message.open()?;
//!         let greeted = ViewName::new("greeted").map_err(|bad| Failure::poisoned(bad.to_string()))?;
//!         Ok(work.tx().view_put(&greeted, &Row::new(message.key(), customer))?)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (cx, orders, log, greetings) = (Context::system(), Memory::new(), Log::default(), Memory::new());
//! let publisher = Publisher::new(&Participant::new("order").starts("OrderCreated"))?;
//! let done = transact(&orders, &cx, &publisher, |work| {
//!     let stream = StreamName::new("order-1").map_err(mainstay_event_store::Refusal::from)?;
//!     let Ok(_) = work.act(&Entity::<Order>::replayed(), &stream, "order-1", &"ada".to_owned())?;
//!     Ok::<_, Abort<std::convert::Infallible>>(())
//! });
//! println!("{}", done.await?.receipt);
//!
//! Relay::new(orders, log.clone()).run_until_empty(&cx).await?;           // a service: .run(&cx, stop)
//! let follower = Follower::new(greetings.clone(), log, "order", Arc::new(Greeter))?;
//! follower.run_until_caught_up(&cx).await?;                              // a service: .run(&cx, stop)
//! assert_eq!(greetings.view_get(&ViewName::new("greeted")?, "order-1").await?, Some(b"ada".to_vec()));
//! # Ok(())
//! # }
//! ```
//!
//! Promises, each with its test in `tests/flow/inbox.rs`, `parking.rs`, `log_anew.rs`, `followed.rs` or `request.rs`:
//! - A message takes effect once (`a_crash_between_any_two_steps_neither_loses_nor_doubles_an_effect`,
//!   `what_is_published_again_is_swallowed`, `a_log_made_anew_is_read_again_and_nothing_is_doubled`).
//! - What has no effect here costs no flush of its own (`what_has_no_effect_is_carried_along_for_a_while`).
//! - Of one key in order (`what_is_sent_is_handled_once_in_order`, `release_is_in_order_and_new_messages_wait_behind`).
//! - One that can't be handled parks its key; others flow (`a_poisoned_message_parks_its_followers_and_not_others`).
//! - Only what failed alone in its transaction is called a failure: a batch that takes longer than the store allows is
//!   made smaller, and nobody is blamed for it (`no_message_is_blamed_for_a_batch_that_took_too_long`).
//! - It is tried again so often and no more (`a_failure_that_may_pass_is_tried_again_so_often_and_no_more`).
//! - An operator may retry or discard it from another process (`an_operator_retries_or_discards_from_elsewhere`).
//! - A log that was restored or made anew is noticed at the next start, told, and read again from its beginning, also
//!   when it has grown past the checkpoint (`a_log_that_was_restored_and_has_grown_past_the_checkpoint_is_read_again`);
//!   what is parked keeps its order and its names (`parked_messages_keep_their_order_when_the_log_is_made_anew`).
//! - What retention took before it was handled stops the follower; only who has never read begins at what is kept
//!   (`retention_that_passed_a_follower_stops_it_and_a_new_one_begins_at_what_is_kept`,
//!   `who_has_begun_and_handled_nothing_is_not_taken_for_new`).
//! - The same number with another content is an alarm, and handled only if an operator says so
//!   (`the_same_number_with_another_content_is_an_alarm_and_never_handled_by_itself`).
//! - A message without a number is passed over with an alarm, and holds up nothing
//!   (`a_message_without_a_number_is_passed_over_with_an_alarm`).
//! - Any number of members share a group's work (`two_followers_of_one_group_share_the_work_and_double_nothing`).
//! - A receipt is met when its act is handled, and not before (`a_receipt_is_met_when_its_act_is_handled`,
//!   `what_is_parked_is_not_handled`).
//! - A request with a key is done once (`a_repeated_request_gets_the_recorded_answer`).

mod apply;
mod batch;
mod carried;
mod dead_letter;
mod error;
mod followed;
mod follower;
mod lane;
mod lane_work;
mod parking;
mod reading;
mod request;
mod route;
mod telling;
mod trouble;

pub use dead_letter::{DeadLetter, DeadLetterError, DeadLetters, ParkedKey};
pub use error::{BadFollower, FollowError};
pub use followed::{Followed, NotSeen};
pub use follower::Follower;
pub use parking::state::Status;
pub use request::{Once, Request, forget_expired, once};
