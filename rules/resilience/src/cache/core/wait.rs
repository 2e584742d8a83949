//! One who waits for a load: until its end, taking over when its leader dies, and leaving it on drop.

use std::hash::Hash;
use std::sync::Arc;

use super::super::flights::Place;
use super::super::key::Keyed;
use super::super::single_flight::{Flight, Found};
use super::super::stats::count;
use super::{Asking, Ended, Inner, Job};
use crate::Why;

/// One who waits for a load. Leaves it on drop.
pub(super) struct Waiting<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    inner: Arc<Inner<K, V, E>>,
    key: Keyed<K>,
    flight: Arc<Flight<Ended<V, E>>>,
    /// Could still lead.
    able: bool,
    asking: Asking,
    _place: Place,
}

impl<K, V, E> Waiting<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// One who has joined this load, in this place.
    pub(super) fn new(
        inner: &Arc<Inner<K, V, E>>,
        key: &Keyed<K>,
        flight: Arc<Flight<Ended<V, E>>>,
        able: bool,
        asking: Asking,
        place: Place,
    ) -> Self {
        Self { inner: Arc::clone(inner), key: key.clone(), flight, able, asking, _place: place }
    }

    /// The load's end. Takes over from a dead leader with `job`, if it is the one to do so.
    pub(super) async fn end(&mut self, job: &mut Option<Job<V, E>>) -> Result<Ended<V, E>, Why> {
        let mut watch = self.flight.watch();
        loop {
            match watch.next(self.able).await {
                Found::Ended(ended) => return Ok(ended),
                Found::Dead => return Err(Why::LoadFailed),
                Found::Vacant => {
                    let inner = &self.inner;
                    let (stamp, limit) = (inner.tags.stamp(), inner.scope.now() + inner.spec().load_limit);
                    if !self.flight.take_over(self.asking.until(), limit, stamp) {
                        // Somebody else was first; from its phase on, there is no vacancy.
                        continue;
                    }
                    // From here to the spawn there is no await: whoever took it leads it.
                    self.able = false;
                    count(&inner.counters.handed_over);
                    if let Some(job) = job.take() {
                        let place = inner.loads.take_over();
                        inner.lead(self.key.clone(), Arc::clone(&self.flight), stamp, job, place);
                    }
                }
            }
        }
    }
}

impl<K, V, E> Drop for Waiting<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.flight.leave(self.able) {
            self.inner.end_badly(&self.key, &self.flight, None);
        }
    }
}
