//! Closures on a server: isolation, the user's own SQL, and what a closure can't get away with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, AppendError, Condition, Direction, EventType, Expected, NewEvent, Payload, Query, Refusal,
    Retry, Row, Store, StreamName, TransactError, Tx, Version, ViewName,
};
use mainstay_postgres::sqlx::{self, Connection, Executor, PgConnection, Row as _};
use mainstay_postgres::{Isolation, Options, Postgres, Schema, Transaction};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "MAINSTAY_TEST_POSTGRES is not set: this test needs a PostgreSQL server. Start one with \
             `cargo xtask engines up postgres`, and set the variable to the leader's URL that it prints"
        )
    })
}

/// A store in a schema of its own, with a table `mine` beside it, for as long as `body` runs.
async fn with_store<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Postgres) -> F) {
    let schema = Schema::new(format!("closures_{}_{name}", std::process::id())).unwrap();
    let store = Postgres::open(&Context::system(), Options::new(url()).schema(schema.clone())).await.unwrap();
    let table =
        format!("create table \"{}\".mine(n bigint unique deferrable initially immediate)", schema.name());
    let mut conn = PgConnection::connect(&url()).await.unwrap();
    conn.execute(sqlx::AssertSqlSafe(table)).await.unwrap();
    body(store.clone()).await;
    store.close().await;
    let drop = format!("drop schema \"{}\" cascade", schema.name());
    conn.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn event(kind: &str) -> NewEvent {
    NewEvent::new(Context::system().new_id(), EventType::new(kind).unwrap(), Payload::plain(*b"x"))
}

async fn transact<T: Send + 'static>(
    store: &Postgres,
    closure: impl Fn(&Transaction) -> Result<T, Abort<String>> + Send + 'static,
) -> Result<T, TransactError<String>> {
    store.transact(&Context::system(), closure).await.map(|done| done.value)
}

fn refusal<T: std::fmt::Debug>(ended: Result<T, TransactError<String>>) -> Refusal {
    match ended {
        Err(TransactError::Store(AppendError::Refused(refusal))) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn insert(schema: &str, n: i64) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    sqlx::query(sqlx::AssertSqlSafe(format!("insert into \"{schema}\".mine values ($1)"))).bind(n)
}

async fn mine(store: &Postgres) -> i64 {
    let sql = format!("select count(*) from \"{}\".mine", store.schema().name());
    let mut conn = PgConnection::connect(&url()).await.unwrap();
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap()
}

/// A closure whose snapshot is older than a plain append that breaks its condition must not commit: the look is at what
/// is committed when the lock is held, not at what its snapshot shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_sees_what_was_committed_after_the_snapshot() {
    with_store("condition", async |store| {
        for isolation in [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable] {
            let head = store.head().await.unwrap().position;
            let (looked, appended) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
            let runs = Arc::new(AtomicU32::new(0));
            let kind = format!("Seat{isolation:?}");
            let closure = {
                let (looked, appended, runs, kind) =
                    (Arc::clone(&looked), Arc::clone(&appended), Arc::clone(&runs), kind.clone());
                move |tx: &Transaction| {
                    // Takes the snapshot; then somebody else takes the seat.
                    tx.version(&stream("nobody"))?;
                    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                        looked.wait();
                        appended.wait();
                    }
                    let query = Query::types([EventType::new(&kind).unwrap()]);
                    tx.require(&Condition { query, after: head })?;
                    Ok(tx.append(&stream("late"), Expected::Any, &[event(&kind)])?)
                }
            };
            let of_closure = store.with_isolation(isolation);
            let closure = tokio::spawn(async move { transact(&of_closure, closure).await });
            tokio::task::spawn_blocking(move || looked.wait()).await.unwrap();
            let act = Act::append(stream("early"), Expected::Any, vec![event(&kind)]);
            store.append(&Context::system(), act).await.unwrap();
            tokio::task::spawn_blocking(move || appended.wait()).await.unwrap();
            let refused = refusal(closure.await.unwrap());
            assert!(matches!(refused, Refusal::ConditionFailed { .. }), "{isolation:?}: {refused}");
            let late = store.read_stream(&stream("late"), Version(1), Direction::Forwards, 1).await.unwrap();
            assert_eq!(late.version, Version::EMPTY, "{isolation:?}");
        }
    })
    .await;
}

