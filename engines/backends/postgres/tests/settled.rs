//! Receipts that are positions, and closures that know theirs, beside writers that wait for nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, EventType, Expected, Located, NewEvent, Payload, Position, Query, Receipt, Store, StreamName,
    Tx,
};
use mainstay_postgres::durability::{Loss, Otherwise, Require, Settings};
use mainstay_postgres::sqlx::postgres::PgConnectOptions;
use mainstay_postgres::sqlx::{self, Connection, Executor, PgConnection};
use mainstay_postgres::{OpenError, Options, Postgres, Schema, Transaction};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "MAINSTAY_TEST_POSTGRES is not set: this test needs a PostgreSQL server. Start one with \
             `cargo xtask engines up postgres`, and set the variable to the leader's URL that it prints"
        )
    })
}

async fn run(sql: String) {
    PgConnection::connect(&url()).await.unwrap().execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

fn name(what: &str) -> String {
    format!("settled_{}_{what}", std::process::id())
}

fn event(cx: &Context) -> NewEvent {
    NewEvent::new(cx.new_id(), EventType::new("Happened").unwrap(), Payload::plain(*b"{}"))
}

const LONG: Duration = Duration::from_secs(30);

/// Closures of two handles append to streams of their own and read back what they appended, while a third handle
/// appends without any of this. What each closure believed is what the feed says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_reads_the_positions_that_its_events_get() {
    const ROUNDS: usize = 25;
    let schema = Schema::new(name("serial")).unwrap();
    let options = || Options::new(url()).schema(schema.clone());
    let cx = Context::system();
    let plain = Postgres::open(&cx, options()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let store = match writer {
            0 | 2 => plain.clone(),
            _ => Postgres::open(&cx, options().settled_receipts(LONG)).await.unwrap(),
        };
        let cx = cx.clone();
        tasks.spawn(async move {
            let mut believed = Vec::new();
            for round in 0..ROUNDS {
                let stream = |part: &str| StreamName::new(format!("{writer}-{round}-{part}")).unwrap();
                if writer % 2 == 0 {
                    let act = Act::append(stream("plain"), Expected::Any, vec![event(&cx), event(&cx)]);
                    store.append(&cx, act).await.unwrap();
                    continue;
                }
                let (one, other) = (stream("one"), stream("other"));
                let events = [event(&cx), event(&cx), event(&cx)];
                let closure = move |tx: &Transaction| -> Result<_, Abort<()>> {
                    tx.append(&one, Expected::Empty, &events[..1])?;
                    tx.append(&other, Expected::Empty, &events[1..2])?;
                    tx.append(&one, Expected::Any, &events[2..])?;
                    let mut read = tx.read_stream(&one, mainstay_event_store::Version(1), 10)?;
                    read.extend(tx.read_stream(&other, mainstay_event_store::Version(1), 10)?);
                    Ok(read.into_iter().map(|event| (event.id, event.position)).collect::<Vec<_>>())
                };
                let done = store.transact(&cx, closure).await.unwrap();
                // The receipt is the position of the last one.
                let last = done.value.iter().map(|(_, position)| *position).max().unwrap();
                assert_eq!(done.receipt, Receipt::new(store.id(), last.0));
                assert_eq!(store.position(&done.receipt).await, Ok(Located::At(last)));
                believed.extend(done.value);
            }
            believed
        });
    }
    let believed: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(believed.len(), 2 * ROUNDS * 3);
    let page = plain.read(&Query::all(), Position::START, 10_000).await.unwrap();
    for (id, position) in believed {
        let found = page.events.iter().find(|event| event.id == id).map(|event| event.position);
        assert_eq!(found, Some(position), "{id}");
    }
    plain.close().await;
    run(format!("drop schema \"{}\" cascade", schema.name())).await;
}

