//! The sequencer's loop: connect, run rounds, tell what came of them, wait, begin again when the server is lost.

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::Context;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio::sync::watch;

use super::pace::{Pace, away};
use super::round::{self, Desk, Outcome};
use super::spec::Spec;
use super::sql::{self, Sql};
use super::state::{Candidate, Origin};
use super::{Ended, Role, Status};
use crate::hints::{Ends, Hints};
use crate::limit::within;

/// A connection that is not made in this time is not made.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What is done between two rounds, none of which waits for anybody longer than for a short lock.
const BETWEEN_MAX: Duration = Duration::from_secs(10);

/// A server that follows another one is asked again after this: it may be promoted.
const FOLLOWER_LOOK: Duration = Duration::from_millis(500);

/// What the loop works with.
pub(crate) struct Loop {
    pub(crate) options: PgConnectOptions,
    pub(crate) sql: Sql,
    pub(crate) spec: Spec,
    pub(crate) me: Candidate,
    pub(crate) cx: Context,
    pub(crate) hints: Arc<Hints>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Why one connection was given up.
enum Left {
    Stopped,
    Died,
    /// The server was reached, and is no use at the moment.
    Follows,
}

impl Loop {
    pub(crate) async fn run(mut self) -> Ended {
        let mut failures = 0;
        loop {
            let before = self.rounds();
            let away = match self.connected().await {
                Ok(Left::Stopped) => return Ended::Stopped,
                Ok(Left::Died) => return Ended::Died,
                Ok(Left::Follows) => FOLLOWER_LOOK,
                Err(error) => {
                    if self.rounds() > before {
                        failures = 0;
                    }
                    self.status.send_modify(|status| {
                        status.role = Role::Away;
                        status.trouble = Some(error.to_string());
                    });
                    failures += 1;
                    away(failures - 1, self.cx.next_u64())
                }
            };
            if self.stopped_within(away).await {
                return Ended::Stopped;
            }
        }
    }

    fn rounds(&self) -> u64 {
        self.status.borrow().rounds
    }

    /// Also when nobody is left to ask.
    fn is_asked_to_stop(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Waits; was it asked to stop meanwhile?
    async fn stopped_within(&mut self, wait: Duration) -> bool {
        let stopped = self.stop.wait_for(|stop| *stop);
        tokio::time::timeout(wait, stopped).await.is_ok()
    }

    async fn connected(&mut self) -> Result<Left, sqlx::Error> {
        let connecting = async {
            let mut conn = PgConnection::connect_with(&self.options).await?;
            let origin = round::origin(&mut conn, &self.sql).await?;
            Ok((conn, origin))
        };
        let (mut conn, origin) = within(CONNECT_MAX, connecting).await?;
        let left = self.rounds_on(&mut conn, &origin).await;
        match &left {
            // Whatever it says to that: it is given up.
            Ok(Left::Stopped) => drop(tokio::time::timeout(Duration::from_secs(1), conn.close()).await),
            // Without another word: it may be lost, or this process is one that was killed.
            _ => drop(conn),
        }
        left
    }

    async fn rounds_on(&mut self, conn: &mut PgConnection, origin: &Origin) -> Result<Left, sqlx::Error> {
        let mut pace = Pace::new(&self.spec);
        let mut to_empty = None;
        loop {
            if self.is_asked_to_stop() {
                self.desk(conn, origin).release().await?;
                return Ok(Left::Stopped);
            }
            let outcome = self.desk(conn, origin).round().await?;
            let epoch = self.me.epoch.unwrap_or(0);
            let mut idle = true;
            let (role, wait) = match outcome {
                Outcome::Died => return Ok(Left::Died),
                Outcome::Follows => {
                    self.tell_status(Role::Away, None);
                    return Ok(Left::Follows);
                }
                Outcome::Waits(left) => (Role::Candidate, left.min(2 * self.spec.heartbeat)),
                Outcome::Fenced => (Role::Candidate, self.spec.gather),
                Outcome::Nothing => (Role::Active { epoch }, pace.idle(&self.spec)),
                Outcome::Recorded { number, position, outbox, took, more } => {
                    let ends = Ends { position, outbox };
                    self.hints.sequenced(ends);
                    self.tell_status(Role::Active { epoch }, Some((number, ends)));
                    if took > 0 {
                        within(BETWEEN_MAX, self.tell_others(conn, ends)).await?;
                    }
                    to_empty = within(BETWEEN_MAX, self.empty(conn, number, to_empty)).await?;
                    idle = took == 0;
                    let wait = match (more, took) {
                        (true, _) => Duration::ZERO,
                        (false, 0) => pace.idle(&self.spec),
                        (false, _) => pace.busy(&self.spec, took),
                    };
                    (Role::Active { epoch }, wait)
                }
            };
            self.tell_status(role, None);
            match role {
                // Rows that were committed here are no reason for a candidate to look.
                Role::Candidate => drop(self.stopped_within(wait).await),
                // One that is busy lets them gather instead.
                _ if idle && wait > self.spec.gather => {
                    let mut stop = self.stop.clone();
                    tokio::select! {
                        () = self.hints.wait_committed(wait) => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                }
                _ => tokio::time::sleep(wait).await,
            }
        }
    }

    fn desk<'a>(&'a mut self, conn: &'a mut PgConnection, origin: &'a Origin) -> Desk<'a> {
        Desk { conn, sql: &self.sql, spec: &self.spec, origin, me: &mut self.me }
    }

