//! Files and paths that are not what a log needs, and logs that change under their readers: a clear error each,
//! nothing changed, nothing skipped.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{
    CloudEvent, ContentHash, Context, ManualClock, MessageIdentity, Producer, Timestamp,
};
use mainstay_messaging::{AppendError, Log, Message, Offset, ReadError, Retry, Topic};
use mainstay_sqlite::rusqlite::Connection;
use mainstay_sqlite::{EmbeddedLog, LogError, LogOptions, Options, Sqlite};

mod folder;

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn message(number: u64) -> Message {
    let data = vec![number as u8; 500];
    Message {
        identity: MessageIdentity {
            producer: Producer::new("p").unwrap(),
            epoch: 1,
            partition: 0,
            seq: number,
            content: ContentHash::of(&data),
        },
        topic: topic(),
        key: "k".into(),
        event: CloudEvent::new(number.to_string(), "/p", "E").unwrap(),
        data: data.into(),
        mark: number,
    }
}

async fn fill(path: &Path, messages: u64) {
    let log = EmbeddedLog::open(LogOptions::new(path)).unwrap();
    for number in 1..=messages {
        log.append(&Context::system(), vec![message(number)]).await.unwrap();
    }
    log.close();
}

async fn numbers(log: &EmbeddedLog) -> Result<Vec<u64>, ReadError> {
    let (mut found, mut after) = (Vec::new(), Offset::START);
    loop {
        let page = log.read(&topic(), 0, after, 7).await?;
        for delivered in &page.messages {
            let number = delivered.message.identity.seq;
            assert_eq!(delivered.message, message(number), "handed out as a fact, but it is none");
            found.push(number);
        }
        if page.at_end() {
            return Ok(found);
        }
        after = page.next;
    }
}

