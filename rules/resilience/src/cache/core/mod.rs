//! One cache: what a question finds, who loads what it does not find, and what becomes of what is loaded.
//!
//! ```text
//!   question ──► look: fresh? ──yes──► serve                                     no lock but the storage's shard
//!                  │ early, stale: serve, and begin a load in the background
//!                  │ nothing
//!                  ▼
//!       under the key's lock: kept meanwhile? load under way? ──► serve, or join it; else begin it
//!                  │
//!                  ▼
//!       wait, until the own deadline ──► the load's end ──► the value, the error, or what is stale in its place
//! ```

mod lead;
mod wait;

use std::borrow::Borrow;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Deadline, Envelope, Monotonic, Priority};

use self::wait::Waiting;
use super::entry::{Cached, Entry, Freshness, Kept, Loaded};
use super::flights::{Flights, Places};
use super::key::{Keyed, MemberRef, Probe};
use super::load::Lead;
use super::record;
use super::single_flight::Flight;
use super::spec::{Audience, Checked, Spec};
use super::state::{Admission, Arrival, Crew, Found, Times, Verdict};
use super::stats::{Counters, Stats, Stored, count};
use super::storage::Storage;
use super::tags::{Stamp, TAGS_MAX, Tags};
use crate::record::nanos;
use crate::{Classify, DecisionId, Failed, Live, Refusal, Rule, Scope, Why};

/// What a load ends with, for all who wait.
pub(super) type Ended<V, E> = Result<Entry<V, E>, Arc<E>>;

/// A load that can be begun.
pub(super) type Job<V, E> = Box<dyn FnOnce(Lead) -> Loading<V, E> + Send>;

type Loading<V, E> = Pin<Box<dyn Future<Output = Result<Loaded<V>, E>> + Send>>;

/// What a question ends with; none: it is known that there is no value.
pub(super) type Answer<V, E> = Result<Option<Cached<V>>, Failed<Arc<E>>>;

pub(super) type Weigh<K, V> = Box<dyn Fn(&K, &V) -> u32 + Send + Sync>;

/// What a look at the storage finds.
pub(super) enum Seen<V, E> {
    Serve(Option<Cached<V>>),
    /// Serve it, and load it anew in the background.
    Refresh(Cached<V>),
    Failed(Arc<E>),
    /// Load it; serve what is stale if that fails.
    Load(Option<Arc<Kept<V>>>),
}

/// Who asks, as far as a load is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) priority: Priority,
    pub(super) deadline: Option<Deadline>,
}

impl Asking {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self { priority: envelope.priority(), deadline: envelope.deadline() }
    }

    fn until(self) -> Option<Monotonic> {
        self.deadline.map(Deadline::reading)
    }
}

pub(super) struct Inner<K, V, E> {
    pub(super) scope: Arc<Scope>,
    /// As in the settings, which can't change it.
    pub(super) audience: Audience,
    pub(super) spec: Live<Checked>,
    pub(super) storage: Storage<K, V, E>,
    pub(super) tags: Tags,
    pub(super) flights: Flights<K, Ended<V, E>>,
    pub(super) loads: Arc<Places>,
    pub(super) writes: Arc<Places>,
    pub(super) waiters: Arc<Places>,
    pub(super) classify: Box<dyn Classify<V, E> + Send + Sync>,
    pub(super) weigh: Option<Weigh<K, V>>,
    pub(super) counters: Counters,
    /// The scope's recorder keeps everything. Here, because a hit looks at it.
    pub(super) records_hits: bool,
}

/// Neither joins a load nor begins one.
struct TurnedAway {
    why: Why,
    decision: DecisionId,
}

