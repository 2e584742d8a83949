//! A watchdog for asynchronous tasks: it names the one that blocks its thread, while it does.
//!
//! **Protects from** what an asynchronous program suffers in silence: one task computes, or makes a call that blocks,
//! between two awaits; everything else of its thread stands still, timers are late, and no log says why.
//!
//! **Use it** in every process, with the tasks that serve spawned through it. **Not** to find out what is slow: a
//! task that awaits for an hour blocks nobody and is never named.
//!
//! ```text
//!  worker thread   ──poll "relay"──┐┌─poll "http"─┐   ┌──────── poll "report" ───────────────────┐
//!  its slot        odd number: under way          even                                           even
//!  watching thread      ▲ look    ▲ look    ▲ look         ▲ look … the same number for 50 ms     ▲ it has changed
//!                                                          └─► Blocks "report" ─────────────────► Ended "report"
//! ```
//!
//! A task spawned by [`Watchdog::spawn`], or wrapped by [`Watchdog::watch`], writes into a slot of its thread when a poll
//! begins and when it ends: three atomic stores and three loads, no clock, no lock, no allocation. The watching thread
//! looks at the slots every [`Spec::look_every`], and only while a poll is under way; it sleeps when two looks find none,
//! and the next poll wakes it.
//!
//! What was not spawned through it has no name. For that there is the [`heartbeat`](Watchdog::heartbeat) of a runtime: a
//! task that answers when it is asked. When it does not, no thread of the runtime comes to it, and the report says
//! what each thread is doing that has answered before.
//!
//! # What it can't see
//! * A poll is timed by the looks: what is reported is right to one look at either end. A poll is sure to be reported when
//!   it runs for the limit and two looks.
//! * One blocked thread of several does not silence a heartbeat; the others go on. Spawn through the watchdog.
//! * What a thread does is what Linux tells without a debugger: that it computes, or in which system call it waits, and
//!   with the right to see it (root) the stack *of that call in the kernel*. The stack of the program itself takes a
//!   debugger; the report gives the number of the thread for it (`gdb -p PID`, `thread apply all bt`).
//! * Inside of `tokio::task::block_in_place` a task is reported, although its runtime has given its place to another
//!   thread. Calls that block belong into a pool of threads.
//!
//! [`State`] decides and is pure; [`Watchdog`] is the thread and the slots around it.

mod heart;
mod report;
mod slots;
mod spec;
mod state;
mod task;
mod thread;
mod watch;

pub use crate::setting::Invalid;
pub use report::{Report, Stats};
pub use spec::{Checked, LONGEST, SHORTEST, Spec};
pub use state::{Beat, Pause, Poll, State, Verdict};
pub use task::Watched;
pub use thread::{Doing, Thread};
pub use watch::Watchdog;
