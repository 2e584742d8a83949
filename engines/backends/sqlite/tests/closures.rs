//! A user's closure: what it may do, for how long, and that a bad one never harms its neighbours.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, AppendError, EventType, Expected, NewEvent, OutboxRow, Payload, Refusal, Retry, Store,
    StreamName, Topic, TransactError, Tx, Version,
};
use mainstay_sqlite::{Options, Sqlite, Transaction};

mod folder;

type End<T> = Result<T, Abort<String>>;

fn event(cx: &Context) -> NewEvent {
    NewEvent::new(cx.new_id(), EventType::new("E").unwrap(), Payload::plain(*b"{}"))
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn message(n: i64) -> OutboxRow {
    OutboxRow {
        topic: Topic::new("t").unwrap(),
        key: n.to_string(),
        headers: Vec::new(),
        payload: Vec::new(),
    }
}

async fn with_audit(folder: &folder::Folder) -> Sqlite {
    let store =
        Sqlite::open(Options::new(folder.path().join("store.db")).closure_limit(Duration::from_millis(300)))
            .unwrap();
    let cx = Context::system();
    let made = store.transact(&cx, |tx: &Transaction| -> End<()> {
        tx.sql().batch(
            "create table audit(n integer primary key);
             create table parent(id integer primary key);
             create table child(parent integer references parent(id) deferrable initially deferred);",
        )?;
        Ok(())
    });
    made.await.unwrap();
    store
}

fn refused<T: std::fmt::Debug>(ended: Result<T, TransactError<String>>) -> Refusal {
    match ended {
        Err(TransactError::Store(AppendError::Refused(refusal))) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn audit_rows(store: &Sqlite) -> Vec<i64> {
    let cx = Context::system();
    let read = store.transact(&cx, |tx: &Transaction| -> End<Vec<i64>> {
        Ok(tx.sql().query("select n from audit order by n", [], |row| row.get(0))?)
    });
    read.await.unwrap().value
}

/// Everything that would end the group's transaction, change how the store works, or write behind its back.
const FORBIDDEN: &[&str] = &[
    "begin",
    "commit",
    "end",
    "rollback",
    "savepoint s",
    "release mainstay",
    "rollback to mainstay",
    "pragma synchronous = off",
    "pragma writable_schema = on",
    "select * from pragma_database_list",
    "attach ':memory:' as other",
    "detach main",
    "vacuum",
    "analyze",
    "insert into mainstay_keys(key, position) values (1, 1)",
    "insert into main.mainstay_keys(key, position) values (?1, ?2)",
    "INSERT INTO Mainstay_Keys(key, position) VALUES (1, 1)",
    "update mainstay_events set payload = x'00'",
    "delete from mainstay_events",
    "replace into mainstay_meta(key, value) values ('schema', 99)",
    "drop table mainstay_events",
    "drop index mainstay_events_id",
    "alter table mainstay_events add column x",
    "alter table mainstay_events rename to gone",
    "create index mine on mainstay_events(at)",
    "create table mainstay_mine(n)",
    "create temp table mainstay_events(n)",
    "create temp table mine(n)",
    "create table refers(t text references mainstay_events(type) deferrable initially deferred)",
    "create table refers(v references MAINSTAY_VIEW_ROWS(view))",
    "alter table audit rename to mainstay_audit",
    "create temp view mainstay_streams as select 1",
    "create trigger t after insert on mainstay_events begin select 1; end",
    "create temp trigger t after insert on main.mainstay_events begin select 1; end",
    "create virtual table v using fts5(t)",
    "reindex mainstay_events_id",
];

#[tokio::test]
async fn forbidden_sql_is_refused_and_harms_nothing() {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let cx = Context::system();
    // The store's own statements are prepared by now, so that a shared cache would hand one out.
    store.append(&cx, Act::append(stream("s"), Expected::Any, vec![event(&cx)])).await.unwrap();
    for (n, sql) in FORBIDDEN.iter().enumerate() {
        let n = n as i64 + 1;
        let event = event(&cx);
        let ended = store.transact(&cx, move |tx: &Transaction| -> End<()> {
            tx.append(&stream("s"), Expected::Any, std::slice::from_ref(&event))?;
            tx.sql().execute("insert into audit values (?1)", [n])?;
            if sql.contains("?1") {
                tx.sql().execute(sql, (1, 1))?;
            } else {
                tx.sql().batch(sql)?;
            }
            Ok(())
        });
        let refusal = refused(ended.await);
        let refused = matches!(refusal, Refusal::Sql { retry: false, .. } | Refusal::Closure { .. });
        assert!(refused, "{sql}: {refusal}");
        store.append(&cx, Act::append(stream("other"), Expected::Any, vec![self::event(&cx)])).await.unwrap();
    }
    assert_eq!(audit_rows(&store).await, Vec::<i64>::new(), "nothing of a refused transaction stays");
    assert_eq!(store.head().await.unwrap().position.0, 1 + FORBIDDEN.len() as u64);
}

/// A trigger of the user's table is the user's code too.
#[tokio::test]
async fn a_trigger_may_not_write_to_the_stores_tables() {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let cx = Context::system();
    let made = store.transact(&cx, |tx: &Transaction| -> End<()> {
        tx.sql().batch(
            "create trigger t after insert on audit begin insert into mainstay_keys values (new.n, 1); end",
        )?;
        Ok(())
    });
    // SQLite looks into a trigger's body when the statement that fires it is prepared.
    made.await.unwrap();
    let ended = store.transact(&cx, |tx: &Transaction| -> End<()> {
        tx.sql().execute("insert into audit values (1)", [])?;
        Ok(())
    });
    assert!(matches!(refused(ended.await), Refusal::Sql { .. }));
}

/// Holds the writer until the returned sender is used, so that what is sent meanwhile becomes one group.
async fn hold(store: &Sqlite) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let wait = std::sync::Mutex::new((wait, Some(begun)));
    let store = store.clone();
    let held = tokio::spawn(async move {
        let cx = Context::system();
        let held = store.transact(&cx, move |_: &Transaction| -> End<()> {
            let mut wait = wait.lock().unwrap();
            if let Some(begun) = wait.1.take() {
                let _ = begun.send(());
                let _ = wait.0.recv();
            }
            Ok(())
        });
        held.await.unwrap();
    });
    has_begun.await.unwrap();
    (go, held)
}

/// One bad closure among good neighbours, all in one group: only the culprit is refused.
async fn among_neighbours(
    bad: impl Fn(&Transaction) -> End<()> + Send + Sync + Clone + 'static,
) -> Result<(), TransactError<String>> {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let commits = store.groups().commits();
    let (go, held) = hold(&store).await;
    let mut neighbours = Vec::new();
    let mut culprit = None;
    for n in 1..=9_i64 {
        let (store, bad) = (store.clone(), bad.clone());
        let cx = Context::system();
        if n == 5 {
            culprit = Some(tokio::spawn(async move {
                let event = event(&cx);
                let ended = store.transact(&cx, move |tx: &Transaction| {
                    tx.outbox(&message(n))?;
                    tx.append(&stream("s5"), Expected::Empty, std::slice::from_ref(&event))?;
                    bad(tx)
                });
                ended.await.map(drop)
            }));
        } else if n % 2 == 0 {
            neighbours.push(tokio::spawn(async move {
                let event = event(&cx);
                let ended = store.transact(&cx, move |tx: &Transaction| -> End<()> {
                    tx.outbox(&message(n))?;
                    tx.append(&stream(&format!("s{n}")), Expected::Empty, std::slice::from_ref(&event))?;
                    tx.sql().execute("insert into audit values (?1)", [n])?;
                    Ok(())
                });
                Some((message(n), ended.await.unwrap().receipt.mark()))
            }));
        } else {
            neighbours.push(tokio::spawn(async move {
                let act = Act::append(stream(&format!("s{n}")), Expected::Empty, vec![event(&cx)]);
                store.append(&cx, act).await.unwrap();
                None
            }));
        }
        // Each is in the queue before the next: the culprit stands in the middle of the group.
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    held.await.unwrap();
    let mut published = Vec::new();
    for neighbour in neighbours {
        published.extend(neighbour.await.unwrap());
    }
    let ended = culprit.unwrap().await.unwrap();
    assert_eq!(store.groups().commits() - commits, 2, "the one that held, and one group of all others");
    assert_eq!(audit_rows(&store).await, [2, 4, 6, 8]);
    let rows = store.outbox_after(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let rows: Vec<_> = rows.into_iter().map(|row| (row.row, row.position.0)).collect();
    assert_eq!(rows, published, "each once, as far as its own transaction goes");
    assert_eq!(store.head().await.unwrap().position.0, 8, "positions are dense");
    let page =
        store.read_stream(&stream("s5"), Version(1), mainstay_event_store::Direction::Forwards, 9).await;
    assert_eq!(page.unwrap().version, Version::EMPTY, "nothing of the culprit stays");
    ended
}

#[tokio::test]
async fn a_closure_that_rolls_everything_back_harms_only_itself() {
    let ended = among_neighbours(|tx| {
        tx.sql().execute("insert into audit values (77)", [])?;
        // The conflict clause drops the whole group's transaction, not only this statement.
        tx.sql().execute("insert or rollback into audit values (77)", [])?;
        Ok(())
    });
    assert_eq!(refused(ended.await).retry(), Retry::Never);
}

#[tokio::test]
async fn a_closure_that_rolls_back_and_swallows_it_is_refused() {
    let ended = among_neighbours(|tx| {
        tx.sql().execute("insert into audit values (77)", [])?;
        let _ = tx.sql().execute("insert or rollback into audit values (77)", []);
        Ok(())
    });
    assert!(matches!(refused(ended.await), Refusal::Closure { .. }));
}

/// What comes after the rollback would be a transaction of its own, on disk at once: none of it may happen.
#[tokio::test]
async fn a_closure_that_goes_on_after_its_rollback_writes_nothing() {
    let ended = among_neighbours(|tx| {
        tx.sql().execute("insert into audit values (77)", [])?;
        let _ = tx.sql().execute("insert or rollback into audit values (77)", []);
        let cx = Context::system();
        let late = [event(&cx)];
        assert!(tx.append(&stream("late"), Expected::Any, &late).is_err());
        assert!(tx.sql().execute("insert into audit values (78)", []).is_err());
        assert!(tx.sql().batch("insert into audit values (79)").is_err());
        assert!(tx.version(&stream("late")).is_err());
        Ok(())
    });
    assert!(matches!(refused(ended.await), Refusal::Closure { .. }));
}

/// A call of the store inside a row of the user's query, and the other way round: each keeps its own rights.
#[tokio::test]
async fn nested_calls_keep_their_rights() {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let cx = Context::system();
    let event = event(&cx);
    let ended = store.transact(&cx, move |tx: &Transaction| -> End<()> {
        tx.sql().execute("insert into audit values (1), (2)", [])?;
        let mut refused = 0;
        tx.sql().query("select n from audit", [], |row| {
            let n: i64 = row.get(0)?;
            // Not prepared before in this store, so that a wrong flag would show.
            tx.view_put(
                &mainstay_event_store::ViewName::new("seen").unwrap(),
                &mainstay_event_store::Row::new(n.to_string(), "x"),
            )
            .unwrap();
            if n == 1 {
                tx.append(&stream("s"), Expected::Any, std::slice::from_ref(&event)).unwrap();
            }
            refused += i32::from(tx.sql().execute("delete from mainstay_keys", []).is_err());
            Ok(())
        })?;
        assert_eq!(refused, 2);
        Ok(())
    });
    ended.await.unwrap();
    assert_eq!(store.head().await.unwrap().position.0, 1);
}

#[tokio::test]
async fn a_violated_deferred_foreign_key_harms_only_its_closure() {
    let ended = among_neighbours(|tx| {
        tx.sql().execute("insert into child values (404)", [])?;
        Ok(())
    });
    let refusal = refused(ended.await);
    assert!(refusal.to_string().contains("foreign key"), "{refusal}");
}

#[tokio::test]
async fn a_kept_deferred_foreign_key_is_no_fault() {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let cx = Context::system();
    let ended = store.transact(&cx, |tx: &Transaction| -> End<()> {
        tx.sql().execute("insert into child values (1)", [])?;
        tx.sql().execute("insert into parent values (1)", [])?;
        Ok(())
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn a_panic_harms_only_its_closure() {
    let ended = among_neighbours(|_| panic!("a bug"));
    let refusal = refused(ended.await);
    assert!(matches!(&refusal, Refusal::Closure { why } if why.contains("a bug")), "{refusal}");
}

#[tokio::test]
async fn sql_past_its_time_is_interrupted_and_harms_only_its_closure() {
    let ended = among_neighbours(|tx| {
        tx.sql().execute("insert into audit values (77)", [])?;
        tx.sql().query_row(
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
            [],
            |row| row.get::<_, i64>(0),
        )?;
        Ok(())
    });
    let refusal = refused(ended.await);
    assert!(refusal.to_string().contains("time limit"), "{refusal}");
}

/// Many that spoil the group: each is refused, and still nobody else suffers.
#[tokio::test]
async fn many_bad_closures_harm_only_themselves() {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let (go, held) = hold(&store).await;
    let tasks: Vec<_> = (0..12_i64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let cx = Context::system();
                let event = event(&cx);
                let ended = store.transact(&cx, move |tx: &Transaction| -> End<()> {
                    tx.append(&stream(&format!("s{n}")), Expected::Empty, std::slice::from_ref(&event))?;
                    tx.sql().execute("insert into audit values (?1)", [n])?;
                    if n % 2 == 0 {
                        tx.sql().execute("insert or rollback into audit values (?1)", [n])?;
                    }
                    Ok(())
                });
                ended.await.is_ok()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    go.send(()).unwrap();
    held.await.unwrap();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), n % 2 == 1, "closure {n}");
    }
    assert_eq!(audit_rows(&store).await, [1, 3, 5, 7, 9, 11]);
    assert_eq!(store.head().await.unwrap().position.0, 6, "positions are dense");
}

/// Waits for a condition, not for a time: the deadline is only there so that a failure ends.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_stuck_in_rust_is_named_and_new_appends_are_refused_as_busy() {
    let folder = folder::Folder::new();
    let store = with_audit(&folder).await;
    let (go, held) = hold(&store).await;
    until("the watchdog sees it", || !store.health().ready()).await;
    let (name, ran) = store.health().stuck.unwrap();
    assert!(name.contains("hold") && ran > Duration::from_millis(300), "{name} {ran:?}");
    let cx = Context::system();
    let refused =
        store.append(&cx, Act::append(stream("s"), Expected::Any, vec![event(&cx)])).await.unwrap_err();
    let AppendError::Refused(refusal @ Refusal::Busy { .. }) = refused else { panic!("{refused}") };
    assert_eq!(refusal.retry(), Retry::Later);
    assert!(refusal.to_string().contains("hold"), "{refusal}");
    store.head().await.unwrap(); // reading goes on
    go.send(()).unwrap();
    held.await.unwrap();
    until("it recovers", || store.health().green()).await;
    store.append(&cx, Act::append(stream("s"), Expected::Any, vec![event(&cx)])).await.unwrap();
}
