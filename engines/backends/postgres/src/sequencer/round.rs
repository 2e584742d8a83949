//! One round: a transaction that reads the newest round and what is new, and records what is decided.
//!
//! REPEATABLE READ, so that the rows that are found and the snapshot that is stored are of one moment. Everything is
//! inserted in one statement, and the first look (with BEGIN) is one round trip: an idle round costs three.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::faults::Fate;
use super::order::{self, Ordered};
use super::read::{self, Found, stored};
use super::snapshot::{Difference, PLACED, RESTORED, Snapshot};
use super::spec::Spec;
use super::sql::{self, Sql};
use super::state::{self, Candidate, Open, Origin, Seen, Step, Work};
use crate::limit::within;

/// A round that takes so long is given up, and the server taken for lost.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// The same for its first look, which reads one row and waits for nobody: a connection that has fallen silent since the last
/// round shows here.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// The same for a restore, which rewrites a table.
const RESTORE_MAX: Duration = Duration::from_secs(60 * 60);

/// How a round ended. What is not recorded is as if it had never been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server follows another one: nothing can be written there.
    Follows,
    /// Somebody else's lease lasts this long.
    Waits(Duration),
    /// There was nothing to record.
    Nothing,
    /// It is recorded: the feed's and the outbox's ends, how many rows got their place, and is there more already?
    Recorded { number: u64, position: u64, outbox: u64, took: usize, more: bool },
    /// Somebody else recorded a round meanwhile.
    Fenced,
    /// A test let it die.
    Died,
}

/// What a round works with.
pub(crate) struct Desk<'a> {
    pub(crate) conn: &'a mut PgConnection,
    pub(crate) sql: &'a Sql,
    pub(crate) spec: &'a Spec,
    pub(crate) origin: &'a Origin,
    pub(crate) me: &'a mut Candidate,
}

/// What is to be recorded.
struct Entry {
    ordered: Ordered,
    keys: Vec<(u64, Vec<i64>)>,
    settled: Snapshot,
    open: Option<Open>,
}

