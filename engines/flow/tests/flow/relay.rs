//! The relay: what is recorded is published, in order, whatever fails; and a restored store is noticed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::{Context, Envelope, ManualClock, Priority, SeededChance, Timestamp};
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Abort, OutboxRow, Store, StoreId, Topic, Tx};
use mainstay_flow::outbox::{Relay, RelayError};
use mainstay_messaging::memory::Memory as MemoryLog;
use mainstay_messaging::{Log, Message};
use uuid::Uuid;

use crate::bank::{cx, quick};
use crate::faulty::{Fault, Faulty};
use crate::faulty_log::{FaultyLog, LogFault};
use crate::post::{Keeper, filed, follower, kept, logged, number, numbers, relay, send, send_together};

/// The numbers in a log without those that came again.
fn first_times(numbers: &[u64]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}

async fn unsent(store: &impl Store) -> Vec<u64> {
    store.outbox_unsent(0, 1_000).await.unwrap().iter().map(|row| row.seq).collect()
}

/// The log holds every row that is marked.
async fn assert_marks_are_true(store: &Memory, log: &MemoryLog) {
    let waiting = unsent(store).await;
    let logged: BTreeSet<u64> = logged(log).await.iter().map(|message| message.identity.seq).collect();
    for row in store.outbox_after(0, 1_000).await.unwrap() {
        assert!(
            waiting.contains(&row.seq) || logged.contains(&row.number),
            "row {} is marked, and not in the log",
            row.seq
        );
    }
}

