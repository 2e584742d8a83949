//! Files and paths that are not what a store needs: a clear error each, nothing changed, nothing lost.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use mainstay_envelope::{ContentHash, Context, MessageIdentity, Producer, Timestamp};
use mainstay_event_store::{
    Abort, Act, AppendError, ConsumerName, EventType, Expected, Head, IndexValue, Mark, NewEvent,
    OutboxRecord, OutboxRow, Payload, Position, Query, ReadError, Refusal, Row, Scan, Store, StreamName, Tag,
    Topic, Tx, Verifier, ViewName,
};
use mainstay_sqlite::rusqlite::Connection;
use mainstay_sqlite::{OpenError, Options, Sqlite};

mod folder;

async fn fill(path: &Path, events: usize) {
    let store = Sqlite::open(Options::new(path)).unwrap();
    append(&store, events).await.unwrap();
    store.close();
}

async fn append(store: &Sqlite, events: usize) -> Result<(), AppendError> {
    let cx = Context::system();
    for _ in 0..events {
        let event = NewEvent::new(cx.new_id(), EventType::new("E").unwrap(), Payload::plain(vec![b'x'; 500]));
        store.append(&cx, Act::append(StreamName::new("s").unwrap(), Expected::Any, vec![event])).await?;
    }
    Ok(())
}

fn open_error(path: &Path) -> OpenError {
    Sqlite::open(Options::new(path)).unwrap_err()
}

