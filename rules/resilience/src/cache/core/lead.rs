//! A load's leader: the task that loads, its end, and its death.

use std::hash::Hash;
use std::sync::Arc;

use mainstay_envelope::Monotonic;

use super::super::entry::{Entry, Kept, Loaded};
use super::super::flights::{Flights, Place};
use super::super::key::Keyed;
use super::super::load::Lead;
use super::super::single_flight::{Flight, Terms};
use super::super::state::Times;
use super::super::stats::count;
use super::super::tags::Stamp;
use super::{Ended, Inner, Job};

impl<K, V, E> Inner<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Leads a load, in a task of its own: whoever began it may leave.
    pub(super) fn lead(
        self: &Arc<Self>,
        key: Keyed<K>,
        flight: Arc<Flight<Ended<V, E>>>,
        stamp: Stamp,
        job: Job<V, E>,
        place: Place,
    ) {
        count(&self.counters.loads);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            let lead = Lead::new(Arc::clone(&flight) as Arc<dyn Terms>);
            let mut leader = Leader { inner: &inner, key: &key, flight: &flight, ended: false };
            let begun = inner.scope.now();
            let mut loading = job(lead.clone());
            let result = loop {
                let Some(deadline) = flight.deadline() else { return };
                let remaining = deadline.saturating_since(inner.scope.now());
                match tokio::time::timeout(remaining, &mut loading).await {
                    Ok(result) => break result,
                    // Somebody with more time has come to wait.
                    Err(_) if flight.deadline().is_some_and(|later| later > deadline) => {}
                    // Dropped before it is handed over, so that one load of a key runs at a time.
                    Err(_) => return drop(loading),
                }
            };
            drop(loading);
            if result.is_err() && lead.ran_out(inner.scope.now()) {
                return;
            }
            inner.complete(&key, &flight, stamp, begun, result);
            leader.ended = true;
        });
    }

    /// Keeps what a load brought, unless its key was changed meanwhile, and tells all who wait.
    fn complete(
        &self,
        key: &Keyed<K>,
        flight: &Arc<Flight<Ended<V, E>>>,
        stamp: Stamp,
        begun: Monotonic,
        result: Result<Loaded<V>, E>,
    ) {
        match result {
            Ok(loaded) => {
                let (entry, keep) = self.entry(&key.key, loaded, stamp, begun);
                let mut shard = self.flights.lock(key);
                match (Flights::forget(&mut shard, key, flight), keep) {
                    (true, true) => self.storage.insert(key.clone(), entry.clone()),
                    (true, false) => self.storage.remove(key),
                    (false, _) => count(&self.counters.superseded),
                }
                drop(shard);
                flight.end(Ok(entry));
            }
            Err(error) => {
                count(&self.counters.failed);
                let error = Arc::new(error);
                let failed = Arc::clone(&error);
                self.end_badly(key, flight, Some(failed));
                flight.end(Err(error));
            }
        }
    }

    /// After a load that brought nothing: remembers that, if the settings say so.
    pub(super) fn end_badly(&self, key: &Keyed<K>, flight: &Arc<Flight<Ended<V, E>>>, error: Option<Arc<E>>) {
        let (spec, now) = (self.spec(), self.scope.now());
        let times = (!spec.errors_for.is_zero())
            .then(|| Times::of_absence(spec.errors_for, spec.ttl_jitter, now, self.scope.draw()));
        let mut shard = self.flights.lock(key);
        if !Flights::forget(&mut shard, key, flight) {
            return;
        }
        let Some(times) = times else { return };
        match (self.storage.peek(key), error) {
            (Some(Entry::Value(kept)), _) if kept.marks.hold() && kept.times().covers_errors(spec, now) => {
                kept.hold_until(times.expiry);
            }
            (_, Some(error)) => {
                let marks = self.tags.marks(self.tags.stamp(), std::iter::empty());
                let kept = Kept::new(error, times, marks, self.storage.cost(1));
                self.storage.insert(key.clone(), Entry::Failed(Arc::new(kept)));
            }
            (_, None) => {}
        }
    }
}

/// The leader of a load; when it is dropped before it has ended, it died.
struct Leader<'a, K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    inner: &'a Arc<Inner<K, V, E>>,
    key: &'a Keyed<K>,
    flight: &'a Arc<Flight<Ended<V, E>>>,
    ended: bool,
}

impl<K, V, E> Drop for Leader<'_, K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if !self.ended {
            count(&self.inner.counters.died);
            if self.flight.died() {
                self.inner.end_badly(self.key, self.flight, None);
            }
        }
    }
}
