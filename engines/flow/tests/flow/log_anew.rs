//! A log that is no longer the one that was handled, and what can't be missed unnoticed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::{ContentHash, Context, Producer, Timestamp};
use mainstay_event_store::Store;
use mainstay_event_store::memory::Memory;
use mainstay_flow::inbox::{FollowError, Follower};
use mainstay_messaging::memory::Memory as MemoryLog;
use mainstay_messaging::{AppendError, Log, Message, Offset, Page, Promises, ReadError, Topic};

use crate::bank::cx;
use crate::post::{Keeper, filed, follower, kept, logged, relay, send};

/// What a follower told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn by<S: Store, L: Log>(&self, follower: Follower<S, L, Keeper<S>>) -> Follower<S, L, Keeper<S>> {
        let told = Arc::clone(&self.0);
        follower.on_trouble(move |what| told.lock().unwrap().push(what.to_owned()))
    }

    fn count(&self, words: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|told| told.contains(words)).count()
    }
}

/// A desk that has sent numbers 1 to `last` under key a, and its log.
async fn desk(cx: &Context, last: u64) -> (Memory, MemoryLog) {
    let (desk, log) = (Memory::new(), MemoryLog::default());
    let numbers: Vec<u64> = (1..=last).collect();
    send(&desk, cx, "a", &numbers).await;
    relay(&desk, &log).run_until_empty(cx).await.unwrap();
    (desk, log)
}

/// A log with the messages of another one, chosen by their place from 0.
async fn copy(cx: &Context, of: &MemoryLog, places: impl IntoIterator<Item = usize>) -> MemoryLog {
    let (all, log) = (logged(of).await, MemoryLog::default());
    log.append(cx, places.into_iter().map(|place| all[place].clone()).collect()).await.unwrap();
    log
}

#[tokio::test]
async fn a_log_that_was_restored_and_has_grown_past_the_checkpoint_is_read_again() {
    let (cx, home, told) = (cx(), Memory::new(), Told::default());
    let (_, log) = desk(&cx, 8).await;
    // Four are handled. Then the log is restored with two of them, and grows to five.
    let before = copy(&cx, &log, 0..4).await;
    told.by(follower(&home, &before, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    told.by(follower(&home, &before, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(told.count(""), 0, "the same log is no trouble");
    let restored = copy(&cx, &log, [0, 1, 4, 5, 6]).await;
    told.by(follower(&home, &restored, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, [1, 2, 3, 4, 5, 6, 7], "none is skipped");
    assert_eq!(filed(&home).await, 7, "and none is doubled");
    assert_eq!(
        told.count("ALARM: keeper has handled sender up to 4, but at 4, where number 4 of producer"),
        1
    );
    // It is told once, and then this is the log.
    restored.append(&cx, vec![logged(&log).await.remove(7)]).await.unwrap();
    told.by(follower(&home, &restored, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    assert_eq!((kept(&home, "a").await.len(), told.count("ALARM")), (8, 1));
}

#[tokio::test]
async fn a_restored_log_whose_beginning_is_no_longer_kept_is_read_from_what_is() {
    let (cx, home, told) = (cx(), Memory::new(), Told::default());
    let (_, log) = desk(&cx, 6).await;
    let before = copy(&cx, &log, 0..4).await;
    follower(&home, &before, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    let restored = copy(&cx, &log, [0]).await;
    restored.prune(Timestamp::from_millis(i64::MAX));
    restored.append(&cx, logged(&log).await.split_off(4)).await.unwrap();
    told.by(follower(&home, &restored, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!((told.count("ALARM"), told.count("begins to follow sender at 1")), (1, 1));
}

#[tokio::test]
async fn retention_that_took_the_last_message_handled_is_no_alarm() {
    let (cx, home, told) = (cx(), Memory::new(), Told::default());
    let (desk, log) = desk(&cx, 3).await;
    follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    log.prune(Timestamp::from_millis(i64::MAX));
    send(&desk, &cx, "a", &[4]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    told.by(follower(&home, &log, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    assert_eq!((kept(&home, "a").await, told.count("")), (vec![1, 2, 3, 4], 0));
}

#[tokio::test]
async fn who_has_begun_and_handled_nothing_is_not_taken_for_new() {
    let (cx, home, told) = (cx(), Memory::new(), Told::default());
    let log = MemoryLog::default();
    told.by(follower(&home, &log, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    let (_, more) = desk(&cx, 3).await;
    log.append(&cx, logged(&more).await).await.unwrap();
    log.prune(Timestamp::from_millis(i64::MAX));
    let late = told.by(follower(&home, &log, &Keeper::new())).run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(&late, FollowError::Log { why: ReadError::Truncated { .. }, .. }), "{late}");
    assert_eq!(told.count("begins to follow"), 0);
}

/// A log in which somebody has given number 0 to what stands at an offset.
#[derive(Clone, Debug)]
struct Unnumbered(MemoryLog, Offset);

impl Log for Unnumbered {
    fn promises(&self) -> Promises {
        self.0.promises()
    }

    fn partitions(&self) -> u32 {
        self.0.partitions()
    }

    async fn append(&self, cx: &Context, messages: Vec<Message>) -> Result<Vec<(u32, Offset)>, AppendError> {
        self.0.append(cx, messages).await
    }

    async fn read(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> Result<Page, ReadError> {
        let mut page = self.0.read(topic, partition, after, max).await?;
        for found in page.messages.iter_mut().filter(|found| found.offset == self.1) {
            found.message.identity.seq = 0;
        }
        Ok(page)
    }

    async fn end(&self, topic: &Topic, partition: u32) -> Result<Offset, ReadError> {
        self.0.end(topic, partition).await
    }

    async fn wait_past(&self, topic: &Topic, partition: u32, after: Offset, at_most: Duration) {
        self.0.wait_past(topic, partition, after, at_most).await;
    }

    async fn newest(
        &self,
        producer: &Producer,
        epoch: u32,
        partition: u32,
    ) -> Result<Option<(u64, ContentHash)>, ReadError> {
        self.0.newest(producer, epoch, partition).await
    }
}

#[tokio::test]
async fn a_message_without_a_number_is_passed_over_with_an_alarm() {
    let (cx, home, told) = (cx(), Memory::new(), Told::default());
    let (_, log) = desk(&cx, 3).await;
    let log = Unnumbered(log, Offset(2));
    told.by(follower(&home, &log, &Keeper::new())).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, [1, 3]);
    assert_eq!(told.count("ALARM: message 2 of sender"), 1);
}
