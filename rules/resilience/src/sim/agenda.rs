//! What happens when: the events to come, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mainstay_envelope::Monotonic;

/// Events to come. Those of one instant happen in the order in which they were entered, so a run is repeatable.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    entered: u64,
    now: Monotonic,
}

#[derive(Debug)]
struct Entry<E> {
    at: Monotonic,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Agenda { heap: BinaryHeap::new(), entered: 0, now: Monotonic::ORIGIN }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.now
    }

    /// Enters an event for `at`, or for now where that has passed.
    pub(super) fn at(&mut self, at: Monotonic, event: E) {
        self.entered += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), number: self.entered, event }));
    }

    pub(super) fn after(&mut self, wait: Duration, event: E) {
        self.at(self.now + wait, event);
    }

    /// Moves time to the next event.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
