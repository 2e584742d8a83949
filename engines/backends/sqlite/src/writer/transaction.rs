//! One transaction, as closures see it, and the state of the connection it runs on.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{MessageIdentity, Timestamp};
use mainstay_event_store::repeat::Verdict;
use mainstay_event_store::{
    Condition, ConsumerName, Expected, Hash, Lease, Leased, Mark, NewEvent, OutboxRow, Position, Recorded,
    Refusal, Row, Rows, Scan, StreamName, Tx, Version, ViewName, chain, limits, repeat,
};
use rusqlite::{Connection, OptionalExtension};

use super::guard::Guard;
use crate::error::refusal;
use crate::prepare::{self, Extra, Origin, Prepared};
use crate::select::{self, Budget, Names};
use crate::sql::Sql;
use crate::views;

/// One transaction on the writer's connection. See [`Tx`]; the user's own SQL goes through [`crate::Sql`].
#[derive(Debug)]
pub struct Transaction {
    conn: Connection,
    guard: Arc<Guard>,
    origin: RefCell<Origin>,
    tail: Cell<Tail>,
    streams: RefCell<HashMap<StreamName, Stream>>,
    names: RefCell<Names>,
    /// A write failed inside the engine: what the closure says no longer counts.
    broken: RefCell<Option<Refusal>>,
    /// The first refusal that a closure was given.
    refused: RefCell<Option<Refusal>>,
}

/// The end of everything that is numbered on commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) position: Position,
    pub(crate) hash: Hash,
    pub(crate) outbox: u64,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    id: i64,
    version: Version,
}

/// Streams whose last version is remembered between transactions; emptied when full, on any rollback, and when
/// another process has written.
const STREAMS_MAX: usize = 50_000;

