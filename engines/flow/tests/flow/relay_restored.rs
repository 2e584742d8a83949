//! A store that was restored from an older copy, and what its log remembers of the life before.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::{Context, Envelope, ManualClock, Priority, Producer, SeededChance, Timestamp};
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Abort, OutboxRow, Row, Store, StoreId, Topic, Tx, ViewName};
use mainstay_flow::Event;
use mainstay_flow::inbox::Follower;
use mainstay_flow::outbox::{Relay, RelayError};
use mainstay_flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay_flow::unit_of_work::Work;
use mainstay_messaging::memory::Memory as MemoryLog;
use mainstay_messaging::{Log, Offset};
use uuid::Uuid;

use crate::bank::{cx, quick};
use crate::faulty::{Fault, Faulty};
use crate::post::{Keeper, Receipted, follower, kept, logged, number, relay, send};

/// Counts what the keeper filed: who does it twice shows.
struct Auditor;

impl Reactor<Memory> for Auditor {
    fn participant(&self) -> Participant {
        Participant::new("auditor").on("Filed", "keeper").ends().into()
    }

    fn react(&self, work: &Work<'_, Memory>, message: &Incoming<'_>) -> Result<(), Failure> {
        let Receipted::Filed { number } = message.open()?;
        let view = ViewName::new("audited").unwrap();
        let mut audited: Vec<u64> = work
            .tx()
            .view_get(&view, "all")?
            .map_or_else(Vec::new, |bytes| serde_json::from_slice(&bytes).unwrap());
        audited.push(number);
        work.tx().view_put(&view, &Row::new("all", serde_json::to_vec(&audited).unwrap()))?;
        Ok(())
    }
}

async fn audited(store: &Memory) -> Vec<u64> {
    let bytes = store.view_get(&ViewName::new("audited").unwrap(), "all").await.unwrap();
    bytes.map_or_else(Vec::new, |bytes| serde_json::from_slice(&bytes).unwrap())
}

/// Of each message that the keeper published: epoch, number, and what it says.
async fn filed(log: &MemoryLog) -> Vec<(u32, u64, u64)> {
    let topic = mainstay_messaging::Topic::new("keeper").unwrap();
    let page = log.read(&topic, 0, Offset::START, 1_000).await.unwrap();
    let said = |data: &[u8]| match Receipted::decode("Filed", 1, data).unwrap() {
        Receipted::Filed { number } => number,
    };
    let messages = page.messages.into_iter().map(|delivered| delivered.message);
    messages.map(|m| (m.identity.epoch, m.identity.seq, said(&m.data))).collect()
}

type Told = Arc<Mutex<Vec<String>>>;

fn telling<S: Store, L: Log>(store: &S, log: &L) -> (Relay<S, L>, Told) {
    let told = Told::default();
    let heard = Arc::clone(&told);
    (relay(store, log).on_trouble(move |what| heard.lock().unwrap().push(what.to_owned())), told)
}

fn strict<S: Store, L: Log>(store: &S, log: &L) -> Relay<S, L> {
    relay(store, log).on_trouble(|what| panic!("{what}"))
}

