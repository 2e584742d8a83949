//! A worker: runs one closure after the other, each as often as it takes.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, AppendError, Author, Committed, Refusal, TransactError};
use mainstay_resilience::retry::Checked;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::transaction::{Second, State, Transaction};
use crate::error::{self, Kind, SqlFault, kind};
use crate::hints::Hints;
use crate::limit::{silent, within};
use crate::ops::Place;
use crate::options::Isolation;
use crate::receipt::Mark;
use crate::retries::{RaceBudget, Retries};

/// The run from which on a closure takes its turn.
const TURNS_FROM: u32 = 2;

/// What all workers of a handle share.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) place: Place,
    pub(crate) connect: PgConnectOptions,
    pub(crate) connect_limit: Duration,
    pub(crate) limit: Duration,
    pub(crate) lock_limit: Duration,
    pub(crate) retry: Checked,
    pub(crate) budget: Arc<RaceBudget>,
    pub(crate) hints: Arc<Hints>,
    /// Closures that append do so one after the other, and know the positions they get.
    pub(crate) serial: bool,
}

/// One thread's work: what it has at hand.
pub(crate) struct Worker {
    setup: Setup,
    runtime: Rc<Runtime>,
    conn: Option<PgConnection>,
    second: Option<PgConnection>,
}

/// What a worker is asked to do.
pub(crate) trait Work: Send {
    fn run(self: Box<Self>, worker: &mut Worker);
}

/// The queue's end, which the workers share: one waits, the others wait for it.
pub(crate) type Jobs = Arc<Mutex<mpsc::Receiver<Box<dyn Work>>>>;

impl Worker {
    /// Starts so many threads.
    pub(crate) fn start(
        setup: &Setup,
        threads: usize,
        queue: usize,
    ) -> std::io::Result<mpsc::Sender<Box<dyn Work>>> {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let jobs: Jobs = Arc::new(Mutex::new(receiver));
        for thread in 0..threads {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (setup, jobs) = (setup.clone(), Arc::clone(&jobs));
            std::thread::Builder::new().name(format!("mainstay-tx-{thread}")).spawn(move || {
                let mut worker = Worker { setup, runtime: Rc::new(runtime), conn: None, second: None };
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    match job {
                        Some(job) => {
                            // The user's closure is caught inside; what gets here is a defect of ours, and costs one job.
                            if catch_unwind(AssertUnwindSafe(|| job.run(&mut worker))).is_err() {
                                (worker.conn, worker.second) = (None, None);
                            }
                        }
                        None => return worker.end(),
                    }
                }
            })?;
        }
        Ok(sender)
    }

    fn end(self) {
        for conn in [self.conn, self.second].into_iter().flatten() {
            // A server that is gone needs no goodbye.
            let closing = async { tokio::time::timeout(Duration::from_secs(1), conn.close()).await };
            let _ = self.runtime.block_on(closing);
        }
    }

    fn connection(&mut self) -> sqlx::Result<PgConnection> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        let connecting = PgConnection::connect_with(&self.setup.connect);
        let limit = self.setup.connect_limit;
        self.runtime.block_on(within(limit, connecting))
    }

    /// Begins a transaction on the worker's connection.
    fn begin(&mut self, origin: &Author, isolation: Isolation, run: u32) -> sqlx::Result<Transaction> {
        let mut conn = self.connection()?;
        let limit = self.setup.limit;
        let turn = if run >= TURNS_FROM && isolation.is_frozen() {
            "; lock table {s}.turn in exclusive mode"
        } else {
            ""
        };
        let turn = turn.replace("{s}", &format!("\"{}\"", self.setup.place.schema.name()));
        let millis = limit.as_millis().max(1);
        // One message. What is set counts until the transaction's end; mainstay.tx tells whether that is still to come.
        let begin = format!(
            "{}; set local statement_timeout = {millis}; set local idle_in_transaction_session_timeout = {millis}; \
             set local lock_timeout = {}; set local enable_seqscan = off; set local enable_hashjoin = off; \
             set local enable_mergejoin = off; set local jit = off; set local mainstay.tx = 'open'{turn}",
            isolation.begin(),
            self.setup.lock_limit.min(limit).as_millis().max(1),
        );
        let begun = self.runtime.block_on(async {
            let begin = sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut conn);
            tokio::time::timeout(limit + Duration::from_secs(1), begin).await
        });
        match begun {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                if kind(&error) != Kind::Lost {
                    self.give_up(conn);
                }
                return Err(error);
            }
            Err(_) => return Err(silent(limit)),
        }
        let second = Second { options: self.setup.connect.clone(), conn: self.second.take() };
        Ok(Transaction {
            runtime: Rc::clone(&self.runtime),
            place: self.setup.place.clone(),
            isolation,
            at: origin.at,
            origin: RefCell::new(origin.clone()),
            conn: RefCell::new(conn),
            second: RefCell::new(second),
            state: RefCell::new(State::default()),
            sql_fault: RefCell::new(None),
            sql_used: Cell::new(false),
            own: self.setup.serial.then(RefCell::default),
            began: Instant::now(),
            limit,
        })
    }

    /// Rolls back, and keeps the connection if that went well.
    fn give_up(&mut self, mut conn: PgConnection) {
        let rolled = self.runtime.block_on(async {
            let rollback = sqlx::raw_sql("rollback").execute(&mut conn);
            tokio::time::timeout(Duration::from_secs(1), rollback).await
        });
        if matches!(rolled, Ok(Ok(_))) {
            self.conn = Some(conn);
        }
    }

    /// Takes back what a transaction held.
    fn take_back(&mut self, tx: Transaction, keep: Keep) {
        self.second = tx.second.into_inner().conn;
        let broken = tx.state.into_inner().broken;
        match keep {
            _ if broken => {}
            Keep::Drop => {}
            Keep::Clean => self.conn = Some(tx.conn.into_inner()),
            Keep::RollBack => self.give_up(tx.conn.into_inner()),
        }
    }
}