/// The errors of opening it to write and to follow.
fn errors(path: &Path) -> [LogError; 2] {
    let open = EmbeddedLog::open(LogOptions::new(path)).unwrap_err();
    let follow = EmbeddedLog::follow(LogOptions::new(path)).unwrap_err();
    [open, follow]
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_not_touched() {
    let folder = folder::Folder::new();
    let path = folder.path().join("log.db");
    fill(&path, 3).await;
    let conn = Connection::open(&path).unwrap();
    conn.execute("update mainstay_log_meta set value = 99 where key = 'schema'", []).unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    for error in errors(&path) {
        assert!(matches!(error, LogError::Newer { found: 99, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("use the newer build"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_log_is_refused_and_not_touched() {
    let folder = folder::Folder::new();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "these are my notes\n".repeat(500)).unwrap();
    let foreign = folder.path().join("app.db");
    Connection::open(&foreign).unwrap().execute_batch("create table orders(id)").unwrap();
    let store = folder.path().join("store.db");
    Sqlite::open(Options::new(&store)).unwrap().close();
    for path in [&text, &foreign, &store] {
        let before = std::fs::read(path).unwrap();
        for error in errors(path) {
            assert!(matches!(error, LogError::NotALog { .. }), "{error}");
            assert!(error.to_string().contains("nothing was changed"), "{error}");
        }
        assert_eq!(std::fs::read(path).unwrap(), before, "{}", path.display());
    }
    for path in [folder.path(), Path::new(":memory:"), Path::new("")] {
        assert!(errors(path).iter().all(|error| matches!(error, LogError::NotALog { .. })), "{path:?}");
    }
    let nowhere = folder.path().join("no such folder").join("log.db");
    let error = EmbeddedLog::open(LogOptions::new(&nowhere)).unwrap_err();
    assert!(
        matches!(error, LogError::Access { .. }) && error.to_string().contains("no such folder"),
        "{error}"
    );
    // An empty file is taken for a log that is being made, by somebody else's `touch` or an older maker.
    let empty = folder.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let follower = EmbeddedLog::follow(LogOptions::new(&empty)).unwrap();
    assert_eq!(numbers(&follower).await, Ok(Vec::new()));
    fill(&empty, 2).await;
    assert_eq!(numbers(&follower).await, Ok(vec![1, 2]));
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let folder = folder::Folder::new();
    let path = folder.path().join("log.db");
    let early = EmbeddedLog::follow(LogOptions::new(&path).partitions(2)).unwrap();
    fill(&path, 1).await;
    for result in [
        EmbeddedLog::open(LogOptions::new(&path).partitions(2)),
        EmbeddedLog::follow(LogOptions::new(&path).partitions(2)),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, LogError::Partitions { found: 1, asked: 2, .. }), "{error}");
    }
    // Whoever was there before the file learns of it when they read.
    let error = numbers(&early).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.to_string().contains("1 partitions, 2 were asked for"), "{error}");
}

/// Every page of the file spoilt in turn: opened or not, what is wrong is said, and never handed out as a
/// message.
#[tokio::test]
async fn a_damaged_file_is_noticed() {
    let folder = folder::Folder::new();
    let path = folder.path().join("log.db");
    fill(&path, 60).await;
    let good = std::fs::read(&path).unwrap();
    let pages = good.len() / 4096;
    assert!(pages > 10);
    let (mut noticed, mut unharmed) = (0, 0);
    for page in 0..pages {
        let mut bad = good.clone();
        // The structure of a page, not what is stored in it: for that there are checksums of others.
        for byte in &mut bad[page * 4096 + if page == 0 { 100 } else { 0 }..page * 4096 + 300] {
            *byte ^= 0x5A;
        }
        let path = folder.path().join(format!("bad-{page}.db"));
        std::fs::write(&path, &bad).unwrap();
        match EmbeddedLog::follow(LogOptions::new(&path)) {
            Err(LogError::NotALog { .. } | LogError::Damaged { .. } | LogError::Failed { .. }) => {
                noticed += 1
            }
            Err(error) => panic!("page {page}: {error}"),
            Ok(log) => match numbers(&log).await {
                Ok(numbers) => {
                    assert_eq!(numbers.len(), 60, "page {page}");
                    unharmed += 1;
                }
                Err(_) => noticed += 1,
            },
        }
    }
    assert!(noticed > 5, "{noticed} noticed, {unharmed} unharmed of {pages}");
}

/// A message that vanished, or that is not what it was, is told as damage; it is not skipped.
#[tokio::test]
async fn a_spoilt_message_is_damage_and_not_skipped() {
    let spoilt = [
        ("removed", "delete from mainstay_log_messages where id & 65535 = 5"),
        ("its attributes", "update mainstay_log_messages set event = '{}' where id & 65535 = 5"),
        ("its hash", "update mainstay_log_messages set content = x'00' where id & 65535 = 5"),
        ("its producer", "update mainstay_log_messages set producer = 77 where id & 65535 = 5"),
        ("the producer", "update mainstay_log_producers set producer = ''"),
    ];
    for (what, sql) in spoilt {
        let folder = folder::Folder::new();
        let path = folder.path().join("log.db");
        fill(&path, 10).await;
        let conn = Connection::open(&path).unwrap();
        assert_eq!(conn.execute(sql, []).unwrap(), 1, "{what}");
        drop(conn);
        let log = EmbeddedLog::follow(LogOptions::new(&path)).unwrap();
        let error = numbers(&log).await.unwrap_err();
        assert!(matches!(error, ReadError::Damaged { .. }), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_followed_log_takes_no_appends() {
    let folder = folder::Folder::new();
    let path = folder.path().join("log.db");
    fill(&path, 1).await;
    let follower = EmbeddedLog::follow(LogOptions::new(&path)).unwrap();
    let error = follower.append(&Context::system(), vec![message(2)]).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { passing: false, .. }), "{error}");
    let error = follower.prune(Timestamp::from_millis(0)).await.unwrap_err();
    assert!(error.to_string().contains("only followed here"), "{error}");
    assert_eq!(numbers(&follower).await, Ok(vec![1]));
}

/// A log that is removed or replaced while it is open: neither a writer nor a reader goes on with a file that
/// nobody else sees.
#[tokio::test]
async fn a_log_that_was_replaced_is_noticed() {
    for replaced in [false, true] {
        let folder = folder::Folder::new();
        let (path, copy) = (folder.path().join("log.db"), folder.path().join("copy.db"));
        fill(&path, 3).await;
        fill(&copy, 9).await;
        let log = EmbeddedLog::open(LogOptions::new(&path)).unwrap();
        let follower = EmbeddedLog::follow(LogOptions::new(&path)).unwrap();
        assert_eq!(numbers(&follower).await.unwrap().len(), 3);
        log.append(&Context::system(), vec![message(4)]).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::rename(&copy, &path).unwrap();
        }
        for _ in 0..3 {
            let error = log.append(&Context::system(), vec![message(5)]).await.unwrap_err();
            assert!(matches!(error, AppendError::Unavailable { passing: false, .. }), "{error}");
            for log in [&log, &follower] {
                let error = numbers(log).await.unwrap_err();
                assert!(error.to_string().contains("open the log anew"), "{error}");
            }
        }
    }
}

/// Old messages go by the age that was set, while appends go on, and never a young one.
#[tokio::test]
async fn retention_runs_along_with_the_appends() {
    let folder = folder::Folder::new();
    let options = LogOptions::new(folder.path().join("log.db")).retention(Some(Duration::from_secs(60)));
    let log = EmbeddedLog::open(options).unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000_000));
    let cx = Context::new(
        Context::system().envelope().clone(),
        Arc::new(clock.clone()),
        Arc::clone(Context::system().chance()),
    );
    let mut number = 1;
    let mut append = async |count: u64| {
        let batch = (0..count).map(|i| message(number + i)).collect();
        number += count;
        log.append(&cx, batch).await.unwrap();
    };
    for _ in 0..5 {
        append(900).await;
    }
    clock.advance(Duration::from_secs(59));
    append(9).await;
    // Whatever the last append made old is gone before the next one is acknowledged: nothing was.
    append(1).await;
    assert!(log.read(&topic(), 0, Offset::START, 1).await.is_ok());
    clock.advance(Duration::from_secs(2));
    // The first of these begins the pruning; no append waits for the end of it.
    let mut first = Offset::START;
    for _ in 0..1_000 {
        append(1).await;
        match log.read(&topic(), 0, Offset::START, 1).await {
            Ok(_) => {}
            Err(ReadError::Truncated { first: now, .. }) => first = now,
            Err(error) => panic!("{error}"),
        }
        if first == Offset(4_500) {
            break;
        }
    }
    assert_eq!(first, Offset(4_500), "all that were older than a minute, none that was not");
    assert_eq!(log.read(&topic(), 0, first, 1).await.unwrap().messages[0].offset, Offset(4_501));
}

/// Whoever closes a log may copy its file, and has everything.
#[tokio::test]
async fn a_closed_log_is_one_file() {
    let folder = folder::Folder::new();
    let (path, copy) = (folder.path().join("log.db"), folder.path().join("copy.db"));
    for round in 1..=10 {
        let log = EmbeddedLog::open(LogOptions::new(&path)).unwrap();
        log.append(&Context::system(), vec![message(round)]).await.unwrap();
        assert_eq!(numbers(&log).await.unwrap().len() as u64, round);
        log.close();
        assert!(!folder.path().join("log.db-wal").exists(), "round {round}");
        std::fs::copy(&path, &copy).unwrap();
        let log = EmbeddedLog::follow(LogOptions::new(&copy)).unwrap();
        assert_eq!(numbers(&log).await, Ok((1..=round).collect()));
        log.close();
        for end in ["", "-wal", "-shm"] {
            // Those beside it are mostly not there.
            let _ = std::fs::remove_file(folder.path().join(format!("copy.db{end}")));
        }
    }
}
