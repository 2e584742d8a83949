//! What a read may miss, over a leader and two replicas: each consistency, and each choice when a node is cut off.
//!
//! A replica is held back by pausing its replay, and cut off by a proxy that stops passing bytes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, Consistency, EventType, Expected, IfCutOff, NewEvent, Payload, Position, Query, ReadError,
    Receipt, Row, Store, StreamName, Tx, ViewName,
};
use mainstay_postgres::sqlx::{self, Connection, Executor, PgConnection};
use mainstay_postgres::{Options, Postgres, Replicated, Schema};
use support::{Way, env, through};

/// The superuser's URLs of the replicas, as the state file of the servers tells them.
fn admin_urls() -> Vec<String> {
    let state = std::fs::read_to_string(env("MAINSTAY_TEST_POSTGRES_STATE")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let nodes = state["nodes"].as_object().unwrap().values();
    nodes
        .filter(|node| node["role"] == "replica")
        .map(|node| node["admin_url"].as_str().unwrap().to_owned())
        .collect()
}

struct Fleet {
    schema: Schema,
    leader_url: String,
    /// Of the replicas: to pause replay is a superuser's business.
    admin_urls: Vec<String>,
    store: Replicated,
    ways: Vec<Way>, // leader, then replicas
}

impl Fleet {
    async fn new(name: &str) -> Self {
        let leader_url = env("MAINSTAY_TEST_POSTGRES");
        let replica_urls: Vec<String> =
            env("MAINSTAY_TEST_POSTGRES_REPLICAS").split(',').map(|url| url.trim().to_owned()).collect();
        assert_eq!(replica_urls.len(), 2, "two replicas");
        let schema = Schema::new(format!("replicas_{name}_{}", std::process::id())).unwrap();
        let cx = Context::system();
        let mut ways = Vec::new();
        let (connect, way) = through(&leader_url).await;
        ways.push(way);
        let limits = |options: Options| options.schema(schema.clone()).connect_limit(Duration::from_secs(2));
        let leader = Postgres::open(&cx, limits(Options::with(connect))).await.unwrap();
        // The replicas have it when its first round has come to them.
        for url in &replica_urls {
            let mut conn = PgConnection::connect(url).await.unwrap();
            let round = format!("select count(*) > 0 from \"{}\".heartbeat", schema.name());
            while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(round.clone()))
                .fetch_one(&mut conn)
                .await
                .unwrap_or(false)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut replicas = Vec::new();
        for (number, url) in replica_urls.iter().enumerate() {
            let (connect, way) = through(url).await;
            ways.push(way);
            replicas.push((format!("r{}", number + 1), limits(Options::with(connect))));
        }
        let store = Replicated::open(&cx, leader, replicas).await.unwrap();
        Self { schema, leader_url, admin_urls: admin_urls(), store, ways }
    }

    fn at(&self, asked: Consistency, if_cut_off: IfCutOff) -> Replicated {
        self.store.at(asked, if_cut_off)
    }

    /// Writes a row with its event.
    async fn put(&self, value: u8) -> Receipt {
        let cx = Context::system();
        let event = NewEvent::new(cx.new_id(), EventType::new("Put").unwrap(), Payload::plain([value]));
        let done = self
            .store
            .transact(&cx, move |tx| -> Result<(), Abort<String>> {
                tx.view_put(&view(), &Row::new("k", vec![value]))?;
                tx.append(&StreamName::new("s").unwrap(), Expected::Any, std::slice::from_ref(&event))?;
                Ok(())
            })
            .await;
        done.unwrap().receipt
    }

    /// Replay of both replicas goes on, or stands.
    async fn replay(&self, goes_on: bool) {
        for url in &self.admin_urls {
            let call = if goes_on { "select pg_wal_replay_resume()" } else { "select pg_wal_replay_pause()" };
            let mut conn = PgConnection::connect(url).await.unwrap();
            conn.execute(call).await.unwrap();
            let paused = "select pg_get_wal_replay_pause_state() = 'paused'";
            while !goes_on && !sqlx::query_scalar::<_, bool>(paused).fetch_one(&mut conn).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Waits until a look says that a node is reachable, or is not.
    async fn until(
        &self,
        asked: Consistency,
        met: impl Fn(&Result<mainstay_postgres::Picked, ReadError>) -> bool,
    ) {
        let wait = async {
            while !met(&self.at(asked, IfCutOff::Refuse).pick().await) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it did not come to that");
    }

    async fn end(self) {
        let Self { schema, leader_url, store, .. } = self;
        store.leader().clone().close().await;
        drop(store);
        let mut conn = PgConnection::connect(&leader_url).await.unwrap();
        let drop = format!("drop schema \"{}\" cascade", schema.name());
        conn.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
    }
}

fn view() -> ViewName {
    ViewName::new("v").unwrap()
}

async fn read(store: &Replicated) -> Result<Option<u8>, ReadError> {
    Ok(store.view_get(&view(), "k").await?.and_then(|row| row.first().copied()))
}

const SECOND: Duration = Duration::from_secs(1);
const STALE: IfCutOff = IfCutOff::ServeStale;
const REFUSE: IfCutOff = IfCutOff::Refuse;

/// One test, since replay is paused for a whole server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_read_misses_no_more_than_it_chose_to() {
    let fleet = Fleet::new("choose").await;
    let one = fleet.put(1).await;
    assert_eq!(read(&fleet.at(Consistency::Strong, REFUSE)).await.unwrap(), Some(1));
    assert_eq!(read(&fleet.at(Consistency::ReadYourWrites(one), REFUSE)).await.unwrap(), Some(1));
    let picked = fleet.at(Consistency::Eventual, REFUSE).pick().await.unwrap();
    assert!(picked.met && picked.node.starts_with('r'), "a copy is preferred: {}", picked.node);

    // The replicas stand: they have 1, and 2 is acknowledged.
    fleet
        .until(Consistency::BoundedStaleness(SECOND), |picked| {
            picked.as_ref().is_ok_and(|at| at.node != "leader")
        })
        .await;
    fleet.replay(false).await;
    let two = fleet.put(2).await;
    assert_eq!(read(&fleet.at(Consistency::Strong, REFUSE)).await.unwrap(), Some(2));
    assert_eq!(
        read(&fleet.at(Consistency::Eventual, REFUSE)).await.unwrap(),
        Some(1),
        "it may miss what is new"
    );
    assert_eq!(read(&fleet.at(Consistency::ReadYourWrites(one), REFUSE)).await.unwrap(), Some(1));
    let mine = fleet.at(Consistency::ReadYourWrites(two), REFUSE);
    assert_eq!(mine.pick().await.unwrap().node, "leader");
    assert_eq!(read(&mine).await.unwrap(), Some(2));
    // Their heartbeats grow old, and bounded reads go to the leader.
    let within = Consistency::BoundedStaleness(SECOND);
    fleet.until(within, |picked| picked.as_ref().is_ok_and(|at| at.node == "leader")).await;
    assert_eq!(read(&fleet.at(within, REFUSE)).await.unwrap(), Some(2));
    let late = fleet.at(Consistency::Eventual, REFUSE).pick().await.unwrap();
    assert!(late.staleness.unwrap() > SECOND, "{:?}", late.staleness);

    // Cut off from the leader as well.
    fleet.ways[0].cut();
    fleet.until(Consistency::Strong, |picked| picked.is_err()).await;
    for asked in [Consistency::Strong, within, Consistency::ReadYourWrites(two)] {
        let refused = read(&fleet.at(asked, REFUSE)).await.unwrap_err();
        assert!(refused.to_string().contains("leader does not answer"), "{refused}");
        assert!(matches!(refused, ReadError::Unavailable { passing: true, .. }));
        assert_eq!(read(&fleet.at(asked, STALE)).await.unwrap(), Some(1), "{asked:?}");
        let picked = fleet.at(asked, STALE).pick().await.unwrap();
        assert!(!picked.met && picked.staleness.is_some(), "it says that it may be stale: {picked:?}");
    }
    assert_eq!(
        read(&fleet.at(Consistency::ReadYourWrites(one), REFUSE)).await.unwrap(),
        Some(1),
        "a copy has it"
    );
    assert_eq!(read(&fleet.at(Consistency::Eventual, REFUSE)).await.unwrap(), Some(1));

    // One replica is cut off too: the other one answers; then nobody.
    fleet.ways[1].cut();
    fleet.until(Consistency::Eventual, |picked| picked.as_ref().is_ok_and(|at| at.node == "r2")).await;
    fleet.ways[2].cut();
    fleet.until(Consistency::Eventual, |picked| picked.is_err()).await;
    assert!(read(&fleet.at(Consistency::Eventual, STALE)).await.is_err(), "nobody answers");

    // All come back, and replay goes on: a copy has the second write in time.
    for way in &fleet.ways {
        way.mend();
    }
    fleet.replay(true).await;
    fleet.until(within, |picked| picked.as_ref().is_ok_and(|at| at.node != "leader")).await;
    fleet
        .until(Consistency::ReadYourWrites(two), |picked| picked.as_ref().is_ok_and(|at| at.node != "leader"))
        .await;
    assert_eq!(read(&fleet.at(Consistency::ReadYourWrites(two), REFUSE)).await.unwrap(), Some(2));

    // The network swallows everything, and closes nothing: a read that is under way ends, and the next ones choose.
    fleet.ways[0].set_silent(true);
    let strong = fleet.at(Consistency::Strong, REFUSE);
    let swallowed = tokio::time::timeout(Duration::from_secs(30), read(&strong));
    let swallowed = swallowed.await.expect("it waits for a leader that says nothing").unwrap_err();
    assert!(swallowed.to_string().contains("leader does not answer"), "{swallowed}");
    assert_eq!(read(&fleet.at(Consistency::Strong, STALE)).await.unwrap(), Some(2));
    fleet.ways[0].set_silent(false);
    fleet.until(Consistency::Strong, |picked| picked.is_ok()).await;

    // A strong read of the feed has every acknowledged act, also those whose places are not given yet.
    for round in 0..20 {
        let event = NewEvent::new(
            Context::system().new_id(),
            EventType::new("Put").unwrap(),
            Payload::plain([round]),
        );
        let act =
            Act::append(StreamName::new(format!("t-{round}")).unwrap(), Expected::Empty, vec![event.clone()]);
        fleet.store.append(&Context::system(), act).await.unwrap();
        let head = fleet.at(Consistency::Strong, REFUSE).head().await.unwrap();
        let page = fleet.store.read(&Query::all(), Position(head.position.0 - 1), 1).await.unwrap();
        assert_eq!(page.events.last().map(|last| last.id), Some(event.id), "round {round}");
    }
    fleet.end().await;
}