/// A batch that waits for the lock of a stream is one lane's trouble: what comes after it goes out beside it.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_held_up_holds_up_nobody_behind_it() {
    with_store("held_up", async |store| {
        let (locked, done) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let closure = {
            let (store, locked, done) = (store.clone(), Arc::clone(&locked), Arc::clone(&done));
            tokio::spawn(async move {
                transact(&store, move |tx| {
                    tx.append(&stream("held"), Expected::Any, &[event("First")])?;
                    locked.wait();
                    done.wait();
                    Ok(())
                })
                .await
            })
        };
        tokio::task::spawn_blocking(move || locked.wait()).await.unwrap();
        // Two that are never in one batch, since they share an id, and come one right after the other.
        let shared = event("Second");
        let second = |to: &str| Act::append(stream(to), Expected::Any, vec![shared.clone()]);
        let cx = Context::system();
        let mut held_up = pin!(store.append(&cx, second("held")));
        let mut free = pin!(store.append(&cx, second("free")));
        tokio::select! {
            biased;
            early = &mut held_up => panic!("a lock was not waited for: {early:?}"),
            answer = &mut free => { answer.unwrap(); }
        }
        assert!(!closure.is_finished(), "it should still hold the lock");
        tokio::task::spawn_blocking(move || done.wait()).await.unwrap();
        closure.await.unwrap().unwrap();
        let refused = held_up.await.unwrap_err();
        assert!(matches!(&refused, AppendError::Refused(Refusal::IdTaken { .. })), "{refused}");
    })
    .await;
}

/// Two closures that each write what the other has read: as if one after the other at SERIALIZABLE, both at weaker levels.
#[tokio::test(flavor = "multi_thread")]
async fn write_skew_is_prevented_at_serializable_only() {
    with_store("skew", async |store| {
        let view = || ViewName::new("on_call").unwrap();
        for (isolation, left) in
            [(Isolation::ReadCommitted, 0), (Isolation::RepeatableRead, 0), (Isolation::Serializable, 1)]
        {
            transact(&store, move |tx| {
                tx.view_put(&view(), &Row::new("ann", "yes"))?;
                Ok(tx.view_put(&view(), &Row::new("bob", "yes"))?)
            })
            .await
            .unwrap();
            let both_looked = Arc::new(Barrier::new(2));
            let leaving = ["ann", "bob"].map(|name| {
                let (store, both_looked) = (store.with_isolation(isolation), Arc::clone(&both_looked));
                let runs = AtomicU32::new(0);
                tokio::spawn(async move {
                    transact(&store, move |tx| {
                        let mut on_call = 0;
                        for name in ["ann", "bob"] {
                            on_call += u32::from(tx.view_get(&view(), name)? == Some(b"yes".to_vec()));
                        }
                        if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                            both_looked.wait();
                        }
                        // Somebody has to stay.
                        if on_call > 1 {
                            tx.view_put(&view(), &Row::new(name, "no"))?;
                        }
                        Ok(())
                    })
                    .await
                })
            });
            for ended in leaving {
                ended.await.unwrap().unwrap();
            }
            let mut on_call = 0;
            for name in ["ann", "bob"] {
                on_call += u32::from(store.view_get(&view(), name).await.unwrap() == Some(b"yes".to_vec()));
            }
            assert_eq!(on_call, left, "{isolation:?}");
        }
    })
    .await;
}

