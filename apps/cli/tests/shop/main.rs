//! `mainstay up` as people and scripts meet it: the real binary, real processes, real signals.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod card;
mod dead_letters;
mod kit;
mod life;
mod orders;
mod refused;
