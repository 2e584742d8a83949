//! One load under way, and those who wait for it.
//!
//! ```text
//!   first caller ──begins──► Flight ◄── spawned task: the leader, which loads
//!   the others ────join─────►   │             │ ends well or with an error: all get it
//!                               │             │ dies (panics, is cancelled, is out of time)
//!                               ▼             ▼
//!                        one of those who can takes over; after the second death all are told
//! ```
//! A waiter that leaves takes nothing with it: the leader is a task of its own. No lock is held while anybody waits.

use mainstay_envelope::{Monotonic, Priority};
use tokio::sync::watch;

use super::state::{Crew, Next};
use super::tags::Stamp;

/// A load under way. `T` is what it ends with.
pub(super) struct Flight<T>(watch::Sender<Phase<T>>);

enum Phase<T> {
    UnderWay {
        crew: Crew,
        /// When the present leader began to read.
        stamp: Stamp,
        vacant: bool,
    },
    Ended(T),
    /// Its leaders died and nobody is left to lead.
    Dead,
}

/// What somebody who waits finds.
pub(super) enum Found<T> {
    Ended(T),
    Dead,
    /// The leader died: who can lead may try to take over.
    Vacant,
}

impl<T: Clone> Flight<T> {
    /// A load that somebody begins to lead now.
    pub(super) fn new(crew: Crew, stamp: Stamp) -> Self {
        Self(watch::Sender::new(Phase::UnderWay { crew, stamp, vacant: false }))
    }

    /// One more waits; false when it is over already. `able`: they could lead a load themselves. `since`: only if
    /// its present leader began to read then or later.
    pub(super) fn join(
        &self,
        priority: Priority,
        deadline: Option<Monotonic>,
        able: bool,
        since: Option<Stamp>,
    ) -> bool {
        let mut joined = false;
        self.0.send_if_modified(|phase| {
            if let Phase::UnderWay { crew, stamp, .. } = phase
                && since.is_none_or(|since| *stamp >= since)
            {
                crew.join(priority, deadline, able);
                joined = true;
            }
            // The leader asks for the latest deadline when the one it knows is reached; nobody has to be woken.
            false
        });
        joined
    }

    /// One leaves; true when the load is dead by that: nobody is left who could lead it.
    pub(super) fn leave(&self, able: bool) -> bool {
        self.0.send_if_modified(|phase| {
            let Phase::UnderWay { crew, .. } = phase else { return false };
            let dead = crew.leave(able) == Next::Over;
            if dead {
                *phase = Phase::Dead;
            }
            dead
        })
    }

    /// The leader has ended: everybody gets this.
    pub(super) fn end(&self, with: T) {
        self.0.send_replace(Phase::Ended(with));
    }

    /// The leader died; true when the load is dead by that.
    pub(super) fn died(&self) -> bool {
        let mut dead = false;
        self.0.send_if_modified(|phase| match phase {
            Phase::UnderWay { crew, vacant, .. } => {
                match crew.died() {
                    Next::Vacant => *vacant = true,
                    Next::Over | Next::Unchanged => {
                        *phase = Phase::Dead;
                        dead = true;
                    }
                }
                true
            }
            _ => false,
        });
        dead
    }

    /// An able waiter asks to lead from now on; true for exactly one.
    pub(super) fn take_over(&self, deadline: Option<Monotonic>, limit: Monotonic, now: Stamp) -> bool {
        let mut took = false;
        self.0.send_if_modified(|phase| {
            if let Phase::UnderWay { crew, stamp, vacant } = phase
                && crew.take_over(deadline, limit)
            {
                (*stamp, *vacant, took) = (now, false, true);
            }
            false
        });
        took
    }

    /// Until when the load may last; none when it is over.
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        match &*self.0.borrow() {
            Phase::UnderWay { crew, .. } => Some(crew.deadline()),
            _ => None,
        }
    }

    /// Whether it is still under way.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(&*self.0.borrow(), Phase::UnderWay { .. })
    }

    /// A view for one who waits; to be taken while joined.
    pub(super) fn watch(&self) -> Watch<T> {
        Watch(self.0.subscribe())
    }
}

/// What the leader's context says of the load, as of now.
pub(super) trait Terms: Send + Sync {
    /// The highest priority and the latest deadline of those who wait; none when it is over.
    fn terms(&self) -> Option<(Priority, Monotonic)>;
}

impl<T: Send + Sync> Terms for Flight<T> {
    fn terms(&self) -> Option<(Priority, Monotonic)> {
        match &*self.0.borrow() {
            Phase::UnderWay { crew, .. } => Some((crew.priority(), crew.deadline())),
            _ => None,
        }
    }
}

/// How one who waits looks at the load.
pub(super) struct Watch<T>(watch::Receiver<Phase<T>>);

impl<T: Clone> Watch<T> {
    /// The next thing that concerns somebody who waits. `able`: they could lead; others never see a vacancy.
    pub(super) async fn next(&mut self, able: bool) -> Found<T> {
        loop {
            match &*self.0.borrow_and_update() {
                Phase::Ended(with) => return Found::Ended(with.clone()),
                Phase::Dead => return Found::Dead,
                Phase::UnderWay { vacant: true, .. } if able => return Found::Vacant,
                Phase::UnderWay { .. } => {}
            }
            // An error means that the flight is gone; whoever waits holds it, so it is not.
            if self.0.changed().await.is_err() {
                return Found::Dead;
            }
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
