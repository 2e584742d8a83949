//! A network that swallows everything and closes nothing, as one that forgot its connections does: nobody is told, and every
//! kind of use has to find out by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, EventType, Expected, NewEvent, Payload, Position, Query, Row, Store, StreamName, Tx, ViewName,
};
use mainstay_postgres::sqlx::{Connection, Executor, PgConnection};
use mainstay_postgres::{Options, Postgres, Schema};
use support::{env, through};

/// Nothing here takes so long, unless it waits for ever.
const NEVER: Duration = Duration::from_secs(90);

fn act(cx: &Context, n: usize) -> Act {
    let stream = StreamName::new(format!("silent-{n}")).unwrap();
    let event = NewEvent::new(cx.new_id(), EventType::new("noted").unwrap(), Payload::plain("{}"));
    Act::append(stream, Expected::Any, vec![event])
}

/// So many at once, of each kind of use; each has to end well.
async fn used(store: &Postgres, cx: &Context, from: usize, count: usize) {
    let view = ViewName::new("silent").unwrap();
    let mut uses = Vec::new();
    for n in from..from + count {
        let (store, cx, view) = (store.clone(), cx.clone(), view.clone());
        uses.push(tokio::spawn(async move {
            store.append(&cx, act(&cx, n)).await.unwrap();
            store.read(&Query::all(), Position::START, 10).await.unwrap();
            let key = format!("{n}");
            let put = move |tx: &<Postgres as Store>::Tx| -> Result<(), Abort<String>> {
                tx.view_put(&view, &Row::new(key.clone(), "1"))?;
                Ok(())
            };
            store.transact(&cx, put).await.unwrap();
        }));
    }
    for one in uses {
        tokio::time::timeout(NEVER, one)
            .await
            .expect("a use waits for a connection that says nothing")
            .unwrap();
    }
}

/// Given a store of which every connection is in use, when all of them fall silent for ever and new ones pass, then appends,
/// reads and closures end well, and what they wrote comes to the feed, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_falls_silent_is_given_up_and_nothing_is_lost_or_doubled() {
    let cx = Context::system();
    let url = env("MAINSTAY_TEST_POSTGRES");
    let (connect, way) = through(&url).await;
    let schema = Schema::new(format!("silent_{}", std::process::id())).unwrap();
    let second = Duration::from_secs(1);
    let options = Options::with(connect).schema(schema.clone());
    let options = options.answer_limit(second).busy_limit(second).closure_limit(second / 2);
    let store = Postgres::open(&cx, options).await.unwrap();
    used(&store, &cx, 0, 8).await;

    way.silence_connected();
    used(&store, &cx, 8, 8).await;

    let all = async {
        let mut found = Vec::new();
        while found.len() < 16 {
            store.wait_past(Position(found.len() as u64), second).await;
            found = store.read(&Query::all(), Position::START, 100).await.unwrap().events;
        }
        found
    };
    let all = tokio::time::timeout(NEVER, all)
        .await
        .expect("the sequencer waits for a connection that says nothing");
    let mut streams: Vec<String> = all.iter().map(|event| event.stream.as_str().to_owned()).collect();
    streams.sort_unstable();
    streams.dedup();
    assert_eq!((all.len(), streams.len()), (16, 16));
    store.close().await;
    let mut conn = PgConnection::connect(&url).await.unwrap();
    conn.execute(mainstay_postgres::sqlx::AssertSqlSafe(format!("drop schema {} cascade", schema.name())))
        .await
        .unwrap();
}
