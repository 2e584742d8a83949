//! Transactions of closures: a bounded set of threads, each with a connection.
//!
//! ```text
//!   transact ──► queue (bounded) ──► worker: begin ─► closure ─► commit ──► Committed
//!                                        ▲              │ 40001, 40P01, connection lost before the commit
//!                                        └── the retry rule: after how long, and whether at all
//! ```
//! Closures are synchronous and may use the transaction as often as they like, so a thread waits with each of them. From
//! its third run on a closure takes its turn: it locks one table of ours before its snapshot is taken, so that those who
//! keep losing races run one after the other instead of against each other. Nobody else ever waits for that lock.

mod calls;
mod own;
mod serial;
mod sql;
mod transaction;
mod worker;

pub use sql::Sql;
pub use transaction::Transaction;
pub(crate) use worker::{Setup, Transact, Work, Worker};