impl Transaction {
    pub(crate) fn new(conn: Connection, guard: Arc<Guard>, genesis: Hash) -> Self {
        Self {
            conn,
            guard,
            origin: RefCell::new(Origin { at: Timestamp::from_millis(0), envelope: Arc::from(*b"{}") }),
            tail: Cell::new(Tail { position: Position::START, hash: genesis, outbox: 0 }),
            streams: RefCell::default(),
            names: RefCell::default(),
            broken: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// Takes the write lock, and reads the tail again if another process has written since.
    pub(crate) fn begin(&self, version: &mut Option<i64>, genesis: Hash) -> rusqlite::Result<()> {
        self.conn.prepare_cached("begin immediate")?.execute([])?;
        let now: i64 =
            self.conn.prepare_cached("pragma main.data_version")?.query_row([], |row| row.get(0))?;
        if version.replace(now) != Some(now) {
            self.forget();
            self.read_tail(genesis)?;
        }
        Ok(())
    }

    pub(crate) fn commit(&self) -> rusqlite::Result<()> {
        self.conn.prepare_cached("commit")?.execute([]).map(drop)
    }

    pub(crate) fn roll_back(&self) {
        if !self.is_lost() {
            // A rollback that fails leaves nothing to do here: the next begin fails too, and says why.
            let _ = self.conn.execute_batch("rollback");
        }
        self.forget();
    }

    /// Is the transaction gone, rolled back by the engine or by a conflict clause?
    pub(crate) fn is_lost(&self) -> bool {
        self.conn.is_autocommit()
    }

    pub(crate) fn savepoint(&self) -> rusqlite::Result<()> {
        self.conn.prepare_cached("savepoint mainstay")?.execute([]).map(drop)
    }

    pub(crate) fn end_savepoint(&self, keep: bool) -> rusqlite::Result<()> {
        if !keep {
            self.conn.prepare_cached("rollback to mainstay")?.execute([])?;
        }
        self.conn.prepare_cached("release mainstay")?.execute([]).map(drop)
    }

    /// The user's own SQL.
    pub fn sql(&self) -> Sql<'_> {
        Sql::new(self)
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.conn
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(crate) fn tail(&self) -> Tail {
        self.tail.get()
    }

    /// Sets the tail back and forgets what may have been rolled back with it.
    pub(crate) fn restore(&self, tail: Tail) {
        self.tail.set(tail);
        self.forget();
    }

    /// Forgets what was remembered between transactions.
    pub(crate) fn forget(&self) {
        self.streams.borrow_mut().clear();
        self.names.borrow_mut().clear();
    }

    /// Reads the tail from the file, since another process may have moved it.
    pub(crate) fn read_tail(&self, genesis: Hash) -> rusqlite::Result<()> {
        let (position, hash) = select::head(&self.conn)?.unwrap_or((Position::START, genesis));
        let outbox: Option<i64> = self
            .conn
            .prepare_cached("select max(seq) from main.mainstay_outbox")?
            .query_row([], |row| row.get(0))?;
        self.tail.set(Tail { position, hash, outbox: outbox.unwrap_or(0) as u64 });
        Ok(())
    }

    pub(crate) fn begin_job(&self, origin: Origin) {
        self.origin.replace(origin);
        self.broken.replace(None);
        self.refused.replace(None);
    }

    /// The first refusal that the closure was given, if any.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.borrow().clone()
    }

    /// The engine's failure under the store's own writes, if the job met one.
    pub(crate) fn broken(&self) -> Option<Refusal> {
        self.broken.borrow().clone()
    }

    /// Notes an engine failure: even a closure that swallows it can't commit half of a write.
    fn engine(&self, error: rusqlite::Error) -> Refusal {
        let refusal = refusal(&error);
        self.broken.borrow_mut().get_or_insert_with(|| refusal.clone());
        refusal
    }

    fn stream(&self, name: &StreamName) -> rusqlite::Result<Option<Stream>> {
        if let Some(stream) = self.streams.borrow().get(name) {
            return Ok(Some(*stream));
        }
        let Some(id) = select::stream_id(&self.conn, name)? else { return Ok(None) };
        let stream = Stream { id, version: select::version(&self.conn, id)? };
        self.remember(name, stream);
        Ok(Some(stream))
    }

    fn remember(&self, name: &StreamName, stream: Stream) {
        let mut streams = self.streams.borrow_mut();
        match streams.get_mut(name) {
            Some(known) => *known = stream,
            None => {
                if streams.len() >= STREAMS_MAX {
                    streams.clear();
                }
                streams.insert(name.clone(), stream);
            }
        }
    }

    /// The last version of a stream; [`Version::EMPTY`] for one never written.
    pub(crate) fn version_of(&self, name: &StreamName) -> Result<Version, Refusal> {
        let stream = self.stream(name).map_err(|error| self.engine(error))?;
        Ok(stream.map_or(Version::EMPTY, |stream| stream.version))
    }

    /// The first event that matches the condition.
    pub(crate) fn violation(&self, condition: &Condition) -> Result<Option<Position>, Refusal> {
        let end = self.tail.get().position;
        if condition.after > end {
            let why = format!(
                "a condition counts from position {}, but the feed ends at {end}: its position is another store's",
                condition.after
            );
            return Err(Refusal::Invalid { what: "condition", why });
        }
        select::first_match(&self.conn, &condition.query, condition.after).map_err(|error| self.engine(error))
    }

    /// Is any of these ids taken?
    fn any_id(&self, events: &[NewEvent]) -> rusqlite::Result<bool> {
        for event in events {
            if select::has_id(&self.conn, &event.id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Judges events by what is recorded under their ids; with the last position found.
    fn judge(&self, parts: &[repeat::Part<'_>]) -> Result<(Verdict, Position), Refusal> {
        let mut last = Position::START;
        let verdict = repeat::judge(parts, |id| {
            let found = select::by_id(&self.conn, &mut self.names.borrow_mut(), id)
                .map_err(|error| self.engine(error))?;
            if let Some(event) = &found {
                last = last.max(event.position);
            }
            Ok::<_, Refusal>(found.map(Cow::Owned))
        })?;
        Ok((verdict, last))
    }

    /// Appends a whole act, or writes nothing. Everything is looked at before the first write, so that a
    /// refusal needs no savepoint.
    pub(crate) fn act(&self, act: &Prepared) -> Result<Acted, Refusal> {
        self.begin_job(act.origin.clone());
        let refused = match self.check(act) {
            // One new event of a known stream, the common case: its id is checked by the insert itself.
            Ok(()) if self.single(act) => match self.write_all(act) {
                Err(WriteError::IdTaken) => None,
                Err(WriteError::Engine(refusal)) => return Err(refusal),
                Ok(acted) => return Ok(acted),
            },
            Ok(()) => None,
            Err(refusal) if self.broken.borrow().is_some() => return Err(refusal),
            Err(refusal) => Some(refusal),
        };
        let parts: Vec<repeat::Part<'_>> =
            act.parts.iter().map(|part| (&part.stream, part.events.as_slice())).collect();
        let mut known = false;
        for part in &act.parts {
            known = known || self.any_id(&part.events).map_err(|error| self.engine(error))?;
        }
        // An act that is on disk already is acknowledged again, whatever it expects.
        if known && let (Verdict::Repeated(versions), position) = self.judge(&parts)? {
            let mut answer = Vec::with_capacity(versions.len());
            for (part, version) in act.parts.iter().zip(versions) {
                let version = match version {
                    Some(version) => version,
                    None => self.version_of(&part.stream)?,
                };
                answer.push((part.stream.clone(), version));
            }
            return Ok(Acted { versions: answer, last: position, repeated: true });
        }
        match refused {
            Some(refusal) => Err(refusal),
            None => self.write_all(act).map_err(|error| match error {
                WriteError::Engine(refusal) => refusal,
                WriteError::IdTaken => self.engine(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                    Some("an id is in its index, but not in the table".into()),
                )),
            }),
        }
    }

    /// Do expectations and conditions hold?
    fn check(&self, act: &Prepared) -> Result<(), Refusal> {
        for part in &act.parts {
            let actual = self.version_of(&part.stream)?;
            if !part.expected.allows(actual) {
                let (stream, expected) = (part.stream.clone(), part.expected);
                return Err(Refusal::Conflict { stream, expected, actual });
            }
        }
        for (index, condition) in act.conditions.iter().enumerate() {
            if let Some(found) = self.violation(condition)? {
                return Err(Refusal::ConditionFailed { index, found: Some(found) });
            }
        }
        Ok(())
    }

    fn single(&self, act: &Prepared) -> bool {
        match act.parts.as_slice() {
            [part] => part.events.len() == 1 && self.streams.borrow().contains_key(&part.stream),
            _ => false,
        }
    }

    fn write_all(&self, act: &Prepared) -> Result<Acted, WriteError> {
        let mut versions = Vec::with_capacity(act.parts.len());
        for part in &act.parts {
            let version = if part.events.is_empty() {
                self.version_of(&part.stream).map_err(WriteError::Engine)?
            } else {
                self.write(&part.stream, &part.events, &part.extras)?
            };
            versions.push((part.stream.clone(), version));
        }
        Ok(Acted { versions, last: self.tail().position, repeated: false })
    }

    /// Writes events of a stream that was checked.
    fn write(&self, name: &StreamName, events: &[NewEvent], extras: &[Extra]) -> Result<Version, WriteError> {
        let stream = self.stream(name).map_err(|error| WriteError::Engine(self.engine(error)))?;
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.create_stream(name).map_err(|error| WriteError::Engine(self.engine(error)))?,
        };
        let origin = self.origin.borrow();
        let mut tail = self.tail.get();
        for (event, extra) in events.iter().zip(extras) {
            let position = tail.position.next();
            let version = Version(stream.version.0 + 1);
            let hash = chain::link(tail.hash, position, version, extra.content);
            match self.insert(&origin, stream.id, position, version, hash, event, extra) {
                Ok(()) => {}
                Err(error) if taken(&error) => return Err(WriteError::IdTaken),
                Err(error) => return Err(WriteError::Engine(self.engine(error))),
            }
            tail.position = position;
            tail.hash = hash;
            stream.version = version;
            self.tail.set(tail);
        }
        self.remember(name, stream);
        Ok(stream.version)
    }

    fn create_stream(&self, name: &StreamName) -> rusqlite::Result<Stream> {
        self.conn
            .prepare_cached("insert into main.mainstay_streams(name) values (?1)")?
            .execute([name.as_str()])?;
        Ok(Stream { id: self.conn.last_insert_rowid(), version: Version::EMPTY })
    }

    fn insert(
        &self,
        origin: &Origin,
        stream: i64,
        position: Position,
        version: Version,
        hash: Hash,
        event: &NewEvent,
        extra: &Extra,
    ) -> rusqlite::Result<()> {
        let position = position.0 as i64;
        self.conn
            .prepare_cached(
                "insert into main.mainstay_events
                 (position, stream, version, id, type, schema, at, tags, envelope, key, payload, hash)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute((
                position,
                stream,
                version.0 as i64,
                event.id.as_bytes().as_slice(),
                event.event_type.as_str(),
                event.schema,
                origin.at.as_millis(),
                extra.tags.as_str(),
                &*origin.envelope,
                event.payload.key.as_ref().map(|key| key.as_str()),
                &*event.payload.bytes,
                hash.0.as_slice(),
            ))?;
        let mut keys =
            self.conn.prepare_cached("insert into main.mainstay_keys(key, position) values (?1, ?2)")?;
        for key in &extra.keys {
            keys.execute((key, position))?;
        }
        Ok(())
    }

    fn append_inside(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        mainstay_event_store::check_events(events.iter())?;
        let origin = self.origin.borrow().clone();
        let verdict = if self.any_id(events).map_err(|error| self.engine(error))? {
            self.judge(&[(stream, events)])?.0
        } else {
            Verdict::New
        };
        if let Verdict::Repeated(versions) = verdict
            && let Some(Some(version)) = versions.first()
        {
            return Ok(*version);
        }
        let actual = self.version_of(stream)?;
        if !expected.allows(actual) {
            return Err(Refusal::Conflict { stream: stream.clone(), expected, actual });
        }
        if events.is_empty() {
            return Ok(actual);
        }
        let extras: Vec<Extra> = events.iter().map(|event| prepare::extra(stream, event, &origin)).collect();
        self.write(stream, events, &extras).map_err(|error| match error {
            WriteError::Engine(refusal) => refusal,
            WriteError::IdTaken => Refusal::IdTaken { id: events[0].id, why: "another event has it".into() },
        })
    }

    /// Notes a refusal: the first one decides the transaction, also when the closure goes on as if nothing
    /// had happened.
    fn noted<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.refused.borrow_mut().get_or_insert_with(|| refusal.clone());
        }
        result
    }

    /// Runs a statement of the store's own for a closure.
    fn ask<T>(&self, statement: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Refusal> {
        self.noted(statement(&self.conn).map_err(|error| self.engine(error)))
    }
}

/// An act that will be on disk with the group's commit.
#[derive(Debug)]
pub(crate) struct Acted {
    pub(crate) versions: Vec<(StreamName, Version)>,
    pub(crate) last: Position,
    pub(crate) repeated: bool,
}

pub(crate) enum WriteError {
    /// The id of the event stands on another row.
    IdTaken,
    Engine(Refusal),
}

fn taken(error: &rusqlite::Error) -> bool {
    // Only the unique index of ids can refuse: position and version were just counted under the write lock.
    matches!(error, rusqlite::Error::SqliteFailure(failure, Some(message))
        if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE && message.ends_with("mainstay_events.id"))
}

impl Tx for Transaction {
    fn append(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        self.noted(self.append_inside(stream, expected, events))
    }

    fn require(&self, condition: &Condition) -> Result<(), Refusal> {
        let check = || match condition.query.check().and_then(|()| self.violation(condition))? {
            Some(position) => Err(Refusal::ConditionFailed { index: 0, found: Some(position) }),
            None => Ok(()),
        };
        self.noted(check())
    }

    fn version(&self, stream: &StreamName) -> Result<Version, Refusal> {
        self.noted(self.version_of(stream))
    }

    fn read_stream(&self, stream: &StreamName, from: Version, max: usize) -> Result<Vec<Recorded>, Refusal> {
        let max = limits::page(max);
        self.ask(|conn| {
            let Some(found) = self.stream(stream)? else { return Ok(Vec::new()) };
            let mut names = self.names.borrow_mut();
            // The closure's own time limit is the one that counts.
            let budget = Budget::new(Duration::from_secs(60));
            select::stream_events(conn, &mut names, found.id, from, false, max, budget)
        })
    }

    fn at(&self) -> Timestamp {
        self.origin.borrow().at
    }

    fn outbox(&self, row: &OutboxRow) -> Result<(), Refusal> {
        self.noted(row.check())?;
        let headers = self.noted(
            serde_json::to_string(&row.headers)
                .map_err(|error| Refusal::Invalid { what: "outbox row", why: error.to_string() }),
        )?;
        let mut tail = self.tail.get();
        tail.outbox += 1;
        let origin = self.origin.borrow();
        self.ask(|conn| {
            conn.prepare_cached(
                "insert into main.mainstay_outbox(seq, at, envelope, topic, key, headers, payload)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                tail.outbox as i64,
                origin.at.as_millis(),
                &*origin.envelope,
                row.topic.as_str(),
                row.key.as_str(),
                headers,
                row.payload.as_slice(),
            ))
        })?;
        self.tail.set(tail);
        Ok(())
    }

    fn inbox_mark(&self, consumer: &ConsumerName, message: &MessageIdentity) -> Result<Mark, Refusal> {
        self.noted(crate::marks::mark(&self.conn, consumer, message, |error| self.engine(error)))
    }

    fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, Refusal> {
        self.ask(|conn| checkpoint(conn, consumer))
    }

    fn move_checkpoint(&self, consumer: &ConsumerName, from: Position, to: Position) -> Result<(), Refusal> {
        let actual = self.checkpoint(consumer)?.unwrap_or(Position::START);
        if actual != from {
            return self.noted(Err(Refusal::CheckpointMoved {
                consumer: consumer.clone(),
                expected: from,
                actual,
            }));
        }
        self.ask(|conn| {
            conn.prepare_cached(
                "insert into main.mainstay_checkpoints(consumer, position) values (?1, ?2)
                 on conflict(consumer) do update set position = excluded.position",
            )?
            .execute((consumer.as_str(), to.0 as i64))
        })
        .map(drop)
    }

    fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.ask(|conn| views::get(conn, view, key))
    }

    fn view_put(&self, view: &ViewName, row: &Row) -> Result<(), Refusal> {
        self.noted(row.check())?;
        self.ask(|conn| views::put(conn, view, row))
    }

    fn view_delete(&self, view: &ViewName, key: &str) -> Result<bool, Refusal> {
        self.ask(|conn| views::delete(conn, view, key))
    }

    fn view_scan(&self, scan: &Scan) -> Result<Rows, Refusal> {
        self.noted(scan.check())?;
        self.ask(|conn| views::scan(conn, scan))
    }

    fn view_clear(&self, view: &ViewName, max: usize) -> Result<bool, Refusal> {
        let max = limits::page(max);
        self.ask(|conn| views::clear(conn, view, max))
    }

    fn acquire_lease(&self, name: &ConsumerName, holder: &str, lasts: Duration) -> Result<Leased, Refusal> {
        let known = self.ask(|conn| lease(conn, name))?;
        let leased = self.noted(Lease::acquire(known.as_ref(), holder, self.at(), lasts))?;
        if let Leased::Held(held) = &leased {
            self.ask(|conn| record_lease(conn, name, held))?;
        }
        Ok(leased)
    }

    fn release_lease(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        let known = self.ask(|conn| lease(conn, name))?;
        let released = self.noted(Lease::release(name, known.as_ref(), epoch, self.at()))?;
        self.ask(|conn| record_lease(conn, name, &released))
    }

    fn fence(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        let known = self.ask(|conn| lease(conn, name))?;
        self.noted(Lease::fence(name, known.as_ref(), epoch).map(drop))
    }
}

fn record_lease(conn: &Connection, name: &ConsumerName, lease: &Lease) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "insert into main.mainstay_leases(name, epoch, holder, until) values (?1, ?2, ?3, ?4)
         on conflict(name) do update
         set epoch = excluded.epoch, holder = excluded.holder, until = excluded.until",
    )?
    .execute((name.as_str(), lease.epoch as i64, lease.holder.as_str(), lease.until.as_millis()))
    .map(drop)
}

pub(crate) fn checkpoint(conn: &Connection, consumer: &ConsumerName) -> rusqlite::Result<Option<Position>> {
    conn.prepare_cached("select position from main.mainstay_checkpoints where consumer = ?1")?
        .query_row([consumer.as_str()], |row| Ok(Position(row.get::<_, i64>(0)? as u64)))
        .optional()
}

pub(crate) fn lease(conn: &Connection, name: &ConsumerName) -> rusqlite::Result<Option<Lease>> {
    conn.prepare_cached("select epoch, holder, until from main.mainstay_leases where name = ?1")?
        .query_row([name.as_str()], |row| {
            Ok(Lease {
                epoch: row.get::<_, i64>(0)? as u64,
                holder: row.get(1)?,
                until: Timestamp::from_millis(row.get(2)?),
            })
        })
        .optional()
}