async fn verified(store: &Sqlite) -> Result<u64, String> {
    let (mut verifier, mut after) = (Verifier::new(store.id()), Position::START);
    loop {
        let page = store.read(&Query::all(), after, 1_000).await.map_err(|error| error.to_string())?;
        for event in &page.events {
            verifier.check(event).map_err(|error| error.to_string())?;
        }
        after = page.next;
        if page.at_end() {
            return Ok(after.0);
        }
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_not_touched() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    fill(&path, 3).await;
    let conn = Connection::open(&path).unwrap();
    conn.execute("update mainstay_meta set value = 99 where key = 'schema'", []).unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    for options in [Options::new(&path), Options::new(&path).read_only()] {
        let error = Sqlite::open(options).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, known: 4, .. }), "{error}");
        assert!(error.to_string().contains("use the newer build"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_not_touched() {
    let folder = folder::Folder::new();
    let path = folder.path().join("notes.txt");
    let text = "these are my notes\n".repeat(500);
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(open_error(&path), OpenError::NotAStore { .. }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert!(matches!(open_error(folder.path()), OpenError::NotAStore { .. }), "a folder");
    assert!(matches!(open_error(Path::new(":memory:")), OpenError::NotAStore { .. }), "no file at all");
    assert!(matches!(open_error(Path::new("")), OpenError::NotAStore { .. }), "no name at all");
}

#[test]
fn a_missing_file_is_made_only_when_that_is_wanted() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    for options in [Options::new(&path).existing(), Options::new(&path).read_only()] {
        assert!(matches!(Sqlite::open(options).unwrap_err(), OpenError::Missing { .. }));
    }
    assert!(!path.exists());
    let nowhere = folder.path().join("no such folder").join("store.db");
    let error = open_error(&nowhere);
    assert!(
        matches!(error, OpenError::Access { .. }) && error.to_string().contains("no such folder"),
        "{error}"
    );
}

/// A database of somebody else's is shared, not taken over: their tables stay, ours are added.
#[tokio::test]
async fn a_database_with_the_users_tables_becomes_a_store_too() {
    let folder = folder::Folder::new();
    let path = folder.path().join("app.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("pragma user_version = 7; create table orders(id); insert into orders values (1)")
        .unwrap();
    drop(conn);
    let error = Sqlite::open(Options::new(&path).read_only()).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "reading makes no tables: {error}");
    fill(&path, 2).await;
    let conn = Connection::open(&path).unwrap();
    let kept: (i64, i64) = conn
        .query_row("select (select count(*) from orders), user_version from pragma_user_version", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(kept, (1, 7));
}

#[tokio::test]
async fn strange_names_are_names() {
    let folder = folder::Folder::new();
    for name in ["a b.db", "q?mode=memory.db", "percent%20.db", "file:x.db", "ünï-🦀.db", "#frag"] {
        let path = folder.path().join(name);
        fill(&path, 1).await;
        assert!(path.is_file(), "{name}");
    }
    use std::os::unix::ffi::OsStrExt;
    let raw = folder.path().join(std::ffi::OsStr::from_bytes(b"raw-\xff.db"));
    // Not UTF-8: whatever the answer is, it is clear, and no other file is made in its place.
    if Sqlite::open(Options::new(&raw)).is_ok() {
        assert!(raw.exists());
    }
    let long = folder.path().join("l".repeat(300));
    assert!(matches!(open_error(&long), OpenError::Access { .. } | OpenError::Failed { .. }));
}

/// Every page of the file spoilt in turn: opened or not, what is wrong is said, and never handed out as a fact.
#[tokio::test]
async fn a_damaged_file_is_noticed() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    fill(&path, 60).await;
    let good = std::fs::read(&path).unwrap();
    let pages = good.len() / 4096;
    assert!(pages > 10);
    let (mut noticed, mut unharmed) = (0, 0);
    for page in 0..pages {
        let mut bad = good.clone();
        for byte in &mut bad[page * 4096 + 100..page * 4096 + 4000] {
            *byte ^= 0x5A;
        }
        let path = folder.path().join(format!("bad-{page}.db"));
        std::fs::write(&path, &bad).unwrap();
        match Sqlite::open(Options::new(&path).read_only()) {
            Err(OpenError::NotAStore { .. } | OpenError::Damaged { .. } | OpenError::Failed { .. }) => {
                noticed += 1
            }
            Err(error) => panic!("page {page}: {error}"),
            Ok(store) => match verified(&store).await {
                // An index or an unused page: the facts themselves are whole.
                Ok(events) => {
                    assert_eq!(events, 60, "page {page}");
                    unharmed += 1;
                }
                Err(_) => noticed += 1,
            },
        }
    }
    assert!(noticed > 5, "{noticed} noticed, {unharmed} unharmed of {pages}");
}

/// One fact changed behind the store's back, with its file in perfect order: the chain tells where.
#[tokio::test]
async fn a_changed_fact_breaks_the_chain_where_it_stands() {
    let changes = [
        ("payload", "update mainstay_events set payload = x'7b7d' where position = 5", "position 5"),
        ("type", "update mainstay_events set type = 'Other' where position = 5", "position 5"),
        ("time", "update mainstay_events set at = at + 1 where position = 5", "position 5"),
        ("envelope", "update mainstay_events set envelope = x'7b7d' where position = 5", "position 5"),
        ("tags", "update mainstay_events set tags = 'a' where position = 5", "position 5"),
        ("version", "update mainstay_events set version = 50 where position = 5", "position 5"),
        ("id", "update mainstay_events set id = randomblob(16) where position = 5", "position 5"),
        ("key", "update mainstay_events set key = 'k' where position = 5", "position 5"),
        ("stream", "update mainstay_streams set name = 'other'", "position 1"),
        ("hash", "update mainstay_events set hash = zeroblob(32) where position = 5", "position 5"),
        ("removed", "delete from mainstay_events where position = 5", "position 6"),
    ];
    for (what, sql, place) in changes {
        let folder = folder::Folder::new();
        let path = folder.path().join("store.db");
        fill(&path, 10).await;
        let conn = Connection::open(&path).unwrap();
        assert!(conn.execute(sql, []).unwrap() > 0, "{what}");
        drop(conn);
        let store = Sqlite::open(Options::new(&path).read_only()).unwrap();
        let broken = verified(&store).await.unwrap_err();
        assert!(broken.contains(place), "{what}: {broken}");
    }
}

#[tokio::test]
async fn a_read_only_handle_refuses_to_append() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    fill(&path, 1).await;
    let store = Sqlite::open(Options::new(&path).read_only()).unwrap();
    let refused = append(&store, 1).await.unwrap_err();
    assert!(
        matches!(&refused, AppendError::Refused(Refusal::Unavailable { passing: false, .. })),
        "{refused}"
    );
    assert_eq!(verified(&store).await, Ok(1));
}

/// A checkpoint from before a restore from backup: refused, never "nothing new".
#[tokio::test]
async fn reading_after_a_position_that_never_was_is_refused() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    fill(&path, 2).await;
    let store = Sqlite::open(Options::new(&path)).unwrap();
    let error = store.read(&Query::all(), Position(3), 10).await.unwrap_err();
    assert_eq!(error, ReadError::PastEnd { asked: Position(3), ends: Position(2) });
}