#[tokio::test]
async fn what_a_restored_consumer_does_again_is_not_published_again() {
    let cx = cx();
    for writes_first in [false, true] {
        let (desk, letters, files) = (Memory::new(), MemoryLog::default(), MemoryLog::default());
        let audit = Memory::new();
        let auditor = Follower::new(audit.clone(), files.clone(), "keeper", Arc::new(Auditor))
            .unwrap()
            .retry(quick(10));
        let id = StoreId(Uuid::from_u128(90));
        let (first_life, copy) = (Memory::with_id(id), Memory::with_id(id));
        let keeper = Keeper::new();
        send(&desk, &cx, "a", &[1, 2, 3, 4]).await;
        relay(&desk, &letters).run_until_empty(&cx).await.unwrap();
        follower(&first_life, &letters, &keeper).run_until_caught_up(&cx).await.unwrap();
        relay(&first_life, &files).run_until_empty(&cx).await.unwrap();
        // The same, up to here: what a copy of it holds.
        follower(&copy, &letters, &keeper).run_until_caught_up(&cx).await.unwrap();
        relay(&copy, &MemoryLog::default()).run_until_empty(&cx).await.unwrap();

        send(&desk, &cx, "a", &[5, 6, 7]).await;
        relay(&desk, &letters).run_until_empty(&cx).await.unwrap();
        follower(&first_life, &letters, &keeper).run_until_caught_up(&cx).await.unwrap();
        relay(&first_life, &files).run_until_empty(&cx).await.unwrap();
        auditor.run_until_caught_up(&cx).await.unwrap();
        assert_eq!(audited(&audit).await, [1, 2, 3, 4, 5, 6, 7]);

        // Restored. Its relay runs before or after it does again what it did.
        let (restored, told) = telling(&copy, &files);
        if !writes_first {
            restored.run_until_empty(&cx).await.unwrap();
            assert_eq!(copy.outbox_status().await.unwrap().epoch, 2);
        }
        follower(&copy, &letters, &keeper).run_until_caught_up(&cx).await.unwrap();
        restored.run_until_empty(&cx).await.unwrap();
        auditor.run_until_caught_up(&cx).await.unwrap();
        assert_eq!(audited(&audit).await, [1, 2, 3, 4, 5, 6, 7], "nothing is done twice downstream");
        assert_eq!(copy.outbox_status().await.unwrap().unsent, 0);
        if writes_first {
            // Row by row the same: there is nothing to notice, and receivers know them under their numbers.
            assert_eq!(copy.outbox_status().await.unwrap().epoch, 1);
            continue;
        }
        assert_eq!(filed(&files).await.len(), 7, "they are not even published");
        let told = told.lock().unwrap().join("\n");
        assert!(
            told.contains("3 messages that were published before") && told.contains("3 rows up to"),
            "{told}"
        );

        // A later start finds marks past what the log holds, and no fault in it; what is new goes out.
        strict(&copy, &files).run_until_empty(&cx).await.unwrap();
        send(&desk, &cx, "a", &[8]).await;
        relay(&desk, &letters).run_until_empty(&cx).await.unwrap();
        follower(&copy, &letters, &keeper).run_until_caught_up(&cx).await.unwrap();
        strict(&copy, &files).run_until_empty(&cx).await.unwrap();
        strict(&copy, &files).run_until_empty(&cx).await.unwrap();
        auditor.run_until_caught_up(&cx).await.unwrap();
        assert_eq!(filed(&files).await[7..], [(2, 4, 8)]);
        assert_eq!(audited(&audit).await, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(kept(&copy, "a").await, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

/// A row as it stands in each copy of a store: the same id.
fn letter(id: u64, number: u64) -> OutboxRow {
    OutboxRow {
        topic: Topic::new("sender").unwrap(),
        key: "a".into(),
        headers: vec![("id".into(), Uuid::from_u128(id.into()).to_string()), ("type".into(), "Sent".into())],
        payload: format!("{{\"number\":{number}}}").into_bytes(),
    }
}

async fn put(store: &Memory, cx: &Context, row: OutboxRow) {
    store.transact(cx, move |tx| Ok::<_, Abort<()>>(tx.outbox(&row)?)).await.unwrap();
}

async fn write(store: &Memory, cx: &Context, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        put(store, cx, letter(number, number)).await;
    }
}

async fn names(log: &MemoryLog) -> Vec<(u32, u64, u64)> {
    logged(log).await.iter().map(|m| (m.identity.epoch, m.identity.seq, number(m))).collect()
}

/// A log that holds rows 1 to `last` of a store, and that store without any row, restored: in epoch 2.
async fn forgotten(cx: &Context, last: u64) -> (Memory, MemoryLog) {
    let (id, log) = (StoreId(Uuid::from_u128(91)), MemoryLog::default());
    let first_life = Memory::with_id(id);
    write(&first_life, cx, 1..=last).await;
    relay(&first_life, &log).run_until_empty(cx).await.unwrap();
    let copy = Memory::with_id(id);
    let (restored, told) = telling(&copy, &log);
    restored.run_until_empty(cx).await.unwrap();
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains(&format!("{last} messages that were published before")), "{told}");
    assert_eq!(copy.outbox_status().await.unwrap().epoch, 2);
    (copy, log)
}

#[tokio::test]
async fn the_same_id_with_another_content_is_published_and_told() {
    let cx = cx();
    let (copy, log) = forgotten(&cx, 3).await;
    put(&copy, &cx, letter(2, 2)).await;
    put(&copy, &cx, letter(3, 33)).await;
    // Without an id it is a message of its own, whatever it says.
    put(&copy, &cx, OutboxRow { headers: vec![("type".into(), "Sent".into())], ..letter(1, 1) }).await;
    let (again, told) = telling(&copy, &log);
    again.run_until_empty(&cx).await.unwrap();
    assert_eq!(names(&log).await[3..], [(2, 2, 33), (2, 3, 1)]);
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains("1 rows, the first of them row 2, have ids"), "{told}");
    assert!(told.contains("1 rows up to row 3 were not published"), "{told}");
}

#[tokio::test]
async fn more_forgotten_messages_than_can_be_remembered_stop_the_relay() {
    let cx = cx();
    let (copy, log) = forgotten(&cx, 3).await;
    write(&copy, &cx, [1]).await;
    let refused = relay(&copy, &log).orphans_max(2).run_until_empty(&cx).await.unwrap_err();
    assert!(matches!(refused, RelayError::Orphans { max: 2, .. }), "{refused}");
    assert_eq!((names(&log).await.len(), copy.outbox_status().await.unwrap().unsent), (3, 1));
    relay(&copy, &log).orphans_max(3).run_until_empty(&cx).await.unwrap();
    assert_eq!((names(&log).await.len(), copy.outbox_status().await.unwrap().unsent), (3, 0));
}

/// Receivers keep a range for each run of numbers that never comes, and only so many of them.
#[tokio::test]
async fn numbers_begin_again_before_there_are_too_many_gaps() {
    let cx = cx();
    let (copy, log) = forgotten(&cx, 1_000).await;
    for number in 1..=1_000 {
        write(&copy, &cx, [10_000 + number, number]).await;
    }
    relay(&copy, &log).run_until_empty(&cx).await.unwrap();
    write(&copy, &cx, [1_001]).await;
    strict(&copy, &log).run_until_empty(&cx).await.unwrap();
    let producer = Producer::from(copy.id().0);
    let newest = async |epoch| log.newest(&producer, epoch, 0).await.unwrap().map(|(number, _)| number);
    assert_eq!((newest(2).await, newest(3).await, newest(4).await), (Some(1_999), Some(1), None));
}

#[tokio::test]
async fn a_log_that_lost_more_than_the_present_epoch_gets_it_again() {
    let cx = cx();
    let id = StoreId(Uuid::from_u128(92));
    for kept in [0, 2] {
        let log = MemoryLog::default();
        let (first_life, copy) = (Memory::with_id(id), Memory::with_id(id));
        write(&first_life, &cx, 1..=5).await;
        relay(&first_life, &log).run_until_empty(&cx).await.unwrap();
        write(&copy, &cx, 1..=3).await;
        relay(&copy, &log).run_until_empty(&cx).await.unwrap();
        write(&copy, &cx, [6, 7]).await;
        strict(&copy, &log).run_until_empty(&cx).await.unwrap();
        let shorter = MemoryLog::default();
        let messages = logged(&log).await.into_iter().take(kept).collect();
        shorter.append(&cx, messages).await.unwrap();
        let (again, told) = telling(&copy, &shorter);
        again.run_until_empty(&cx).await.unwrap();
        assert_eq!(names(&shorter).await, [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 6), (2, 2, 7)], "{kept}");
        let told = told.lock().unwrap().join("\n");
        assert!(told.contains(&format!("rows {} to 5 are published again", kept + 1)), "{told}");
        strict(&copy, &shorter).run_until_empty(&cx).await.unwrap();
    }
}

