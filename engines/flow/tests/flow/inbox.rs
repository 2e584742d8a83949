//! The inbox: each message's effect once, in the order of its key, whatever fails.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use mainstay_envelope::Context;
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Query, Refusal, Store, Tx};
use mainstay_flow::inbox::{BadFollower, DeadLetters, FollowError, Follower};
use mainstay_flow::saga::Failure;
use mainstay_messaging::memory::Memory as MemoryLog;
use mainstay_messaging::{Log, Offset, ReadError};

use crate::bank::{cx, quick};
use crate::faulty::{Fault, Faulty};
use crate::post::{Keeper, filed, follower, kept, logged, numbers, relay, send, topic};

/// A log with numbers 1 to `last`, under keys a and b in turn.
async fn log_of(cx: &Context, last: u64) -> (Memory, MemoryLog) {
    let (desk, log) = (Memory::new(), MemoryLog::default());
    for n in 1..=last {
        send(&desk, cx, if n % 2 == 1 { "a" } else { "b" }, &[n]).await;
    }
    relay(&desk, &log).run_until_empty(cx).await.unwrap();
    (desk, log)
}

async fn assert_all(store: &impl Store, last: u64) {
    let odd: Vec<u64> = (1..=last).step_by(2).collect();
    let even: Vec<u64> = (2..=last).step_by(2).collect();
    assert_eq!((kept(store, "a").await, kept(store, "b").await), (odd, even));
    assert_eq!(filed(store).await, last, "effects, each once");
    assert_eq!(
        store.outbox_after(0, 1_000).await.unwrap().len() as u64,
        last,
        "what was published, each once"
    );
}

/// Goes on until nothing is parked. A crash of the process ends it.
async fn settle(store: &Faulty, log: &MemoryLog, keeper: &Keeper<Faulty>) {
    let follower = follower(store, log, keeper).batch_max(2).parking_retry(quick(50));
    for _ in 0..3_000 {
        follower.run_until_caught_up(&cx()).await.unwrap();
        let parked = DeadLetters::new(store.inner.clone()).unwrap().list(None, 10).await.unwrap().0;
        if parked.is_empty() {
            return;
        }
        // Until the wall clock has come to the next try.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it never came to an end");
}

/// A keeper that fails for some numbers, twice each: before and after they are parked.
fn stumbling(numbers: &'static [u64]) -> Keeper<Faulty> {
    let keeper = Keeper::new();
    for number in numbers {
        let failures = Arc::new(Mutex::new(0));
        keeper.goes_wrong(*number, move |_| {
            let mut failures = failures.lock().unwrap();
            *failures += 1;
            if *failures <= 3 { Err(Failure::transient("a test")) } else { Ok(()) }
        });
    }
    keeper
}

#[tokio::test]
async fn what_is_sent_is_handled_once_in_order() {
    let (cx, home) = (cx(), Memory::new());
    let (_, log) = log_of(&cx, 20).await;
    for (batch, looked_at) in [(3, 20), (256, 0)] {
        let follower = follower(&home, &log, &Keeper::new()).batch_max(batch);
        assert_eq!(follower.lag().await.unwrap(), looked_at);
        assert_eq!(follower.run_until_caught_up(&cx).await.unwrap(), looked_at);
        assert_all(&home, 20).await;
    }
}

/// Dies at each of its writes in turn, before and after it, and is started anew each time: with messages that are
/// handled, that are parked and that are released.
#[tokio::test]
async fn a_crash_between_any_two_steps_neither_loses_nor_doubles_an_effect() {
    let (cx, mut rounds) = (cx(), 0);
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for survived in 0..25 {
            let (_, log) = log_of(&cx, 12).await;
            let home = Memory::new();
            let keeper = stumbling(&[3, 8]);
            let mut crashes = 0;
            loop {
                let plan = std::iter::repeat_n(Fault::None, survived).chain([fault.clone()]);
                // One process in two is left alone, so that all of it comes to an end.
                let process =
                    Faulty::over(home.clone(), plan.take(if crashes % 2 == 0 { survived + 1 } else { 0 }));
                let ended = tokio::select! {
                    () = settle(&process, &log, &keeper) => true,
                    () = process.crashed() => false,
                };
                if ended {
                    break;
                }
                crashes += 1;
            }
            rounds += usize::from(crashes > 0);
            assert_all(&home, 12).await;
        }
    }
    // A write that fails by itself has no "after", and some rounds need fewer writes than they were to survive.
    assert!(rounds >= 20, "only {rounds} rounds had a crash");
}

#[tokio::test]
async fn lost_answers_and_a_busy_store_neither_lose_nor_double() {
    let cx = cx();
    for fault in [Fault::LostAfter, Fault::LostBefore, Fault::Busy] {
        let (_, log) = log_of(&cx, 12).await;
        let plan = (0..40).map(|i| if i % 2 == 0 { fault.clone() } else { Fault::None });
        let home = Faulty::new(plan);
        settle(&home, &log, &stumbling(&[3, 8])).await;
        assert_all(&home, 12).await;
    }
}

