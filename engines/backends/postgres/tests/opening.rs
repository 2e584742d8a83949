//! Opening a store: what is wrong is told at once, in words of its own, and nothing is half made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Act, AppendError, Direction, EventType, Expected, Located, NewEvent, Payload, Refusal, Store, StreamName,
    Version,
};
use mainstay_postgres::sequencer::Role;
use mainstay_postgres::sqlx::postgres::PgConnectOptions;
use mainstay_postgres::sqlx::{self, Connection, Executor, PgConnection};
use mainstay_postgres::{OpenError, Options, Postgres, Schema};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "MAINSTAY_TEST_POSTGRES is not set: this test needs a PostgreSQL server. Start one with \
             `cargo xtask engines up postgres`, and set the variable to the leader's URL that it prints"
        )
    })
}

async fn admin() -> PgConnection {
    PgConnection::connect(&url()).await.unwrap()
}

async fn run(sql: String) {
    admin().await.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

fn schema(name: &str) -> Schema {
    Schema::new(format!("opening_{}_{name}", std::process::id())).unwrap()
}

async fn drop_schema(schema: &Schema) {
    run(format!("drop schema if exists \"{}\" cascade", schema.name())).await;
}

async fn exists(schema: &Schema) -> bool {
    sqlx::query_scalar("select exists(select from pg_namespace where nspname = $1)")
        .bind(schema.name())
        .fetch_one(&mut admin().await)
        .await
        .unwrap()
}

async fn refused(options: Options) -> OpenError {
    Postgres::open(&Context::system(), options.connect_limit(Duration::from_secs(5))).await.unwrap_err()
}

fn connect() -> PgConnectOptions {
    url().parse().unwrap()
}

/// Each in its own words, and no schema is left behind by any of them.
#[tokio::test]
async fn what_is_wrong_is_told_at_once_and_nothing_is_made() {
    let schema = schema("wrong");
    let on = |connect: PgConnectOptions| Options::with(connect).schema(schema.clone());
    let bad_url = refused(Options::new("not a url").schema(schema.clone())).await;
    assert!(matches!(bad_url, OpenError::BadUrl { .. }), "{bad_url:?}");
    let nobody = refused(on(connect().port(1))).await;
    assert!(matches!(nobody, OpenError::Unreachable { .. }), "{nobody:?}");
    let secret = "not-the-password-of-anybody";
    let password = refused(on(connect().password(secret))).await;
    assert!(matches!(password, OpenError::Password { .. }), "{password:?}");
    assert!(!password.to_string().contains(secret));
    let database = refused(on(connect().database("no_such_database"))).await;
    assert!(matches!(database, OpenError::NoDatabase { .. }), "{database:?}");
    let absent = refused(on(connect()).existing()).await;
    assert_eq!(absent, OpenError::NoStore { schema: schema.name().into() });
    assert!(!exists(&schema).await);
}

#[tokio::test]
async fn a_schema_of_another_version_or_of_somebody_else_is_left_alone() {
    let (ours, theirs) = (schema("version"), schema("foreign"));
    let on = |schema: &Schema| Options::with(connect()).schema(schema.clone());
    Postgres::open(&Context::system(), on(&ours)).await.unwrap().close().await;
    for (version, newer) in [("1000", true), ("0", false)] {
        run(format!("update \"{}\".meta set value = '{version}' where key = 'schema'", ours.name())).await;
        let found = version.parse::<i64>().unwrap();
        let name = ours.name().to_owned();
        let expected = match newer {
            true => OpenError::Newer { schema: name, found },
            false => OpenError::Older { schema: name, found },
        };
        assert_eq!(refused(on(&ours)).await, expected);
    }
    run(format!("create schema \"{0}\"; create table \"{0}\".stream(mine integer)", theirs.name())).await;
    let foreign = refused(on(&theirs)).await;
    assert_eq!(foreign, OpenError::Foreign { schema: theirs.name().into(), table: "stream".into() });
    // A schema of the user's without such tables is used as it is.
    run(format!("drop table \"{0}\".stream; create table \"{0}\".customer(mine integer)", theirs.name()))
        .await;
    Postgres::open(&Context::system(), on(&theirs)).await.unwrap().close().await;
    for schema in [ours, theirs] {
        drop_schema(&schema).await;
    }
}

/// Many that open at once make one store; each of them is a candidate, and one gives the positions.
#[tokio::test]
async fn several_that_open_at_once_make_one_store() {
    let schema = schema("once");
    let opening = (0..6).map(|_| {
        let options = Options::with(connect()).schema(schema.clone());
        tokio::spawn(async move { Postgres::open(&Context::system(), options).await.unwrap() })
    });
    let mut stores = Vec::new();
    for store in opening.collect::<Vec<_>>() {
        stores.push(store.await.unwrap());
    }
    assert!(stores.iter().all(|store| store.id() == stores[0].id()));
    let cx = Context::system();
    let event = NewEvent::new(cx.new_id(), EventType::new("Happened").unwrap(), Payload::plain(*b"x"));
    let act = Act::append(StreamName::new("s").unwrap(), Expected::Empty, vec![event]);
    let done = stores[3].append(&cx, act).await.unwrap();
    let settled = stores[4].settle(&done.receipt, Duration::from_secs(20)).await.unwrap();
    let states: Vec<_> = stores.iter().map(Postgres::sequencer).collect();
    let settled = settled.unwrap_or_else(|| panic!("no position came: {states:?}"));
    assert_eq!(settled.mark(), 1);
    let active = |status: &Option<mainstay_postgres::sequencer::Status>| {
        status.as_ref().is_some_and(|status| matches!(status.role, Role::Active { .. }))
    };
    assert_eq!(states.iter().filter(|status| active(status)).count(), 1, "{states:?}");
    assert!(matches!(stores[1].position(&settled).await, Ok(Located::At(_))));
    for store in stores {
        store.close().await;
    }
    drop_schema(&schema).await;
}

/// A handle that only reads starts nothing and writes nothing.
#[tokio::test]
async fn a_handle_that_only_reads_refuses_to_write() {
    let schema = schema("read_only");
    let cx = Context::system();
    let options = || Options::with(connect()).schema(schema.clone());
    let writer = Postgres::open(&cx, options()).await.unwrap();
    let reader = Postgres::open(&cx, options().read_only()).await.unwrap();
    assert_eq!(reader.id(), writer.id());
    assert_eq!(reader.sequencer(), None);
    let stream = StreamName::new("s").unwrap();
    let ended = reader.append(&cx, Act::append(stream.clone(), Expected::Any, vec![])).await;
    assert!(
        matches!(ended, Err(AppendError::Refused(Refusal::Unavailable { passing: false, .. }))),
        "{ended:?}"
    );
    let page = reader.read_stream(&stream, Version(1), Direction::Forwards, 10).await.unwrap();
    assert_eq!(page.version, Version::EMPTY);
    writer.close().await;
    reader.close().await;
    drop_schema(&schema).await;
}
