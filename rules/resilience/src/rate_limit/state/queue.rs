//! The leaky bucket as a queue: constant departures.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};

use crate::rate_limit::spec::Checked;

/// A departure that is late by this much is made up for; one that is later is lost, so that a process that
/// stood still doesn't let go of everybody at once.
///
/// Five milliseconds: timers are a millisecond coarse and a busy runtime adds some.
const LATE_MAX: Duration = Duration::from_millis(5);

/// A place in the queue. It is left by [`Queue::depart`] or by [`Queue::cancel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a request that came is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Go now: nobody is before you and the last departure is an interval ago.
    Now,
    /// Wait. As it stands, the turn is at this instant; when somebody before you leaves, it is earlier.
    Waiting(Ticket, Monotonic),
}

/// Why a request was not taken into the queue. It left no trace there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotQueued {
    /// As many wait as may.
    #[error("the queue of the rate limit is full; nothing was done; come back in {retry_after:?}")]
    Full {
        /// The exact time from `now` after which there is a place, if nobody else takes it.
        retry_after: Duration,
    },
    /// Its turn would come at its deadline or after it.
    #[error(
        "the rate limit's queue is longer than the request may wait ({turn_in:?}); nothing was done; come back when less is asked for"
    )]
    TurnTooLate {
        /// How long it would have had to wait.
        turn_in: Duration,
    },
}

/// A bounded queue whose members leave in the order they came, one interval apart. The state of one limit.
///
/// `W` is what waits: a waker, a request's number. There is one timer to keep, that of the first
/// ([`next_departure`](Self::next_departure)); whoever keeps it calls [`depart`](Self::depart) when it fires.
///
/// ```text
///   join ──► [ w₁ w₂ w₃ … ] ──► depart, at slot, slot + interval, slot + 2·interval …
///    │full       │cancel: those behind move up, so the slot goes to the next
///    ▼           ▼
/// ```
/// Joining and departing take constant time; cancelling moves at most the queue's length of tickets.
#[derive(Debug)]
pub struct Queue<W> {
    interval: Duration,
    capacity: usize,
    waiting: VecDeque<(Ticket, W)>,
    next_ticket: u64,
    /// The earliest instant of the next departure.
    slot: Monotonic,
}

impl<W> Queue<W> {
    /// An empty queue that lets the first request go at once.
    pub fn new(settings: &Checked) -> Self {
        Queue {
            interval: settings.interval(),
            capacity: settings.spec().queue as usize,
            waiting: VecDeque::new(),
            next_ticket: 0,
            slot: Monotonic::ORIGIN,
        }
    }

    /// A request comes. `deadline` is its own; `waiter` is asked for only if it has to wait.
    ///
    /// # Errors
    /// [`NotQueued`], at once, when there is no place or its turn would come too late.
    pub fn join(
        &mut self,
        now: Monotonic,
        deadline: Option<Deadline>,
        waiter: impl FnOnce() -> W,
    ) -> Result<Joined, NotQueued> {
        let turn = self.turn(self.slot.max(now), self.waiting.len());
        let turn_in = turn.saturating_since(now);
        if deadline.is_some_and(|deadline| deadline.remaining(now) <= turn_in) {
            return Err(NotQueued::TurnTooLate { turn_in });
        }
        if self.waiting.is_empty() && self.slot <= now {
            self.slot = now + self.interval;
            return Ok(Joined::Now);
        }
        if self.waiting.len() >= self.capacity {
            return Err(NotQueued::Full { retry_after: self.slot.saturating_since(now) });
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back((ticket, waiter()));
        Ok(Joined::Waiting(ticket, turn))
    }

    /// When the first leaves; none if nobody waits.
    pub fn next_departure(&self) -> Option<Monotonic> {
        (!self.waiting.is_empty()).then_some(self.slot)
    }

    /// Who leaves at `now`, the first in line; none before its slot. To be called until it answers none.
    pub fn depart(&mut self, now: Monotonic) -> Option<(Ticket, W)> {
        if self.slot > now {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let earliest = Monotonic(now.since_origin().saturating_sub(LATE_MAX));
        self.slot = self.slot.max(earliest) + self.interval;
        Some(first)
    }

    /// Gives a place up: the slot it would have had goes to the next. None if the ticket has left already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        let place = self.place(ticket)?;
        self.waiting.remove(place).map(|(_, waiter)| waiter)
    }

    /// What waits under this ticket, and when its turn is as it stands; none if it has left.
    pub fn turn_mut(&mut self, ticket: Ticket) -> Option<(Monotonic, &mut W)> {
        let place = self.place(ticket)?;
        let turn = self.turn(self.slot, place);
        self.waiting.get_mut(place).map(|(_, waiter)| (turn, waiter))
    }

    /// What waits first, whose timer is the one to keep.
    pub fn first_mut(&mut self) -> Option<(Ticket, &mut W)> {
        self.waiting.front_mut().map(|(ticket, waiter)| (*ticket, waiter))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Changes the settings. Everybody who waits keeps their place, also beyond a smaller capacity; the next
    /// departure is where it was or, with a shorter interval, an interval from now.
    pub fn reconfigure(&mut self, settings: &Checked, now: Monotonic) {
        self.interval = settings.interval();
        self.capacity = settings.spec().queue as usize;
        self.slot = self.slot.min(now + self.interval);
    }

    fn turn(&self, first: Monotonic, place: usize) -> Monotonic {
        // At most a hundred thousand places.
        first + self.interval.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        // Tickets only grow from front to back.
        self.waiting.binary_search_by_key(&ticket, |(held, _)| *held).ok()
    }
}