#[tokio::test]
async fn what_is_published_again_is_swallowed() {
    let (cx, home, keeper) = (cx(), Memory::new(), Keeper::new());
    let (_, log) = log_of(&cx, 6).await;
    let follower = follower(&home, &log, &keeper);
    follower.run_until_caught_up(&cx).await.unwrap();
    let again = logged(&log).await;
    log.append(&cx, again).await.unwrap();
    assert_eq!(follower.run_until_caught_up(&cx).await.unwrap(), 6);
    assert_all(&home, 6).await;
    assert_eq!(keeper.tries_of(1), 1, "its handler was not even asked");
}

#[tokio::test]
async fn a_log_made_anew_is_read_again_and_nothing_is_doubled() {
    let (cx, home) = (cx(), Memory::new());
    let (desk, log) = log_of(&cx, 6).await;
    follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    let anew = MemoryLog::default();
    let first = logged(&log).await.into_iter().take(4).collect();
    anew.append(&cx, first).await.unwrap();
    let told = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    let follower =
        follower(&home, &anew, &Keeper::new()).on_trouble(move |what| heard.lock().unwrap().push_str(what));
    follower.run_until_caught_up(&cx).await.unwrap();
    assert!(told.lock().unwrap().contains("read again from its beginning"), "{told:?}");
    assert_all(&home, 6).await;
    send(&desk, &cx, "a", &[7]).await;
    relay(&desk, &anew).run_until_empty(&cx).await.unwrap();
    follower.run_until_caught_up(&cx).await.unwrap();
    assert_all(&home, 7).await;
}

