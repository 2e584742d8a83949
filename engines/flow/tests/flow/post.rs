//! Two services that all tests of the outbox and the inbox use: one that sends, one that keeps what it got.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, Receipt, Row, Store, StreamName, Tx, ViewName};
use mainstay_flow::inbox::Follower;
use mainstay_flow::outbox::Relay;
use mainstay_flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay_flow::unit_of_work::{Entity, Publisher, Work, transact};
use mainstay_flow::{Decider, Event};
use mainstay_messaging::memory::Memory as MemoryLog;
use mainstay_messaging::{Log, Message, Offset, Topic};

use crate::bank::quick;

#[derive(Clone, Debug, PartialEq, Event)]
#[event(crate = "mainstay_flow")]
pub(crate) enum Letter {
    Sent {
        number: u64,
    },
    /// Recorded, never published.
    Drafted {
        number: u64,
    },
}

/// Sends letters; two at a time from the second command on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk;

impl Decider for Desk {
    type Command = Vec<Letter>;
    type Event = Letter;
    type Refusal = &'static str;

    fn decide(&self, letters: &Vec<Letter>) -> Result<Vec<Letter>, &'static str> {
        if letters.is_empty() { Err("nothing to send") } else { Ok(letters.clone()) }
    }

    fn evolve(&mut self, _: &Letter) {}
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(crate = "mainstay_flow")]
pub(crate) enum Receipted {
    Filed { number: u64 },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cabinet;

impl Decider for Cabinet {
    type Command = u64;
    type Event = Receipted;
    type Refusal = std::convert::Infallible;

    fn decide(&self, number: &u64) -> Result<Vec<Receipted>, Self::Refusal> {
        Ok(vec![Receipted::Filed { number: *number }])
    }

    fn evolve(&mut self, _: &Receipted) {}
}

pub(crate) fn sender() -> Publisher {
    Publisher::new(&Participant::new("sender").starts("Sent")).unwrap()
}

/// Sends numbers under a key, each command in a transaction of its own; the receipt of the last one.
pub(crate) async fn send<S: Store>(store: &S, cx: &Context, key: &str, numbers: &[u64]) -> Receipt {
    let mut receipt = None;
    for number in numbers {
        receipt = Some(send_together(store, cx, key, &[*number]).await);
    }
    receipt.unwrap()
}

/// Sends numbers under a key in one transaction.
pub(crate) async fn send_together<S: Store>(store: &S, cx: &Context, key: &str, numbers: &[u64]) -> Receipt {
    let letters: Vec<_> = numbers.iter().map(|number| Letter::Sent { number: *number }).collect();
    let (key, stream) = (key.to_owned(), StreamName::new(format!("desk-{key}")).unwrap());
    let done = transact(store, cx, &sender(), move |work| {
        let entity = Entity::<Desk>::replayed();
        work.act(&entity, &stream, &key, &letters)?.map_err(Abort::User)?;
        Ok(())
    });
    done.await.unwrap().receipt
}

/// What a reactor is told to do wrong.
type Wrong<S> = Arc<dyn Fn(&Work<'_, S>) -> Result<(), Failure> + Send + Sync>;

/// Keeps the numbers it got, by key, in the order of their handling; and files each.
pub(crate) struct Keeper<S: Store> {
    wrong: Arc<Mutex<HashMap<u64, Wrong<S>>>>,
    /// Every number that `react` was called for, whether it counted or not.
    tried: Arc<Mutex<Vec<u64>>>,
}

impl<S: Store> Clone for Keeper<S> {
    fn clone(&self) -> Self {
        Self { wrong: Arc::clone(&self.wrong), tried: Arc::clone(&self.tried) }
    }
}

impl<S: Store> Keeper<S> {
    pub(crate) fn new() -> Self {
        Self { wrong: Arc::default(), tried: Arc::default() }
    }

    /// From now on this number goes wrong in this way.
    pub(crate) fn goes_wrong(
        &self,
        number: u64,
        how: impl Fn(&Work<'_, S>) -> Result<(), Failure> + Send + Sync + 'static,
    ) {
        self.wrong.lock().unwrap().insert(number, Arc::new(how));
    }

    pub(crate) fn poisoned_by(&self, number: u64) {
        self.goes_wrong(number, |_| Err(Failure::poisoned("a test")));
    }

    pub(crate) fn goes_well(&self, number: u64) {
        self.wrong.lock().unwrap().remove(&number);
    }

    pub(crate) fn tries_of(&self, number: u64) -> usize {
        self.tried.lock().unwrap().iter().filter(|tried| **tried == number).count()
    }
}

impl<S: Store> Reactor<S> for Keeper<S> {
    fn participant(&self) -> Participant {
        Participant::new("keeper").on("Sent", "sender").produces("Filed").ends().into()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        let Letter::Sent { number } = message.open()? else { return Ok(()) };
        self.tried.lock().unwrap().push(number);
        let view = ViewName::new("kept").unwrap();
        let mut kept: Vec<u64> = work
            .tx()
            .view_get(&view, message.key())?
            .map_or_else(Vec::new, |bytes| serde_json::from_slice(&bytes).unwrap());
        kept.push(number);
        work.tx().view_put(&view, &Row::new(message.key(), serde_json::to_vec(&kept).unwrap()))?;
        let stream = StreamName::new(format!("cabinet-{}", message.key())).unwrap();
        let Ok(_) = work.act(&Entity::<Cabinet>::replayed(), &stream, message.key(), &number)?;
        // Last, so that a failure leaves something to be taken back.
        let wrong = self.wrong.lock().unwrap().get(&number).cloned();
        wrong.map_or(Ok(()), |wrong| wrong(work))
    }
}

/// What a keeper's store holds under a key.
pub(crate) async fn kept<S: Store>(store: &S, key: &str) -> Vec<u64> {
    let bytes = store.view_get(&ViewName::new("kept").unwrap(), key).await.unwrap();
    bytes.map_or_else(Vec::new, |bytes| serde_json::from_slice(&bytes).unwrap())
}

/// How many were filed, by the events: what was done twice shows, even if a row was overwritten.
pub(crate) async fn filed<S: Store>(store: &S) -> u64 {
    store.head().await.unwrap().position.0
}

pub(crate) fn relay<S: Store, L: Log>(store: &S, log: &L) -> Relay<S, L> {
    Relay::new(store.clone(), log.clone()).retry(quick(10)).mark_after(Duration::ZERO)
}

pub(crate) fn follower<S: Store, L: Log>(
    store: &S,
    log: &L,
    keeper: &Keeper<S>,
) -> Follower<S, L, Keeper<S>> {
    Follower::new(store.clone(), log.clone(), "sender", Arc::new(keeper.clone())).unwrap().retry(quick(10))
}

pub(crate) fn topic() -> Topic {
    Topic::new("sender").unwrap()
}

/// Everything that stands in a log's only partition.
pub(crate) async fn logged(log: &MemoryLog) -> Vec<Message> {
    let page = log.read(&topic(), 0, Offset::START, 1_000).await.unwrap();
    page.messages.into_iter().map(|delivered| delivered.message).collect()
}

/// The numbers that stand in a log, in order.
pub(crate) async fn numbers(log: &MemoryLog) -> Vec<u64> {
    logged(log).await.iter().map(number).collect()
}

pub(crate) fn number(message: &Message) -> u64 {
    match Letter::decode(message.event.event_type(), 1, &message.data).unwrap() {
        Letter::Sent { number } | Letter::Drafted { number } => number,
    }
}
