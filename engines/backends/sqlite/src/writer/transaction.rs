//! One transaction on the writer's connection: its beginning and end, and what is remembered between two.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_envelope::Timestamp;
use mainstay_event_store::{
    Author,
    outbox::{Epoch, check_topic},
};
use mainstay_event_store::{Hash, Position, Refusal, StreamName, Topic, Version};
use rusqlite::Connection;

use super::guard::Guard;
use crate::error::{Kind, LOST, kind, refusal};
use crate::marks::Marks;
use crate::outbox::{self, Waiting};
use crate::recent::{Fresh, Recent};
use crate::select::{self, Names};
use crate::views;

/// One transaction on the writer's connection. See [`mainstay_event_store::Tx`]; the user's own SQL goes through [`crate::Sql`].
#[derive(Debug)]
pub struct Transaction {
    conn: Connection,
    guard: Arc<Guard>,
    pub(super) origin: RefCell<Author>,
    pub(super) tail: Cell<Tail>,
    pub(super) streams: RefCell<HashMap<StreamName, Stream>>,
    pub(super) names: RefCell<Names>,
    pub(super) views: RefCell<views::Known>,
    pub(super) waiting: RefCell<Waiting>,
    pub(super) marks: RefCell<Marks>,
    /// What the group adds to the rows that are kept in memory.
    pub(super) fresh: RefCell<Fresh>,
    /// The outbox's epochs, when they were looked for.
    epochs: RefCell<Option<Rc<[Epoch]>>>,
    /// The outbox's, when a row of it was written or looked for.
    topic: RefCell<Option<Topic>>,
    /// A write failed inside the engine: what the closure says no longer counts.
    pub(super) broken: RefCell<Option<Broken>>,
    /// The first refusal that a closure was given.
    refused: RefCell<Option<Refusal>>,
}

/// A failure of the engine under the store's own statements.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) refusal: Refusal,
    /// Must the connection be opened anew?
    pub(crate) reopen: bool,
}

/// The end of everything that is numbered on commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) position: Position,
    pub(crate) hash: Hash,
    pub(crate) outbox: u64,
}

impl Tail {
    /// Of a store without any.
    pub(crate) fn start(genesis: Hash) -> Self {
        Self { position: Position::START, hash: genesis, outbox: 0 }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) id: i64,
    pub(super) version: Version,
}

/// Streams whose last version is remembered between transactions; emptied when full, on any rollback, and when
/// another process has written.
const STREAMS_MAX: usize = 50_000;

impl Transaction {
    pub(crate) fn new(conn: Connection, guard: Arc<Guard>, genesis: Hash) -> Self {
        Self {
            conn,
            guard,
            origin: RefCell::new(Author {
                at: Timestamp::from_millis(0),
                envelope: Bytes::from_static(b"{}"),
            }),
            tail: Cell::new(Tail::start(genesis)),
            streams: RefCell::default(),
            names: RefCell::default(),
            views: RefCell::default(),
            waiting: RefCell::default(),
            marks: RefCell::default(),
            fresh: RefCell::default(),
            epochs: RefCell::default(),
            topic: RefCell::default(),
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

    /// After the commit: the outbox rows of the group, for the relay.
    pub(crate) fn hand_over(&self, recent: &Recent) {
        recent.commit(&mut self.fresh.borrow_mut());
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
        self.fresh.borrow_mut().truncate(tail.outbox);
        self.forget();
    }

    /// Forgets what was remembered between transactions.
    pub(crate) fn forget(&self) {
        self.streams.borrow_mut().clear();
        self.names.borrow_mut().clear();
        self.views.borrow_mut().clear();
        self.marks.borrow_mut().clear();
        self.topic.replace(None);
        self.epochs.replace(None);
        self.fresh.borrow_mut().reset();
    }

    /// Gives up what is known of the outbox's rows and epochs: they are numbered anew.
    pub(super) fn forget_epochs(&self) {
        self.epochs.replace(None);
        self.fresh.borrow_mut().reset();
    }

    fn epochs(&self) -> rusqlite::Result<Rc<[Epoch]>> {
        if let Some(epochs) = &*self.epochs.borrow() {
            return Ok(Rc::clone(epochs));
        }
        let epochs: Rc<[Epoch]> = outbox::epochs(&self.conn)?.into();
        self.epochs.replace(Some(Rc::clone(&epochs)));
        Ok(epochs)
    }

    /// Reads the tail from the file, since another process may have moved it.
    pub(crate) fn read_tail(&self, genesis: Hash) -> rusqlite::Result<()> {
        let (position, hash) = select::head(&self.conn)?.unwrap_or((Position::START, genesis));
        self.tail.set(Tail { position, hash, outbox: outbox::last(&self.conn)? });
        Ok(())
    }

    pub(crate) fn begin_job(&self, origin: Author) {
        self.origin.replace(origin);
        self.broken.replace(None);
        self.refused.replace(None);
        self.waiting.borrow_mut().clear();
    }

    /// Writes what waited for the end of a closure that is done.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        self.ask(|conn| self.marks.borrow_mut().finish(conn))?;
        if self.waiting.borrow().is_empty() {
            return Ok(());
        }
        let position = self.tail.get().position;
        self.ask(|conn| {
            let epochs = self.epochs()?;
            self.waiting.borrow_mut().finish(conn, position, &epochs, &mut self.fresh.borrow_mut())
        })
    }

    /// The first refusal that the closure was given, if any.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.borrow().clone()
    }

