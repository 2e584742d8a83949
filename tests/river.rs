//! Facts from one SQLite file through an embedded log to another: what a service that keeps its data in files gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::Path;
use std::sync::{Arc, Mutex};

use mainstay::flow::inbox::{DeadLetters, Followed, Follower, NotSeen, Status};
use mainstay::flow::outbox::Relay;
use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::{Entity, Publisher, Work, transact};
use mainstay::sqlite::{EmbeddedLog, LogOptions};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::{Abort, Receipt, Refusal, Row, Store, StreamName, Tx, ViewName};
use mainstay::{Context, Decider, Event};

#[derive(Clone, Debug, PartialEq, Event)]
enum LetterEvent {
    Sent { number: u64 },
}

#[derive(Default)]
struct Desk;

impl Decider for Desk {
    type Command = u64;
    type Event = LetterEvent;
    type Refusal = std::convert::Infallible;

    fn decide(&self, number: &u64) -> Result<Vec<LetterEvent>, Self::Refusal> {
        Ok(vec![LetterEvent::Sent { number: *number }])
    }

    fn evolve(&mut self, _: &LetterEvent) {}
}

/// Keeps the numbers it got, by key, in the order of their handling; can't bear those it is told.
struct Keeper {
    poison: Arc<Mutex<Vec<u64>>>,
}

impl<S: Store> Reactor<S> for Keeper {
    fn participant(&self) -> Participant {
        Participant::new("keeper").on("Sent", "sender").ends().into()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        let LetterEvent::Sent { number } = message.open()?;
        let view = ViewName::new("kept").unwrap();
        let kept = work.tx().view_get(&view, message.key())?.unwrap_or_default();
        let kept = format!("{}{number} ", String::from_utf8(kept).unwrap());
        work.tx().view_put(&view, &Row::new(message.key(), kept))?;
        if self.poison.lock().unwrap().contains(&number) {
            return Err(Failure::poisoned("it can't be borne"));
        }
        Ok(())
    }
}

async fn send(store: &Sqlite, cx: &Context, key: &'static str, number: u64) -> Receipt {
    let publisher = Publisher::new(&Participant::new("sender").starts("Sent")).unwrap();
    let done = transact(store, cx, &publisher, move |work| {
        let stream = StreamName::new(format!("desk-{key}")).map_err(Refusal::from)?;
        let Ok(_) = work.act(&Entity::<Desk>::replayed(), &stream, key, &number)?;
        Ok::<_, Abort<std::convert::Infallible>>(())
    });
    done.await.unwrap().receipt
}

async fn kept(store: &Sqlite, key: &str) -> String {
    let kept = store.view_get(&ViewName::new("kept").unwrap(), key).await.unwrap().unwrap_or_default();
    String::from_utf8(kept).unwrap()
}

fn open(folder: &Path, name: &str) -> Sqlite {
    Sqlite::open(Options::new(folder.join(name))).unwrap()
}

