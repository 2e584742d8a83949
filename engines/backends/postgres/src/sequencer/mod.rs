//! The sequencer: gives every committed event its place in the feed, and every outbox row its number.
//!
//! # What it protects from
//!
//! The numbers that a database gives out are not in the order of commits. A reader of `seq > last` therefore passes
//! over whoever commits late, for ever; one that waits until nobody can commit late any more stands behind every open
//! transaction, and still hands out one stream's events in the wrong order. Here one process at a time looks at what
//! lies *between two snapshots*: those rows it has not seen before and sees now, whenever they were written.
//!
//! ```text
//!   snapshot n              snapshot n+1
//!       │  A ───commit        │             rows of A and B get their places in round n+1, in the order of seq
//!       │      B ─────commit  │             C goes on: its rows get theirs in the round after its commit,
//!   C ──┼─────────────────────┼──────►      and nobody waits for it
//! ```
//! Prepared transactions and savepoints are right by themselves: what counts is the top-level transaction's id, and
//! when it ended.
//!
//! # Promises
//!
//! * Every committed row gets exactly one place. Positions and numbers are dense, and a stream's versions are in order.
//! * No lock is held that an appender needs, and an open transaction keeps nobody waiting but its own rows.
//! * Any number of processes may run one on the same store. One works ([`Spec::lease`]); the others take over when
//!   it is silent. Two that both believe in their lease insert the same round: only one of them commits.
//! * What it has to remember is in the database, committed with what it tells of. It may die anywhere.
//! * After a dump was restored, where transaction ids begin anew, it notices, and nothing is lost or doubled.
//!
//! `tests/hostile.rs` holds these against a server, the tests beside [`state`](self) without one.
//!
//! # Cost
//!
//! An idle round is three round trips and writes nothing but, every [`Spec::heartbeat`], a row. A round takes what is
//! new by two index scans, whatever is committed beside it; a difference of more than [`Spec::rows_max`] rows is taken
//! in parts, which is recorded, so that its successor goes on where it stood.

mod faults;
mod order;
mod pace;
#[cfg(all(test, feature = "server-tests"))]
mod poll_tests;
mod read;
mod round;
mod run;
mod snapshot;
mod spec;
mod sql;
mod state;

use std::sync::Arc;

use mainstay_envelope::Context;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use faults::{Fate, Faults};
pub use spec::{Invalid, Spec};
pub(crate) use sql::channel;

use crate::hints::{Ends, Hints};
use crate::schema::Schema;

/// What a sequencer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has no server that takes writes: it is not reached, or follows another one.
    Away,
    /// Another one works.
    Candidate,
    /// It works, as the holder of this epoch.
    Active {
        /// Grows by one with every new holder.
        epoch: u64,
    },
}

/// How a sequencer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub role: Role,
    /// Rounds that it recorded.
    pub rounds: u64,
    /// The number of the last of them.
    pub round: u64,
    /// The feed's end after that.
    pub position: u64,
    /// The outbox's last number after that.
    pub outbox: u64,
    /// Why it is away; none when it is not.
    pub trouble: Option<String>,
}

/// How a sequencer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and gave its lease back where it could.
    Stopped,
    /// [`Faults`] let it die: its lease lasts on.
    Died,
}

/// A running sequencer. Dropped, it ends after its present round and gives its lease back.
#[derive(Debug)]
pub struct Sequencer {
    stop: watch::Sender<bool>,
    status: watch::Receiver<Status>,
    task: JoinHandle<Ended>,
}

/// What a sequencer is started with.
pub(crate) struct Start<'a> {
    /// To the server that takes writes, with rights on the schema's tables.
    pub(crate) options: PgConnectOptions,
    /// Of the store.
    pub(crate) schema: &'a Schema,
    /// For a name that nobody else has, and for chance.
    pub(crate) cx: Context,
    pub(crate) hints: Arc<Hints>,
    pub(crate) spec: Spec,
}

impl Sequencer {
    /// Starts one on the present runtime, for a store whose writers are elsewhere: `connect` is the server that takes
    /// writes. That it can't be reached is no error: it goes on trying, and [`Status::trouble`] says why. `cx` gives it
    /// a name that nobody else has, and its chance.
    pub fn start(
        connect: PgConnectOptions,
        schema: &Schema,
        cx: &Context,
        spec: Spec,
    ) -> Result<Self, Invalid> {
        Self::start_with(Start { options: connect, schema, cx: cx.clone(), hints: Arc::default(), spec })
    }

    /// As [`Sequencer::start`], beside a store handle of this process.
    pub(crate) fn start_with(start: Start<'_>) -> Result<Self, Invalid> {
        start.spec.check()?;
        let (stop, stopped) = watch::channel(false);
        let first = Status { role: Role::Away, rounds: 0, round: 0, position: 0, outbox: 0, trouble: None };
        let (status, receiver) = watch::channel(first);
        let work = run::Loop {
            options: start.options,
            sql: sql::Sql::new(start.schema, &start.spec),
            spec: start.spec,
            me: state::Candidate {
                name: start.cx.new_id().simple().to_string(),
                epoch: None,
                doubtful: false,
            },
            cx: start.cx,
            hints: start.hints,
            status,
            stop: stopped,
        };
        Ok(Self { stop, status: receiver, task: tokio::spawn(work.run()) })
    }

    /// How it is now, and a way to wait for a change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(self) -> Ended {
        // Nobody hears it who has ended already.
        let _ = self.stop.send(true);
        // A task that panicked has died.
        self.task.await.unwrap_or(Ended::Died)
    }

    /// Waits until it ends by itself, which it does only when [`Faults`] let it die.
    pub async fn ended(&mut self) -> Ended {
        (&mut self.task).await.unwrap_or(Ended::Died)
    }
}

/// What a notification says: the text after the channel's name, as [`Sequencer`] sends it. None is one of ours.
pub(crate) fn told(payload: &str) -> Option<Ends> {
    let (position, outbox) = payload.split_once(' ')?;
    Some(Ends { position: position.parse().ok()?, outbox: outbox.parse().ok()? })
}
