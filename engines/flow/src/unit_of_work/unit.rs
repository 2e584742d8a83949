//! [`Work`]: what can be done inside one transaction.

use std::cell::{Cell, OnceCell};
use std::fmt;

use mainstay_envelope::{Fact, Timestamp};
use mainstay_event_store::{NewEvent, Refusal, Store, StreamName, Tag, Tx, Version};
use uuid::Uuid;

use super::entity::Entity;
use super::publisher::Publisher;
use super::seed::Seed;
use crate::command::Decider;
use crate::event::close;
use crate::{correlation, outbox};

/// One transaction of a service. What it does commits together, with its inbox mark if it handles a message, or not
/// at all.
///
/// Its closure may be run again, and only the last run counts: it MUST have no effect but through the work, and no
/// clock or chance but [`Work::at`] and [`Work::new_id`].
pub struct Work<'a, S: Store> {
    tx: &'a S::Tx,
    publisher: &'a Publisher,
    fact: &'a Fact,
    seed: Seed,
    ids: Cell<u64>,
    tag: OnceCell<Tag>,
    /// Set by a request that carries a key: it may be run again after a lost answer.
    keyed: Cell<bool>,
}

impl<S: Store> fmt::Debug for Work<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Work");
        shown.field("publisher", self.publisher).field("ids", &self.ids.get()).finish_non_exhaustive()
    }
}

/// What a command made happen in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<D: Decider> {
    /// Which stream.
    pub stream: StreamName,
    /// The state after it.
    pub state: D,
    /// The stream's version after it.
    pub version: Version,
    /// What was decided; empty when there was nothing to do.
    pub events: Vec<D::Event>,
    /// The same events as they were recorded.
    recorded: Vec<NewEvent>,
}

impl<'a, S: Store> Work<'a, S> {
    /// Work in this transaction, on account of this fact. The transaction has to act for it already.
    pub(crate) fn new(tx: &'a S::Tx, publisher: &'a Publisher, fact: &'a Fact, seed: Seed) -> Self {
        Self { tx, publisher, fact, seed, ids: Cell::new(0), tag: OnceCell::new(), keyed: Cell::new(false) }
    }

    /// The transaction itself: views, conditions, leases, the user's own SQL by [`Store::native`].
    pub fn tx(&self) -> &'a S::Tx {
        self.tx
    }

    /// When this transaction was handed in: the only clock a work may use.
    pub fn at(&self) -> Timestamp {
        self.tx.at()
    }

    /// On whose account, caused by what, in which correlation this is done.
    pub fn fact(&self) -> &'a Fact {
        self.fact
    }

    /// A new id: the same one each time the work is run, in the order of the calls.
    pub fn new_id(&self) -> Uuid {
        let ordinal = self.ids.get();
        self.ids.set(ordinal + 1);
        self.seed.id(ordinal)
    }

    /// The state of a thing and its version, with what this work did to it.
    pub fn state<D: Decider>(
        &self,
        entity: &Entity<D>,
        stream: &StreamName,
    ) -> Result<(D, Version), Refusal> {
        entity.load(self.tx, stream)
    }

    /// Decides on the thing whose facts are in `stream`, and records what was decided, tagged with the correlation.
    /// Publishes nothing: see [`Work::publish`].
    ///
    /// # Errors
    /// The inner error is the decider's own no; nothing was recorded, and the work may go on. The outer one is the
    /// store's, or a stream or event that can't be read or written: hand it on, the transaction is over.
    pub fn command<D: Decider>(
        &self,
        entity: &Entity<D>,
        stream: &StreamName,
        command: &D::Command,
    ) -> Result<Result<Decided<D>, D::Refusal>, Refusal> {
        let (mut state, before) = entity.load(self.tx, stream)?;
        let events = match state.decide(command) {
            Ok(events) => events,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut recorded = Vec::with_capacity(events.len());
        for event in &events {
            recorded.push(self.close(event)?);
            state.evolve(event);
        }
        let version = match recorded.is_empty() {
            true => before,
            false => entity.store(self.tx, stream, before, &state, &recorded)?,
        };
        Ok(Ok(Decided { stream: stream.clone(), state, version, events, recorded }))
    }

    /// Publishes what was decided: a message for each event whose type the participant declares; how many.
    ///
    /// Messages of one key (at most 512 bytes) are handled in their order by every consumer; of different keys, not.
    pub fn publish<D: Decider>(&self, key: &str, decided: &Decided<D>) -> Result<usize, Refusal> {
        let declared = |event: &&NewEvent| self.publisher.publishes(event.event_type.as_str());
        let mut published = 0;
        for event in decided.recorded.iter().filter(declared) {
            self.tx.outbox(&outbox::row(self.publisher.topic(), key, event)?)?;
            published += 1;
        }
        Ok(published)
    }

    /// [`Work::command`] and [`Work::publish`] in one.
    pub fn act<D: Decider>(
        &self,
        entity: &Entity<D>,
        stream: &StreamName,
        key: &str,
        command: &D::Command,
    ) -> Result<Result<Decided<D>, D::Refusal>, Refusal> {
        let decided = self.command(entity, stream, command)?;
        if let Ok(decided) = &decided {
            self.publish(key, decided)?;
        }
        Ok(decided)
    }

    /// From here on the work is known by a key: run again after a lost answer, it finds its own record.
    pub(crate) fn known_by_key(&self) {
        self.keyed.set(true);
    }

    pub(crate) fn keyed(&self) -> bool {
        self.keyed.get()
    }

    fn close<E: crate::Event>(&self, event: &E) -> Result<NewEvent, Refusal> {
        let mut closed = close(event, self.new_id())
            .map_err(|why| Refusal::Invalid { what: "event", why: why.to_string() })?;
        if self.tag.get().is_none() {
            let _ = self.tag.set(correlation::tag(self.fact.correlation)?);
        }
        closed.tags.extend(self.tag.get().cloned());
        Ok(closed)
    }
}
