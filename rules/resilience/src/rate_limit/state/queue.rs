//! The leaky bucket as a queue: constant departures.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};

use crate::rate_limit::spec::Checked;
use crate::record::{INPUTS, nanos};

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

/// What a queue reads to decide about a request that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The earliest instant of the next departure.
    slot: Monotonic,
    interval: Duration,
    waiting: u32,
    capacity: u32,
}

impl Line {
    /// When its turn is; none: now. It is taken into the queue, or goes, by whoever asked.
    fn judge(self, now: Monotonic, deadline: Option<Deadline>) -> Result<Option<Monotonic>, NotQueued> {
        let turn = turn(self.slot.max(now), self.interval, self.waiting);
        let turn_in = turn.saturating_since(now);
        if deadline.is_some_and(|deadline| deadline.remaining(now) <= turn_in) {
            return Err(NotQueued::TurnTooLate { turn_in });
        }
        if self.waiting == 0 && self.slot <= now {
            return Ok(None);
        }
        if self.waiting >= self.capacity {
            return Err(NotQueued::Full { retry_after: self.slot.saturating_since(now) });
        }
        Ok(Some(turn))
    }

    /// What is recorded of a refusal: the next departure, the interval, how many wait and may, and the deadline
    /// (nanoseconds; none: the largest number).
    pub fn inputs(self, deadline: Option<Deadline>) -> [u64; INPUTS] {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let deadline = deadline.map_or(u64::MAX, |deadline| nanos(deadline.reading()));
        [nanos(self.slot), interval, u64::from(self.waiting), u64::from(self.capacity), deadline, 0, 0]
    }
}

impl NotQueued {
    /// The verdict as a number: how many nanoseconds until there is a place, doubled; or until its turn would be, doubled
    /// and one more.
    pub fn verdict(self) -> u64 {
        let doubled = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2);
        match self {
            NotQueued::Full { retry_after } => doubled(retry_after),
            NotQueued::TurnTooLate { turn_in } => doubled(turn_in) | 1,
        }
    }
}

/// Of a request that is not refused.
const QUEUED: u64 = u64::MAX - 1;

/// Decides a recorded decision of a queue again: `at` and `inputs` as recorded. None if they are no queue's.
pub(super) fn replay(at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let [slot, interval, waiting, capacity, deadline, 0, 0] = inputs else { return None };
    let reading = |nanos| Monotonic::from_nanos(nanos);
    let (waiting, capacity) = (u32::try_from(waiting).ok()?, u32::try_from(capacity).ok()?);
    let line = Line { slot: reading(slot), interval: Duration::from_nanos(interval), waiting, capacity };
    let deadline = (deadline != u64::MAX).then(|| Deadline::at(reading(deadline)));
    Some(line.judge(reading(at), deadline).map_or_else(NotQueued::verdict, |_| QUEUED))
}

/// When whoever is in that place leaves, if the first leaves at `first`.
fn turn(first: Monotonic, interval: Duration, place: u32) -> Monotonic {
    first + interval.saturating_mul(place)
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
        let Some(turn) = self.line().judge(now, deadline)? else {
            self.slot = now + self.interval;
            return Ok(Joined::Now);
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back((ticket, waiter()));
        Ok(Joined::Waiting(ticket, turn))
    }

    /// What it would decide by if a request came.
    pub fn line(&self) -> Line {
        // At most a hundred thousand places.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (waiting, capacity) = (small(self.waiting.len()), small(self.capacity));
        Line { slot: self.slot, interval: self.interval, waiting, capacity }
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
        let earliest = Monotonic::from_origin(now.since_origin().saturating_sub(LATE_MAX));
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
        let turn = turn(self.slot, self.interval, u32::try_from(place).unwrap_or(u32::MAX));
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

    fn place(&self, ticket: Ticket) -> Option<usize> {
        // Tickets only grow from front to back.
        self.waiting.binary_search_by_key(&ticket, |(held, _)| *held).ok()
    }
}
