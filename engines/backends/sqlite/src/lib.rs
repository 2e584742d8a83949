//! The event store on one SQLite file: nothing to install, everything on disk before it is acknowledged.
//!
//! ```text
//!   append, transact ──► queue (bounded) ──► writer thread ── one connection, group commit ──► store.db-wal ─┐
//!   read, scan, follow ──► reader threads ── one connection each, short transactions ◄──── store.db ◄────────┘
//!   watch thread ── the size of the log ──► Health ◄── for how long the running closure has been at it
//! ```
//!
//! # What it is
//!
//! [`Sqlite`] keeps every promise of `mainstay-event-store`; its conformance suite runs on it. Whatever waits
//! when the writer is free becomes one group with one fsync: alone an act waits for nobody, under load the disk
//! is shared. The user's own tables may be in the same file and change in the same transaction ([`Sql`]).
//! Several processes may open one file, each with its own writer thread; SQLite's lock puts them in turn.
//!
//! [`EmbeddedLog`] is the other engine here: messages between processes of one machine, a file for each producer;
//! it keeps the promises of `mainstay-messaging`.
//!
//! # What it is not
//!
//! Not for a network file system (its locks can't be trusted there), not for several machines: that is what the
//! server engines are for.
//!
//! # Smallest example
//!
//! ```
//! use mainstay_envelope::Context;
//! use mainstay_event_store::{Abort, Act, EventType, Expected, NewEvent, Payload, Store, StreamName, Tx};
//! use mainstay_sqlite::{Options, Sqlite, Transaction};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("mainstay-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("store.db");
//! let cx = Context::system();
//! let store = Sqlite::open(Options::new(&path))?;
//! let stream = StreamName::new("account-7")?;
//! let event = NewEvent::new(cx.new_id(), EventType::new("DepositMade")?, Payload::plain(*b"{\"amount\":100}"));
//! let done = store
//!     .transact(&cx, move |tx: &Transaction| -> Result<_, Abort<()>> {
//!         let version = tx.append(&stream, Expected::Empty, std::slice::from_ref(&event))?;
//!         tx.sql().batch("create table if not exists audit(amount integer)")?;
//!         tx.sql().execute("insert into audit values (?1)", [100])?;
//!         Ok(version)
//!     })
//!     .await
//!     .map_err(|error| format!("{error:?}"))?;
//! assert_eq!(done.value.0, 1); // on disk, both or neither
//! # store.close();
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! # When it fails
//!
//! | what happens | what you see |
//! |---|---|
//! | the disk is full, or can't be written | `Refused`, nothing written; goes on by itself when it passes |
//! | an I/O error while committing | `Unknown`; the writer opens the file anew; append the same ids again |
//! | a closure panics, breaks a constraint, runs too long, rolls back | it alone is refused |
//! | a closure is stuck in Rust | [`Health`] names it, new appends are refused as busy |
//! | a reader of some process holds a transaction open | [`Health`] shows the log's size; nobody is stopped |
//! | a newer, damaged or foreign file | [`OpenError`], nothing changed |
//!
//! Tests: `tests/conformance.rs` (the contract), `tests/closures.rs` (user code), `tests/files.rs` (bad files),
//! `tests/processes.rs` (several processes), `tests/power_cut.rs` (the disk loses power or fails).
//!
//! # Floor
//!
//! `engines`: it knows `models` and `terms`. SQLite comes bundled, 3.51.3 or newer: older ones can damage a file
//! when its write-ahead log is reset.
//!
//! A build with `LIBSQLITE3_FLAGS="-DHAVE_FDATASYNC=1 -DSQLITE_DEFAULT_MEMSTATUS=0"` in its environment is a little faster: SQLite
//! then syncs by fdatasync, where it would commit a file system's journal for a changed time, and does not count its allocations.

mod archive;
mod error;
#[cfg(feature = "faults")]
pub mod faults;
mod ffi;
mod health;
mod log;
mod markers;
mod marks;
mod open;
mod options;
mod outbox;
mod prepare;
mod reader;
mod recent;
mod rows;
mod schema;
mod select;
mod sql;
mod stats;
mod store;
mod views;
mod writer;

pub use archive::NotArchived;
pub use error::SqlError;
pub use health::Health;
pub use log::{EmbeddedLog, LogError, LogOptions};
pub use open::OpenError;
pub use options::Options;
pub use rusqlite;
pub use sql::Sql;
pub use stats::GroupCounts;
pub use store::Sqlite;
pub use writer::Transaction;