#[tokio::test]
async fn retention_that_passed_a_follower_stops_it_and_a_new_one_begins_at_what_is_kept() {
    let cx = cx();
    let (_, log) = log_of(&cx, 6).await;
    let home = Memory::new();
    let stopped = crate::faulty_log::FaultyLog::over(log.clone(), []).damaged_after(1);
    let damaged = follower(&home, &stopped, &Keeper::new()).batch_max(2).run_until_caught_up(&cx).await;
    let damaged = damaged.unwrap_err();
    assert!(matches!(&damaged, FollowError::Log { why: ReadError::Damaged { .. }, .. }), "{damaged}");
    log.prune(mainstay_envelope::Timestamp::from_millis(i64::MAX));
    let end = log.end(&topic(), 0).await.unwrap();
    assert_eq!(end, Offset(6));
    let late = follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(&late, FollowError::Log { why: ReadError::Truncated { .. }, .. }), "{late}");
    let new = Memory::new();
    follower(&new, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(filed(&new).await, 0);
    let (_, more) = log_of(&cx, 2).await;
    log.append(&cx, logged(&more).await).await.unwrap();
    follower(&new, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    assert_all(&new, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_followers_of_one_group_share_the_work_and_double_nothing() {
    let (cx, home, keeper) = (cx(), Memory::new(), Keeper::new());
    let (_, log) = log_of(&cx, 200).await;
    for number in [17, 50] {
        let failures = Arc::new(Mutex::new(0));
        keeper.goes_wrong(number, move |_| {
            *failures.lock().unwrap() += 1;
            if *failures.lock().unwrap() < 6 { Err(Failure::transient("a test")) } else { Ok(()) }
        });
    }
    let members: Vec<_> = (0..3)
        .map(|_| {
            let follower = follower(&home, &log, &keeper).batch_max(3).parking_retry(quick(50));
            let (cx, home) = (cx.clone(), home.clone());
            tokio::spawn(async move {
                for _ in 0..5_000 {
                    follower.run_until_caught_up(&cx).await.unwrap();
                    if filed(&home).await >= 200 {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    for member in members {
        member.await.unwrap();
    }
    assert_all(&home, 200).await;
}

#[tokio::test]
async fn a_running_follower_handles_what_comes_until_it_is_told_to_stop() {
    let (cx, home) = (cx(), Memory::new());
    let (desk, log) = log_of(&cx, 2).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let (follower, cx) = (follower(&home, &log, &Keeper::new()), cx.clone());
        async move { follower.run(&cx, async { drop(stopped.await) }).await }
    });
    home.wait_past(mainstay_event_store::Position(1), std::time::Duration::from_secs(30)).await;
    assert_all(&home, 2).await;
    send(&desk, &cx, "a", &[3]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    home.wait_past(mainstay_event_store::Position(2), std::time::Duration::from_secs(30)).await;
    assert_all(&home, 3).await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_partition_is_followed() {
    let (cx, home, desk, log) = (cx(), Memory::new(), Memory::new(), MemoryLog::new(4));
    for n in 1..=40 {
        send(&desk, &cx, &format!("key-{}", n % 10), &[n]).await;
    }
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    let follower = follower(&home, &log, &Keeper::new());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let (follower, cx) = (follower.clone(), cx.clone());
        async move { follower.run(&cx, async { drop(stopped.await) }).await }
    });
    for handled in 0..40 {
        home.wait_past(mainstay_event_store::Position(handled), std::time::Duration::from_secs(30)).await;
    }
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    for key in 0..10 {
        let expected: Vec<u64> = (1..=40).filter(|n| n % 10 == key).collect();
        assert_eq!(kept(&home, &format!("key-{key}")).await, expected);
    }
    assert_eq!(follower.run_until_caught_up(&cx).await.unwrap(), 0);
}

#[tokio::test]
async fn an_effect_carries_the_account_of_its_message() {
    let (cx, home) = (cx(), Memory::new());
    let desk = Memory::new();
    let log = MemoryLog::default();
    let calls = [
        cx.child(),
        Context::system().with_envelope(mainstay_envelope::Envelope::begin(
            mainstay_envelope::Priority::Normal,
            &**cx.chance(),
        )),
    ];
    for (n, call) in (1..).zip(&calls) {
        send(&desk, call, "a", &[n]).await;
    }
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    let sent = desk.read(&Query::all(), mainstay_event_store::Position::START, 10).await.unwrap().events;
    let filed = home.read(&Query::all(), mainstay_event_store::Position::START, 10).await.unwrap().events;
    let rows = home.outbox_after(0, 10).await.unwrap();
    for (i, call) in calls.iter().enumerate() {
        let fact = filed[i].fact().unwrap();
        assert_eq!(fact.correlation, call.fact().correlation);
        assert_eq!(fact.causation.unwrap().0, sent[i].id, "the message is the cause");
        let (ours, theirs) = (fact.trace.unwrap(), sent[i].fact().unwrap().trace.unwrap());
        assert_ne!(ours, theirs, "a span of its own");
        assert_eq!(ours.to_string()[..35], theirs.to_string()[..35], "in the same trace");
        let tag = mainstay_flow::correlation::tag(call.fact().correlation).unwrap();
        assert!(filed[i].tags.contains(&tag) && sent[i].tags.contains(&tag));
        let published: mainstay_envelope::Fact = serde_json::from_slice(&rows[i].envelope).unwrap();
        assert_eq!(published, fact);
    }
    assert_ne!(filed[0].fact().unwrap().correlation, filed[1].fact().unwrap().correlation);
}

#[tokio::test]
async fn a_follower_without_a_reaction_to_follow_is_refused() {
    let log = MemoryLog::default();
    let refused = Follower::new(Memory::new(), log, "nobody", Arc::new(Keeper::<Memory>::new()));
    assert!(matches!(refused.unwrap_err(), BadFollower::NoReaction { .. }));
}

#[tokio::test]
async fn messages_of_other_types_are_passed_over_and_leave_no_hole() {
    let (cx, home, desk, log) = (cx(), Memory::new(), Memory::new(), MemoryLog::default());
    for n in 1..=3 {
        let row = mainstay_event_store::OutboxRow {
            topic: mainstay_event_store::Topic::new("sender").unwrap(),
            key: "a".into(),
            headers: vec![("type".into(), "Whispered".into())],
            payload: b"?".to_vec(),
        };
        desk.transact(&cx, move |tx| Ok::<_, mainstay_event_store::Abort<()>>(tx.outbox(&row)?))
            .await
            .unwrap();
        send(&desk, &cx, "a", &[n]).await;
    }
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, [1, 2, 3]);
    // What was passed over is marked: it comes again in a batch with another type, and stays what it was.
    let marked = home
        .transact(&cx, move |tx| {
            let consumer = mainstay_event_store::ConsumerName::new("keeper").unwrap();
            let message = mainstay_envelope::MessageIdentity {
                producer: mainstay_envelope::Producer::from(desk.id().0),
                epoch: 1,
                partition: 0,
                seq: 1,
                content: mainstay_envelope::ContentHash::of(b"another"),
            };
            Ok::<_, mainstay_event_store::Abort<()>>(tx.inbox_mark(&consumer, &message)?)
        })
        .await;
    assert_eq!(marked.unwrap().value, mainstay_event_store::Mark::Altered);
    assert_eq!(numbers_of_types(&log).await, 6);
}

/// A message without an effect costs no flush of its own: it is marked with the next one that has an effect, or a
/// second later.
#[tokio::test(start_paused = true)]
async fn what_has_no_effect_is_carried_along_for_a_while() {
    let clock = mainstay_envelope::ManualClock::default();
    let system = cx();
    let cx = Context::new(system.envelope().clone(), Arc::new(clock.clone()), Arc::clone(system.chance()));
    let (home, desk, log) = (Memory::new(), Memory::new(), MemoryLog::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let follower = follower(&home, &log, &Keeper::new());
    let running = tokio::spawn({
        let (follower, cx) = (follower.clone(), cx.clone());
        async move { follower.run(&cx, async { drop(stopped.await) }).await }
    });
    let whisper = || mainstay_event_store::OutboxRow {
        topic: mainstay_event_store::Topic::new("sender").unwrap(),
        key: "a".into(),
        headers: vec![("type".into(), "Whispered".into())],
        payload: b"?".to_vec(),
    };
    // Time passes by itself while everybody waits; the follower's clock stands still.
    let settle = || tokio::time::sleep(std::time::Duration::from_secs(10));
    for _ in 0..3 {
        let row = whisper();
        desk.transact(&cx, move |tx| Ok::<_, mainstay_event_store::Abort<()>>(tx.outbox(&row)?))
            .await
            .unwrap();
        relay(&desk, &log).run_until_empty(&cx).await.unwrap();
        settle().await;
    }
    assert_eq!(follower.lag().await.unwrap(), 3, "nothing was written for them");
    send(&desk, &cx, "a", &[1]).await;
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    settle().await;
    assert_eq!((follower.lag().await.unwrap(), kept(&home, "a").await), (0, vec![1]));
    let row = whisper();
    desk.transact(&cx, move |tx| Ok::<_, mainstay_event_store::Abort<()>>(tx.outbox(&row)?)).await.unwrap();
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    settle().await;
    assert_eq!(follower.lag().await.unwrap(), 1);
    clock.advance(std::time::Duration::from_secs(2));
    settle().await;
    assert_eq!(follower.lag().await.unwrap(), 0, "a second is over");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

async fn numbers_of_types(log: &MemoryLog) -> usize {
    logged(log).await.len()
}

/// A transaction has room for five messages: what is said to the sixth, whichever it is, is not its fault.
#[tokio::test]
async fn no_message_is_blamed_for_a_batch_that_took_too_long() {
    let slow = || "took longer than its time limit".to_owned();
    let failures = [
        Failure::Refused(Refusal::Closure { why: slow() }),
        Failure::Refused(Refusal::Sql { why: slow(), retry: false }),
        // A reactor may have words of its own for it.
        Failure::poisoned(slow()),
    ];
    for failure in failures {
        let (cx, home, keeper) = (cx(), Faulty::new([]), Keeper::new());
        let (_, log) = log_of(&cx, 40).await;
        for number in 1..=40 {
            let (spent, failure) = (Arc::clone(&home.spent), failure.clone());
            keeper.goes_wrong(number, move |_| {
                if spent.fetch_add(1, Ordering::Relaxed) < 5 { Ok(()) } else { Err(failure.clone()) }
            });
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let follower = follower(&home, &log, &keeper)
            .on_trouble(move |what| heard.lock().unwrap().push(what.to_owned()));
        follower.run_until_caught_up(&cx).await.unwrap();
        assert_eq!(*told.lock().unwrap(), Vec::<String>::new(), "{failure}");
        assert_all(&home, 40).await;
        if matches!(failure, Failure::Refused(_)) {
            // The beginning, 40, 20 and 10 that are dropped, then 8 times 5: nothing larger is tried on this page.
            assert_eq!(home.writes(), 12);
        }
    }
}

#[tokio::test]
async fn a_refusal_that_a_reactor_swallows_parks_its_message() {
    let (cx, home, keeper) = (cx(), Memory::new(), Keeper::<Memory>::new());
    let (_, log) = log_of(&cx, 2).await;
    assert_eq!(numbers(&log).await, [1, 2]);
    let failures = Arc::new(Mutex::new(0));
    // The store's own refusal, swallowed by the reactor: the transaction is refused with it all the same.
    keeper.goes_wrong(2, move |work: &mainstay_flow::unit_of_work::Work<'_, Memory>| {
        *failures.lock().unwrap() += 1;
        if *failures.lock().unwrap() <= 3 {
            let stream = mainstay_event_store::StreamName::new("cabinet-b").unwrap();
            let event = crate::bank::raw("Filed", 1, "{\"number\":0}");
            let expected = mainstay_event_store::Expected::Exactly(mainstay_event_store::Version(99));
            let _ = work.tx().append(&stream, expected, &[event]);
        }
        Ok(())
    });
    let follower = follower(&home, &log, &keeper).parking_retry(quick(50));
    follower.run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, [1], "the others are handled at once");
    for _ in 0..3_000 {
        follower.run_until_caught_up(&cx).await.unwrap();
        if DeadLetters::new(home.clone()).unwrap().list(None, 10).await.unwrap().0.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_all(&home, 2).await;
}
