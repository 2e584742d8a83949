//! The event store on one SQLite file.
//!
//! (doc below)

mod error;
#[cfg(feature = "faults")]
pub mod faults;
mod ffi;
mod health;
mod marks;
mod open;
mod options;
mod prepare;
mod reader;
mod schema;
mod select;
mod sql;
mod stats;
mod store;
mod views;
mod writer;

pub use error::SqlError;
pub use health::Health;
pub use open::OpenError;
pub use options::Options;
pub use rusqlite;
pub use sql::Sql;
pub use stats::GroupCounts;
pub use store::Sqlite;
pub use writer::Transaction;