/// What has no place in time keeps the receipt that can be settled later; it is not called failed.
#[tokio::test]
async fn without_a_sequencer_the_act_is_acknowledged_and_settled_later() {
    let schema = Schema::new(name("later")).unwrap();
    let cx = Context::system();
    let options = || Options::new(url()).schema(schema.clone());
    let waits = options().sequencer(None).settled_receipts(Duration::from_millis(50));
    let store = Postgres::open(&cx, waits).await.unwrap();
    let act = Act::append(StreamName::new("s").unwrap(), Expected::Empty, vec![event(&cx)]);
    let done = store.append(&cx, act).await.unwrap();
    assert_eq!(store.position(&done.receipt).await, Ok(Located::NotYet));
    assert!(done.receipt.mark() > 1 << 61, "{}", done.receipt);
    // The heartbeat as it is after a minute in which nobody gave places.
    run(format!("update \"{}\".round set at = at - interval '1 minute'", schema.name())).await;
    let unhealthy = store.unhealthy().await;
    assert!(unhealthy.as_ref().is_some_and(|why| why.contains("no sequencer")), "{unhealthy:?}");
    let sequencing = Postgres::open(&cx, options()).await.unwrap();
    let settled = sequencing.settle(&done.receipt, LONG).await.unwrap().unwrap();
    assert_eq!(settled, Receipt::new(store.id(), 1));
    // A transaction that wrote nothing of its own is at the feed's end.
    let nothing = options().settled_receipts(LONG);
    let reader = Postgres::open(&cx, nothing).await.unwrap();
    let nothing = reader.transact(&cx, |_: &Transaction| Ok::<_, Abort<()>>(())).await.unwrap();
    assert_eq!(nothing.receipt, settled);
    assert_eq!(reader.unhealthy().await, None);
    for store in [store, sequencing, reader] {
        store.close().await;
    }
    run(format!("drop schema \"{}\" cascade", schema.name())).await;
}

/// What the database's settings lose is refused, or told, before anything is made; each role may have its own.
#[tokio::test]
async fn a_server_that_loses_what_it_acknowledges_is_refused_or_told() {
    let role = name("careless");
    let schema = Schema::new(name("durability")).unwrap();
    run(format!("drop role if exists {role}; create role {role} login password 'x'")).await;
    let own = url().parse::<PgConnectOptions>().unwrap();
    let database = own.get_database().unwrap().to_owned();
    run(format!("grant create on database \"{database}\" to {role}")).await;
    run(format!("alter role {role} set synchronous_commit = off")).await;
    let options = || Options::with(own.clone().username(&role).password("x")).schema(schema.clone());
    let cx = Context::system();

    let verdict = Settings::ask(&options()).await.unwrap().decide();
    assert!(matches!(verdict.crash.loss, Loss::AtMost(window) if !window.is_zero()), "{verdict:?}");
    assert_eq!(verdict.short_of(Require::Power).map(|(kind, _)| kind), Some(Require::Crash));
    let refused = Postgres::open(&cx, options()).await.unwrap_err();
    assert!(matches!(refused, OpenError::NotDurable { failure: Require::Crash, .. }), "{refused:?}");
    let found = "select exists(select from pg_namespace where nspname = $1)";
    let mut conn = PgConnection::connect(&url()).await.unwrap();
    let exists: bool = sqlx::query_scalar(found).bind(schema.name()).fetch_one(&mut conn).await.unwrap();
    assert!(!exists, "nothing was to be made");

    let (told, heard) = std::sync::mpsc::channel();
    let warn = Otherwise::Warn(std::sync::Arc::new(move |line: &str| drop(told.send(line.to_owned()))));
    let store = Postgres::open(&cx, options().durability(Require::Power, warn)).await.unwrap();
    let line = heard.recv().unwrap();
    assert!(
        line.contains("does not survive a kill of the server") && line.contains("synchronous_commit"),
        "{line}"
    );
    store.close().await;

    run(format!("alter role {role} set synchronous_commit = on")).await;
    let verdict = Settings::ask(&options()).await.unwrap().decide();
    assert_eq!(verdict.short_of(Require::Power), None);
    Postgres::open(&cx, options()).await.unwrap().close().await;
    run(format!("grant {role} to current_user; drop owned by {role} cascade; drop role {role}")).await;
}
