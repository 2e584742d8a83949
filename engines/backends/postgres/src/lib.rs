//! The event store on PostgreSQL: many writers in many processes, one feed without loss, inversion or stall.
//!
//! ```text
//!   append ────► queue ─► lanes: one statement, one commit a batch ──┐        ┌─ event, outbox, stream …
//!   transact ──► workers: one connection each, closures re-run ──────┼─► PostgreSQL
//!   Joined ────► the user's own sqlx transaction ────────────────────┘        └─ feed, numbers ◄── sequencer (one active)
//!   read, scan, follow ──► readers ◄── woken by LISTEN and by this process, looking every 250 ms whatever is heard
//! ```
//!
//! # What it is
//!
//! [`Postgres`] keeps every promise of `mainstay-event-store`; its conformance suite runs on it. No append waits for
//! another stream's: there is no global lock and no NOTIFY in its way. An act is acknowledged when it is committed; its
//! place in the feed is given a moment later, by the [`sequencer`], so that `position(receipt)` may say "not yet". The
//! user's own tables may change in the same transaction ([`Sql`]); and the user's own sqlx transaction may be joined by
//! events, messages and inbox marks ([`Joined`]), without a store, a pool or a task of ours.
//!
//! # What it is not
//!
//! Not a way around the server's settings: with `fsync` or `synchronous_commit` off, "acknowledged" is not "on disk", and
//! the store refuses to be opened, or warns ([`Options::durability`], [`durability`]).
//! And what is appended plainly is serial with closures only as far as it says so (versions, conditions).
//!
//! # Smallest example
//!
//! ```no_run
//! use mainstay_envelope::Context;
//! use mainstay_event_store::{Abort, EventType, Expected, NewEvent, Payload, Store, StreamName, Tx};
//! use mainstay_postgres::{Options, Postgres, Transaction, sqlx};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cx = Context::system();
//! let store = Postgres::open(&cx, Options::new("postgres://me:secret@127.0.0.1/shop")).await?;
//! let stream = StreamName::new("account-7")?;
//! let event = NewEvent::new(cx.new_id(), EventType::new("DepositMade")?, Payload::plain(*b"{\"amount\":100}"));
//! let done = store
//!     .transact(&cx, move |tx: &Transaction| -> Result<_, Abort<()>> {
//!         let version = tx.append(&stream, Expected::Empty, std::slice::from_ref(&event))?;
//!         tx.sql().execute(sqlx::query("insert into audit(amount) values ($1)").bind(100))?;
//!         Ok(version)
//!     })
//!     .await
//!     .map_err(|error| format!("{error:?}"))?;
//! assert_eq!(done.value.0, 1); // both or neither
//! # Ok(())
//! # }
//! ```
//!
//! # When it fails
//!
//! | what happens | what you see |
//! |---|---|
//! | wrong URL, password, certificate, rights, version; a replica | [`OpenError`], each in its own words; nothing made |
//! | a transaction loses a race (40001, 40P01) | it is run again by the retry rule; then `Refused`, busy |
//! | the connection is lost before a commit | run again, as above |
//! | … while committing a batch of appends | sent again under the same ids; `Unknown` when the server stays away |
//! | … while committing a closure | `Unknown`; append the same ids again to find out |
//! | a closure panics, breaks a constraint, runs too long, commits by itself | it alone is refused |
//! | one act of a batch can't be written | it alone is refused: the others go out without it |
//! | no process runs a sequencer | appends go on; the feed stands, and [`Postgres::sequencer`] says so |
//!
//! Tests, with a server (feature `server-tests`): `tests/conformance.rs` (the contract), `tests/closures.rs` (user code),
//! `tests/opening.rs` (errors at start), `tests/hostile` (the feed), `tests/outside/postgres-joined` (the user's own
//! transaction).
//!
//! # Floor
//!
//! `engines`: it knows `models`, `rules` and `terms`. Servers: PostgreSQL 15 and newer.

mod append;
mod conditions;
mod connect;
pub mod durability;
mod error;
mod health;
mod hints;
mod joined;
mod keys;
mod limit;
mod listen;
mod open;
mod ops;
mod options;
mod pool;
mod prepare;
mod receipt;
mod replicas;
pub mod retention;
mod retries;
mod schema;
mod select;
pub mod sequencer;
mod settings;
mod store;
mod tx;

pub use error::{SqlError, SqlFault};
pub use joined::{JoinError, Joined};
pub use open::{OpenError, SERVER_MIN};
pub use options::{Isolation, Options};
pub use replicas::{Picked, Replicated};
pub use schema::{BadSchema, Schema};
pub use sqlx;
pub use store::Postgres;
pub use tx::{Sql, Transaction};
