//! The sequencer at its seams: stopped, followed, cut off between the parts of a large difference, misled about ids.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)] // a test fails by panicking

#[path = "hostile/server.rs"]
mod server;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_postgres::Schema;
use mainstay_postgres::sequencer::{Ended, Fate, Faults, Role, Sequencer, Spec, Status};
use server::Database;
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::watch;

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A spec whose lease no test outlives by waiting.
fn patient() -> Spec {
    Spec { lease: Duration::from_secs(600), ..Spec::default() }
}

fn start(database: &Database, spec: Spec) -> Sequencer {
    Sequencer::start(database.direct.connect.clone(), &Schema::default(), &Context::system(), spec).unwrap()
}

async fn until(status: &mut watch::Receiver<Status>, reached: impl FnMut(&Status) -> bool) -> Status {
    let reached = tokio::time::timeout(SOON, status.wait_for(reached)).await;
    reached.expect("within 30 s").unwrap().clone()
}

fn is_active(status: &Status) -> bool {
    matches!(status.role, Role::Active { .. })
}

/// Transactions of three events and two messages each.
async fn write(conn: &mut PgConnection, transactions: i64) {
    for number in 0..transactions {
        conn.execute("begin").await.unwrap();
        let stream = conn.fetch_one("select coalesce(max(stream), 0) + 1 from mainstay.event").await.unwrap();
        let stream: i64 = stream.get(0);
        let event = |version: i64| {
            AssertSqlSafe(format!(
                "insert into mainstay.event(id, stream, version, type, shape, at, envelope, tags, payload, content, keys)
                 values (gen_random_uuid(), {stream}, {version}, 't', 1, 0, '', '', '', decode(repeat('00', 32), 'hex'), '{{7}}')"
            ))
        };
        let message = "insert into mainstay.outbox(slot, at, envelope, key, headers, payload)
                       select slot, 0, '', '', '[]', '' from mainstay.outbox_turn";
        conn.execute(event(1)).await.unwrap();
        conn.execute(message).await.unwrap();
        conn.execute(event(2)).await.unwrap();
        if number % 2 == 0 {
            conn.execute(event(3)).await.unwrap();
            conn.execute(message).await.unwrap();
        } else {
            conn.execute(message).await.unwrap();
            conn.execute(event(3)).await.unwrap();
        }
        conn.execute("commit").await.unwrap();
    }
}

/// Dense, each event and message once, messages where their transaction's last event is.
async fn check(conn: &mut PgConnection) -> (i64, i64) {
    let row = conn
        .fetch_one(
            "select (select count(*) from mainstay.event), (select count(*) from mainstay.feed f join mainstay.event e on e.seq = f.seq),
                    (select coalesce(max(position), 0) from mainstay.feed),
                    (select count(*) from mainstay.outbox), (select count(*) from mainstay.outbox_number n join mainstay.outbox o on o.seq = n.seq),
                    (select coalesce(max(number), 0) from mainstay.outbox_number)",
        )
        .await
        .unwrap();
    let [events, placed, head, rows, numbered, last] =
        [0, 1, 2, 3, 4, 5].map(|column| row.get::<i64, _>(column));
    assert_eq!((events, events, rows, rows), (placed, head, numbered, last));
    (events, rows)
}

#[derive(Debug, Default)]
struct Fates {
    next: Mutex<Vec<Fate>>,
    asked: AtomicU64,
}

impl Fates {
    fn of(fates: &[Fate]) -> Arc<Self> {
        Arc::new(Self { next: Mutex::new(fates.iter().rev().copied().collect()), asked: AtomicU64::new(0) })
    }
}

