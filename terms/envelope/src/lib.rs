//! What travels with a call, what a fact keeps of it, and the one argument that carries both: [`Context`].
//!
//! # What it is
//!
//! An [`Envelope`] goes with every call from hop to hop: its place in a trace, its correlation, who asks and for
//! whom, how urgent it is, how long somebody waits, what retries may still spend, which effect is meant. A [`Fact`]
//! is the small part of it that is stored with an event for good. A [`Context`] is an envelope with the clock and
//! the chance that its work may use; it is passed, as `cx: &Context`, never kept in a task-local.
//!
//! # What it is not
//!
//! It authenticates nobody, waits for nothing, retries nothing and opens no span at a tracing system: it says who,
//! until when, how often and where, and others act on it. It knows no HTTP library: fields are pairs of name and
//! value.
//!
//! # Smallest example
//!
//! ```
//! use mainstay_envelope::wire::{self, Boundary, Edge};
//! use mainstay_envelope::{Context, Priority, RetryBucket};
//! use std::time::Duration;
//!
//! let process = Context::system();
//! let bucket = RetryBucket::new();
//!
//! // The edge: a stranger calls, and claims more than it is given.
//! let edge = Edge {
//!     max_deadline: Duration::from_secs(10),
//!     priority: Priority::Normal,
//!     tokens: bucket.lend(),
//!     caller: None,
//!     tenant: None,
//! };
//! let came = [("mainstay-priority", "critical"), ("mainstay-remaining-ms", "86400000"), ("idempotency-key", "17")];
//! let envelope = wire::decode(came, process.now(), Boundary::Edge(edge), &**process.chance())?;
//! let cx = process.with_envelope(envelope);
//! assert_eq!(cx.envelope().priority(), Priority::Normal);
//! assert!(cx.remaining() <= Some(Duration::from_secs(10)));
//!
//! // It calls on: a span and a key of its own, the tokens move along, the deadline only shrinks.
//! let call = cx.outgoing("reserve", 0, cx.envelope().tokens().take_all()).with_deadline(Duration::from_secs(2));
//! let sent = wire::encode(call.envelope(), call.now());
//!
//! // The next hop is our own and takes it at its word.
//! let received = wire::decode(sent, process.now(), Boundary::Trusted, &**process.chance())?;
//! assert_eq!(received.tokens().left(), 2);
//! assert_ne!(received.idempotency_key(), cx.envelope().idempotency_key());
//! assert_eq!(received.fact().correlation, cx.fact().correlation);
//! # Ok::<(), wire::WireError>(())
//! ```
//!
//! # Picture
//!
//! ```text
//!             edge: priority, tokens, identity set anew; deadline cut
//!               │
//! stranger ──► [A] ── remaining ms, priority, tokens … ──► [B] ──► [C]     each hop: deadline and priority go
//!               ▲ ◄───────── tokens left ───────────────── │               down only, tokens are moved, not copied
//!                                                          ▼
//!                                         Fact {trace, corr, cause, tenant, actor} ──► handler: fresh deadline,
//!                                                                                      no caller, no tokens
//! ```
//!
//! # Nouns
//!
//! [`Timestamp`] is wall time (data), [`Monotonic`] is the time that decides; [`Clock`] and [`Chance`] give them
//! and random bits, [`ManualClock`] and [`SeededChance`] do so repeatably. [`Identity`] is who calls (rights hang
//! on it), [`Actor`] the name that facts record. [`RetryTokens`] are a request's, [`RetryBucket`] is where an edge
//! lends them from. [`MessageIdentity`] names a message so that its receiver does it once; [`CloudEvent`] is its outer
//! form. The fields on the wire are tabled in [`wire`].
//!
//! # Promises, each with its test
//!
//! | promise | test |
//! |---|---|
//! | A hop only lowers deadline and priority. | `a_hop_can_only_lower_deadline_and_priority` (`tests/laws.rs`) |
//! | Tokens are moved and spent, never made. | `tokens_are_conserved_however_they_are_divided`, `a_bucket_lends_no_more_than_was_put_in` (`tests/laws.rs`) |
//! | Two calls never share a derived key. | `derived_keys_differ_wherever_key_step_or_ordinal_do` (`tests/laws.rs`) |
//! | A derived key survives an upgrade. | `a_derived_key_never_changes` (`src/parts.rs`) |
//! | What is sent is what is received. | `an_envelope_comes_back_from_the_wire_as_it_was` (`tests/laws.rs`) |
//! | No input brings decoding down. | `no_bytes_make_decoding_panic_and_all_that_is_read_can_be_sent` (`tests/laws.rs`) |
//! | A stranger's priority, tokens, identity and long deadlines stop at the edge. | `nothing_a_stranger_sends_gets_past_the_edge` (`tests/laws.rs`) |
//! | A trusted sender's fault is named. | `a_trusted_senders_malformed_field_is_an_error_that_names_it` (`tests/wire.rs`) |
//! | A client's idempotency key is used or refused, never ignored. | `an_idempotency_key_is_read_quoted_or_bare_and_never_dropped` (`tests/wire.rs`) |
//! | A fact has no credential, deadline, priority, tokens or key, and its stored names don't change. | `a_fact_keeps_who_and_why_and_nothing_of_the_calls_means` (`tests/envelope.rs`) |
//! | A fact's handler acts in nobody's name. | `a_facts_handler_gets_its_place_and_no_power` (`tests/envelope.rs`) |
//! | Ids sort in the order of their making. | `ids_sort_in_order_of_creation_whatever_the_wall_clock_does` (`src/chance.rs`) |
//! | An event comes back from structured, batched and binary mode as it was. | `an_event_comes_back_from_structured_mode_as_it_was`, `events_come_back_from_batched_mode_as_they_were`, `an_event_comes_back_from_binary_mode_as_it_was` (`tests/cloud_event.rs`) |
//! | A hostile event is refused and its attribute named. | `hostile_json_is_refused_and_its_attribute_named`, `hostile_headers_are_refused_and_their_attribute_named` (`tests/cloud_event.rs`) |
//! | The same seed and clock give the same ids. | `a_seed_repeats_every_id_and_draw_of_a_context` (`tests/envelope.rs`) |
//!
//! # When it fails
//!
//! [`TextError`]: a name or key is empty, too long, or has a character that would forge a log line. It says which,
//! where, and what is allowed. [`wire::WireError`]: a header of a call can't be used. It names the header; the call
//! was not begun. [`cloud_event::CloudEventError`]: an attribute, or a document, that CloudEvents do not allow.
//! Nothing else here can fail.
//!
//! # Floor
//!
//! `terms`, the lowest: it knows no other crate of the workspace, and all may know it.

mod chance;
pub mod cloud_event;
mod context;
mod envelope;
mod message;
mod parts;
#[doc(hidden)]
pub mod sync;
mod text;
mod time;
mod tokens;
mod trace;
pub mod wire;

pub use chance::{Chance, IdSequence, SeededChance, SystemChance, uuid_v7};
pub use cloud_event::CloudEvent;
pub use context::Context;
pub use envelope::{Envelope, Fact};
pub use message::{ContentHash, MessageIdentity};
pub use parts::{
    Actor, CausationId, CorrelationId, Deadline, IdempotencyKey, Identity, Priority, Producer, Tenant,
};
pub use text::TextError;
pub use time::{Clock, ManualClock, Monotonic, SystemClock, Timestamp};
pub use tokens::{RetryBucket, RetryTokens};
pub use trace::{TraceContext, TraceError, TraceParent};
