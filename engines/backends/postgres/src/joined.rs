//! Events, messages and inbox marks in a transaction that somebody else opened.

use mainstay_envelope::{Context, Fact, MessageIdentity};
use mainstay_event_store::{
    Act, Appended, Author, Condition, ConsumerName, Mark as Marked, OutboxRow, Position, Receipt, Refusal,
    StoreId,
};
use sqlx::{PgConnection, Postgres, Row, Transaction};

use crate::append::Prepared;
use crate::conditions;
use crate::connect::Way;
use crate::error::SqlError;
use crate::ops::outbox::Pending;
use crate::ops::{self, Place};
use crate::receipt::Mark;
use crate::schema::{Found, Schema, VERSION, found};

/// The user's own sqlx transaction, joined by events, messages, inbox marks and checkpoints.
///
/// It needs neither a [`crate::Postgres`] nor a pool of ours nor a task: only the schema, and a transaction at READ
/// COMMITTED. What it writes commits, or rolls back, with everything else in that transaction. Events get their places
/// once it is committed, by whichever process runs a sequencer.
///
/// A refusal (a conflict, a failed condition) leaves the transaction usable: nothing of that call is written, and the
/// caller decides what to do. A [`JoinError::Sql`] is the server's: the transaction is gone, as after any failed
/// statement.
///
/// Locks are held until the transaction ends: those of the streams that were appended to, and shared ones on the types
/// and tags of events. Append late, and commit soon.
#[derive(Debug)]
pub struct Joined<'c> {
    conn: &'c mut PgConnection,
    place: Place,
    origin: Author,
    mark: Option<Mark>,
}

/// Why a call inside a joined transaction did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Nothing of this call was written; the transaction can go on, or be rolled back.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server failed a statement: the transaction is gone.
    #[error("{0}; the transaction is gone: roll it back, and run it again if its fault was a race")]
    Sql(SqlError),
    /// There is no store in that schema, or one of another version.
    #[error(
        "schema {schema} holds no store of version {VERSION}: {why}; nothing was written; open the store once"
    )]
    NoStore {
        /// The schema.
        schema: String,
        /// What is there.
        why: String,
    },
    /// The transaction's statements all see one moment, so that conflicts would be looked for in the past.
    #[error(
        "the transaction is at {isolation}, but only READ COMMITTED can be joined: above it, a conflict would show as an \
         error and end the transaction; nothing was written; begin it at READ COMMITTED, or use Store::transact"
    )]
    Isolation {
        /// As the server calls it.
        isolation: String,
    },
}

impl From<sqlx::Error> for JoinError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error.into())
    }
}

impl<'c> Joined<'c> {
    /// Joins a transaction. `cx` says on whose account its events are written, and when. One round trip, once more for
    /// the first join of a schema's clones.
    pub async fn of(
        schema: &Schema,
        tx: &'c mut Transaction<'_, Postgres>,
        cx: &Context,
    ) -> Result<Self, JoinError> {
        Self::on(schema, tx, cx, Way { pooled: false }).await
    }

    /// As [`Joined::of`], behind a pooler in transaction mode: no statement is kept prepared.
    pub async fn pooled(
        schema: &Schema,
        tx: &'c mut Transaction<'_, Postgres>,
        cx: &Context,
    ) -> Result<Self, JoinError> {
        Self::on(schema, tx, cx, Way { pooled: true }).await
    }

    async fn on(
        schema: &Schema,
        tx: &'c mut Transaction<'_, Postgres>,
        cx: &Context,
        way: Way,
    ) -> Result<Self, JoinError> {
        let conn: &'c mut PgConnection = tx;
        let isolation: String = sqlx::query_scalar("select current_setting('transaction_isolation')")
            .persistent(way.persistent())
            .fetch_one(&mut *conn)
            .await?;
        if isolation != "read committed" {
            return Err(JoinError::Isolation { isolation });
        }
        let store = store_of(&mut *conn, schema).await?;
        let origin = Author::of(cx)?;
        Ok(Self { conn, place: Place { schema: schema.clone(), store, way }, origin, mark: None })
    }

    /// The store that is joined.
    pub fn store(&self) -> StoreId {
        self.place.store
    }