/// The reader's end of a log, as another process opens it.
fn follower(
    folder: &Path,
    home: &Sqlite,
    poison: &Arc<Mutex<Vec<u64>>>,
    told: &Arc<Mutex<String>>,
) -> Follower<Sqlite, EmbeddedLog, Keeper> {
    let log = EmbeddedLog::follow(LogOptions::new(folder.join("log.db"))).unwrap();
    let told = Arc::clone(told);
    let keeper = Arc::new(Keeper { poison: Arc::clone(poison) });
    Follower::new(home.clone(), log, "sender", keeper)
        .unwrap()
        .on_trouble(move |what| told.lock().unwrap().push_str(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_message_is_retried_by_an_operator_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (cx, desk, home) = (Context::system(), open(folder, "desk.db"), open(folder, "home.db"));
    let log = EmbeddedLog::open(LogOptions::new(folder.join("log.db"))).unwrap();
    let (poison, told) = (Arc::new(Mutex::new(vec![3])), Arc::default());
    let followed = Followed::new(home.id());
    let follower = follower(folder, &home, &poison, &told).followed(&followed);
    let mut last = None;
    for (key, number) in [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5)] {
        last = Some(send(&desk, &cx, key, number).await);
    }
    let last = last.unwrap();
    Relay::new(desk, log).run_until_empty(&cx).await.unwrap();
    follower.run_until_caught_up(&cx).await.unwrap();
    assert_eq!((kept(&home, "a").await.as_str(), kept(&home, "b").await.as_str()), ("1 ", "2 5 "));
    let waited = followed.wait(&last, std::time::Duration::ZERO).await;
    assert!(matches!(waited, Err(NotSeen::NotYet { .. })), "{waited:?}");

    // Another handle of the same file, as the command line opens one.
    let operator = DeadLetters::new(open(folder, "home.db")).unwrap();
    let (parked, _) = operator.list(None, 10).await.unwrap();
    assert_eq!((parked.len(), parked[0].messages, parked[0].status), (1, 2, Status::Dead { tries: 1 }));
    let shown = operator.show(&parked[0].id).await.unwrap();
    assert_eq!((&shown[0].data[..], shown.len()), (&b"{\"number\":3}"[..], 2));
    poison.lock().unwrap().clear();
    operator.retry(&cx, &parked[0].id).await.unwrap();
    follower.run_until_caught_up(&cx).await.unwrap();
    assert_eq!(kept(&home, "a").await, "1 3 4 ");
    followed.wait(&last, std::time::Duration::ZERO).await.unwrap();
    assert!(operator.list(None, 10).await.unwrap().0.is_empty());
}

/// Copies a store's files, over those of another, while nobody writes.
fn copy(folder: &Path, from: &str, to: &str) {
    for end in ["", "-wal", "-shm"] {
        let (from, to) = (folder.join(format!("{from}{end}")), folder.join(format!("{to}{end}")));
        let _ = std::fs::remove_file(&to);
        if from.exists() && end != "-shm" {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_restored_from_a_copy_of_its_file_doubles_and_confuses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (cx, home) = (Context::system(), open(folder, "home.db"));
    let (poison, told) = (Arc::default(), Arc::default());
    let heard = Arc::clone(&told);
    let relay = |desk: &Sqlite, told: &Arc<Mutex<String>>| {
        let log = EmbeddedLog::open(LogOptions::new(folder.join("log.db"))).unwrap();
        let told = Arc::clone(told);
        Relay::new(desk.clone(), log).on_trouble(move |what| told.lock().unwrap().push_str(what))
    };
    let desk = open(folder, "desk.db");
    for number in 1..=3 {
        send(&desk, &cx, "a", number).await;
    }
    relay(&desk, &heard).run_until_empty(&cx).await.unwrap();
    send(&desk, &cx, "a", 4).await;
    desk.close();
    copy(folder, "desk.db", "copy.db");

    // The copy is made; life goes on, and is lost.
    let desk = open(folder, "desk.db");
    send(&desk, &cx, "a", 5).await;
    relay(&desk, &heard).run_until_empty(&cx).await.unwrap();
    follower(folder, &home, &poison, &told).run_until_caught_up(&cx).await.unwrap();
    desk.close();
    assert_eq!(*told.lock().unwrap(), "");
    copy(folder, "copy.db", "desk.db");

    let desk = open(folder, "desk.db");
    send(&desk, &cx, "a", 50).await;
    relay(&desk, &heard).run_until_empty(&cx).await.unwrap();
    follower(folder, &home, &poison, &told).run_until_caught_up(&cx).await.unwrap();
    assert_eq!(desk.outbox_status().await.unwrap().epoch, 2);
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert!(told.contains("restored from an older copy") && told.contains("1 messages"), "{told}");
    assert!(!told.contains("ALARM"), "{told}");
    assert_eq!(kept(&home, "a").await, "1 2 3 4 5 50 ", "4 was in the copy and published: not again");
}