/// What becomes of a transaction's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The transaction has ended.
    Clean,
    /// It has not.
    RollBack,
    /// Nobody knows in which state it is.
    Drop,
}

/// A closure to be run.
pub(crate) struct Transact<F, T, E> {
    pub(crate) cx: Context,
    pub(crate) origin: Author,
    pub(crate) isolation: Isolation,
    pub(crate) closure: F,
    pub(crate) reply: oneshot::Sender<Result<Committed<T>, TransactError<E>>>,
}

/// How one run ended.
enum Ran<T, E> {
    Committed(T, Mark),
    /// It is over.
    Ended(TransactError<E>),
    /// To be run again, if the rule allows; else this is the answer.
    Again(Refusal),
}

impl<F, T, E> Work for Transact<F, T, E>
where
    F: Fn(&Transaction) -> Result<T, Abort<E>> + Send,
    T: Send,
    E: Send,
{
    fn run(self: Box<Self>, worker: &mut Worker) {
        let budget = Arc::clone(&worker.setup.budget);
        let mut retries = Retries::new(&self.cx, worker.setup.retry, &budget);
        let answer = loop {
            if self.reply.is_closed() {
                // Nobody waits any more, and nothing is written.
                return;
            }
            match self.once(worker, retries.failures()) {
                Ran::Committed(value, mark) => {
                    worker.setup.hints.committed();
                    break Ok(Committed { value, receipt: mark.receipt(worker.setup.place.store) });
                }
                Ran::Ended(error) => break Err(error),
                Ran::Again(refusal) => match retries.next() {
                    Some(wait) => worker.runtime.block_on(async { tokio::time::sleep(wait).await }),
                    None => break Err(refusal.into()),
                },
            }
        };
        // Who does not wait any more does not want to know.
        let _ = self.reply.send(answer);
    }
}

