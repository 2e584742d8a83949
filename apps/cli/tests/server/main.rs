//! The binary on a PostgreSQL server, as people and scripts meet it: events, the shop, what is refused.
//!
//! Needs a server (feature `server-tests`): `cargo xtask engines up postgres`, then
//! `eval "$(cargo xtask engines env postgres)"`.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod database;
mod durability;
mod events;
// The shop's tests use all of it.
#[allow(dead_code)]
#[path = "../shop/kit.rs"]
mod kit;
mod proxy;
mod refused;
mod shop;
