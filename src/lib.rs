//! Mainstay: the backend platform that stays correct when things fail.
//!
//! This crate is the facade: it holds no mechanism, only the names under which a service uses the others.
//! Each pattern is a feature and usable alone.
//!
//! | feature | what | from |
//! |---|---|---|
//! | (always) | [`Context`], the event store's contract ([`store`]) | `mainstay-envelope`, `mainstay-event-store` |
//! | `cache` | cache-aside, read-through, write-through, write-back: [`cache`] | `mainstay-resilience`, with `flow` its journal |
//! | `fleet` | policies as documents: what `mainstay.toml` says ([`fleet`]) | `mainstay-fleet` |
//! | `flow` | deciders, projections, outbox and inbox, sagas, the given/when/then kit | `mainstay-flow` |
//! | `checkpoints` | signed heads of a store's chain ([`store::chain`]) | `mainstay-event-store` |
//! | `messaging` | the contract for messages between services ([`messaging`]) | `mainstay-messaging` |
//! | `postgres` | the store on PostgreSQL, and joining the user's own sqlx transaction ([`postgres`]) | `mainstay-postgres` |
//! | `sqlite` | the store on one file | `mainstay-sqlite` |
//! | `resilience` | policies for calls: timeout, retry, hedge, circuit breaker, bulkhead, limits ([`resilience`]) | `mainstay-resilience` |
//! | `upstream` | calling another service over HTTP, and being called: a client under a policy ([`upstream`]) | `mainstay-upstream` |
//! | `runtime` | the frame of a process: a CPU pool, a watchdog, supervised children ([`runtime`]) | `mainstay-runtime` |
//!
//! It is not a database, a broker or a consensus system: where those are needed, it uses existing ones.
//! The project's README shows the whole; `docs/guide` has a chapter for each pattern.

pub use mainstay_envelope as envelope;
pub use mainstay_envelope::Context;
pub use mainstay_event_store as store;

#[cfg(feature = "fleet")]
pub use mainstay_fleet as fleet;
#[cfg(feature = "flow")]
pub use mainstay_flow as flow;
#[cfg(feature = "flow")]
pub use mainstay_flow::{CommandError, Commands, Decider, Done, Event, command, projection};
#[cfg(feature = "messaging")]
pub use mainstay_messaging as messaging;
#[cfg(feature = "postgres")]
pub use mainstay_postgres as postgres;
#[cfg(feature = "resilience")]
pub use mainstay_resilience as resilience;
#[cfg(feature = "cache")]
pub use mainstay_resilience::cache;
#[cfg(feature = "resilience")]
pub use mainstay_resilience::retry;
#[cfg(feature = "runtime")]
pub use mainstay_runtime as runtime;
#[cfg(feature = "sqlite")]
pub use mainstay_sqlite as sqlite;
#[cfg(feature = "upstream")]
pub use mainstay_upstream as upstream;
