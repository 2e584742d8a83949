//! Archived ranges: what leaves the store, what stays, and what readers and writers are told.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mainstay_envelope::Context;
use mainstay_event_store::chain::Archived;
use mainstay_event_store::{
    Abort, Act, AppendError, Condition, Direction, EventType, Expected, NewEvent, Payload, Position, Query,
    ReadError, Refusal, Store, StreamName, Tag, TransactError, Tx, Verifier, Version,
};
use mainstay_sqlite::rusqlite::Connection;
use mainstay_sqlite::{NotArchived, Options, Sqlite};
use uuid::Uuid;

mod folder;
use folder::Folder;

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn event(n: u128) -> NewEvent {
    NewEvent::new(Uuid::from_u128(n), EventType::new("E").unwrap(), Payload::plain(format!("secret {n}")))
        .tagged(Tag::new(format!("n:{n}")).unwrap())
}

async fn append(store: &Sqlite, name: &str, n: u128, expected: Expected) -> Result<Version, AppendError> {
    let act = Act::append(stream(name), expected, vec![event(n)]);
    store.append(&Context::system(), act).await.map(|done| done.versions[0].1)
}

/// Events 1 to 10, the odd ones of stream `a`, the even ones of `b`.
async fn ten(folder: &Folder) -> Sqlite {
    let store = Sqlite::open(Options::new(folder.path().join("s.db"))).unwrap();
    for n in 1..=10 {
        append(&store, if n % 2 == 1 { "a" } else { "b" }, n, Expected::Any).await.unwrap();
    }
    store
}

fn archived(from: u64, to: u64, file: &str) -> ReadError {
    ReadError::Archived { from: Position(from), to: Position(to), file: file.into() }
}

#[tokio::test]
async fn the_events_are_in_the_file_and_the_chain_goes_on_over_the_marker() {
    let folder = Folder::new();
    let store = ten(&folder).await;
    let before = store.read(&Query::all(), Position::START, 100).await.unwrap().events;
    let file = folder.path().join("old.jsonl");
    let marker = store.archive(Position(5), &file).await.unwrap();
    assert_eq!((marker.from, marker.to, marker.count), (Position(1), Position(4), 4));
    assert_eq!((marker.first, marker.last), (before[0].hash, before[3].hash));
    let second = store.archive(Position(8), &folder.path().join("more.jsonl")).await.unwrap();
    assert_eq!((second.from, second.to), (Position(5), Position(7)));
    assert_eq!(store.archives().await.unwrap(), [marker.clone(), second.clone()]);

    let mut verifier = Verifier::new(store.id());
    let mut heads = Vec::new();
    let opened = std::fs::File::open(&file).unwrap();
    let seen = |head| {
        heads.push(head);
        Ok(())
    };
    verifier.check_archive(store.id(), &marker, opened, seen).unwrap();
    assert_eq!(heads.len(), 4);
    verifier.accept(&second).unwrap();
    let page = store.read(&Query::all(), Position(7), 100).await.unwrap();
    page.events.iter().for_each(|event| verifier.check(event).unwrap());
    assert_eq!((page.events.as_slice(), verifier.head()), (&before[7..], store.head().await.unwrap()));

    // What was archived is nowhere in the store's own rows any more.
    store.close();
    let conn = Connection::open(folder.path().join("s.db")).unwrap();
    let left: i64 = conn
        .query_row("select count(*) from mainstay_events where payload != x'' or envelope != x''", [], |r| {
            r.get(0)
        })
        .unwrap();
    assert_eq!(left, 3);
}

#[tokio::test]
async fn a_reader_of_what_is_archived_is_told_where_it_is_and_others_notice_nothing() {
    let folder = Folder::new();
    let store = ten(&folder).await;
    store.archive(Position(5), &folder.path().join("old.jsonl")).await.unwrap();
    let told = archived(1, 4, "old.jsonl");
    let every = Query::all();
    let all = |after| store.read(&every, Position(after), 100);
    assert_eq!(all(0).await, Err(told.clone()));
    assert_eq!(all(3).await, Err(told.clone()));
    assert_eq!(all(4).await.unwrap().events.len(), 6);
    // By tag: only who would have been given an archived event.
    let tagged = |n: u64| Query::tags([Tag::new(format!("n:{n}")).unwrap()]);
    assert_eq!(store.read(&tagged(3), Position::START, 100).await, Err(told.clone()));
    let page = store.read(&tagged(6), Position::START, 100).await.unwrap();
    assert_eq!((page.events.len(), page.at_end()), (1, true));
    // By stream: forwards from the start, and backwards down to the range.
    let forwards = store.read_stream(&stream("a"), Version(1), Direction::Forwards, 100).await;
    assert_eq!(forwards, Err(told.clone()));
    let page = store.read_stream(&stream("a"), Version(3), Direction::Forwards, 100).await.unwrap();
    assert_eq!((page.events.len(), page.version), (3, Version(5)));
    let backwards =
        store.read_stream(&stream("a"), Version(u64::MAX), Direction::Backwards, 100).await.unwrap();
    assert_eq!(backwards.events.iter().map(|e| e.version.0).collect::<Vec<_>>(), [5, 4, 3]);
    assert_eq!(store.read_stream(&stream("a"), Version(2), Direction::Backwards, 9).await, Err(told.clone()));
    // Inside a transaction, which is refused as a whole, also when the closure swallows it.
    let cx = Context::system();
    let swallowed = store.transact(&cx, |tx| {
        let _ = tx.read_stream(&stream("b"), Version(1), 10);
        tx.append(&stream("c"), Expected::Any, &[event(99)])?;
        Ok::<_, Abort<String>>(())
    });
    let Err(TransactError::Store(AppendError::Refused(refusal))) = swallowed.await else {
        panic!("it committed")
    };
    assert!(refusal.to_string().contains("archived in old.jsonl"), "{refusal}");
    assert_eq!(store.head().await.unwrap().position, Position(10));
    let seen =
        store.transact(&cx, |tx| Ok::<_, Abort<String>>(tx.read_stream(&stream("b"), Version(3), 10)?.len()));
    assert_eq!(seen.await.unwrap().value, 3);
}

