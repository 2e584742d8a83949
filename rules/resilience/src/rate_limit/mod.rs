//! Rate limit: no more than so many in so much time; the rest is refused with the exact time to come back, or queued.
//!
//! **Protects from** a caller who asks for more than their share: a script that runs wild, a customer whose batch job
//! would take the others' capacity, a client of a paid service that must not be asked more than it sells.
//!
//! **Use it** where the bound is a promise about *time*: so many a second by identity, route or tenant; as pacing on
//! the way out, towards a callee that wants its calls evenly.
//!
//! **Do not use it** to keep a server from overload: how many a second it bears changes with what they cost and with
//! its own health (that is for load shedding, which measures). Nor for allowances that must survive a restart
//! (those are quotas) or that several processes share.
//!
//! ```text
//!     token bucket                     leaky bucket as a meter            leaky bucket as a queue
//!   1 / interval drips in              each request pours in              each request joins
//!        │                                   │                                 │
//!      ┌─▼─┐ burst                         ┌─▼─┐ burst                       ┌─▼─┐ queue
//!      │ ○ │                               │▒▒▒│ level = burst − tokens      │ w │ full: refused
//!      │ ○ │                               │▒▒▒│                             │ w │ turn past the deadline: refused
//!      └─┬─┘                               └─┬─┘                             └─┬─┘
//!   a request takes c, or               1 / interval leaks out,           one leaves each interval,
//!   is refused and told when            what would overflow is            never two at a time
//!                                       refused and told when
//! ```
//!
//! The first two are one limit told in two ways: the same requests at the same times get the same verdicts, which
//! a property test shows. They refuse and never wait; the third never refuses what it can still let go in time.
//!
//! | to limit | use |
//! |---|---|
//! | everything that goes through one place | [`RateLimit`], over a [`TokenBucket`] |
//! | each caller, route, tenant by itself | [`KeyedRateLimit`], over [`Keyed`] |
//! | the pace towards a callee | [`Pacer`], over a [`Queue`] |
//! | one connection, without sharing | a [`LeakyMeter`] of its own |

#[cfg(feature = "rate-limit")]
mod layer;
#[cfg(feature = "rate-limit")]
mod pacing;
mod spec;
mod state;

#[cfg(feature = "rate-limit")]
pub use layer::{
    Admit, By, ByIdentity, KeyedRateLimit, RateLimit, RateLimitLayer, RateLimited, RateLimitedFuture,
};
#[cfg(feature = "rate-limit")]
pub use pacing::{Paced, PacedFuture, Pacer, PacingLayer};
pub use spec::{
    Checked, Kind, LARGEST_QUEUE, LONGEST_REFILL, MOST_KEYS, SHORTEST_DEPARTURE, SHORTEST_INTERVAL, Spec,
};
pub use state::{
    Denied, Joined, Keyed, LeakyMeter, Line, NotQueued, Queue, Taken, Ticket, TokenBucket, question, replay,
};
#[cfg(feature = "stack")]
pub(crate) use {layer::refuses, pacing::queues};
