//! Who waits: bounded, the highest priority first, and no longer than makes sense.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic, Priority};

use crate::load_shed::spec::Spec;
use crate::record::nanos;

const CLASSES: usize = Priority::ALL.len();

/// A queue of which the first has seen so many served while it waited is not merely waiting for its turn.
const SERVED_MEANWHILE: u32 = 4;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    class: usize,
    number: u64,
}

impl Ticket {
    /// The priority it waits with.
    pub fn priority(self) -> Priority {
        Priority::ALL[self.class]
    }
}

/// Why a call that waited is given up. It was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GivenUp {
    /// It waited for as long as one may at this time.
    WaitedTooLong {
        /// How long that is.
        limit: Duration,
        /// Whether that was short because the queue stands.
        is_standing: bool,
    },
    /// Its deadline was reached.
    Deadline,
}

/// Whether one that waits is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    No,
    Deadline,
    Waited,
}

/// Decides on one that has waited since `since`, may for `limit`, and whose caller waits until `deadline`: all in
/// nanoseconds, the last the largest number where there is none.
pub(super) fn is_over(now: u64, since: u64, deadline: u64, limit: u64) -> Over {
    if deadline <= now {
        Over::Deadline
    } else if now.saturating_sub(since) >= limit {
        Over::Waited
    } else {
        Over::No
    }
}

#[derive(Debug)]
struct Waiting<W> {
    number: u64,
    since: Monotonic,
    deadline: Option<Deadline>,
    waiter: W,
}

/// How the waiting in one class goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// Whoever was first at the last look had not waited for the target.
    Short,
    /// Since then, whoever was first had.
    LongSince(Monotonic),
    /// For a whole interval, and the class has not been empty since.
    Standing,
}

/// A queue for each priority.
///
/// How long one may wait is CoDel's idea (K. Nichols, V. Jacobson, RFC 8289): a queue that a burst has left is good,
/// one that stands is bad. It stands from when whoever was first has waited for `target` or more at every look during
/// an `interval`; one look at which it was less begins the interval anew. What is done about it is what suits
/// requests, which don't slow down when some of them are dropped (B. Maurer, "Fail at Scale", ACM Queue 2015): until
/// the queue is empty again, each waits for `target` at most, at other times for `interval`. The target that counts is
/// at least the time in which four are served. Each priority has a queue of its own for this, so that what is starved
/// is not measured by what is served.
#[derive(Debug)]
pub(super) struct Queue<W> {
    classes: [VecDeque<Waiting<W>>; CLASSES],
    delays: [Delay; CLASSES],
    next_number: u64,
    pub(super) capacity: usize,
    target: Duration,
    interval: Duration,
    /// When one was served last, if somebody has waited ever since.
    served_at: Option<Monotonic>,
    /// The time from one that is served to the next while somebody waits: a moving mean.
    pace: Duration,
}

impl<W> Queue<W> {
    pub(super) fn new(spec: &Spec) -> Self {
        Queue {
            classes: std::array::from_fn(|_| VecDeque::new()),
            delays: [Delay::Short; CLASSES],
            next_number: 0,
            capacity: spec.queue as usize,
            target: spec.target,
            interval: spec.interval,
            served_at: None,
            pace: Duration::ZERO,
        }
    }

    pub(super) fn reconfigure(&mut self, spec: &Spec) {
        self.capacity = spec.queue as usize;
        self.target = spec.target;
        self.interval = spec.interval;
    }

    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// The lowest priority that waits.
    pub(super) fn lowest(&self) -> Option<Priority> {
        let class = (0..CLASSES).find(|class| !self.classes[*class].is_empty())?;
        Some(Priority::ALL[class])
    }

    /// Gives up what has waited longest of the lowest priority, to make a place.
    pub(super) fn evict_lowest(&mut self) -> Option<W> {
        self.take_first(self.lowest()? as usize).map(|waiting| waiting.waiter)
    }

