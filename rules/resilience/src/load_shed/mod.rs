//! Load shedding: what is too much is refused at once, the least important first, and the rest is served in time.
//!
//! **Protects from** overload. A server that takes on more than it can do gets slower for everybody until each
//! answer comes after its caller has left: it works at full capacity and nobody is served. Refusing most keeps the
//! others in time, so that as much is served at ten times the capacity as at once.
//!
//! **Use it** in front of whatever has a capacity: on the way in with a queue and priorities, on the way out as an
//! adaptive limit for each callee, measured inside retry, so that each try counts by itself.
//!
//! **Do not use it** to bound one caller among others (that is for a rate limit), to isolate callees from each other
//! (for a bulkhead), or where a callee fails rather than being slow (for a circuit breaker). Work that may wait
//! for minutes belongs into a queue of messages.
//!
//! ```text
//!                       ┌──── queue: one class for each priority ────┐
//!   call ─► free? ─no─► │ critical │ normal │ low │ background       │ ── a permit is free: highest first ─┐
//!             │yes      └──────┬─────────────────────────────────────┘                                    │
//!             │                └► given up: waited `target` (the queue stands) or `interval` (it doesn't),  │
//!             │                   deadline reached, or full and something more important came              │
//!             ▼                                                                                            ▼
//!          under way ≤ limit ◄────────────────────────────────────────────────────────────────────────────┘
//!             │ ended: answered in t │ failed as if overloaded │ cancelled: neither
//!             ▼
//!          limit' = limit · gradient + √limit        gradient = tolerance · undisturbed t / measured t
//! ```
//!
//! Three decisions, each its own state: *who* goes first and is given up last (the queue), *how long* one may
//! wait (queue delay, after CoDel), and *how many* at a time ([`Gradient`], or a figure).

#[cfg(feature = "load-shed")]
mod entry;
#[cfg(feature = "load-shed")]
mod layer;
mod spec;
mod state;

#[cfg(feature = "load-shed")]
pub use entry::{Guard, LoadShed};
#[cfg(feature = "load-shed")]
pub use layer::{LoadShedLayer, Shedding, SheddingFuture};
pub use spec::{
    Adaptive, Checked, LARGEST_LIMIT, LARGEST_QUEUE, LARGEST_TOLERANCE, LONGEST_INTERVAL, Limit, Spec,
};
pub use state::{Entered, GivenUp, Gradient, Next, Permit, Refused, Room, Sample, State, Ticket, replay};