/// A file as a build of schema 1 wrote it, byte for byte: whatever comes later has to go on from it.
#[tokio::test]
async fn a_file_of_schema_1_goes_on() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    std::fs::write(&path, include_bytes!("fixtures/schema-1.db")).unwrap();
    let kept = Head {
        position: Position(40),
        hash: "2af288435e65ac80ef446687452d1eff2495e54a2731d3bb49034dc1e4f4ffac".parse().unwrap(),
    };
    let store = Sqlite::open(Options::new(&path).existing()).unwrap();
    assert_eq!(store.head_at(kept.position).await.unwrap(), Some(kept));
    assert_eq!(verified(&store).await, Ok(40));
    let query = Query::tags([Tag::new("customer:1").unwrap()]);
    assert_eq!(store.read(&query, Position::START, 100).await.unwrap().events.len(), 14);
    append(&store, 3).await.unwrap();
    assert_eq!(verified(&store).await, Ok(43));
}

/// Its outbox rows are numbered and marked as any others; only the last of them says how far the feed had come.
#[tokio::test]
async fn outbox_rows_of_schema_1_go_on() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    std::fs::write(&path, include_bytes!("fixtures/schema-1.db")).unwrap();
    let conn = Connection::open(&path).unwrap();
    let insert = "insert into mainstay_outbox(seq, at, envelope, topic, key, headers, payload)
                  values (?1, 7, x'7b7d', 'orders', 'k', '[[\"h\",\"1\"]]', x'6d')";
    for seq in 1..=3 {
        conn.execute(insert, [seq]).unwrap();
    }
    // Without its log the file is whole, and must stay as it is.
    conn.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
    drop(conn);
    let old = std::fs::read(&path).unwrap();
    let error = Sqlite::open(Options::new(&path).read_only()).unwrap_err();
    assert!(matches!(error, OpenError::Older { found: 1, known: 4, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), old);

    let store = Sqlite::open(Options::new(&path).existing()).unwrap();
    let row = OutboxRow {
        topic: Topic::new("orders").unwrap(),
        key: "k".into(),
        headers: vec![("h".into(), "1".into())],
        payload: b"m".to_vec(),
    };
    let rows = store.outbox_unsent(0, 10).await.unwrap();
    let positions = [Position::START, Position::START, Position(40)];
    let expected: Vec<_> = (1..)
        .zip(positions)
        .map(|(seq, position)| OutboxRecord {
            seq,
            at: Timestamp::from_millis(7),
            envelope: b"{}".to_vec(),
            row: row.clone(),
            epoch: 1,
            number: seq,
            position,
        })
        .collect();
    assert_eq!(rows, expected);
    append(&store, 1).await.unwrap();
    let cx = Context::system();
    let next = store.transact(&cx, move |tx| {
        tx.outbox_sent(&[1, 2])?;
        Ok::<_, Abort<String>>(tx.outbox(&row)?)
    });
    assert_eq!(next.await.unwrap().receipt.mark(), 41);
    let left = store.outbox_unsent(0, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|row| (row.seq, row.number, row.position.0)).collect();
    assert_eq!(left, [(3, 3, 40), (4, 4, 41)]);
}

