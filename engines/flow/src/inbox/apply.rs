//! One message and one reactor, inside a transaction.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use mainstay_event_store::{Store, Tx};
use mainstay_messaging::Delivered;

use super::lane::Lane;
use crate::outbox::{Opened, open};
use crate::saga::{Failure, Incoming, Reactor};
use crate::unit_of_work::{Publisher, Seed, Work};

/// A message with everything that is worked out once, however often it is tried.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) delivered: Delivered,
    pub(super) opened: Opened,
    seed: Seed,
}

impl Ready {
    pub(super) fn new(group: &str, delivered: Delivered) -> Self {
        let mut opened = open(&delivered.message.event, delivered.published);
        let seed = Seed::of_message(group, &delivered.message.identity, opened.at);
        // A span of the handler's own: the same each time, and another one at each consumer.
        opened.fact.trace = opened.fact.trace.map(|parent| parent.child(&seed.chance()));
        Self { delivered, opened, seed }
    }

    pub(super) fn event_type(&self) -> &str {
        self.delivered.message.event.event_type()
    }
}

/// The service whose messages these are.
pub(super) struct Handler<S, R> {
    reactor: Arc<R>,
    pub(super) publisher: Publisher,
    /// The types it consumes from this topic.
    pub(super) consumes: Arc<BTreeSet<String>>,
    store: PhantomData<fn() -> S>,
}

impl<S, R> Clone for Handler<S, R> {
    fn clone(&self) -> Self {
        Self {
            reactor: Arc::clone(&self.reactor),
            publisher: self.publisher.clone(),
            consumes: Arc::clone(&self.consumes),
            store: PhantomData,
        }
    }
}

impl<S, R> fmt::Debug for Handler<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("consumes", &self.consumes).finish_non_exhaustive()
    }
}

impl<S: Store, R: Reactor<S>> Handler<S, R> {
    pub(super) fn new(reactor: Arc<R>, publisher: Publisher, consumes: BTreeSet<String>) -> Self {
        Self { reactor, publisher, consumes: Arc::new(consumes), store: PhantomData }
    }

    /// Does the message's effect. The mark is the caller's.
    pub(super) fn apply(&self, tx: &S::Tx, lane: &Lane, ready: &Ready) -> Result<(), Failure> {
        let message = &ready.delivered.message;
        tx.acting_for(&ready.opened.fact)?;
        let work = Work::new(tx, &self.publisher, &ready.opened.fact, ready.seed);
        let incoming = Incoming {
            topic: &lane.topic,
            key: &message.key,
            id: ready.opened.id,
            event_type: message.event.event_type(),
            schema: ready.opened.schema,
            at: ready.opened.at,
            fact: &ready.opened.fact,
            data: &message.data,
        };
        self.reactor.react(&work, &incoming)
    }
}
