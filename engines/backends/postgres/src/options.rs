//! How a store is opened.

use std::time::Duration;

use mainstay_resilience::retry;
use sqlx::postgres::PgConnectOptions;

use crate::durability::{Otherwise, Require};
use crate::schema::Schema;
use crate::{retention, sequencer};

/// How much transactions see of each other (PostgreSQL's manual, chapter 13.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Each statement sees what was committed before it began. The cheapest; a closure that reads, decides and writes
    /// can lose another one's update, unless what it writes is conditioned (versions, checkpoints, conditions, fences).
    ReadCommitted,
    /// All statements see one moment. Two that write one row: one of them is run again. Two that each write what the
    /// other has read both commit (write skew).
    RepeatableRead,
    /// As if one closure ran after the other. The default: what was written for one writer stays right. One that lost
    /// a race is run again.
    #[default]
    Serializable,
}

impl Isolation {
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "begin isolation level read committed",
            Self::RepeatableRead => "begin isolation level repeatable read",
            Self::Serializable => "begin isolation level serializable",
        }
    }

    /// Do its statements look with a snapshot that was taken before?
    pub(crate) fn is_frozen(self) -> bool {
        self != Self::ReadCommitted
    }
}

/// Settings of one store handle. Every limit is explicit; the defaults suit one service beside its server.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) server: Server,
    pub(crate) schema: Schema,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) readers: u32,
    pub(crate) lanes: usize,
    pub(crate) workers: usize,
    pub(crate) queue: usize,
    pub(crate) batch_acts: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) closure_limit: Duration,
    pub(crate) busy: Duration,
    pub(crate) connect_limit: Duration,
    pub(crate) answer_limit: Duration,
    pub(crate) isolation: Isolation,
    pub(crate) retry: retry::Spec,
    pub(crate) pooled: bool,
    pub(crate) sequencer: Option<sequencer::Spec>,
    pub(crate) retention: Option<retention::Spec>,
    pub(crate) durability: (Require, Otherwise),
    pub(crate) settled: Option<Duration>,
}

/// Where the server is.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    Url(String),
    Connect(Box<PgConnectOptions>),
}

impl Options {
    /// A store on this server: `postgres://user:password@host:port/database?sslmode=verify-full`. Its schema is made
    /// when it is not there.
    pub fn new(url: impl Into<String>) -> Self {
        Self::of(Server::Url(url.into()))
    }

    /// The same, with settings that a URL can't say.
    pub fn with(connect: PgConnectOptions) -> Self {
        Self::of(Server::Connect(Box::new(connect)))
    }

    fn of(server: Server) -> Self {
        Self {
            server,
            schema: Schema::default(),
            create: true,
            read_only: false,
            readers: 4,
            lanes: 2,
            workers: 4,
            queue: 4_096,
            batch_acts: 512,
            batch_bytes: 4 << 20,
            closure_limit: Duration::from_secs(5),
            busy: Duration::from_secs(10),
            connect_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(15),
            isolation: Isolation::default(),
            // Waits of a few milliseconds: what was lost is a race, and its winner has committed by then.
            retry: retry::Spec::full_jitter(Duration::from_millis(2), Duration::from_millis(250))
                .max_attempts(24)
                .total(Duration::from_secs(20)),
            pooled: false,
            sequencer: Some(sequencer::Spec::default()),
            retention: Some(retention::Spec::default()),
            durability: (Require::Power, Otherwise::Refuse),
            settled: None,
        }
    }

    /// The schema of the store's tables; default `mainstay`.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Refuse to make a schema that is not there.
    pub fn existing(mut self) -> Self {
        self.create = false;
        self
    }

