//! Commands and projections over the memory store, with faults where they matter.

// A test says by a panic that it failed, also in the functions that the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bank;
mod command;
mod derive;
mod faulty;
mod kit;
mod projection;
mod reader;
mod rebuild;
mod snapshot;