    /// The engine's failure under the store's own statements, if the job met one.
    pub(crate) fn broken(&self) -> Option<Broken> {
        self.broken.borrow().clone()
    }

    /// Notes an engine failure: even a closure that swallows it can't commit half of a write.
    pub(super) fn engine(&self, error: rusqlite::Error) -> Refusal {
        let refusal = refusal(&error);
        // What the disk or the file did, and what can't be, is not for this connection to go on with.
        let reopen = matches!(kind(&error), Kind::Io | Kind::Damaged | Kind::Constraint | Kind::Statement);
        self.broken.borrow_mut().get_or_insert_with(|| Broken { refusal: refusal.clone(), reopen });
        refusal
    }

    pub(super) fn stream(&self, name: &StreamName) -> rusqlite::Result<Option<Stream>> {
        if let Some(stream) = self.streams.borrow().get(name) {
            return Ok(Some(*stream));
        }
        let Some((id, version)) = select::stream(&self.conn, name)? else { return Ok(None) };
        let stream = Stream { id, version };
        self.remember(name, stream);
        Ok(Some(stream))
    }

    pub(super) fn remember(&self, name: &StreamName, stream: Stream) {
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

    /// Takes a row's topic as the outbox's, or refuses it when that is another.
    pub(super) fn topic(&self, topic: &Topic) -> Result<(), Refusal> {
        if self.topic.borrow().as_ref() == Some(topic) {
            return Ok(());
        }
        let known = self.ask(|conn| match outbox::topic(conn)? {
            // Noted as well where a file from before had rows only: they may be removed.
            Some(known) => outbox::note_topic(conn, &known).map(|()| Some(known)),
            None => outbox::note_topic(conn, topic.as_str()).map(|()| None),
        })?;
        if let Some(known) = known {
            let known = self.noted(Topic::new(known).map_err(Refusal::from))?;
            self.noted(check_topic(&known, topic))?;
        }
        self.topic.replace(Some(topic.clone()));
        Ok(())
    }

    /// The last version of a stream; [`Version::EMPTY`] for one never written.
    pub(crate) fn version_of(&self, name: &StreamName) -> Result<Version, Refusal> {
        let stream = self.stream(name).map_err(|error| self.engine(error))?;
        Ok(stream.map_or(Version::EMPTY, |stream| stream.version))
    }

    /// Notes a refusal: the first one decides the transaction, also when the closure goes on as if nothing
    /// had happened.
    pub(super) fn noted<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.refused.borrow_mut().get_or_insert_with(|| refusal.clone());
        }
        result
    }

    /// A call of the store's for a closure. After the transaction is gone every further write would be a
    /// transaction of its own, on disk whatever becomes of the closure: refused.
    pub(super) fn inside<T>(&self, call: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let _store = self.guard.store_code();
        self.noted(if self.is_lost() { Err(Refusal::Closure { why: LOST.into() }) } else { call() })
    }

    /// Runs a statement of the store's own for a closure.
    pub(super) fn ask<T>(
        &self,
        statement: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Refusal> {
        self.inside(|| statement(&self.conn).map_err(|error| self.engine(error)))
    }
}
