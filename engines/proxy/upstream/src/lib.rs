//! Calling another service over HTTP, and being called.
//!
//! # What it is
//!
//! An HTTP client that wears a policy of [`mainstay_resilience`], and the trust boundary that its callee wears. Between
//! them goes the envelope: how long somebody waits, how urgent it is, what retries may still spend, which effect is meant.
//! The rules are the same that run in a process without any HTTP, in the same order; a test demands the same trace.
//!
//! # What it is not
//!
//! No client for the wide web: it follows no redirect, keeps no cookie, knows no proxy, decompresses nothing. No TLS and no
//! HTTP/2: HTTP/1.1 to one of our own, or to a proxy that speaks the rest. It streams nothing: a request and its answer
//! are in memory, within limits, because a try that can't be repeated or judged as a whole is no try.
//!
//! # Smallest example
//!
//! ```no_run
//! use mainstay_envelope::Context;
//! use mainstay_resilience::{Breaker, Failed, Policy, Retry};
//! use mainstay_upstream::{Http, PolicyExt};
//! use std::time::Duration;
//!
//! # async fn example(cx: &Context, charge: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::outbound("payment")
//!     .total(Duration::from_secs(2))
//!     .attempt(Duration::from_millis(300))
//!     .retry(Retry::full_jitter(Duration::from_millis(50), Duration::from_secs(1)))
//!     .breaker(Breaker::failure_rate(0.5).over(100).open_for(Duration::from_secs(5)))
//!     .bulkhead(32, 64)
//!     .build()?;
//! let payment = policy.client(Http::new("http://payment:8080")?);
//!
//! match payment.post("/charges").json(charge).key(cx, "charge").send(cx).await {
//!     Ok(answer) => println!("{}", answer.json::<String>()?),
//!     Err(Failed::Refused(r)) => println!("{} {:?} {} {}", r.decision, r.retry_after, r.rule, r.not_done),
//!     Err(Failed::Upstream(error)) => println!("{error}"),
//! }
//! # Ok(()) }
//! ```
//! Without `.key`, a POST is of another type, which is tried once. The other side: [`inbound`].
//!
//! # Picture
//!
//! ```text
//! Request<Once> ─ key ─► Request<Keyed> ─ send(cx) ─► the policy's order ─► Http: one try ══════════════════════► callee
//!                                                                            a connection, of so many
//!                                                                            the fields, as they are now
//! Answer, Failed::Refused, Failed::Upstream ◄──── judged by ByAnswer ◄────── the whole answer ◄═══════ tokens left ═┘
//! ```
//!
//! # Nouns
//!
//! [`Http`] is one callee's address, limits and connections; [`Client`] is it under a policy. A [`Request`] has its
//! [`Repetition`] in its type. An [`Answer`] has any status; [`HttpError`] is no usable answer. A [`Callee`] is who it is
//! to us, which decides what it is told.
//!
//! # Promises, each with its test
//!
//! | promise | test, in `tests/upstream/` |
//! |---|---|
//! | In the process and over HTTP, the rules give one trace. | `in_the_process_and_over_http_the_traces_are_one` (`parity.rs`) |
//! | What may have had an effect is tried again only where that does no harm. | `a_reset_within_the_answer_is_tried_again_only_if_that_does_no_harm`, `a_reset_on_a_connection_used_before_is_tried_again_only_if_that_does_no_harm` (`loopback.rs`) |
//! | A connection that was closed while idle costs no try, and nothing is sent twice. | `a_connection_that_was_closed_while_idle_costs_no_try` (`loopback.rs`) |
//! | Silence, a drip and a flood are bounded, and close their connection. | `who_never_answers_is_waited_for_as_long_as_the_policy_says`, `an_answer_that_drips_is_cut_with_its_try`, `an_answer_that_is_too_large_is_not_read_and_not_asked_for_again` (`loopback.rs`) |
//! | Connections have a bound, and our bound is not the callee's fault. | `connections_are_bounded_and_a_limit_of_ours_is_not_the_callees_fault` (`loopback.rs`) |
//! | Each try carries what holds at its moment. | `each_try_carries_what_holds_at_its_moment` (`requests.rs`) |
//! | The same command has the same keys, two effects have two, and nobody's key is passed on. | `a_label_is_one_effect_however_often_the_command_runs`, `a_call_without_a_key_carries_nobody_elses` (`requests.rs`) |
//! | A stranger sees no names and gets no tokens. | `a_stranger_sees_the_trace_and_the_key_and_the_tokens_stay` (`requests.rs`) |
//! | A hop only lowers deadline and priority and makes no tokens. | `a_hop_only_lowers_deadline_and_priority_and_makes_no_tokens` (`laws.rs`) |
//! | What nobody waits for is not begun; a refusal names its decision. | `what_a_caller_no_longer_waits_for_is_not_begun`, `a_refusal_names_its_decision_and_when_to_come_back` (`inbound.rs`) |
//! | An edge's tokens come back, whoever leaves. | `tokens_of_a_caller_who_left_come_back_to_the_edge` (`inbound.rs`) |
//!
//! # When it fails
//!
//! A call ends with an [`Answer`], whatever its status, with `Failed::Refused` (a rule of ours, with its decision), or with
//! `Failed::Upstream` and an [`HttpError`], which says whether anything was sent. What is wrong with a request is told when it
//! is sent.
//!
//! # Cost
//!
//! A try allocates its future, the fields of its envelope and what hyper needs for a message; a call shares its request
//! among its tries. One short lock to take a connection and one to put it back.
//!
//! # Floor
//!
//! `engines`: it knows `rules` and `terms`.

mod answer;
mod client;
mod connect;
mod error;
mod fields;
mod http;
pub mod inbound;
mod outgoing;
mod pool;
pub mod spec;

pub use self::http::Http;
pub use answer::{Answer, ByAnswer};
pub use client::{Client, Keyed, Once, PolicyExt, Repetition, Request, Safe, Stack};
pub use connect::{Connect, Connecting, Io};
pub use error::HttpError;
pub use fields::Callee;
pub use outgoing::{Calls, Outgoing};
pub use spec::Spec;