#[tokio::test]
async fn writers_go_on_as_if_the_events_were_there() {
    let folder = Folder::new();
    let store = ten(&folder).await;
    let other = Sqlite::open(Options::new(folder.path().join("s.db"))).unwrap();
    append(&other, "a", 11, Expected::Exactly(Version(5))).await.unwrap();
    store.archive(Position(12), &folder.path().join("old.jsonl")).await.unwrap();
    for (store, n) in [(&store, 12), (&other, 13)] {
        // Versions go on, though no event of the stream is left.
        let stale = append(store, "b", 50, Expected::Exactly(Version(1))).await.unwrap_err();
        assert!(matches!(stale, AppendError::Refused(Refusal::Conflict { .. })), "{stale}");
        let version = append(store, "a", n, Expected::Any).await.unwrap();
        assert_eq!(version, Version(n as u64 - 5));
        // An archived event is not recorded twice; nobody can say any more whether it is the same.
        let again = append(store, "a", 3, Expected::Any).await.unwrap_err();
        let AppendError::Refused(Refusal::IdTaken { why, .. }) = &again else { panic!("{again}") };
        assert!(why.contains("position 3, and archived"), "{why}");
        // Conditions still see it.
        let query = Query::tags([Tag::new("n:3").unwrap()]);
        let act = Act::append(stream("c"), Expected::Any, vec![event(60)])
            .unless(Condition { query, after: Position::START });
        let answer = store.append(&Context::system(), act).await.unwrap_err();
        let found = Some(Position(3));
        assert_eq!(answer, AppendError::Refused(Refusal::ConditionFailed { index: 0, found }));
    }
    let page = other.read(&Query::all(), Position(11), 10).await.unwrap();
    let mut verifier = Verifier::from_head(store.head_at(Position(11)).await.unwrap().unwrap());
    page.events.iter().for_each(|event| verifier.check(event).unwrap());
    assert_eq!(verifier.head().position, Position(13));
}

#[tokio::test]
async fn what_cannot_be_archived_is_refused_and_the_store_is_as_it_was() {
    let folder = Folder::new();
    let store = ten(&folder).await;
    let file = folder.path().join("old.jsonl");
    let refused = |before: u64, file: std::path::PathBuf| {
        let store = store.clone();
        async move { store.archive(Position(before), &file).await.unwrap_err().to_string() }
    };
    assert!(refused(12, file.clone()).await.contains("past the end of the feed, 10"));
    assert!(refused(0, file.clone()).await.contains("nothing before position 0"));
    assert!(refused(1, file.clone()).await.contains("nothing before position 1"));
    assert!(!file.exists());
    std::fs::write(&file, "mine").unwrap();
    assert!(refused(5, file.clone()).await.contains("the store is as it was"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(refused(5, folder.path().join("no/such/folder.jsonl")).await.contains("the store is as it was"));
    let whole = store.read(&Query::all(), Position::START, 100).await.unwrap();
    assert_eq!((whole.events.len(), store.archives().await.unwrap()), (10, Vec::<Archived>::new()));
    let other = folder.path().join("new.jsonl");
    store.archive(Position(5), &other).await.unwrap();
    assert!(refused(5, file.clone()).await.contains("that is not archived already"));
}

#[tokio::test]
async fn a_broken_chain_is_not_archived() {
    let folder = Folder::new();
    let store = ten(&folder).await;
    let conn = Connection::open(folder.path().join("s.db")).unwrap();
    conn.execute("update mainstay_events set payload = x'00' where position = 3", []).unwrap();
    let file = folder.path().join("old.jsonl");
    let error = store.archive(Position(5), &file).await.unwrap_err();
    assert!(
        matches!(&error, NotArchived::File { .. }) && error.to_string().contains("breaks at position 3"),
        "{error}"
    );
    assert!(!file.exists() && store.archives().await.unwrap().is_empty());
}