impl Desk<'_> {
    /// Runs one round. An error says nothing about whether it was recorded: the next one sees. After an error that
    /// is not the server's answer the connection must not be used any more.
    pub(crate) async fn round(&mut self) -> Result<Outcome, sqlx::Error> {
        let error = match self.run().await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        let Some(answer) = error.as_database_error() else { return Err(error) };
        let taken = answer.is_unique_violation();
        let constraint = answer.constraint().unwrap_or_default().to_owned();
        within(LOOK_MAX, self.conn.execute(sqlx::raw_sql("rollback"))).await?;
        if !taken {
            return Err(error);
        }
        // A row that has its place already was found again, which no other sequencer explains: its position would
        // have been taken first.
        self.me.doubtful |= constraint.contains("_seq_");
        Ok(Outcome::Fenced)
    }

    async fn run(&mut self) -> Result<Outcome, sqlx::Error> {
        let Some(seen) = within(LOOK_MAX, self.see()).await? else { return Ok(Outcome::Follows) };
        match state::decide(self.me, &seen) {
            Step::Wait(left) => {
                within(LOOK_MAX, self.leave()).await?;
                Ok(Outcome::Waits(left))
            }
            Step::Act(epoch, Work::Restore) => {
                let entry = within(RESTORE_MAX, self.restore(&seen)).await?;
                within(ROUND_MAX, self.record(epoch, &seen, entry)).await
            }
            Step::Act(epoch, work) => within(ROUND_MAX, self.act(epoch, &seen, work)).await,
        }
    }

    /// Gives the lease back, when it is this one's: who waits for it need not wait longer.
    pub(crate) async fn release(&mut self) -> Result<(), sqlx::Error> {
        let Some(mut seen) = within(LOOK_MAX, self.see()).await? else { return Ok(()) };
        if !matches!(state::decide(self.me, &seen), Step::Act(epoch, _) if epoch == seen.last.epoch) {
            return within(LOOK_MAX, self.leave()).await;
        }
        let last = seen.last.clone();
        let (ordered, open) = (order::order(last.head, last.outbox, Vec::new(), Vec::new()), last.open);
        let entry = Entry { ordered, keys: Vec::new(), settled: last.settled, open };
        // Whose ids they are is for its successor to decide.
        seen.origin = last.origin;
        within(ROUND_MAX, self.write(last.epoch, &seen, &entry, Duration::ZERO)).await?;
        within(ROUND_MAX, self.end("commit")).await
    }

    async fn see(&mut self) -> Result<Option<Seen>, sqlx::Error> {
        // The last of several statements is the one with a row.
        let rows = self.conn.fetch_all(sqlx::raw_sql(AssertSqlSafe(self.sql.see.clone()))).await?;
        let Some(row) = rows.last() else {
            let why = "the sequencer's memory is empty; it is written when the schema is made".to_owned();
            return Err(sqlx::Error::Decode(Box::new(read::Damaged(why))));
        };
        let seen = read::seen(row, self.origin)?;
        if seen.is_none() {
            self.leave().await?;
        }
        Ok(seen)
    }

    async fn act(&mut self, epoch: u64, seen: &Seen, work: Work) -> Result<Outcome, sqlx::Error> {
        let entry = match work {
            Work::GoOn(difference, open) => self.part(seen, &difference, open).await?,
            Work::Take(difference) => self.take(seen, &difference).await?,
            Work::Restore => self.restore(seen).await?,
        };
        self.record(epoch, seen, entry).await
    }

    /// What is new, when it fits in one round; else the difference is opened, and nothing more.
    async fn take(&mut self, seen: &Seen, difference: &Difference) -> Result<Entry, sqlx::Error> {
        let last = &seen.last;
        let max = self.spec.rows_max;
        let mut found = Found::default();
        if !difference.is_empty() {
            let query = self.about(&self.sql.take, difference).bind(stored(max as u64 + 1));
            found = Found::read(&self.all(query).await?)?;
        }
        if found.events.len() > max || found.rows.len() > max {
            let query = self.about(&self.sql.least, difference);
            let least: Option<i64> = self.one(query).await?.try_get(0)?;
            // Large, and one could be glad that it begins at all: nothing gets its place in this round.
            let done = u64::try_from(least.unwrap_or(0)).unwrap_or(0).saturating_sub(1);
            let open = Some(Open { target: seen.snapshot.clone(), restored: false, done });
            let ordered = order::order(last.head, last.outbox, Vec::new(), Vec::new());
            return Ok(Entry { ordered, keys: Vec::new(), settled: last.settled.clone(), open });
        }
        let ordered = order::order(last.head, last.outbox, found.events, found.rows);
        Ok(Entry { ordered, keys: found.keys, settled: seen.snapshot.clone(), open: None })
    }

    /// The next part of an open difference.
    async fn part(&mut self, seen: &Seen, difference: &Difference, open: Open) -> Result<Entry, sqlx::Error> {
        let last = &seen.last;
        let max = self.spec.rows_max;
        let query = self.about(&self.sql.part, difference).bind(stored(open.done)).bind(stored(max as u64));
        let mut found = Found::read(&self.all(query).await?)?;
        let cut = order::cut(&found.events, &found.rows, max);
        if let Some(cut) = cut {
            found.cut(cut);
        }
        let query = self.query(&self.sql.ends).bind(found.xids());
        let ends = read::ends(&self.all(query).await?)?;
        let due: Vec<String> = order::due(&ends, open.done, cut).iter().map(u64::to_string).collect();
        let mut rows = Vec::new();
        if !due.is_empty() {
            let query = self.query(&self.sql.rows).bind(due);
            rows = Found::read(&self.all(query).await?)?.rows;
        }
        let ordered = order::order(last.head, last.outbox, found.events, rows);
        let (settled, open) = match cut {
            Some(done) => (last.settled.clone(), Some(Open { done, ..open })),
            None => (open.target, None),
        };
        Ok(Entry { ordered, keys: found.keys, settled, open })
    }

    /// The ids are another server's. Rows that have their place get one that no difference contains; the others get
    /// ids that no transaction of this server has, and are what comes next.
    ///
    /// It looks at all events and rewrites those whose ids this server is still to give out: seconds for a million,
    /// once after a restore.
    async fn restore(&mut self, seen: &Seen) -> Result<Entry, sqlx::Error> {
        self.conn
            .execute(sqlx::raw_sql(
                "set local statement_timeout = 0; set local enable_seqscan = on; set local enable_bitmapscan = on",
            ))
            .await?;
        let running: Vec<String> = seen.snapshot.running.iter().map(u64::to_string).collect();
        let [placed_events, placed_rows] = self.sql.restore_placed.clone();
        for placed in [placed_events, placed_rows] {
            let query = self.query(&placed).bind(seen.snapshot.xmax.to_string());
            self.conn.execute(query.bind(running.clone()).bind(PLACED.to_string())).await?;
        }
        let mut unplaced = 0;
        let [unplaced_events, unplaced_rows] = self.sql.restore_unplaced.clone();
        for table in [unplaced_events, unplaced_rows] {
            let query = self.query(&table).bind(stored(RESTORED));
            unplaced += self.conn.execute(query).await?.rows_affected();
        }
        let last = &seen.last;
        let ordered = order::order(last.head, last.outbox, Vec::new(), Vec::new());
        let mut entry = Entry { ordered, keys: Vec::new(), settled: seen.snapshot.clone(), open: None };
        // What an earlier restore left may still wait, with its ids of then.
        let waits = last.open.as_ref().is_some_and(|open| open.restored);
        if unplaced > 0 || waits {
            // Settled at once: what has no place has ids from after every snapshot, so whoever looks for it finds it.
            let target = entry.settled.clone();
            entry.open = Some(Open { target, restored: true, done: 0 });
        }
        self.me.doubtful = false;
        Ok(entry)
    }

    async fn record(&mut self, epoch: u64, seen: &Seen, entry: Entry) -> Result<Outcome, sqlx::Error> {
        let took = entry.ordered.feed.len() + entry.ordered.outbox.len();
        let more = entry.open.is_some();
        let worth = state::worth_recording(took, self.me, seen, self.spec.heartbeat);
        if !worth && !more && seen.last.open.is_none() {
            self.leave().await?;
            return Ok(Outcome::Nothing);
        }
        self.write(epoch, seen, &entry, self.spec.lease).await?;
        let number = seen.last.number + 1;
        match self.spec.faults.as_ref().map_or(Fate::Lives, |faults| faults.before_commit(number)) {
            Fate::Lives => {}
            Fate::IsCutOff => {
                return Err(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
            }
            Fate::Dies => return Ok(Outcome::Died),
            Fate::Stands(how_long) => tokio::time::sleep(how_long).await,
        }
        // Whether the answer comes or not: if this is committed, it is this one's epoch.
        self.me.epoch = Some(epoch);
        self.end("commit").await?;
        let (position, outbox) = (entry.ordered.head.position.0, entry.ordered.last);
        Ok(Outcome::Recorded { number, position, outbox, took, more })
    }

    async fn write(
        &mut self,
        epoch: u64,
        seen: &Seen,
        entry: &Entry,
        lasts: Duration,
    ) -> Result<(), sqlx::Error> {
        let Entry { ordered, keys, settled, open } = entry;
        let number = seen.last.number + 1;
        let numbers =
            |of: fn(&order::Placed) -> u64| ordered.feed.iter().map(of).map(stored).collect::<Vec<_>>();
        let rows =
            |of: fn(&order::Numbered) -> u64| ordered.outbox.iter().map(of).map(stored).collect::<Vec<_>>();
        // In the index's order: neighbours share pages.
        let mut places: Vec<(i64, i64)> = Vec::with_capacity(2 * keys.len());
        for (placed, (_, keys)) in ordered.feed.iter().zip(keys) {
            places.extend(keys.iter().map(|key| (*key, stored(placed.position))));
        }
        places.sort_unstable();
        places.dedup();
        let (keys, keyed): (Vec<i64>, Vec<i64>) = places.into_iter().unzip();
        let query = self
            .query(&self.sql.write)
            .bind(numbers(|placed| placed.position))
            .bind(numbers(|placed| placed.seq))
            .bind(ordered.feed.iter().map(|placed| placed.hash.0.to_vec()).collect::<Vec<_>>())
            .bind(keys)
            .bind(keyed)
            .bind(rows(|row| row.number))
            .bind(ordered.outbox.iter().map(|row| row.slot).collect::<Vec<_>>())
            .bind(rows(|row| row.seq))
            .bind(rows(|row| row.position))
            .bind(stored(number))
            .bind(i16::try_from(sql::slot(number)).unwrap_or(0))
            .bind(stored(epoch))
            .bind(self.me.name.clone())
            .bind(state::until(seen.now, lasts).as_millis())
            .bind(seen.now.as_millis())
            .bind(stored(ordered.head.position.0))
            .bind(ordered.head.hash.0.to_vec())
            .bind(stored(ordered.last))
            .bind(settled.to_string())
            .bind(open.as_ref().map(|open| open.target.to_string()))
            .bind(stored(open.as_ref().map_or(0, |open| open.done)))
            .bind(open.as_ref().is_some_and(|open| open.restored))
            .bind(seen.origin.to_string());
        self.conn.execute(query).await.map(drop)
    }

    /// Ends a transaction that wrote nothing.
    async fn leave(&mut self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(&mut self, how: &'static str) -> Result<(), sqlx::Error> {
        self.conn.execute(sqlx::raw_sql(how)).await.map(drop)
    }

    fn query<'q>(&self, sql: &Arc<str>) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(sql.clone())).persistent(self.spec.prepared)
    }

    /// A statement about a difference.
    fn about<'q>(&self, sql: &Arc<str>, difference: &Difference) -> Query<'q, Postgres, PgArguments> {
        let texts = |xids: &[u64]| xids.iter().map(u64::to_string).collect::<Vec<_>>();
        self.query(sql)
            .bind(texts(&difference.ended))
            .bind(difference.from.to_string())
            .bind(difference.to.to_string())
            .bind(texts(&difference.running))
    }

    async fn all(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.conn.fetch_all(query).await
    }

    async fn one(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<PgRow, sqlx::Error> {
        self.conn.fetch_one(query).await
    }
}

/// Where this connection's transaction ids mean what they say. Two statements: a server may forbid the first.
pub(crate) async fn origin(conn: &mut PgConnection, sql: &Sql) -> Result<Origin, sqlx::Error> {
    // A right that is missing is no error here, and would be one in a statement that only names the function.
    let right = "select has_function_privilege('pg_catalog.pg_control_system()', 'execute')";
    let name = "select system_identifier::text from pg_catalog.pg_control_system()";
    let mut system = None;
    if conn.fetch_one(sqlx::raw_sql(right)).await?.try_get(0)? {
        system = conn.fetch_one(sqlx::raw_sql(name)).await?.try_get(0)?;
    }
    let row = conn.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql.origin.clone()))).await?;
    Ok(Origin { system, table: row.try_get(0)? })
}
