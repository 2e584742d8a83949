//! What the cases are written with: names, events, whole reads, and waiting that ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Context, ManualClock};

use super::Harness;
use crate::*;

/// Nothing in a case waits longer than this: a stall is a failure with a name, not a hanging run.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a case waits for a sequencer's hint before it asks again: an act without events moves no feed.
const AGAIN: Duration = Duration::from_millis(5);

/// Runs one case, and fails it when it stalls. Called by [`crate::conformance_suite!`].
pub async fn run(case: &str, body: impl Future<Output = ()>) {
    if tokio::time::timeout(PATIENCE, body).await.is_err() {
        panic!("{case} did not end within {PATIENCE:?}: an answer or an event never came");
    }
}

/// A context of its own: another envelope than all others.
pub(super) fn cx() -> Context {
    Context::system()
}

/// A context whose time is the given clock's.
pub(super) fn cx_at(clock: &ManualClock) -> Context {
    let system = Context::system();
    Context::new(system.envelope().clone(), Arc::new(clock.clone()), Arc::clone(system.chance()))
}

pub(super) fn stream(name: impl AsRef<str>) -> StreamName {
    StreamName::new(name).unwrap()
}

pub(super) fn kind(name: impl AsRef<str>) -> EventType {
    EventType::new(name).unwrap()
}

pub(super) fn tag(name: impl AsRef<str>) -> Tag {
    Tag::new(name).unwrap()
}

pub(super) fn view(name: impl AsRef<str>) -> ViewName {
    ViewName::new(name).unwrap()
}

pub(super) fn consumer(name: impl AsRef<str>) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

/// A new event whose payload says what it is called.
pub(super) fn event(cx: &Context, name: &str) -> NewEvent {
    NewEvent::new(cx.new_id(), kind(name), Payload::plain(name.as_bytes()))
}

/// So many new events.
pub(super) fn events(cx: &Context, count: usize) -> Vec<NewEvent> {
    (0..count).map(|i| event(cx, &format!("E{i}"))).collect()
}

/// An act of one new event on one stream.
pub(super) fn act(cx: &Context, stream: &StreamName, expected: Expected) -> Act {
    Act::append(stream.clone(), expected, vec![event(cx, "Happened")])
}

/// A message to be published.
pub(super) fn message(text: &str) -> OutboxRow {
    OutboxRow {
        topic: Topic::new("topic").unwrap(),
        key: "key".into(),
        headers: vec![("b".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "3".into())],
        payload: text.as_bytes().to_vec(),
    }
}

