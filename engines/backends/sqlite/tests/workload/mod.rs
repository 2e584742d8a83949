//! One workload, and one set of books, for every way of stopping a store in the middle of its work.
//!
//! ```text
//!   acts     (seed, number) ──► what to append          nothing has to be remembered to say it again
//!   drive    writers and a follower on a real store ──► one line before, one after each act
//!   ledger   those lines, kept by somebody who survives the store
//!   feed     what the store holds afterwards, proved event by event
//!   check    ledger × feed ──► lost, doubled, refused but visible, torn, out of order, changed, foreign
//! ```
//! `examples/store_worker.rs` does this as a process to be killed, `tests/power_cut.rs` on a simulated disk.

#![allow(dead_code, reason = "each program that includes this uses its own part of it")]

pub(crate) mod acts;
pub(crate) mod check;
pub(crate) mod drive;
pub(crate) mod feed;
pub(crate) mod ledger;

/// Why a step of the workload could not be done; told to whoever runs it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Seeded chance (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Chance of its own for one number under one seed.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        Self(Self(seed).next() ^ number.wrapping_mul(0xd129_0d3b_5d2a_4c35))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
