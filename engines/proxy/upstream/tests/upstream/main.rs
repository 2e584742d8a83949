//! Calls over HTTP: in memory and in virtual time, and over real sockets.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod inbound;
mod kit;
mod laws;
mod loopback;
mod parity;
mod requests;