    pub(super) fn push(
        &mut self,
        now: Monotonic,
        priority: Priority,
        deadline: Option<Deadline>,
        waiter: W,
    ) -> Ticket {
        let class = priority as usize;
        let number = self.next_number;
        self.next_number += 1;
        self.classes[class].push_back(Waiting { number, since: now, deadline, waiter });
        Ticket { class, number }
    }

    /// The next one that has waited for too long, the lowest priority first.
    pub(super) fn give_up(&mut self, now: Monotonic) -> Option<(W, GivenUp)> {
        (0..CLASSES).find_map(|class| {
            self.look(class, now);
            let why = self.is_over(class, now)?;
            self.take_first(class).map(|waiting| (waiting.waiter, why))
        })
    }

    /// The next to be served: of the highest priority, the one that has waited longest.
    pub(super) fn pop(&mut self, now: Monotonic) -> Option<W> {
        let class = (0..CLASSES).rev().find(|class| !self.classes[*class].is_empty())?;
        if let Some(before) = self.served_at {
            let gap = now.saturating_since(before).min(self.interval);
            self.pace = self.pace - self.pace / 8 + gap / 8;
        }
        self.served_at = Some(now);
        self.take_first(class).map(|waiting| waiting.waiter)
    }

    /// How long one may wait while the queue stands. Where one is served each 50 ms, to have waited for 5 ms says
    /// nothing; to have seen several others served does.
    fn target(&self) -> Duration {
        self.target.max(self.pace * SERVED_MEANWHILE).min(self.interval)
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        let class = self.classes.get_mut(ticket.class)?;
        // Numbers only grow from front to back.
        let place = class.binary_search_by_key(&ticket.number, |waiting| waiting.number).ok()?;
        let waiting = class.remove(place)?;
        if class.is_empty() {
            self.delays[ticket.class] = Delay::Short;
            if self.len() == 0 {
                self.served_at = None;
            }
        }
        Some(waiting.waiter)
    }

    /// When somebody has waited for too long, if nothing else happens before. None if nobody waits.
    pub(super) fn next_give_up(&self) -> Option<Monotonic> {
        (0..CLASSES)
            .filter_map(|class| {
                let first = self.classes[class].front()?;
                let long = first.since + self.target();
                let over = match self.delays[class] {
                    Delay::Standing => long,
                    // When it stands, if nobody comes to look before.
                    Delay::LongSince(at) => long.max(at + self.interval),
                    Delay::Short => long + self.interval,
                };
                let over = over.min(first.since + self.interval);
                Some(first.deadline.map_or(over, |deadline| over.min(deadline.reading())))
            })
            .min()
    }

    fn is_over(&self, class: usize, now: Monotonic) -> Option<GivenUp> {
        let first = self.classes[class].front()?;
        let is_standing = self.delays[class] == Delay::Standing;
        let limit = if is_standing { self.target() } else { self.interval };
        let deadline = first.deadline.map_or(u64::MAX, |deadline| nanos(deadline.reading()));
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        match is_over(nanos(now), nanos(first.since), deadline, limit_ns) {
            Over::No => None,
            Over::Deadline => Some(GivenUp::Deadline),
            Over::Waited => Some(GivenUp::WaitedTooLong { limit, is_standing }),
        }
    }

    /// Looks how long the first of a class has waited.
    fn look(&mut self, class: usize, now: Monotonic) {
        let Some(first) = self.classes[class].front() else { return };
        let long = first.since + self.target();
        self.delays[class] = match self.delays[class] {
            Delay::Standing => Delay::Standing,
            _ if long > now => Delay::Short,
            Delay::Short => Delay::LongSince(long),
            Delay::LongSince(at) if now.saturating_since(at) >= self.interval => Delay::Standing,
            long_already => long_already,
        };
    }

    fn take_first(&mut self, class: usize) -> Option<Waiting<W>> {
        let first = self.classes[class].pop_front();
        if self.classes[class].is_empty() {
            self.delays[class] = Delay::Short;
            if self.len() == 0 {
                self.served_at = None;
            }
        }
        first
    }
}
