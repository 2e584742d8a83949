//! A pool for work that keeps a core busy: so many threads, so much that waits, and a "no" at once to the rest.
//!
//! **Protects from** computing on the threads that serve: while a hash, an image or a large document is worked on
//! there, nothing else of that thread moves. And from what an unbounded pool does instead: more threads than cores
//! make all work late, and a queue without end is full of work nobody waits for any more.
//!
//! **Use it** for what computes for longer than some 100 µs. **Not** for what waits: asynchronous calls cost no
//! thread, and calls that block one belong into their callee's own
//! `BlockingPool` (`mainstay_resilience::bulkhead`), where a hung one costs no core of this pool.
//!
//! ```text
//!            full, or would come too late           deadline reached          the caller's deadline, or it left
//!   run ─────────────► Failed (at once)          ┌─────────► Failed         ┌──────► Failed, and its token is set
//!    │                                           │ the caller left          │
//!    └─admitted──► waits ────────────────────────┴─────────► never begun    │
//!                    └── first come, first served ──► runs ─────────────────┴──────► its result, or its panic
//! ```
//!
//! Work has a name. For each name the pool remembers how long it took lately; from that it foresees whether a deadline
//! can be met, and refuses at once what would be computed for nobody. What it can't foresee it admits.
//!
//! Work that waits for other work of the same pool can wait for ever, when all threads do so: await from outside.
//!
//! [`State`] decides and is pure; [`Pool`] is the threads around it.

mod job;
mod kinds;
mod pool;
mod spec;
mod state;

pub use crate::setting::Invalid;
pub use job::{Cancellation, Cancelled, Failed};
pub use kinds::{JobStats, MOST_NAMES, OTHERS};
pub use pool::Pool;
pub use spec::{Checked, LONGEST_QUEUE, MOST_THREADS, Spec};
pub use state::{End, Refused, RunningJob, State, Stats, Ticket, Turn};