/// Dies at each of its steps in turn, before and after it, and is started anew each time.
#[tokio::test]
async fn a_relay_killed_at_any_step_loses_nothing() {
    let cx = cx();
    let kills = [
        (Fault::CrashBefore, LogFault::None),
        (Fault::CrashAfter, LogFault::None),
        (Fault::None, LogFault::CrashBefore),
        (Fault::None, LogFault::CrashAfter),
    ];
    for (store_fault, log_fault) in kills {
        for survived in 0..6 {
            let (desk, log, home) = (Memory::new(), MemoryLog::default(), Memory::new());
            send(&desk, &cx, "a", &[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
            let mut crashes = 0;
            loop {
                let calm = |n| std::iter::repeat_n(Fault::None, n);
                let calm_log = |n| std::iter::repeat_n(LogFault::None, n);
                let store = Faulty::over(desk.clone(), calm(survived).chain([store_fault.clone()]));
                let process = FaultyLog::over(log.clone(), calm_log(survived).chain([log_fault]));
                let relay = relay(&store, &process).batch_max(2);
                let ended = tokio::select! {
                    ended = relay.run_until_empty(&cx) => Some(ended.unwrap()),
                    () = store.crashed() => None,
                    () = process.crashed() => None,
                };
                assert_marks_are_true(&desk, &log).await;
                if ended.is_some() {
                    break;
                }
                crashes += 1;
                if crashes == 20 {
                    break;
                }
            }
            assert!(
                crashes > 0 || survived > 3,
                "{store_fault:?} {log_fault:?} {survived}: nothing was tested"
            );
            // A process that dies at its first step each time gets nowhere, and one that is left alone then does.
            relay(&desk, &log).run_until_empty(&cx).await.unwrap();
            assert_eq!(first_times(&numbers(&log).await), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
            assert_eq!(unsent(&desk).await, [0u64; 0]);
            follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
            assert_eq!((kept(&home, "a").await, filed(&home).await), ((1..=9).collect(), 9));
        }
    }
}

#[tokio::test]
async fn rows_are_published_in_their_order_whatever_fails() {
    let cx = cx();
    for fault in [LogFault::Busy, LogFault::LostBefore, LogFault::LostAfter] {
        for store_fault in [Fault::None, Fault::Busy, Fault::LostBefore, Fault::LostAfter] {
            let (desk, log) = (Memory::new(), MemoryLog::default());
            send(&desk, &cx, "a", &[1, 2, 3, 4, 5, 6, 7]).await;
            let store = Faulty::over(desk.clone(), [store_fault.clone(), Fault::None, store_fault.clone()]);
            let plan = (0..10).map(|i| if i % 2 == 0 { fault } else { LogFault::None });
            let process = FaultyLog::over(log.clone(), plan);
            relay(&store, &process).batch_max(2).run_until_empty(&cx).await.unwrap();
            assert_eq!(first_times(&numbers(&log).await), [1, 2, 3, 4, 5, 6, 7], "{fault:?} {store_fault:?}");
            assert_eq!(unsent(&desk).await, [0u64; 0]);
        }
    }
}

#[tokio::test]
async fn a_log_that_refuses_for_good_stops_the_relay_and_nothing_is_marked() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    send(&desk, &cx, "a", &[1]).await;
    // A number that no log takes.
    let row = |payload: Vec<u8>| OutboxRow {
        topic: Topic::new("sender").unwrap(),
        key: "a".into(),
        headers: vec![("type".into(), "Sent".into())],
        payload,
    };
    let bad = OutboxRow { headers: vec![("type".into(), String::new())], ..row(Vec::new()) };
    desk.transact(&cx, move |tx| Ok::<_, Abort<()>>(tx.outbox(&bad)?)).await.unwrap();
    let refused = relay(&desk, &log).batch_max(1).run_until_empty(&cx).await.unwrap_err();
    assert!(matches!(refused, RelayError::Row { seq: 2, .. }), "{refused}");
    assert_eq!(unsent(&desk).await, [1, 2], "an end by error leaves marks to the next start");
    assert_eq!(numbers(&log).await, [1]);
}

#[tokio::test]
async fn whole_transactions_are_appended_together() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    for numbers in [&[1, 2, 3][..], &[4, 5, 6], &[7], &[8, 9, 10, 11, 12, 13]] {
        send_together(&desk, &cx, "a", numbers).await;
    }
    let process = FaultyLog::over(log.clone(), []);
    relay(&desk, &process).batch_max(4).run_until_empty(&cx).await.unwrap();
    // Of a full page nobody knows whether its last transaction is whole. The last one is more than a batch.
    assert_eq!(process.appends(), [3, 3, 1, 4, 2]);
    assert_eq!(numbers(&log).await, (1..=13).collect::<Vec<_>>());
}

/// Until its last messages are there, a transaction says no more than what came before it is whole.
#[tokio::test]
async fn a_transaction_in_parts_is_whole_with_its_last_one() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    for numbers in [&[1][..], &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11], &[12], &[13, 14, 15, 16]] {
        send_together(&desk, &cx, "a", numbers).await;
    }
    relay(&desk, &log).batch_max(4).run_until_empty(&cx).await.unwrap();
    let marks: Vec<u64> = logged(&log).await.iter().map(|message| message.mark).collect();
    // The last one is as large as a batch, and whole.
    assert_eq!(marks, [1, 10, 10, 10, 10, 10, 10, 10, 10, 11, 11, 12, 16, 16, 16, 16]);
}

/// Headers go into the log too: a batch of rows that have little else must not be more than it takes at once, nor a
/// transaction be cut for it that would fit.
#[tokio::test]
async fn a_batch_weighs_what_its_rows_weigh_in_the_log() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    let rows = async |count: usize, header: usize| {
        let row = OutboxRow {
            topic: Topic::new("sender").unwrap(),
            key: "a".into(),
            headers: (0..8).map(|n| (format!("note{n}"), "x".repeat(header / 8))).collect(),
            payload: b"{}".to_vec(),
        };
        let event = |cx: &Context| {
            mainstay_event_store::NewEvent::new(
                cx.new_id(),
                mainstay_event_store::EventType::new("Noted").unwrap(),
                mainstay_event_store::Payload::plain(*b"{}"),
            )
        };
        let noted = event(&cx);
        let write = desk.transact(&cx, move |tx| {
            let stream = mainstay_event_store::StreamName::new("notes").unwrap();
            tx.append(&stream, mainstay_event_store::Expected::Any, std::slice::from_ref(&noted))?;
            for _ in 0..count {
                tx.outbox(&row)?;
            }
            Ok::<_, Abort<()>>(())
        });
        write.await.unwrap();
    };
    rows(10, 8).await;
    rows(200, 16_000).await;
    rows(100, 16_000).await;
    rows(690, 16_000).await;
    let process = FaultyLog::over(log.clone(), []);
    relay(&desk, &process).run_until_empty(&cx).await.unwrap();
    let appends = process.appends();
    assert_eq!((appends[0], appends[1]), (210, 100), "{appends:?}");
    assert!(appends.iter().sum::<usize>() == 1_000 && appends.iter().all(|rows| *rows < 270), "{appends:?}");
}