impl Faults for Fates {
    fn before_commit(&self, _round: u64) -> Fate {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.next.lock().unwrap().pop().unwrap_or(Fate::Lives)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_one_is_followed_and_can_do_no_harm_when_it_wakes() {
    let database = Database::with_store("stopped").await;
    let mut conn = database.direct.conn().await;
    let short = Spec {
        lease: Duration::from_millis(600),
        heartbeat: Duration::from_millis(100),
        silence_max: Duration::from_millis(300),
        idle_max: Duration::from_millis(50),
        ..Spec::default()
    };
    let fates = Fates::of(&[Fate::Lives, Fate::Stands(Duration::from_secs(4))]);
    let first = start(&database, Spec { faults: Some(fates.clone()), ..short.clone() });
    let mut stopped = first.status();
    let held = until(&mut stopped, is_active).await;
    // Its next round stands, with everything written, for longer than its lease.
    write(&mut conn, 5).await;
    let second = start(&database, short);
    let mut follower = second.status();
    let follows = until(&mut follower, |status| status.position == 15).await;
    assert_eq!((follows.role, follows.outbox), (Role::Active { epoch: 2 }, 10));
    assert_eq!(held.role, Role::Active { epoch: 1 });
    // The server ended the transaction that stood, instead of having everybody wait for it.
    let rounds = conn.fetch_one("select count(*) from mainstay.round where epoch = 1").await.unwrap();
    assert_eq!(rounds.get::<i64, _>(0), 1, "only the round before it");
    // It wakes, its commit fails, and it sees that it was replaced.
    until(&mut stopped, |status| status.role == Role::Candidate).await;
    write(&mut conn, 5).await;
    until(&mut follower, |status| status.position == 30).await;
    assert_eq!(check(&mut conn).await, (30, 20));
    first.stop().await;
    second.stop().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stops_gives_its_lease_back_and_one_that_dies_does_not() {
    let database = Database::with_store("given_back").await;
    let mut conn = database.direct.conn().await;
    let first = start(&database, patient());
    until(&mut first.status(), is_active).await;
    let second = start(&database, patient());
    until(&mut second.status(), |status| status.role == Role::Candidate).await;
    assert_eq!(first.stop().await, Ended::Stopped);
    let taken = until(&mut second.status(), is_active).await;
    assert_eq!(taken.role, Role::Active { epoch: 2 });

    // Dropped is as good as stopped.
    drop(second);
    let mut third =
        start(&database, Spec { faults: Some(Fates::of(&[Fate::Lives, Fate::Dies])), ..patient() });
    until(&mut third.status(), is_active).await;
    assert_eq!(third.ended().await, Ended::Died);
    let row = conn.fetch_one("select until > clock_timestamp() + '1 minute', epoch from mainstay.round order by number desc limit 1").await.unwrap();
    assert_eq!((row.get::<bool, _>(0), row.get::<i64, _>(1)), (true, 3));
    database.remove().await;
}

/// A difference of twenty times what a round may take, cut off and handed over in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_difference_is_taken_in_parts_whoever_takes_them() {
    let database = Database::with_store("parts").await;
    let mut conn = database.direct.conn().await;
    // A writer that began first and ends last, so that its rows lie on both sides of the difference.
    let mut early = database.direct.conn().await;
    early.execute("begin").await.unwrap();
    let message = "insert into mainstay.outbox(slot, at, envelope, key, headers, payload)
                   select slot, 0, '', '', '[]', '' from mainstay.outbox_turn";
    early.execute(message).await.unwrap();
    write(&mut conn, 100).await;
    early.execute("commit").await.unwrap();
    write(&mut conn, 100).await;

    let mut parts = 0;
    loop {
        // Three rounds each, of which one is cut off; then it dies in the fourth.
        let fates = Fates::of(&[Fate::Lives, Fate::IsCutOff, Fate::Lives, Fate::Lives, Fate::Dies]);
        let spec = Spec { rows_max: 30, faults: Some(fates), ..Spec::default() };
        let mut sequencer = start(&database, spec);
        // The one before it died with its lease; nobody has to wait for that here.
        conn.execute("update mainstay.round set until = to_timestamp(0)").await.unwrap();
        assert_eq!(sequencer.ended().await, Ended::Died);
        parts += 1;
        let row = conn
            .fetch_one(
                "select target is null, position, outbox from mainstay.round order by number desc limit 1",
            )
            .await
            .unwrap();
        let (done, position, outbox): (bool, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert!(position <= 600 && outbox <= 401);
        if done && position == 600 {
            break;
        }
        assert!(parts < 60, "it does not come to an end: {position}");
        let waiting = conn.fetch_one("select count(*) from mainstay.feed").await.unwrap();
        assert_eq!(waiting.get::<i64, _>(0), position);
    }
    assert!(parts > 4, "it was not taken in parts: {parts}");
    assert_eq!(check(&mut conn).await, (600, 401));
    let wrong = "select count(*) from (
            select n.number, n.position, (select max(f.position) from mainstay.event e join mainstay.feed f on f.seq = e.seq where e.xid = o.xid) as last,
                lag(n.position) over (order by n.number) as before
            from mainstay.outbox_number n join mainstay.outbox o on o.seq = n.seq) x
        where position <> coalesce(last, 0) or before > position";
    assert_eq!(conn.fetch_one(wrong).await.unwrap().get::<i64, _>(0), 0);
    database.remove().await;
}

/// Somebody wrote old rows anew, with ids of now, as a careless restore of one table does. The same rows do not get a
/// second place, and those that follow get theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_a_place_never_gets_a_second_one() {
    let database = Database::with_store("doubtful").await;
    let mut conn = database.direct.conn().await;
    let sequencer = start(&database, Spec::default());
    let mut status = sequencer.status();
    write(&mut conn, 4).await;
    until(&mut status, |status| status.position == 12).await;
    conn.execute("update mainstay.event set xid = pg_current_xact_id() where seq < 12").await.unwrap();
    conn.execute("update mainstay.outbox set xid = pg_current_xact_id() where seq < 6").await.unwrap();
    write(&mut conn, 3).await;
    until(&mut status, |status| status.position == 21 && status.outbox == 14).await;
    assert_eq!(check(&mut conn).await, (21, 14));
    write(&mut conn, 1).await;
    until(&mut status, |status| status.position == 24).await;
    sequencer.stop().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_heart_beats_while_nothing_happens_and_it_tells_when_something_does() {
    let database = Database::with_store("beats").await;
    let pool =
        PgPoolOptions::new().max_connections(2).connect_with(database.direct.connect.clone()).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("mainstay_mainstay").await.unwrap();
    let sequencer = start(&database, Spec::default());
    let mut status = sequencer.status();
    let first = until(&mut status, |status| status.rounds > 0).await;
    let mut conn = database.direct.conn().await;
    let beat = "select (extract(epoch from at) * 1000)::bigint from mainstay.heartbeat";
    let before: i64 = conn.fetch_one(beat).await.unwrap().get(0);
    until(&mut status, |status| status.rounds >= first.rounds + 3).await;
    let after: i64 = conn.fetch_one(beat).await.unwrap().get(0);
    assert!(after - before >= 500, "idle rounds are recorded each 250 ms, not after {} ms", after - before);
    write(&mut conn, 1).await;
    let told = tokio::time::timeout(SOON, listener.recv()).await.expect("told within 30 s").unwrap();
    assert_eq!(told.payload(), "3 2");
    sequencer.stop().await;
    drop(listener);
    pool.close().await;
    database.remove().await;
}