pub(super) fn names(events: &[Recorded]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

/// The refusal of an append; anything else fails the case.
pub(super) fn refusal<T: std::fmt::Debug>(ended: Result<T, AppendError>) -> Refusal {
    match ended {
        Err(AppendError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The refusal of a transaction; anything else fails the case.
pub(super) fn tx_refusal<T: std::fmt::Debug>(ended: Result<T, TransactError<String>>) -> Refusal {
    match ended {
        Err(TransactError::Store(AppendError::Refused(refusal))) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(super) fn is_invalid(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Invalid { .. })
}

/// Runs a closure whose own errors are texts. What it wrote has its places and numbers when this returns.
pub(super) async fn transact<S: Store, T: Send + 'static>(
    store: &S,
    closure: impl Fn(&S::Tx) -> Result<T, Abort<String>> + Send + 'static,
) -> Result<Committed<T>, TransactError<String>> {
    let ended = store.transact(&cx(), closure).await;
    if let Ok(done) = &ended {
        placed(store, &done.receipt).await;
    }
    ended
}

/// Waits until the receipt's act is in the feed, and its outbox rows have their numbers. At once where positions are
/// given at commit.
pub(super) async fn placed<S: Store>(store: &S, receipt: &Receipt) -> Position {
    loop {
        match store.position(receipt).await.unwrap() {
            Located::At(position) => return position,
            Located::NotYet => {
                let head = store.head().await.unwrap().position;
                store.wait_past(head, AGAIN).await;
            }
        }
    }
}

/// Waits until everything that was acknowledged so far is in the feed. A transaction that only looks has a receipt too,
/// and whoever has come there has seen all that it saw.
pub(super) async fn caught_up<S: Store>(store: &S) {
    let looked = store.transact(&cx(), |_| Ok::<_, Abort<String>>(())).await.unwrap();
    placed(store, &looked.receipt).await;
}

/// As [`transact`], for a closure that must commit; its value.
pub(super) async fn commit<S: Store, T: Send + std::fmt::Debug + 'static>(
    store: &S,
    closure: impl Fn(&S::Tx) -> Result<T, Abort<String>> + Send + 'static,
) -> T {
    transact(store, closure).await.unwrap().value
}

/// Waits until the receipt's act is in the feed; where it ends.
pub(super) async fn settled<H: Harness>(harness: &H, store: &H::Store, receipt: &Receipt) -> Position {
    if harness.features().positions_at_commit {
        let located = store.position(receipt).await.unwrap();
        assert_ne!(located, Located::NotYet, "this store promised positions at commit");
    }
    placed(store, receipt).await
}

/// The whole feed, page by page.
pub(super) async fn feed<S: Store>(store: &S) -> Vec<Recorded> {
    select(store, &Query::all(), Position::START, 97).await
}

/// Everything that matches after a position, in pages of `max`.
pub(super) async fn select<S: Store>(store: &S, query: &Query, after: Position, max: usize) -> Vec<Recorded> {
    let (mut found, mut after) = (Vec::new(), after);
    loop {
        let page = store.read(query, after, max).await.unwrap();
        assert!(page.events.len() <= max, "a page of {} events, {max} were asked for", page.events.len());
        assert!(page.next >= after && page.next <= page.head, "a page ends where it can't: {page:?}");
        assert!(page.events.iter().all(|event| event.position > after && event.position <= page.next));
        found.extend(page.events.iter().cloned());
        if page.at_end() {
            return found;
        }
        assert!(page.next > after, "a page made no progress before the end of the feed");
        after = page.next;
    }
}

/// A whole stream, page by page.
pub(super) async fn whole<S: Store>(store: &S, stream: &StreamName) -> Vec<Recorded> {
    let mut found: Vec<Recorded> = Vec::new();
    loop {
        let from = Version(found.len() as u64 + 1);
        let page = store.read_stream(stream, from, Direction::Forwards, 97).await.unwrap();
        assert!(page.version < from || !page.events.is_empty(), "{stream} has more, but a page has none");
        found.extend(page.events);
        if found.len() as u64 >= page.version.0 {
            return found;
        }
    }
}

pub(super) async fn version<S: Store>(store: &S, stream: &StreamName) -> Version {
    store.read_stream(stream, Version(1), Direction::Forwards, 0).await.unwrap().version
}

/// Fails unless both handles hold exactly so many events, densely numbered, streams in order, chain whole.
pub(super) async fn assert_whole<S: Store>(handles: &[&S], count: usize) {
    caught_up(handles[0]).await;
    for store in handles {
        let feed = feed(*store).await;
        assert_eq!(feed.len(), count, "events in the feed");
        let mut verifier = Verifier::new(store.id());
        let mut versions = std::collections::HashMap::<StreamName, u64>::new();
        let mut ids = std::collections::HashSet::new();
        for event in &feed {
            verifier.check(event).unwrap();
            let version = versions.entry(event.stream.clone()).or_default();
            *version += 1;
            assert_eq!(event.version.0, *version, "order within stream {}", event.stream);
            assert!(ids.insert(event.id), "event {} stands twice", event.id);
        }
        assert_eq!(store.head().await.unwrap(), verifier.head());
    }
}

/// Chance from a seed (splitmix64: Steele, Lea, Flood, 2014), so that a failing round can be repeated.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
