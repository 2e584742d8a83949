//! The frame of a process: what starts it, watches it, ends it, and what it owes to whoever does.
//!
//! * [`supervisor`]: child processes in an order, started again when they end, drained in reverse.
//! * [`Announcement`]: how a child says that it is ready, or that it can't serve.
//! * [`Lifeline`]: how a child learns that it is to finish and end.
//! * [`Lock`]: one process at a time uses a folder.
//! * [`logs`]: lines of several processes on one output.
//! * [`cpu`]: a bounded pool for work that keeps a core busy.
//! * [`watchdog`]: names the task that blocks its thread.
//!
//! ```text
//!             supervisor ──── spawns, SIGTERM, SIGKILL ────► child
//!   stdin     (holds the pipe open) ────────────────────────► Lifeline: it closed, so drain and exit
//!   stdout    ready? green : red ◄──────────────────────────── Announcement
//!   stderr    order     │ a line of the log ◄───────────────── its log
//! ```
//!
//! It is not an init system: it starts what it was given, on this machine, as the same user, and everything ends
//! with it.
//!
//! # Promises
//! * A child that ends is started again, each time later, with chance in the wait; the waits are those of
//!   [`mainstay_resilience::retry`]. `tests/supervise.rs::a_killed_child_comes_back`
//! * A child that was ready and is not heard any more is red, and not killed for it: it may come back.
//!   `tests/supervise.rs::a_stopped_child_is_red_until_it_goes_on`
//! * Nothing it started outlives it, if the children hold their [`Lifeline`]; also after a kill -9.
//! * Nobody is stopped by a slow terminal, and no line of a child can grow this process's memory:
//!   `tests/supervise.rs::a_flood_of_log_is_bounded`, and the tests in `logs`.
//! * Draining ends: `tests/supervise.rs::a_child_that_will_not_end_is_killed`.
//! * No more is computed at a time than there are threads, no more waits than may, and what nobody waits for any more is
//!   not begun: `tests/cpu.rs`, and the tests in `cpu`.
//! * A task that blocks its thread is named while it does: `tests/watchdog.rs::a_task_that_blocks_is_named_while_it_does`.
//!
//! # Its floor
//! frame: it knows rules and terms, no model and no engine.

mod announce;
pub mod cpu;
mod lifeline;
mod lock;
pub mod logs;
mod setting;
pub mod supervisor;
pub mod watchdog;

pub use announce::{Announcement, MARK};
pub use lifeline::{Asked, Lifeline};
pub use lock::{Lock, NotLocked};
