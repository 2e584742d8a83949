//! The cache from outside: on tokio's paused time, which the cache reads as its clock.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

mod allocations;
mod changes;
mod freshness;
mod herd;
mod hit_rate;
mod kit;
mod layer;
mod recording;
mod write_back;