    /// The transaction's connection, for the caller's own statements in between.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.conn
    }

    /// What is written from here on carries this fact's envelope, in place of the context's.
    pub fn acting_for(&mut self, fact: &Fact) -> Result<(), JoinError> {
        self.origin = Author::new(self.origin.at, fact)?;
        Ok(())
    }

    /// Appends an act; as [`mainstay_event_store::Store::append`], inside this transaction. Its receipt counts once that
    /// has committed. One round trip.
    pub async fn append(&mut self, act: Act) -> Result<Appended, JoinError> {
        let act = Prepared::new(act, self.origin.clone())?;
        let done = ops::append::append(&mut *self.conn, &self.place, act, false).await??;
        if !done.repeated {
            self.wrote(done.mark);
        }
        Ok(Appended {
            versions: done.versions,
            receipt: done.mark.receipt(self.place.store),
            repeated: done.repeated,
        })
    }

    /// Refuses when an event matches, recorded by whomever, this transaction included.
    pub async fn require(&mut self, condition: &Condition) -> Result<(), JoinError> {
        condition.query.check()?;
        let persistent = self.place.persistent();
        conditions::lock(&mut *self.conn, &condition.query, self.place.store, persistent).await?;
        match conditions::check(&mut *self.conn, &self.place.schema, condition, persistent).await? {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// Records messages to be published, all of the store's one topic. One round trip.
    pub async fn outbox(&mut self, rows: &[OutboxRow]) -> Result<(), JoinError> {
        let Some(first) = rows.first() else { return Ok(()) };
        let mut pending = Vec::with_capacity(rows.len());
        for row in rows {
            mainstay_event_store::outbox::check_topic(&first.topic, &row.topic)?;
            pending.push(Pending::new(row, &self.origin)?);
        }
        let mark = ops::outbox::add(&mut *self.conn, &self.place, &pending).await??;
        self.wrote(mark);
        Ok(())
    }

    /// Marks a message as handled by this consumer, and says whether it was before
    /// ([`mainstay_event_store::Tx::inbox_mark`]): do its effect in this transaction when it is the first time.
    pub async fn inbox_mark(
        &mut self,
        consumer: &ConsumerName,
        message: &MessageIdentity,
    ) -> Result<Marked, JoinError> {
        Ok(ops::inbox::mark(&mut *self.conn, &self.place, consumer, message).await??)
    }

    /// Where a consumer stands.
    pub async fn checkpoint(&mut self, consumer: &ConsumerName) -> Result<Option<Position>, JoinError> {
        Ok(ops::checkpoint::get(&mut *self.conn, &self.place, consumer).await?)
    }

    /// Moves a consumer from where it must stand.
    pub async fn move_checkpoint(
        &mut self,
        consumer: &ConsumerName,
        from: Position,
        to: Position,
    ) -> Result<(), JoinError> {
        Ok(ops::checkpoint::advance(&mut *self.conn, &self.place, consumer, from, to).await??)
    }

    /// Presents this transaction to readers, once it has committed.
    pub async fn receipt(&mut self) -> Result<Receipt, JoinError> {
        let mark = match self.mark {
            Some(mark) => mark,
            None => {
                let row = sqlx::query("select pg_current_xact_id()::text")
                    .persistent(self.place.persistent())
                    .fetch_one(&mut *self.conn)
                    .await?;
                Mark::Xid(row.try_get::<String, _>(0)?.parse().unwrap_or_default())
            }
        };
        Ok(mark.receipt(self.place.store))
    }

    fn wrote(&mut self, mark: Mark) {
        self.mark = Some(self.mark.map_or(mark, |known| known.later(mark)));
    }
}

/// The store in a schema. Looked up once for a schema and its clones.
async fn store_of(conn: &mut PgConnection, schema: &Schema) -> Result<StoreId, JoinError> {
    if let Some(known) = schema.known() {
        return Ok(known);
    }
    let none = |why: String| JoinError::NoStore { schema: schema.name().to_owned(), why };
    match found(conn, schema).await? {
        Found::Store { version, id } if version == VERSION => {
            schema.remember(id);
            Ok(id)
        }
        Found::Store { version, .. } => Err(none(format!("its version is {version}"))),
        Found::Foreign(table) => Err(none(format!("its table {table} is somebody else's"))),
        Found::Nothing => Err(none("there is nothing".to_owned())),
    }
}
