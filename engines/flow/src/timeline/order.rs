//! In what order the events of several stores are told.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::{Cause, CausingEvent, Entry};

/// Puts together the events of several stores, each in the order of its feed, and fills in what is known of causes.
///
/// Of the stores' next events, those come into question whose cause has been told, or isn't here; of these the
/// earliest by its clock. Wall clocks of different machines may disagree, so they decide only between events of
/// which neither led to the other.
pub(super) fn merge(stores: Vec<Vec<Entry>>) -> Vec<Entry> {
    let count = stores.iter().map(Vec::len).sum();
    let mut untold: HashMap<Uuid, u32> = HashMap::with_capacity(count);
    for entry in stores.iter().flatten() {
        *untold.entry(entry.id).or_default() += 1;
    }
    let mut queues: Vec<VecDeque<Entry>> = stores.into_iter().map(VecDeque::from).collect();
    let mut told: HashMap<Uuid, (i64, CausingEvent)> = HashMap::with_capacity(count);
    let mut events = Vec::with_capacity(count);
    while let Some(mut entry) = earliest(&mut queues, &untold) {
        if let Some(left) = untold.get_mut(&entry.id) {
            *left = left.saturating_sub(1);
        }
        if let Some(Cause { id, event }) = &mut entry.cause
            && let Some((at, cause)) = told.get(id)
        {
            entry.wait_ms = Some(entry.at.as_millis().saturating_sub(*at));
            *event = Some(cause.clone());
        }
        let this =
            CausingEvent { participant: entry.participant.clone(), event_type: entry.event_type.clone() };
        told.insert(entry.id, (entry.at.as_millis(), this));
        events.push(entry);
    }
    events
}

/// Takes the next event to tell.
fn earliest(queues: &mut [VecDeque<Entry>], untold: &HashMap<Uuid, u32>) -> Option<Entry> {
    let waits = |entry: &Entry| {
        let cause = entry.cause.as_ref().and_then(|cause| untold.get(&cause.id));
        cause.is_some_and(|left| *left > 0)
    };
    let fronts = queues.iter().enumerate().filter_map(|(i, queue)| Some((i, queue.front()?)));
    // When each waits for another, which no true history does, the earliest of all: everything is told once.
    let (store, _) = fronts.min_by_key(|(i, entry)| (waits(entry), entry.at, *i))?;
    queues.get_mut(store)?.pop_front()
}