impl<F, T, E> Transact<F, T, E>
where
    F: Fn(&Transaction) -> Result<T, Abort<E>> + Send,
{
    fn once(&self, worker: &mut Worker, run: u32) -> Ran<T, E> {
        let tx = match worker.begin(&self.origin, self.isolation, run) {
            Ok(tx) => tx,
            Err(error) if error::passes(kind(&error)) => return Ran::Again(error::refusal(&error)),
            Err(error) => return Ran::Ended(error::refusal(&error).into()),
        };
        // The closure only sees the transaction, and what it did to that is rolled back.
        let ran = catch_unwind(AssertUnwindSafe(|| (self.closure)(&tx)));
        let value = match ran {
            Ok(Ok(value)) => value,
            Ok(Err(abort)) => {
                let again = tx.state.borrow().again;
                // Of a lost race it may have heard as an error of its own, or as a refusal.
                let refused = tx.state.borrow().refused.clone();
                let fault = tx.sql_fault.borrow().clone();
                worker.take_back(tx, Keep::RollBack);
                if again {
                    return Ran::Again(refused.or(fault.map(Refusal::from)).unwrap_or_else(raced));
                }
                return Ran::Ended(match refused {
                    Some(refusal) => refusal.into(),
                    None => abort.into(),
                });
            }
            Err(panic) => {
                worker.take_back(tx, Keep::Drop);
                let why = format!("panicked: {}", panic_text(&*panic));
                return Ran::Ended(Refusal::Closure { why }.into());
            }
        };
        match finish(&tx) {
            Ok(mark) => {
                worker.take_back(tx, Keep::Clean);
                Ran::Committed(value, mark)
            }
            Err(Unfinished::Refused(refusal)) => {
                let again = tx.state.borrow().again;
                worker.take_back(tx, Keep::RollBack);
                if again { Ran::Again(refusal) } else { Ran::Ended(refusal.into()) }
            }
            Err(Unfinished::Unknown(why)) => {
                worker.take_back(tx, Keep::Drop);
                Ran::Ended(AppendError::Unknown { why }.into())
            }
        }
    }
}

fn raced() -> Refusal {
    Refusal::Busy { why: "other transactions were faster each time".into() }
}

/// Why a closure that believes to be done did not commit.
enum Unfinished {
    Refused(Refusal),
    Unknown(String),
}

/// Writes what is still to be written, looks whether the transaction is still the one that was begun, and commits.
fn finish(tx: &Transaction) -> Result<Mark, Unfinished> {
    tx.undecided().map_err(Unfinished::Refused)?;
    tx.flush().map_err(Unfinished::Refused)?;
    let known = tx.state.borrow().mark;
    let mark = match known {
        Some(mark) if !tx.sql_used.get() => mark,
        known => {
            let looked = tx.on_connection(async |conn, place| {
                sqlx::query("select pg_current_xact_id()::text, current_setting('mainstay.tx', true)")
                    .persistent(place.persistent())
                    .fetch_one(conn)
                    .await
            });
            let row = looked.map_err(|error| Unfinished::Refused(fault(tx, &error)))?;
            let open: Option<String> =
                row.try_get(1).map_err(|error| Unfinished::Refused(tx.failed(&error)))?;
            if open.as_deref() != Some("open") {
                let why =
                    "ended the transaction by itself (commit, rollback); what its own SQL committed stays"
                        .into();
                return Err(Unfinished::Refused(tx.decided(Refusal::Closure { why })));
            }
            let xid: String = row.try_get(0).map_err(|error| Unfinished::Refused(tx.failed(&error)))?;
            known.unwrap_or(Mark::Xid(xid.parse().unwrap_or(0)))
        }
    };
    let committed = tx.on_connection(async |conn, _| sqlx::raw_sql("commit").execute(conn).await);
    match committed {
        Ok(_) => Ok(mark),
        Err(error) if kind(&error) == Kind::Lost => Err(Unfinished::Unknown(error::words(&error))),
        // A deferred constraint, or a race that shows only now: the server has rolled back.
        Err(error) if matches!(kind(&error), Kind::Constraint | Kind::Unique) && tx.sql_used.get() => {
            let refusal = Refusal::Sql { why: error::words(&error), retry: false };
            Err(Unfinished::Refused(tx.decided(refusal)))
        }
        Err(error) => Err(Unfinished::Refused(tx.failed(&error))),
    }
}

/// The user's own SQL failed, and its closure went on as if nothing had happened: its words are the ones to tell.
fn fault(tx: &Transaction, error: &sqlx::Error) -> Refusal {
    let told = tx.sql_fault.borrow().clone();
    match told {
        Some(fault) if !matches!(fault.kind, SqlFault::Race | SqlFault::Lost) => tx.decided(fault.into()),
        _ => tx.failed(error),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "(no text)".into()
    }
}