#[tokio::test]
async fn a_running_relay_publishes_what_comes_and_marks_it_when_told_to_stop() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let relay = Relay::new(desk.clone(), log.clone()).mark_after(Duration::from_secs(3600));
        let cx = cx.clone();
        async move { relay.run(&cx, async { drop(stopped.await) }).await }
    });
    for n in 1..=3 {
        send(&desk, &cx, "a", &[n]).await;
        log.wait_past(&crate::post::topic(), 0, mainstay_messaging::Offset(n - 1), Duration::from_secs(30))
            .await;
        assert_eq!(numbers(&log).await.len() as u64, n, "published as soon as it is recorded");
    }
    assert_eq!(unsent(&desk).await, [1, 2, 3], "marks may be late");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(unsent(&desk).await, [0u64; 0]);
}

fn cx_at(clock: &ManualClock) -> Context {
    let chance = Arc::new(SeededChance::new(7));
    Context::new(Envelope::begin(Priority::Normal, &*chance), Arc::new(clock.clone()), chance)
}

#[tokio::test]
async fn sent_rows_are_kept_for_their_retention_and_unsent_ones_for_ever() {
    let (desk, log) = (Memory::new(), MemoryLog::default());
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let cx = cx_at(&clock);
    let hour = Duration::from_secs(3600);
    send(&desk, &cx, "a", &[1, 2]).await;
    let relay = relay(&desk, &log).retention(hour);
    relay.run_until_empty(&cx).await.unwrap();
    send(&desk, &cx, "a", &[3]).await;
    clock.advance(hour);
    assert!(!relay.prune(&cx).await.unwrap());
    assert_eq!(desk.outbox_after(0, 10).await.unwrap().len(), 3, "as old as the retention, not older");
    clock.advance(Duration::from_millis(1));
    assert!(!relay.prune(&cx).await.unwrap());
    let left: Vec<u64> = desk.outbox_after(0, 10).await.unwrap().iter().map(|row| row.seq).collect();
    assert_eq!(left, [3]);
}

/// However fast rows come, more of the old ones go.
#[tokio::test]
async fn a_busy_relay_removes_more_than_it_publishes() {
    let (desk, log) = (Memory::new(), MemoryLog::default());
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let cx = cx_at(&clock);
    let rows: Vec<u64> = (1..=400).collect();
    for _ in 0..10 {
        send_together(&desk, &cx, "a", &rows).await;
    }
    let relay = relay(&desk, &log).retention(Duration::from_secs(60));
    let mut running = relay.begin(&cx).await.unwrap();
    while relay.step(&cx, &mut running).await.unwrap() {}
    assert!(!relay.prune_some(&cx, &mut running).await.unwrap(), "nothing is old");
    clock.advance(Duration::from_secs(61));
    for _ in 0..3 {
        send_together(&desk, &cx, "a", &rows).await;
    }
    while relay.step(&cx, &mut running).await.unwrap() {}
    let removed = async || desk.outbox_status().await.unwrap().pruned_to;
    assert!(relay.prune_some(&cx, &mut running).await.unwrap());
    assert_eq!(removed().await, 2_500, "1,200 were published since");
    assert!(relay.prune_some(&cx, &mut running).await.unwrap());
    assert_eq!(removed().await, 3_000, "none was");
}