    fn tell_status(&self, role: Role, recorded: Option<(u64, Ends)>) {
        self.status.send_if_modified(|status| {
            let mut now = Status { role, trouble: None, ..status.clone() };
            if let Some((number, ends)) = recorded {
                (now.rounds, now.round) = (now.rounds + 1, number);
                (now.position, now.outbox) = (ends.position, ends.outbox);
            }
            let changed = now != *status;
            *status = now;
            changed
        });
    }

    /// A hint to other processes, after the commit: NOTIFY takes a lock of the whole server until its transaction
    /// has ended, so it gets one of its own that writes nothing.
    async fn tell_others(&self, conn: &mut PgConnection, ends: Ends) -> Result<(), sqlx::Error> {
        let tell = format!("{}{} {}')", self.sql.tell, ends.position, ends.outbox);
        conn.execute(sqlx::raw_sql(AssertSqlSafe(tell))).await.map(drop)
    }

    /// Empties the partition of rounds that is used next, when this one is half full; tries again later when
    /// somebody reads it. Returns what is still to be emptied.
    async fn empty(
        &self,
        conn: &mut PgConnection,
        number: u64,
        waiting: Option<usize>,
    ) -> Result<Option<usize>, sqlx::Error> {
        let begun = number % sql::ROUNDS_A_SLOT;
        let next = usize::try_from((sql::slot(number) + 1) % sql::ROUND_SLOTS).unwrap_or(0);
        let waiting = match begun {
            _ if begun == sql::ROUNDS_A_SLOT / 2 => Some(next),
            // It is in use now, or will be before long.
            _ if waiting.is_some_and(|slot| slot != next) => None,
            _ => waiting,
        };
        // Not with every round: who reads it may need a while.
        let Some(slot) = waiting.filter(|_| number.is_multiple_of(64)) else { return Ok(waiting) };
        let (holds, empty) = (self.sql.holds[slot].clone(), self.sql.empty[slot].clone());
        if !conn.fetch_one(sqlx::raw_sql(AssertSqlSafe(holds))).await?.try_get::<bool, _>(0)? {
            return Ok(None);
        }
        match conn.execute(sqlx::raw_sql(AssertSqlSafe(empty))).await {
            Ok(_) => Ok(None),
            // Somebody reads it (55P03), or no right to do it: the table grows a little, and nothing else happens.
            Err(error) if error.as_database_error().is_some() => {
                conn.execute(sqlx::raw_sql("rollback")).await?;
                Ok(waiting)
            }
            Err(error) => Err(error),
        }
    }
}