impl<K, V, E> Inner<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    pub(super) fn spec(&self) -> &Spec {
        self.spec.get().spec()
    }

    pub(super) fn member<'a>(&self, envelope: &'a Envelope) -> MemberRef<'a> {
        MemberRef::of(self.audience, envelope)
    }

    /// What is kept for this question at `now`. The hit path: no lock but the storage's shard, no allocation, and
    /// nothing recorded unless everything is.
    #[inline]
    pub(super) fn look<Q: Eq + Hash + ?Sized>(&self, probe: &Probe<'_, Q>, now: Monotonic) -> Seen<V, E>
    where
        K: Borrow<Q>,
    {
        match self.storage.get(probe) {
            Some(Entry::Value(kept)) if self.is_plain_hit(&kept, nanos(now)) => {
                Seen::Serve(Some(Cached::new(kept, Freshness::Fresh)))
            }
            entry => self.weigh_up(entry, now),
        }
    }

    /// What is kept for this question now. What is fresh for longer than a recent reading of the clock may lag needs no
    /// other: an exact one is half of what a hit costs, and keeps the processor from working on two hits at a time.
    #[inline]
    pub(super) fn look_now<Q: Eq + Hash + ?Sized>(&self, probe: &Probe<'_, Q>) -> Seen<V, E>
    where
        K: Borrow<Q>,
    {
        match self.storage.get(probe) {
            Some(Entry::Value(kept)) if self.is_plain_hit(&kept, nanos(self.scope.at_the_latest())) => {
                Seen::Serve(Some(Cached::new(kept, Freshness::Fresh)))
            }
            entry => self.weigh_up(entry, self.scope.now()),
        }
    }

    /// Fresh whatever chance says, and not to be recorded.
    #[inline]
    fn is_plain_hit(&self, kept: &Kept<V>, now: u64) -> bool {
        now < kept.fresh_until && kept.marks.hold() && !self.records_hits
    }

    /// What was seen, for somebody who loads by themselves: a fresh value or nothing.
    #[inline]
    pub(super) fn fresh(&self, seen: Seen<V, E>) -> Option<Cached<V>> {
        match seen {
            Seen::Serve(Some(found)) | Seen::Refresh(found) if found.is_fresh() => Some(found),
            Seen::Serve(None) => None,
            _ => {
                count(&self.counters.misses);
                None
            }
        }
    }

    /// What that is good for which is not simply fresh, or recorded.
    fn weigh_up(&self, entry: Option<Entry<V, E>>, now: Monotonic) -> Seen<V, E> {
        let was_there = entry.is_some();
        let entry = entry.filter(|entry| entry.marks().hold());
        let found = entry.as_ref().map_or(Found::Nothing, |entry| entry.found(now));
        let (spec, mut draw) = (self.spec(), 0);
        let verdict = found.judge(spec, now, || {
            draw = self.scope.draw();
            draw
        });
        record::look(self.scope.recorder(), now, &found, spec, draw, verdict);
        let hit = matches!(verdict, Verdict::Fresh | Verdict::RefreshEarly | Verdict::Absent);
        if was_there && !hit {
            count(&self.counters.found_unfresh);
        }
        match (entry, verdict) {
            (Some(Entry::Value(kept)), verdict) => match verdict {
                Verdict::Fresh => Seen::Serve(Some(Cached::new(kept, Freshness::Fresh))),
                Verdict::RefreshEarly => Seen::Refresh(Cached::new(kept, Freshness::Fresh)),
                Verdict::Revalidate => Seen::Refresh(Cached::new(kept, Freshness::Revalidating)),
                Verdict::Stale => Seen::Serve(Some(Cached::new(kept, Freshness::InPlaceOfAnError))),
                Verdict::LoadOrStale => Seen::Load(Some(kept)),
                Verdict::Load | Verdict::Absent | Verdict::Failed => Seen::Load(None),
            },
            (Some(Entry::Absent(_)), Verdict::Absent) => Seen::Serve(None),
            (Some(Entry::Failed(kept)), Verdict::Failed) => Seen::Failed(Arc::clone(&kept.value)),
            _ => Seen::Load(None),
        }
    }

    /// The value of a key of which nothing usable is kept; `asked`: when the question began.
    pub(super) async fn load(
        self: &Arc<Self>,
        asking: Asking,
        asked: Stamp,
        key: Keyed<K>,
        stale: Option<Arc<Kept<V>>>,
        job: Job<V, E>,
    ) -> Answer<V, E> {
        count(&self.counters.misses);
        let mut job = Some(job);
        let mut since = None;
        loop {
            let mut waiting = match self.join(asking, since, &key, &mut job) {
                Ok(Joined::Waits(waiting)) => waiting,
                Ok(Joined::Kept(answer)) => return answer,
                Err(TurnedAway { why, decision }) => return self.instead(stale, why, decision),
            };
            let wait = waiting.end(&mut job);
            let ended = match asking.deadline {
                Some(deadline) => {
                    let remaining = deadline.remaining(self.scope.now());
                    tokio::time::timeout(remaining, wait).await.unwrap_or(Err(Why::DeadlineRanOut))
                }
                None => wait.await,
            };
            drop(waiting);
            match ended {
                // Something it depends on was invalidated after the load began and before this question did: the
                // question is owed what is there now. Asked again, it finds no load that began earlier.
                Ok(Ok(entry)) if job.is_some() && !entry.marks().hold_for(asked) => since = Some(asked),
                Ok(Ok(entry)) => return Ok(served(entry)),
                Ok(Err(error)) => {
                    let passing = self.classify.classify(Err(&error)).is_transient();
                    return match stale.filter(|kept| self.replaces(kept, passing)) {
                        Some(kept) => Ok(Some(self.stale(kept))),
                        None => Err(Failed::Upstream(error)),
                    };
                }
                Err(why) => return self.instead(stale, why, DecisionId::UNRECORDED),
            }
        }
    }

    /// Joins the load of a key, or begins it. `since`: only one that began to read then or later.
    fn join(
        self: &Arc<Self>,
        asking: Asking,
        since: Option<Stamp>,
        key: &Keyed<K>,
        job: &mut Option<Job<V, E>>,
    ) -> Result<Joined<K, V, E>, TurnedAway> {
        let spec = self.spec();
        let now = self.scope.now();
        let (waiting, place) = self.waiters.ask(spec.waiters_max);
        let mut arrival = Arrival {
            until: asking.until(),
            waiting,
            waiters_max: spec.waiters_max,
            under_way: false,
            loading: 0,
            loads_max: spec.loads_max,
        };
        // Asked again when more is known; what keeps them out already does so whatever else there is.
        let (Some(place), Admission::Load | Admission::Join) = (place, arrival.admit(now)) else {
            return Err(self.turn_away(now, &arrival));
        };
        let waits = |flight, able| Joined::Waits(Waiting::new(self, key, flight, able, asking, place));
        let mut shard = self.flights.lock(key);
        // A load may have ended since the look.
        if let Some(answer) = self.kept_meanwhile(key, now) {
            return Ok(Joined::Kept(answer));
        }
        let slot = shard.entry(key.clone()).or_default();
        if let Some(flight) = &slot.flight
            && flight.join(asking.priority, asking.until(), true, since)
        {
            arrival.under_way = true;
            record::admit(self.scope.recorder(), now, &arrival, arrival.admit(now));
            count(&self.counters.joined);
            return Ok(waits(Arc::clone(flight), true));
        }
        let (loading, lead) = self.loads.ask(spec.loads_max);
        arrival.loading = loading;
        let (Some(load), Some(lead)) = (job.take(), lead) else {
            if slot.flight.is_none() && slot.writes == 0 {
                shard.remove(key);
            }
            return Err(self.turn_away(now, &arrival));
        };
        record::admit(self.scope.recorder(), now, &arrival, arrival.admit(now));
        let stamp = self.tags.stamp();
        let mut crew = Crew::new(asking.priority, asking.until(), now + spec.load_limit);
        crew.join(asking.priority, asking.until(), false);
        let flight = Arc::new(Flight::new(crew, stamp));
        slot.flight = Some(Arc::clone(&flight));
        drop(shard);
        self.lead(key.clone(), Arc::clone(&flight), stamp, load, lead);
        Ok(waits(flight, false))
    }

    fn turn_away(&self, now: Monotonic, arrival: &Arrival) -> TurnedAway {
        let admission = arrival.admit(now);
        let decision = record::admit(self.scope.recorder(), now, arrival, admission);
        let why = match admission {
            Admission::Late => Why::DeadlineReached,
            Admission::TooManyWait => busy(arrival.waiters_max),
            Admission::Join | Admission::Load | Admission::TooManyLoads => busy(arrival.loads_max),
        };
        TurnedAway { why, decision }
    }

    /// A usable entry that came between the look and the lock. Not counted, and chance is not asked again.
    fn kept_meanwhile(&self, key: &Keyed<K>, now: Monotonic) -> Option<Answer<V, E>> {
        match self.storage.peek(key)? {
            entry if !entry.marks().hold() => None,
            Entry::Value(kept) if now < kept.times().expiry => {
                Some(Ok(Some(Cached::new(kept, Freshness::Fresh))))
            }
            Entry::Absent(kept) if now < kept.times().expiry => Some(Ok(None)),
            Entry::Failed(kept) if now < kept.times().expiry => {
                Some(Err(Failed::Upstream(Arc::clone(&kept.value))))
            }
            _ => None,
        }
    }

    /// Begins a load in the background, if none is under way and there is a place for it.
    pub(super) fn refresh(self: &Arc<Self>, seen: &Cached<V>, key: Keyed<K>, job: Job<V, E>) {
        let spec = self.spec();
        let mut shard = self.flights.lock(&key);
        // Replaced since the look: somebody has refreshed it.
        let same = matches!(self.storage.peek(&key), Some(Entry::Value(kept)) if seen.is(&kept));
        let busy = shard.get(&key).is_some_and(|slot| {
            slot.writes > 0 || slot.flight.as_ref().is_some_and(|flight| flight.is_under_way())
        });
        if !same || busy {
            return;
        }
        let Some(place) = self.loads.take(spec.loads_max) else { return };
        let stamp = self.tags.stamp();
        let crew = Crew::new(Priority::Background, None, self.scope.now() + spec.load_limit);
        let flight = Arc::new(Flight::new(crew, stamp));
        shard.entry(key.clone()).or_default().flight = Some(Arc::clone(&flight));
        drop(shard);
        count(&self.counters.refreshes);
        if seen.is_fresh() {
            count(&self.counters.early);
        }
        self.lead(key, flight, stamp, job, place);
    }

    /// What was loaded, as an entry, and whether it may be kept.
    pub(super) fn entry(
        &self,
        key: &K,
        loaded: Loaded<V>,
        stamp: Stamp,
        begun: Monotonic,
    ) -> (Entry<V, E>, bool) {
        let (spec, now, draw) = (self.spec(), self.scope.now(), self.scope.draw());
        let Loaded { value, ttl, tags } = loaded;
        let marks = self.tags.marks(stamp, tags.iter().map(|tag| &**tag));
        let keep = tags.len() <= TAGS_MAX && marks.hold();
        match value {
            Some(value) => {
                let weight = self.weigh.as_ref().map_or(1, |weigh| weigh(key, &value));
                let times = Times::of_load(spec, ttl, begun, now, draw);
                let cost = self.storage.cost(u64::from(weight));
                let keep = keep && ttl != Some(Duration::ZERO);
                (Entry::Value(Arc::new(Kept::new(value, times, marks, cost))), keep)
            }
            None => {
                let ttl = ttl.unwrap_or(spec.negative_ttl).min(super::LONGEST);
                let times = Times::of_absence(ttl, spec.ttl_jitter, now, draw);
                let kept = Kept::new((), times, marks, self.storage.cost(1));
                (Entry::Absent(Arc::new(kept)), keep && !ttl.is_zero())
            }
        }
    }

    /// Replaces or removes an entry from outside, and whatever a load under way would bring.
    pub(super) fn replace(&self, key: &Keyed<K>, entry: Option<Entry<V, E>>) {
        let mut shard = self.flights.lock(key);
        Flights::detach(&mut shard, key);
        match entry {
            Some(entry) => self.storage.insert(key.clone(), entry),
            None => self.storage.remove(key),
        }
    }

    /// Whether what is stale is given in place of an error or a refusal. `passing`: it may pass by itself.
    fn replaces(&self, kept: &Kept<V>, passing: bool) -> bool {
        if !kept.marks.hold() {
            return false;
        }
        let (times, spec, now) = (kept.times(), self.spec(), self.scope.now());
        let given = passing && times.covers_errors(spec, now);
        record::instead(self.scope.recorder(), now, passing, &times, spec, given);
        given
    }

    /// Counts an answer that is not fresh; the storage counts the others.
    pub(super) fn tally(&self, found: &Cached<V>) {
        if !found.is_fresh() {
            count(&self.counters.stale);
        }
    }

    fn stale(&self, kept: Arc<Kept<V>>) -> Cached<V> {
        count(&self.counters.stale);
        Cached::new(kept, Freshness::InPlaceOfAnError)
    }

    /// What is stale, if it may be served in place of an error; a refusal otherwise.
    fn instead(&self, stale: Option<Arc<Kept<V>>>, why: Why, decision: DecisionId) -> Answer<V, E> {
        match stale.filter(|kept| self.replaces(kept, true)) {
            Some(kept) => Ok(Some(self.stale(kept))),
            None => {
                count(&self.counters.refused);
                Err(Failed::Refused(Refusal::new(decision, Rule::Cache, self.scope.name(), why)))
            }
        }
    }

    pub(super) fn refuse(&self, why: Why) -> Refusal {
        count(&self.counters.refused);
        self.scope.refuse_unrecorded(Rule::Cache, why)
    }

    pub(super) fn stats(&self) -> Stats {
        let (entries, cost) = (self.storage.entries() as u64, self.storage.cost_sum());
        let (loading, waiting) = (self.loads.taken() as u64, self.waiters.taken() as u64);
        let stored = Stored { found: self.storage.found(), evicted: self.storage.evicted(), entries, cost };
        self.counters.snapshot(stored, loading, waiting)
    }
}

/// Refused because so many are under way already.
pub(super) fn busy(limit: usize) -> Why {
    Why::CacheBusy { limit: u32::try_from(limit).unwrap_or(u32::MAX) }
}

fn served<V, E>(entry: Entry<V, E>) -> Option<Cached<V>> {
    match entry {
        Entry::Value(kept) => Some(Cached::new(kept, Freshness::Fresh)),
        Entry::Absent(_) | Entry::Failed(_) => None,
    }
}

enum Joined<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    Waits(Waiting<K, V, E>),
    Kept(Answer<V, E>),
}
