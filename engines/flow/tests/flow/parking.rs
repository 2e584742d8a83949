//! Parking: what can't be handled waits with its followers, and comes out in order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mainstay_envelope::{ContentHash, Context};
use mainstay_event_store::memory::Memory;
use mainstay_flow::inbox::{DeadLetterError, DeadLetters, Follower, ParkedKey, Status};
use mainstay_flow::saga::Failure;
use mainstay_messaging::Log;
use mainstay_messaging::memory::Memory as MemoryLog;

use crate::bank::{cx, quick};
use crate::post::{Keeper, filed, follower, kept, logged, relay, send};

/// A sender, a log, a keeper's store and its follower.
struct Post {
    cx: Context,
    desk: Memory,
    log: MemoryLog,
    home: Memory,
    keeper: Keeper<Memory>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Post {
    fn new() -> Self {
        Self {
            cx: cx(),
            desk: Memory::new(),
            log: MemoryLog::default(),
            home: Memory::new(),
            keeper: Keeper::new(),
            told: Arc::default(),
        }
    }

    fn follower(&self) -> Follower<Memory, MemoryLog, Keeper<Memory>> {
        let told = Arc::clone(&self.told);
        follower(&self.home, &self.log, &self.keeper)
            .parking_retry(quick(3))
            .on_trouble(move |what| told.lock().unwrap().push(what.to_owned()))
    }

    async fn send(&self, letters: &[(&str, u64)]) {
        for (key, number) in letters {
            send(&self.desk, &self.cx, key, &[*number]).await;
        }
        relay(&self.desk, &self.log).run_until_empty(&self.cx).await.unwrap();
    }

    async fn handle(&self) {
        self.follower().run_until_caught_up(&self.cx).await.unwrap();
    }

    fn letters(&self) -> DeadLetters<Memory> {
        DeadLetters::new(self.home.clone()).unwrap()
    }

    async fn parked(&self) -> Vec<ParkedKey> {
        self.letters().list(None, 100).await.unwrap().0
    }

    /// Handles until a condition on what is parked holds.
    async fn handle_until(&self, holds: impl Fn(&[ParkedKey]) -> bool) {
        for _ in 0..2_000 {
            self.handle().await;
            if holds(&self.parked().await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it never held: {:?}", self.parked().await);
    }

    fn told(&self, what: &str) -> usize {
        self.told.lock().unwrap().iter().filter(|told| told.contains(what)).count()
    }
}

const LETTERS: [(&str, u64); 7] = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 5), ("b", 6), ("a", 7)];

#[tokio::test]
async fn a_poisoned_message_parks_its_followers_and_not_others() {
    for batch in [1, 2, 256] {
        let post = Post::new();
        post.keeper.poisoned_by(3);
        post.send(&LETTERS).await;
        post.follower().batch_max(batch).run_until_caught_up(&post.cx).await.unwrap();
        assert_eq!(kept(&post.home, "a").await, [1]);
        assert_eq!((kept(&post.home, "b").await, kept(&post.home, "c").await), (vec![2, 6], vec![4]));
        let parked = post.parked().await;
        let [key] = &parked[..] else { panic!("{parked:?}") };
        assert_eq!((key.key.as_str(), key.messages, key.status), ("a", 3, Status::Dead { tries: 1 }));
        assert_eq!(
            (key.group.as_str(), key.topic.as_str(), key.why.as_str()),
            ("keeper", "sender", "a test")
        );
        assert_eq!(post.told("message 3 of sender (key \"a\") is parked"), 1);
        assert_eq!(filed(&post.home).await, 4, "what the failed one did is taken back");
        // What follows is not even tried.
        assert_eq!((post.keeper.tries_of(5), post.keeper.tries_of(7)), (0, 0));
        let shown = post.letters().show(&key.id).await.unwrap();
        let datas: Vec<&[u8]> = shown.iter().map(|letter| &letter.data[..]).collect();
        assert_eq!(datas, [&b"{\"number\":3}"[..], b"{\"number\":5}", b"{\"number\":7}"]);
        assert_eq!(shown[0].event.event_type(), "Sent");
    }
}

#[tokio::test]
async fn release_is_in_order_and_new_messages_wait_behind() {
    let post = Post::new();
    post.keeper.poisoned_by(3);
    post.send(&LETTERS).await;
    post.handle().await;
    post.send(&[("a", 8), ("b", 9)]).await;
    post.handle().await;
    assert_eq!((kept(&post.home, "a").await, kept(&post.home, "b").await), (vec![1], vec![2, 6, 9]));
    let id = post.parked().await[0].id.clone();
    // Mended; but the next one of the key can't be handled either.
    post.keeper.goes_well(3);
    post.keeper.poisoned_by(7);
    post.letters().retry(&post.cx, &id).await.unwrap();
    post.handle_until(|parked| parked[0].status == Status::Dead { tries: 1 } && parked[0].messages == 2)
        .await;
    assert_eq!(kept(&post.home, "a").await, [1, 3, 5]);
    post.keeper.goes_well(7);
    post.letters().retry(&post.cx, &post.parked().await[0].id).await.unwrap();
    post.send(&[("a", 10)]).await;
    post.handle_until(<[_]>::is_empty).await;
    assert_eq!(kept(&post.home, "a").await, [1, 3, 5, 7, 8, 10]);
    assert_eq!(filed(&post.home).await, 10);
    assert_eq!(post.told("key \"a\" of sender is released"), 1);
    // The key is free again.
    post.send(&[("a", 11)]).await;
    post.handle().await;
    assert_eq!(kept(&post.home, "a").await, [1, 3, 5, 7, 8, 10, 11]);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_so_often_and_no_more() {
    let post = Post::new();
    post.keeper.goes_wrong(1, |_| Err(Failure::transient("the weather")));
    post.send(&[("a", 1), ("a", 2), ("b", 3)]).await;
    post.handle_until(|parked| matches!(parked[0].status, Status::Dead { .. })).await;
    assert_eq!(post.parked().await[0].status, Status::Dead { tries: 3 });
    // In its batch, by itself, and twice from where it is parked.
    assert_eq!(post.keeper.tries_of(1), 4);
    assert_eq!(post.told("is dead after 3 tries: the weather"), 1);
    for _ in 0..5 {
        post.handle().await;
    }
    assert_eq!(post.keeper.tries_of(1), 4, "what is dead is not tried");
    // An operator's retry begins with all its tries; this time it passes at the second.
    let failures = Arc::new(Mutex::new(0));
    post.keeper.goes_wrong(1, move |_| {
        *failures.lock().unwrap() += 1;
        if *failures.lock().unwrap() < 2 { Err(Failure::transient("the weather")) } else { Ok(()) }
    });
    post.letters().retry(&post.cx, &post.parked().await[0].id).await.unwrap();
    post.handle_until(<[_]>::is_empty).await;
    assert_eq!((kept(&post.home, "a").await, post.keeper.tries_of(1)), (vec![1, 2], 6));
}

#[tokio::test]
async fn an_operator_retries_or_discards_from_elsewhere() {
    let post = Post::new();
    post.keeper.poisoned_by(3);
    post.send(&LETTERS).await;
    post.handle().await;
    let shown = post.letters().show(&post.parked().await[0].id).await.unwrap();
    // One that waits behind, then the head.
    post.letters().discard(&post.cx, &shown[1].id).await.unwrap();
    post.handle().await;
    assert_eq!(post.parked().await[0].messages, 2);
    assert_eq!(kept(&post.home, "a").await, [1], "the head stands in the way as before");
    post.letters().discard(&post.cx, &shown[0].id).await.unwrap();
    post.handle_until(<[_]>::is_empty).await;
    assert_eq!(kept(&post.home, "a").await, [1, 7]);
    assert_eq!(post.told("is discarded, as an operator asked"), 2);
    for id in [shown[0].id.as_str(), "", "x", "x-1", "0000000000000000-99"] {
        let unknown = post.letters().retry(&post.cx, id).await.unwrap_err();
        assert!(matches!(unknown, DeadLetterError::Unknown(_)), "{id}: {unknown}");
    }
    // A message that was discarded and comes again is not handled: its mark stays.
    let again = logged(&post.log).await;
    post.log.append(&post.cx, again).await.unwrap();
    post.keeper.goes_well(3);
    post.handle().await;
    assert_eq!(kept(&post.home, "a").await, [1, 7]);
}

#[tokio::test]
async fn a_running_follower_hears_an_operator() {
    let post = Post::new();
    post.keeper.poisoned_by(1);
    post.send(&[("a", 1), ("a", 2)]).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let (follower, cx) = (post.follower(), post.cx.clone());
        async move { follower.run(&cx, async { drop(stopped.await) }).await }
    });
    for _ in 0..5_000 {
        if !post.parked().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    post.keeper.goes_well(1);
    post.letters().retry(&post.cx, &post.parked().await[0].id).await.unwrap();
    use mainstay_event_store::{Position, Store};
    post.home.wait_past(Position(1), Duration::from_secs(30)).await;
    assert_eq!(kept(&post.home, "a").await, [1, 2]);
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_same_number_with_another_content_is_an_alarm_and_never_handled_by_itself() {
    let post = Post::new();
    post.send(&[("a", 1), ("a", 2)]).await;
    post.handle().await;
    let mut altered = logged(&post.log).await.remove(1);
    altered.data = Bytes::from_static(b"{\"number\":22}");
    altered.identity.content = ContentHash::of(b"another");
    post.log.append(&post.cx, vec![altered.clone()]).await.unwrap();
    post.send(&[("a", 3), ("b", 4)]).await;
    post.handle().await;
    assert_eq!((kept(&post.home, "a").await, kept(&post.home, "b").await), (vec![1, 2], vec![4]));
    assert_eq!(post.told("ALARM: number 2 of producer"), 1);
    let parked = post.parked().await;
    assert_eq!((parked[0].messages, parked[0].status), (2, Status::Dead { tries: 1 }));
    let shown = post.letters().show(&parked[0].id).await.unwrap();
    assert!(shown[0].altered && !shown[1].altered);
    // It comes again, as a relay may send it again: it is parked once.
    post.log.append(&post.cx, vec![altered]).await.unwrap();
    post.handle().await;
    assert_eq!((post.parked().await[0].messages, post.told("ALARM")), (2, 2));
    assert_eq!(post.keeper.tries_of(22), 0);
    // Only an operator's word has it handled.
    post.letters().retry(&post.cx, &parked[0].id).await.unwrap();
    post.handle_until(<[_]>::is_empty).await;
    assert_eq!(kept(&post.home, "a").await, [1, 2, 22, 3]);
}

#[tokio::test]
async fn an_altered_message_behind_others_stops_the_release_there() {
    let post = Post::new();
    post.keeper.poisoned_by(2);
    post.send(&[("a", 1), ("a", 2)]).await;
    post.handle().await;
    let mut altered = logged(&post.log).await.remove(0);
    altered.identity.content = ContentHash::of(b"another");
    post.log.append(&post.cx, vec![altered]).await.unwrap();
    post.handle().await;
    post.keeper.goes_well(2);
    let tries = post.keeper.tries_of(1);
    post.letters().retry(&post.cx, &post.parked().await[0].id).await.unwrap();
    post.handle_until(|parked| parked[0].messages == 1 && matches!(parked[0].status, Status::Dead { .. }))
        .await;
    assert_eq!((kept(&post.home, "a").await, post.keeper.tries_of(1)), (vec![1, 2], tries));
    post.letters().discard(&post.cx, &post.parked().await[0].id).await.unwrap();
    post.handle_until(<[_]>::is_empty).await;
    assert_eq!(kept(&post.home, "a").await, [1, 2]);
}

#[tokio::test]
async fn parked_messages_keep_their_order_when_the_log_is_made_anew() {
    let mut post = Post::new();
    post.keeper.poisoned_by(2);
    post.send(&[("a", 1), ("a", 2), ("a", 3)]).await;
    post.handle().await;
    let id = post.parked().await[0].id.clone();
    // The log is lost: what comes now stands at the offsets of what is parked, and before them.
    post.send(&[("a", 4), ("a", 5), ("a", 6), ("a", 7)]).await;
    let anew = logged(&post.log).await.split_off(3);
    post.log = MemoryLog::default();
    post.log.append(&post.cx, anew).await.unwrap();
    post.handle().await;
    let shown = post.letters().show(&id).await.unwrap();
    let offsets: Vec<u64> = shown.iter().map(|letter| letter.offset).collect();
    assert_eq!(offsets, [2, 3, 1, 2, 3, 4], "none is overwritten, each in its order");
    // An operator's id means what it meant.
    post.letters().discard(&post.cx, &shown[3].id).await.unwrap();
    post.keeper.goes_well(2);
    post.letters().retry(&post.cx, &id).await.unwrap();
    post.handle_until(<[_]>::is_empty).await;
    assert_eq!(kept(&post.home, "a").await, [1, 2, 3, 4, 6, 7]);
    assert_eq!(post.told("message 2 of key \"a\" of sender is discarded"), 1);
    // Numbers are not given twice, also when nothing is parked any more.
    post.keeper.poisoned_by(8);
    post.send(&[("a", 8)]).await;
    post.handle().await;
    assert_eq!(post.parked().await[0].id.split_once('-').unwrap().1, "7");
}

#[tokio::test]
async fn a_panic_is_one_messages_doing_and_harms_no_other() {
    let post = Post::new();
    post.keeper.goes_wrong(6, |_| panic!("a test"));
    post.send(&LETTERS).await;
    post.handle_until(|parked| matches!(parked[0].status, Status::Dead { .. })).await;
    let parked = post.parked().await;
    assert_eq!((parked.len(), parked[0].key.as_str(), parked[0].messages), (1, "b", 1));
    assert!(parked[0].why.contains("panicked: a test"), "{}", parked[0].why);
    assert_eq!((kept(&post.home, "a").await, kept(&post.home, "b").await), (vec![1, 3, 5, 7], vec![2]));
}

#[tokio::test]
async fn a_reason_of_any_length_is_kept_short() {
    let post = Post::new();
    post.keeper.goes_wrong(1, |_| Err(Failure::poisoned("ü".repeat(2 << 20))));
    post.send(&[("a", 1), ("b", 2)]).await;
    post.handle().await;
    let parked = post.parked().await;
    assert_eq!((parked[0].why.chars().count(), kept(&post.home, "b").await), (2_001, vec![2]));
}

#[tokio::test]
async fn a_message_that_can_not_be_read_is_parked_with_the_reason() {
    let post = Post::new();
    post.send(&[("a", 1)]).await;
    let mut unreadable = logged(&post.log).await.remove(0);
    unreadable.identity.seq = 2;
    unreadable.data = Bytes::from_static(b"{\"number\":\"alice@example\"}");
    post.log.append(&post.cx, vec![unreadable]).await.unwrap();
    post.handle().await;
    let parked = post.parked().await;
    assert_eq!(parked[0].status, Status::Dead { tries: 1 });
    assert!(
        parked[0].why.contains("Sent of schema 1") && !parked[0].why.contains("alice"),
        "{}",
        parked[0].why
    );
}

#[tokio::test]
async fn when_as_much_is_parked_as_may_be_nothing_more_is_handled() {
    let post = Post::new();
    post.keeper.poisoned_by(1);
    post.send(&[("a", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5)]).await;
    let full = post.follower().parked_max(2).batch_max(1).retry(quick(3));
    let stopped = full.run_until_caught_up(&post.cx).await.unwrap_err();
    assert!(stopped.to_string().contains("parked as many messages of sender as it may (2)"), "{stopped}");
    assert_eq!((kept(&post.home, "b").await, post.parked().await[0].messages), (vec![3], 2));
    post.letters().discard(&post.cx, &post.parked().await[0].id).await.unwrap();
    full.run_until_caught_up(&post.cx).await.unwrap();
    assert_eq!((kept(&post.home, "a").await, kept(&post.home, "b").await), (vec![2, 4], vec![3, 5]));
}
