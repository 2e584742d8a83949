//! The services in one process: real routes over loopback, real relays and followers, a store and a log in
//! memory for each. Every answer of every test is held against the service's OpenAPI document.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archived;
mod browsing;
mod card;
mod client;
mod hostile;
mod kit;
mod receipts;
mod requests;
mod saga;
mod waiting;