/// A row as it stands in each copy of a store: the same number, the same content.
async fn write(store: &Memory, cx: &Context, number: u64) {
    let row = OutboxRow {
        topic: Topic::new("sender").unwrap(),
        key: "a".into(),
        headers: vec![
            ("id".into(), Uuid::from_u128(number.into()).to_string()),
            ("type".into(), "Sent".into()),
        ],
        payload: format!("{{\"number\":{number}}}").into_bytes(),
    };
    store.transact(cx, move |tx| Ok::<_, Abort<()>>(tx.outbox(&row)?)).await.unwrap();
}

async fn mark(store: &Memory, cx: &Context, rows: &'static [u64]) {
    store.transact(cx, move |tx| Ok::<_, Abort<()>>(tx.outbox_sent(rows)?)).await.unwrap();
}

/// Rows 1 to 3 as a copy of the store holds them that was made when 1 and 2 were marked.
async fn copy(id: StoreId, cx: &Context) -> Memory {
    let copy = Memory::with_id(id);
    for n in 1..=3 {
        write(&copy, cx, n).await;
    }
    mark(&copy, cx, &[1, 2]).await;
    copy
}

fn names(messages: &[Message]) -> Vec<(u32, u64, u64)> {
    messages.iter().map(|m| (m.identity.epoch, m.identity.seq, number(m))).collect()
}

#[tokio::test]
async fn a_restored_store_opens_an_epoch() {
    let cx = cx();
    let id = StoreId(Uuid::from_u128(77));
    for written_after_the_restore in [&[][..], &[6, 7], &[6, 7, 8, 9]] {
        let (log, home) = (MemoryLog::default(), Memory::new());
        let first_life = Memory::with_id(id);
        for n in 1..=5 {
            write(&first_life, &cx, n).await;
        }
        relay(&first_life, &log).run_until_empty(&cx).await.unwrap();
        let keeper = Keeper::new();
        let consumer = follower(&home, &log, &keeper);
        consumer.run_until_caught_up(&cx).await.unwrap();

        let restored = copy(id, &cx).await;
        for n in written_after_the_restore {
            write(&restored, &cx, *n).await;
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let telling =
            relay(&restored, &log).on_trouble(move |what| heard.lock().unwrap().push(what.to_owned()));
        telling.run_until_empty(&cx).await.unwrap();
        let told = told.lock().unwrap().join("\n");
        assert!(told.contains("restored") && told.contains("rows after 3"), "{told}");
        let status = restored.outbox_status().await.unwrap();
        assert_eq!((status.epoch, status.epoch_after, status.unsent), (2, 3, 0));

        // Row 3 was published, and not marked in the copy: once more, under the name that receivers know.
        let names = names(&logged(&log).await);
        assert_eq!(names[..6], [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 5), (1, 3, 3)]);
        let anew: Vec<_> = (1..).zip(written_after_the_restore).map(|(seq, n)| (2, seq, *n)).collect();
        assert_eq!(names[6..], anew);
        consumer.run_until_caught_up(&cx).await.unwrap();
        let expected: Vec<u64> = (1..=5).chain(written_after_the_restore.iter().copied()).collect();
        assert_eq!(kept(&home, "a").await, expected, "each once, none taken for another");

        // Started again, it is not restored again.
        write(&restored, &cx, 10).await;
        relay(&restored, &log).on_trouble(|what| panic!("{what}")).run_until_empty(&cx).await.unwrap();
        assert_eq!(restored.outbox_status().await.unwrap().epoch, 2);
        consumer.run_until_caught_up(&cx).await.unwrap();
        assert_eq!(kept(&home, "a").await.last(), Some(&10));
    }
}

