//! Cache: a value that was read a moment ago is not read again, and never by ten thousand at once.
//!
//! **Protects from** the load that asking for the same thing puts on its source; from the *thundering herd*, when a
//! popular value expires and everybody loads it at once (single flight, early refresh, jitter); from a source that is
//! down for a moment (stale in place of an error); from guessed keys (absent values are remembered).
//!
//! **Use it** where a value is read far more often than written, and may be a little old. How old is `ttl`, which the
//! data's owner chooses.
//!
//! **Do not use it** where a decision needs the present value (a balance before a withdrawal); to hide that a source is
//! too slow for its load for good; for what is read once.
//!
//! One cache, used in four ways:
//!
//! | use | who reads the source | who writes it | a write is acknowledged when | lost by a crash |
//! |---|---|---|---|---|
//! | cache-aside: [`Cache::get_or_load`], [`Cache::get`], [`Cache::put`] | the caller, through the cache | the caller, who then invalidates | the source has it | nothing |
//! | read-through: [`Cache::read_through`] | the cache ([`Loader`]) | the caller, who then invalidates | the source has it | nothing |
//! | write-through: [`Cache::write_through`] | the cache | the cache, at once ([`Writer`]) | the source has it | nothing |
//! | write-back: [`WriteBack::open`] | the cache | the cache, later ([`Flusher`]) | the [`Journal`] has it on disk | nothing |
//!
//! ```text
//!                     ┌───────────── refreshed early: by one reader, whom chance picks ────────────┐
//!                     ▼                                                                            │
//!   absent ──load──► fresh ── expiry ──► stale, revalidating ──► stale, for errors only ──► gone   │
//!     ▲  │             │                 served + one load        load; on failure served          │
//!     │  └ none there: remembered for negative_ttl                                                 │
//!     └── invalidate(key), invalidate_tag(tag), clear(), evicted: also what a load under way brings ┘
//! ```
//!
//! **Single flight.** One task loads a key, with the highest priority and the latest deadline of those who wait. Who
//! leaves takes nothing with it. A leader that panics, is cancelled or runs out of time is followed by exactly one of
//! those who wait, once; then all are told. Callers of different [`Audience`]s never share a load or a value.
//!
//! **What is read before a change never outlives it**: an invalidation or a write takes the key's load out of the map,
//! and what that load brings goes to those who already wait and is not kept. Tags are compared with the moment at which
//! a load *began*.
//!
//! **Recorded**, where the policy's recorder keeps decisions: what a kept entry was good for (with now, expiry, δ, β and the
//! draw), who joined, loaded or was turned away, what was stale in place of an error. [`replay`] decides each again.
//!
//! **Time and chance** are the policy's ([`Scope`](crate::Scope)); the storage only stores and evicts (docs/decisions/0023-cache-storage.md).
//!
//! Promises, each with its test in `tests/cache/`.

mod core;
mod entry;
mod flights;
mod handle;
mod journal;
mod key;
mod layer;
mod load;
mod read_through;
mod record;
mod single_flight;
mod spec;
mod state;
mod stats;
mod storage;
mod tags;
mod write_back;
mod write_through;

pub use entry::{Cached, Freshness, Loaded};
pub use handle::{Builder, Cache};
pub use journal::{Intent, Journal, Version};
pub use layer::{CacheLayer, CacheService, Keep, ResponseFuture, Unkept};
pub use load::{Load, Loader};
pub use read_through::ReadThrough;
pub use record::replay;
pub use spec::{Audience, Checked, LARGEST_BETA, LARGEST_JITTER, LONGEST, Spec};
pub use state::{
    Admission, Arrival, Crew, Found, HAND_OVERS, LEAST_DELTA, Next, Times, Verdict, jittered, should_refresh,
    unit,
};
pub use stats::Stats;
pub use tags::TAGS_MAX;
pub use write_back::{Flusher, OpenError, Round, WriteBack, WriteBackSpec, WriteBackStats, WriteError};
pub use write_through::{WriteThrough, Writer};