    /// Never write: appends are refused, and no sequencer is started. For the query side, for tools, and for replicas.
    /// Implies [`Options::existing`].
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self.sequencer = None;
        self.retention = None;
        self.existing()
    }

    /// Connections that read; 1 to 64, default 4.
    pub fn readers(mut self, connections: u32) -> Self {
        self.readers = connections.clamp(1, 64);
        self
    }

    /// Batches of appends that may be under way at once, each on a connection; 1 to 16, default 2. A further one
    /// goes out when a batch is full, or 8 ms after the one before that is still under way: a large batch costs less
    /// than two small ones, and nobody waits behind one that is held up.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes.clamp(1, 16);
        self
    }

    /// Threads that run closures, each with a connection; 1 to 64, default 4.
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = threads.clamp(1, 64);
        self
    }

    /// How long one run of a closure may take, default 5 s, at most 15 s: what holds its locks longer holds up others.
    /// The server ends it then. A closure that is stuck in Rust can't be stopped, but its transaction is.
    pub fn closure_limit(mut self, limit: Duration) -> Self {
        self.closure_limit = limit.clamp(Duration::from_millis(10), CLOSURE_LIMIT_MAX);
        self
    }

    /// How long to wait for a place in a queue, or for a lock of another transaction, default 10 s; after it the
    /// act is refused as busy.
    pub fn busy_limit(mut self, limit: Duration) -> Self {
        self.busy = limit;
        self
    }

    /// How long to wait for a connection, default 10 s.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// How long the server's answer to a read or to a batch of appends is waited for, default 15 s, at least 1 s and never
    /// less than [`Options::busy_limit`]. The server ends the statement then; when it does not answer even a second later, the
    /// connection is taken for lost, as where a network swallows everything without a word: a read is asked again on a new
    /// one, an append is sent again with its ids, or [`mainstay_event_store::AppendError::Unknown`].
    pub fn answer_limit(mut self, limit: Duration) -> Self {
        self.answer_limit = limit.max(Duration::from_secs(1));
        self
    }

    /// How much closures see of each other, unless [`crate::Postgres::with_isolation`] says otherwise.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How often, and for how long, what lost a race (40001, 40P01) or its connection is tried again. The call's own
    /// deadline counts too. The budget is the handle's: as many retries as calls, and a thousand saved up.
    pub fn retry(mut self, spec: retry::Spec) -> Self {
        self.retry = spec;
        self
    }

    /// There is a pooler in transaction mode between us and the server (pgbouncer): nothing may be kept on a
    /// connection from one transaction to the next. Costs round trips.
    pub fn pooled(mut self) -> Self {
        self.pooled = true;
        if let Some(spec) = &mut self.sequencer {
            spec.prepared = false;
        }
        if let Some(spec) = &mut self.retention {
            spec.prepared = false;
        }
        self
    }

    /// How this process's sequencer works, or `None` when it is to be no candidate. By default every handle is one;
    /// one of all is active.
    pub fn sequencer(mut self, spec: Option<sequencer::Spec>) -> Self {
        self.sequencer = spec;
        self
    }

    /// How this process folds marks and empties partitions in the background, or `None` when it is not to. By default
    /// every handle does, by turns; somebody has to, or the tables grow.
    pub fn retention(mut self, spec: Option<retention::Spec>) -> Self {
        self.retention = spec;
        self
    }

    /// What an acknowledgement of the server has to survive, and what to do where it does not; by default a power cut,
    /// or else the store is not opened. Looked at once, when it is opened to write.
    pub fn durability(mut self, require: Require, otherwise: Otherwise) -> Self {
        self.durability = (require, otherwise);
        self
    }

    /// For code that compares receipts with positions, as it may on a store with one writer: appends and closures return
    /// when their act has its place in the feed, with a receipt whose mark is that position; and what a closure has
    /// appended itself, it reads with the positions that it gets. Off by default.
    ///
    /// After `at_most` the receipt is the one that was made at the commit, which [`crate::Postgres::settle`] can place
    /// later: what was committed is never called failed. Costs the wait for the next round of the sequencer; and closures
    /// that append do so one after the other.
    pub fn settled_receipts(mut self, at_most: Duration) -> Self {
        self.settled = Some(at_most);
        self
    }
}

/// The longest [`Options::closure_limit`].
pub(crate) const CLOSURE_LIMIT_MAX: Duration = Duration::from_secs(15);
