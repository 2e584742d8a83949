//! A supervisor: child processes that come back.
//!
//! **Protects from** the end of a process: a crash, a kill, a start that hangs. And from what naive restarts do:
//! a loop that burns the machine (waits grow, with chance), a child that never works and nobody hears of
//! (it is given up, with its last words), children that outlive what started them (their
//! [`Lifeline`](crate::Lifeline)).
//!
//! **Use it** for processes that can be killed at any moment and pick up where they were. **Not** for one that
//! can't; and not to mend what a restart does not mend: a child that says it can't serve, or says nothing any more, is
//! shown red and left alone.
//!
//! ```text
//!   Waiting ──turn──► Starting ──ready──► Ready ◄──────► Unready
//!      │                │  ▲  │              │               │
//!      │          ended │  │  │ hangs: killed│ ended         │ ended
//!      │                ▼  │  ▼              ▼               │
//!      │    too often ◄ Backoff ◄────────────┴───────────────┘      GaveUp takes the others down
//!      └─drain──────────┴──────────► Stopped ◄──ended── Draining ◄──drain── Starting, Ready, Unready
//!                                                (SIGTERM, then SIGKILL)
//! ```
//!
//! [`State`] decides about one child and [`Fleet`] about their order; both are pure. [`run`] is the glue.

mod fleet;
mod notice;
mod process;
mod run;
mod spec;
mod state;

pub use fleet::{Event, Fleet};
pub use notice::{Notice, What};
pub use process::Program;
pub use run::{Failed, Stop, run};
pub use spec::{Checked, Invalid, LONGEST, Spec};
pub use state::{Act, Input, Phase, State};
