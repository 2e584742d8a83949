//! What the cases are written with: names, messages, whole reads, and waiting that ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_envelope::{
    CloudEvent, ContentHash, Context, ManualClock, MessageIdentity, Producer, Timestamp,
};

use crate::*;

/// Nothing in a case waits longer than this: a stall is a failure with a name, not a hanging run.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs one case, and fails it when it stalls. Called by [`crate::conformance_suite!`].
pub async fn run(case: &str, body: impl Future<Output = ()>) {
    if tokio::time::timeout(PATIENCE, body).await.is_err() {
        panic!("{case} did not end within {PATIENCE:?}: an answer or a message never came");
    }
}

pub(super) fn cx() -> Context {
    Context::system()
}

/// A context whose wall clock shows so many milliseconds.
pub(super) fn cx_at(wall_ms: i64) -> Context {
    let (system, clock) = (Context::system(), ManualClock::new(Timestamp::from_millis(wall_ms)));
    Context::new(system.envelope().clone(), Arc::new(clock), Arc::clone(system.chance()))
}

pub(super) fn topic(name: impl AsRef<str>) -> Topic {
    Topic::new(name).unwrap()
}

pub(super) fn group(name: impl AsRef<str>) -> Group {
    Group::new(name).unwrap()
}

pub(super) fn producer(name: impl AsRef<str>) -> Producer {
    Producer::new(name).unwrap()
}

/// A message of the producer `suite`, whose data says what it is.
pub(super) fn message(topic_name: &str, key: &str, number: u64) -> Message {
    let data = format!("{topic_name}/{key}/{number}");
    Message {
        identity: MessageIdentity {
            producer: producer("suite"),
            epoch: 1,
            partition: 0,
            seq: number,
            content: ContentHash::of(data.as_bytes()),
        },
        topic: topic(topic_name),
        key: key.into(),
        event: CloudEvent::new(number.to_string(), "/suite", "Happened").unwrap(),
        data: Bytes::from(data),
        mark: number,
    }
}

/// Messages of one key, numbered in a range.
pub(super) fn messages(topic_name: &str, key: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<Message> {
    numbers.map(|number| message(topic_name, key, number)).collect()
}

pub(super) fn numbers(messages: &[Delivered]) -> Vec<u64> {
    messages.iter().map(|delivered| delivered.message.identity.seq).collect()
}

/// Everything after a place in one partition, in pages of `max`.
pub(super) async fn rest<L: Log>(
    log: &L,
    topic: &Topic,
    partition: u32,
    after: Offset,
    max: usize,
) -> Vec<Delivered> {
    let (mut found, mut after) = (Vec::new(), after);
    loop {
        let page = log.read(topic, partition, after, max).await.unwrap();
        assert!(page.messages.len() <= max, "a page of {} messages, {max} were asked", page.messages.len());
        assert!(page.next >= after && page.next <= page.end, "a page ends where it can't: {page:?}");
        let mut before = after;
        for message in &page.messages {
            assert!(message.offset > before, "{} after {before}", message.offset);
            assert_eq!(message.partition, partition);
            before = message.offset;
        }
        found.extend(page.messages.iter().cloned());
        if page.at_end() {
            return found;
        }
        assert!(page.next > after, "a page made no progress before the end");
        after = page.next;
    }
}

/// Everything in one partition.
pub(super) async fn whole<L: Log>(log: &L, topic: &Topic, partition: u32) -> Vec<Delivered> {
    rest(log, topic, partition, Offset::START, 97).await
}

/// Everything in one topic, partition after partition.
pub(super) async fn all<L: Log>(log: &L, topic: &Topic) -> Vec<Delivered> {
    let mut found = Vec::new();
    for partition in 0..log.partitions() {
        found.extend(whole(log, topic, partition).await);
    }
    found
}