#[tokio::test]
async fn a_store_restored_twice_from_one_copy_opens_an_epoch_that_is_free() {
    let (cx, log, home) = (cx(), MemoryLog::default(), Memory::new());
    let id = StoreId(Uuid::from_u128(78));
    let first_life = Memory::with_id(id);
    for n in 1..=5 {
        write(&first_life, &cx, n).await;
    }
    relay(&first_life, &log).run_until_empty(&cx).await.unwrap();
    for (life, number) in [(2, 20), (3, 30), (4, 40)] {
        let restored = copy(id, &cx).await;
        write(&restored, &cx, number).await;
        relay(&restored, &log).run_until_empty(&cx).await.unwrap();
        assert_eq!(restored.outbox_status().await.unwrap().epoch, life);
    }
    follower(&home, &log, &Keeper::new()).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, [1, 2, 3, 4, 5, 20, 30, 40]);
}

#[tokio::test]
async fn a_store_that_is_only_behind_in_its_marks_is_not_taken_for_restored() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    for n in 1..=3 {
        write(&desk, &cx, n).await;
    }
    let strict = |store: &Memory| relay(store, &log).on_trouble(|what| panic!("{what}"));
    // Killed before its marks.
    let died = Faulty::over(desk.clone(), [Fault::CrashBefore]);
    let killed = relay(&died, &log);
    tokio::select! {
        ended = killed.run_until_empty(&cx) => panic!("{ended:?}"),
        () = died.crashed() => {}
    }
    assert_eq!(unsent(&desk).await, [1, 2, 3]);
    strict(&desk).run_until_empty(&cx).await.unwrap();
    assert_eq!(numbers(&log).await, [1, 2, 3, 1, 2, 3]);
    // All its rows are removed.
    desk.transact(&cx, |tx| Ok::<_, Abort<()>>(tx.outbox_prune(Timestamp::from_millis(i64::MAX), 10)?))
        .await
        .unwrap();
    strict(&desk).run_until_empty(&cx).await.unwrap();
    assert_eq!(desk.outbox_status().await.unwrap().epoch, 1);
    write(&desk, &cx, 4).await;
    strict(&desk).run_until_empty(&cx).await.unwrap();
    assert_eq!(numbers(&log).await, [1, 2, 3, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_log_that_lost_its_end_gets_it_again() {
    let (cx, desk, log) = (cx(), Memory::new(), MemoryLog::default());
    for n in 1..=5 {
        write(&desk, &cx, n).await;
    }
    relay(&desk, &log).run_until_empty(&cx).await.unwrap();
    write(&desk, &cx, 6).await;
    for lost_after in [3, 0] {
        let shorter = MemoryLog::default();
        let messages = logged(&log).await.into_iter().take(lost_after).collect::<Vec<_>>();
        shorter.append(&cx, messages).await.unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let telling =
            relay(&desk, &shorter).on_trouble(move |what| heard.lock().unwrap().push(what.to_owned()));
        telling.batch_max(2).run_until_empty(&cx).await.unwrap();
        let told = told.lock().unwrap().join("\n");
        assert!(
            told.contains("lost its end") && told.contains(&format!("rows {} to 6", lost_after + 1)),
            "{told}"
        );
        assert_eq!(numbers(&shorter).await, [1, 2, 3, 4, 5, 6]);
        assert_eq!(unsent(&desk).await, [0u64; 0]);
    }
}

#[tokio::test]
async fn a_passing_trouble_is_waited_out_so_often_and_no_more() {
    let (cx, desk) = (cx(), Memory::new());
    send(&desk, &cx, "a", &[1]).await;
    let log = FaultyLog::over(MemoryLog::default(), std::iter::repeat_n(LogFault::Busy, 3));
    let told = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&told);
    let twice = relay(&desk, &log).retry(quick(2)).on_trouble(move |_| *heard.lock().unwrap() += 1);
    let gave_up = twice.run_until_empty(&cx).await.unwrap_err();
    assert!(matches!(gave_up, RelayError::Append { first: 1, last: 1, .. }), "{gave_up}");
    assert_eq!(*told.lock().unwrap(), 2, "each failure is told");
    twice.run_until_empty(&cx).await.unwrap();
    assert_eq!(log.appends(), [1]);
}