fn cx_at(clock: &ManualClock) -> Context {
    let chance = Arc::new(SeededChance::new(7));
    Context::new(Envelope::begin(Priority::Normal, &*chance), Arc::new(clock.clone()), chance)
}

#[tokio::test]
async fn a_row_that_the_log_no_longer_keeps_is_not_published_under_a_new_number() {
    let clock = ManualClock::new(Timestamp::from_millis(1_000));
    let (cx, log, id) = (cx_at(&clock), MemoryLog::default(), StoreId(Uuid::from_u128(93)));
    let (first_life, copy) = (Memory::with_id(id), Memory::with_id(id));
    for store in [&first_life, &copy] {
        write(store, &cx, 1..=3).await;
    }
    copy.transact(&cx, |tx| Ok::<_, Abort<()>>(tx.outbox_sent(&[1, 2])?)).await.unwrap();
    relay(&first_life, &log).run_until_empty(&cx).await.unwrap();
    clock.advance(Duration::from_secs(10));
    write(&first_life, &cx, [4, 5]).await;
    relay(&first_life, &log).run_until_empty(&cx).await.unwrap();
    log.prune(Timestamp::from_millis(10_000));
    clock.advance(Duration::from_secs(10));
    write(&copy, &cx, [6]).await;
    let (restored, told) = telling(&copy, &log);
    restored.run_until_empty(&cx).await.unwrap();
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains("rows after 3"), "{told}");
    let page = log.read(&crate::post::topic(), 0, Offset(3), 10).await.unwrap();
    let names = page.messages.iter().map(|delivered| &delivered.message);
    let names: Vec<_> = names.map(|m| (m.identity.epoch, m.identity.seq, number(m))).collect();
    assert_eq!(names, [(1, 4, 4), (1, 5, 5), (1, 3, 3), (2, 1, 6)]);
}

#[tokio::test]
async fn a_restore_is_told_before_anything_is_changed() {
    let (cx, log, id) = (cx(), MemoryLog::default(), StoreId(Uuid::from_u128(94)));
    let (first_life, copy) = (Memory::with_id(id), Memory::with_id(id));
    write(&first_life, &cx, 1..=2).await;
    relay(&first_life, &log).run_until_empty(&cx).await.unwrap();
    let dies = Faulty::over(copy.clone(), [Fault::CrashAfter]);
    let (restored, told) = telling(&dies, &log);
    tokio::select! {
        ended = restored.run_until_empty(&cx) => panic!("{ended:?}"),
        () = dies.crashed() => {}
    }
    assert_eq!(copy.outbox_status().await.unwrap().epoch, 2, "it died after it had opened the epoch");
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains("restored"), "{told}");
}
