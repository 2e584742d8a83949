//! Commands and projections over the memory store, with faults where they matter.

// A test says by a panic that it failed, also in the functions that the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bank;
mod choreography;
mod command;
mod derive;
mod faulty;
mod faulty_log;
mod followed;
mod inbox;
#[cfg(feature = "journal")]
mod journal;
mod kit;
mod log_anew;
mod parking;
mod post;
mod projection;
mod reader;
mod rebuild;
mod relay;
mod relay_restored;
mod request;
mod snapshot;
mod timeline;
mod work;