/// The user's SQL commits with the facts, and what it must not do is refused without harm to others.
#[tokio::test]
async fn the_users_own_sql_is_part_of_the_transaction() {
    with_store("sql", async |store| {
        let schema = store.schema().name().to_owned();
        let name = schema.clone();
        let both = transact(&store, move |tx| {
            tx.append(&stream("s"), Expected::Empty, &[event("Happened")])?;
            tx.sql().execute(insert(&name, 1))?;
            let row = tx.sql().fetch_optional(sqlx::query("select 40 + 2 as answer"))?.unwrap();
            Ok(row.get::<i32, _>("answer"))
        });
        assert_eq!(both.await.unwrap(), 42);
        assert_eq!(mine(&store).await, 1);

        // A constraint, told as such; and swallowed, it refuses all the same.
        for swallow in [false, true] {
            let name = schema.clone();
            let ended = transact(&store, move |tx| {
                tx.append(&stream("t"), Expected::Any, &[event("Lost")])?;
                let inserted = tx.sql().execute(insert(&name, 1));
                assert!(inserted.as_ref().is_err_and(|error| error.is_constraint()));
                if !swallow {
                    inserted?;
                }
                Ok(())
            });
            let refused = refusal(ended.await);
            assert!(matches!(&refused, Refusal::Sql { retry: false, .. }), "{refused}");
            assert!(refused.to_string().contains("23505"), "{refused}");
        }
        // One that shows only at the commit.
        let name = schema.clone();
        let ended = transact(&store, move |tx| {
            tx.sql().batch("set constraints all deferred")?;
            tx.sql().execute(insert(&name, 1))?;
            Ok(())
        });
        assert!(matches!(refusal(ended.await), Refusal::Sql { retry: false, .. }));
        // Behind a savepoint a fault is the closure's own business.
        let name = schema.clone();
        transact(&store, move |tx| {
            tx.sql().batch("savepoint here")?;
            tx.sql().execute(insert(&name, 1)).unwrap_err();
            tx.sql().batch("rollback to savepoint here")?;
            tx.append(&stream("t"), Expected::Empty, &[event("Kept")])?;
            Ok(())
        })
        .await
        .unwrap();
        // Whoever ends the transaction is told so; the worker goes on.
        for ending in ["commit", "rollback"] {
            let ended = transact(&store, move |tx| Ok(tx.sql().batch(ending)?));
            assert!(matches!(refusal(ended.await), Refusal::Closure { .. }), "{ending}");
        }
        let t = store.read_stream(&stream("t"), Version(1), Direction::Forwards, 10).await.unwrap();
        assert_eq!(t.version, Version(1));
        assert_eq!(mine(&store).await, 1);
    })
    .await;
}

/// A refusal that comes last and is swallowed decides; one that is slow is ended by the server, and leaves nothing.
#[tokio::test]
async fn a_closure_can_not_ignore_what_was_decided() {
    with_store("decided", async |store| {
        let ended = transact(&store, |tx| {
            tx.append(&stream("s"), Expected::Any, &[event("Lost")])?;
            let _ = tx.append(&stream("s"), Expected::Exactly(Version(7)), &[event("Lost")]);
            Ok(())
        });
        let refused = refusal(ended.await);
        assert!(matches!(refused, Refusal::Conflict { actual: Version(1), .. }), "{refused}");
        assert_eq!(refused.retry(), Retry::AfterReading);
        let options = Options::new(url()).schema(Schema::new(store.schema().name()).unwrap()).existing();
        let options = options.closure_limit(std::time::Duration::from_millis(100));
        let short = Postgres::open(&Context::system(), options).await.unwrap();
        let ended = transact(&short, |tx| {
            tx.append(&stream("s"), Expected::Any, &[event("Lost")])?;
            Ok(tx.sql().batch("select pg_sleep(60)")?)
        });
        let refused = refusal(ended.await);
        assert!(matches!(refused, Refusal::Sql { .. } | Refusal::Closure { .. }), "{refused}");
        let s = store.read_stream(&stream("s"), Version(1), Direction::Forwards, 10).await.unwrap();
        assert_eq!(s.version, Version::EMPTY);
        short.close().await;
    })
    .await;
}
