//! Derive macros: `#[derive(Event)]`, so that a fact is declared once, as a Rust enum.
//!
//! A room of its own because a proc-macro crate can hold nothing else. It depends on no crate of the
//! workspace: what it generates names its traits by path, and its behaviour is tested where the trait lives.
//!
//! ```text
//! #[derive(Clone, Debug, PartialEq, Event)]
//! enum AccountEvent {
//!     AccountCreated { #[event(tag)] owner: String },
//!     #[event(schema = 2, upcast = cents_since_2)]
//!     DepositMade { cents: u64 },
//!     #[event(name = "Withdrawal")]
//!     WithdrawalMade(WithdrawalMade),
//!     AccountClosed,
//! }
//! ```
//!
//! # Floor
//!
//! `terms`. To add a derive: a folder beside `event`, with `parse.rs` (attributes become checked values, and
//! everything that is refused is refused there) and `expand.rs` (checked values become code).

mod event;

/// Makes an enum the event type of a decider: each variant is one fact, stored as the JSON of its fields.
///
/// A variant has named fields, is a newtype over a struct (`DepositMade(DepositMade)`), or is a unit; field
/// types implement serde's traits, the enum itself need not. It must be `Clone` and without generics.
///
/// On the enum:
/// - `#[event(crate = "path")]`: where the trait lives; default `::mainstay::flow`, `mainstay_flow` for those
///   who use that crate alone.
///
/// On a variant:
/// - `#[event(name = "…")]`: the stored type's name, which is for ever; default the variant's own name. To
///   rename a variant, give it the old name.
/// - `#[event(schema = 2, upcast = path::to::function)]`: the present shape of the payload, and what brings an
///   older one up to it: `fn(from: u32, payload: serde_json::Value) -> Result<serde_json::Value, impl Display>`.
///   It is called for one step at a time, from schema `from` to `from + 1`, so old arms never change.
/// - `#[serde(rename_all = "…")]` applies to the payload.
///
/// On a field:
/// - `#[event(tag)]`: the event carries the tag `<field>:<value>`; `#[event(tag = "customer")]` names it
///   otherwise. The value is shown by `Display`.
/// - `#[serde(…)]` applies to the payload (`default`, `rename`, `with`, …).
///
/// A unit variant is stored as `{}`, so that it can get fields with defaults later. Fields that are not known
/// are ignored when an event is read, as serde does.
///
/// Mistakes are compile errors at the word that is wrong: an attribute that is not known or stands in the
/// wrong place, two variants of one name, a name the store would refuse, a schema above 1 without `upcast`.
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn derive_event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    event::derive(input.into()).into()
}