/// Its views' rows are found by key and by index, keep their order, and are replaced and removed with their index entries.
#[tokio::test]
async fn views_of_schema_1_go_on() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    std::fs::write(&path, include_bytes!("fixtures/schema-1.db")).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "insert into mainstay_views(id, name) values (70, 'orders'), (71, 'plain');
         insert into mainstay_view_rows(view, key, value, indices) values
             (70, 'c', x'63', cast(x'0600' || 'status' || x'0200' || x'02' || 'A' as blob)),
             (70, 'a', x'61', cast(x'0600' || 'status' || x'0200' || x'02' || 'A' as blob)),
             (70, 'b', x'62', cast(x'0600' || 'status' || x'0200' || x'02' || 'B' as blob)),
             (71, 'a', x'70', null);
         insert into mainstay_view_index(view, name, value, key) values
             (70, 'status', cast(x'02' || 'A' as blob), 'c'), (70, 'status', cast(x'02' || 'A' as blob), 'a'),
             (70, 'status', cast(x'02' || 'B' as blob), 'b');",
    )
    .unwrap();
    drop(conn);
    let store = Sqlite::open(Options::new(&path).existing()).unwrap();
    let (orders, plain) = (ViewName::new("orders").unwrap(), ViewName::new("plain").unwrap());
    let keys = async |scan: Scan| {
        let rows = store.view_scan(&scan).await.unwrap().rows;
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let status = |status: &str| Scan::equal(orders.clone(), "status", IndexValue::Text(status.into()), 9);
    assert_eq!(keys(Scan::keys(orders.clone(), 9)).await, ["a", "b", "c"]);
    assert_eq!(keys(status("A")).await, ["a", "c"]);
    assert_eq!(store.view_get(&plain, "a").await.unwrap(), Some(b"p".to_vec()));
    let cx = Context::system();
    let view = orders.clone();
    let changed = store.transact(&cx, move |tx| {
        tx.view_put(&view, &Row::new("a", "1").indexed("status", IndexValue::Text("B".into())))?;
        tx.view_put(&view, &Row::new("d", "2").indexed("status", IndexValue::Text("A".into())))?;
        Ok::<_, Abort<String>>(tx.view_delete(&view, "c")?)
    });
    assert!(changed.await.unwrap().value);
    assert_eq!(keys(Scan::keys(orders.clone(), 9)).await, ["a", "b", "d"]);
    assert_eq!(
        (keys(status("A")).await, keys(status("B")).await),
        (vec!["d".into()], vec!["a".into(), "b".into()])
    );
    assert_eq!(store.view_get(&orders, "a").await.unwrap(), Some(b"1".to_vec()));
}

