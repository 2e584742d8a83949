//! What `mainstay.toml` says, as checked types.
//!
//! # What it is
//!
//! One file says how a fleet is to behave, and this crate is what may stand in it. Today that is policies: `[policy.NAME]`
//! says of one callee, or of one route, what [`Policy::outbound`](mainstay_resilience::Policy::outbound) and
//! [`Policy::inbound`](mainstay_resilience::Policy::inbound) say in Rust, by the same names, with the same defaults and the
//! same checks. A document is read as a whole: all of it can be built and enforced, or nothing of it is used and all that
//! is wrong is told, with line and column.
//!
//! ```text
//!   text ─► TOML with places ─► sections, setting by setting ─► each Spec's check ─► the policy's ─► Document
//!                │ no TOML             │ no such key, wrong type      │ out of range     │ no sense together
//!                └─────────────────────┴──────────────────────────────┴──────────────────┴──► Mistakes: all of them
//! ```
//!
//! # What it is not
//!
//! It opens no file, watches none, and runs nothing: a process reads the text, builds policies from it and, when the text
//! changes, hands the new settings to those that live ([`reconfigure`](mainstay_resilience::Policy::reconfigure)).
//! It says nothing about how answers are to be judged or requests to be described: that is code, and stands beside it.
//!
//! # Smallest example
//!
//! ```
//! use mainstay_fleet::Document;
//!
//! let document = Document::read("mainstay.toml", r#"
//!     [policy.payment]
//!     timeout = { total = "2s", attempt = "300ms" }
//!     retry = { base = "50ms", cap = "1s", methods = ["GET", "POST"], idempotency_key = true }
//!     breaker = { failure_rate = 0.5, window = 100, open_for = "5s" }
//!     bulkhead = { permits = 32, queue = 64 }
//! "#)?;
//! let payment = document.outbound("payment").ok_or("it says nothing of payment")?;
//! let policy = payment.builder().build()?;             // then: policy.layer(classify).describe(payment.describe(Requests))
//! assert_eq!(policy.name(), "payment");
//!
//! let mistakes = Document::read("mainstay.toml", "[policy.payment.timeout]\natempt = \"300ms\"\n").unwrap_err();
//! assert_eq!(mistakes.to_string(), "\
//! mainstay.toml: one mistake, and nothing of it is used
//! mainstay.toml:2:1: `policy.payment.timeout.atempt` is no setting; the nearest is `attempt`
//!  2 | atempt
//!    | ^^^^^^");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Nouns
//!
//! | | |
//! |---|---|
//! | [`Document`] | a text that was read, all of it right |
//! | [`Outbound`], [`Inbound`] | a policy as data: its name, its `spec`, and a `builder` that builds it |
//! | [`Repeats`] | which requests retry and hedge may repeat: what a document must say beside their settings |
//! | [`Mistakes`] | all that is wrong with a text; [`Mistake`] one of it, with its place |
//! | [`Value`] | a setting as a document has it, to be shown |
//!
//! # How things are written
//!
//! Times are text with one unit (`"300ms"`, `"1.5s"`, `"2min"`; ns, us, ms, s, min, h, d), rates text (`"200/s"`, `"3/10s"`),
//! shares and factors numbers, sizes whole numbers. Settings have the names of the fields of the rules' `Spec`s, and their
//! defaults; a rule whose section is not there lets everything pass. Where a limit is a fixed number, it is `limit`; without
//! it, it is measured. Four things are asked for, because nobody else can know them: `bulkhead.permits`, a limit's `rate`,
//! the `queue` of what is paced, and the `methods` of what is repeated.
//!
//! # Promises, each with its test
//!
//! | promise | test |
//! |---|---|
//! | A document says what the builder says, and the two decide alike, call by call. | `a_document_says_what_the_builder_says_and_decides_alike` (`tests/policies.rs`) |
//! | What is written is read as the same, whatever the settings. | `what_is_written_is_read_as_the_same` (`tests/policies.rs`) |
//! | Every mistake is told with its place, what is wrong and what would be right; all at once. | `each_mistake_is_told_with_its_place_and_what_would_be_right` (`tests/mistakes.rs`) |
//! | What is not safe to repeat is not listed without a key, and not repeated without one. | the same, and `only_what_is_listed_is_repeated_and_never_without_a_key` (`src/policy/repeats.rs`) |
//! | What stands behind an unknown key is not shown: it may be a secret. | `the_line_is_shown_up_to_what_is_meant_and_no_further` (`tests/mistakes.rs`) |
//! | Text, policies and what is told are bounded. | `what_is_read_and_what_is_told_is_bounded` (`tests/mistakes.rs`) |
//!
//! # Floor
//!
//! `models`: it knows `rules`, whose settings it writes down, and `terms`. A further section of the file is a module beside
//! `policy`, whose settings go through a `Form` once: from that one list they are read, written, and known by name.

mod document;
mod form;
mod mistake;
mod nearest;
mod policy;
mod reader;
mod value;
mod writer;

pub use document::{Document, POLICIES_MAX, TEXT_MAX};
pub use mistake::{Mistake, Mistakes};
pub use policy::{Inbound, Limited, Outbound, Place, Policy, Repeats};
pub use value::Value;