/// What it remembers of messages, with their hashes, holds on: a message that was handled by an older build is not
/// handled again, and one whose number came with another content is noticed.
#[tokio::test]
async fn handled_messages_of_schema_1_stay_handled() {
    let folder = folder::Folder::new();
    let path = folder.path().join("store.db");
    std::fs::write(&path, include_bytes!("fixtures/schema-1.db")).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "insert into mainstay_inbox(id, consumer, producer, epoch, partition, watermark, holes)
             values (7, 'c', 'p', 1, 0, 1100, 1);
         insert into mainstay_inbox_holes(inbox, first, last) values (7, 1050, 1060);",
    )
    .unwrap();
    for seq in (77..=1_100).filter(|seq| !(1_050..=1_060).contains(seq)) {
        let content = ContentHash::of(format!("{seq}").as_bytes());
        let insert = "insert into mainstay_inbox_recent(inbox, slot, seq, content) values (7, ?1, ?2, ?3)";
        conn.execute(insert, (seq % 1_024, seq, content.0)).unwrap();
    }
    drop(conn);
    let store = Sqlite::open(Options::new(&path).existing()).unwrap();
    let cases = [
        (77, "77", Mark::Repeated),
        (1_023, "1023", Mark::Repeated),
        (1_024, "1024", Mark::Repeated),
        (1_100, "1100", Mark::Repeated),
        (1_024, "other", Mark::Altered),
        (1_099, "other", Mark::Altered),
        (1_055, "1055", Mark::First),
        (1_055, "other", Mark::Altered),
        (1_101, "1101", Mark::First),
        (3, "other", Mark::Repeated),
    ];
    for (seq, content, expected) in cases {
        let message = MessageIdentity {
            producer: Producer::new("p").unwrap(),
            epoch: 1,
            partition: 0,
            seq,
            content: ContentHash::of(content.as_bytes()),
        };
        let consumer = ConsumerName::new("c").unwrap();
        let cx = Context::system();
        let marked =
            store.transact(&cx, move |tx| Ok::<_, Abort<String>>(tx.inbox_mark(&consumer, &message)?));
        assert_eq!(marked.await.unwrap().value, expected, "{seq} {content}");
    }
}

#[cfg(feature = "faults")]
mod full {
    use super::*;
    use mainstay_sqlite::faults::{Disk, VFS};

    /// A full disk: refused, nothing lost, and appends go on by themselves once there is space.
    #[tokio::test]
    async fn a_full_disk_refuses_and_heals() {
        let disk = Disk::new(1);
        let options = || Options::new(disk.path("store.db")).vfs(VFS.to_str().unwrap());
        let store = Sqlite::open(options()).unwrap();
        append(&store, 20).await.unwrap();
        disk.set_capacity(disk.used() + 8_000);
        let mut written = 20;
        let refused = loop {
            match append(&store, 1).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 200, "the disk never gets full");
        };
        assert!(refused.to_string().contains("full"), "{refused}");
        assert!(
            verified(&store).await.unwrap() >= written,
            "what was acknowledged is readable while it is full"
        );
        disk.set_capacity(1 << 30);
        append(&store, 5).await.unwrap();
        assert!(verified(&store).await.unwrap() >= written + 5);
        assert!(store.health().ready());
    }

    /// No space for even an empty store: a clear error, and space makes it work.
    #[tokio::test]
    async fn a_store_on_a_full_disk_is_not_made() {
        let disk = Disk::new(2);
        disk.set_capacity(4_096);
        let options = || Options::new(disk.path("store.db")).vfs(VFS.to_str().unwrap());
        let error = Sqlite::open(options()).unwrap_err();
        assert!(matches!(error, OpenError::Full { .. }), "{error}");
        disk.set_capacity(1 << 30);
        append(&Sqlite::open(options()).unwrap(), 1).await.unwrap();
    }
}

/// Whoever closes a store may copy its file, and has everything.
#[tokio::test]
async fn a_closed_store_is_one_file() {
    let folder = folder::Folder::new();
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    for round in 1..=10 {
        let store = Sqlite::open(Options::new(&path).readers(4)).unwrap();
        append(&store, 5).await.unwrap();
        // Every reader thread opens the file.
        let reads: Vec<_> = (0..32).map(|_| tokio::spawn(verify(store.clone()))).collect();
        for read in reads {
            assert_eq!(read.await.unwrap(), Ok(round * 5));
        }
        store.close();
        for beside in ["store.db-wal", "store.db-shm"] {
            assert!(!folder.path().join(beside).exists(), "round {round}: {beside}");
        }
        std::fs::copy(&path, &copy).unwrap();
        let store = Sqlite::open(Options::new(&copy).read_only()).unwrap();
        assert_eq!(verified(&store).await, Ok(round * 5));
        store.close();
    }
}

async fn verify(store: Sqlite) -> Result<u64, String> {
    verified(&store).await
}
