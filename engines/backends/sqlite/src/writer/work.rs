//! What the writer thread is asked to do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mainstay_event_store::{
    Abort, AppendError, Appended, Author, Committed, Receipt, Refusal, StoreId, TransactError,
};
use tokio::sync::oneshot;

use super::act::Acted;
use super::transaction::{Broken, Transaction};
use crate::error::refusal;
use crate::ffi;
use crate::health::Board;
use crate::prepare::Prepared;
use crate::schema;

/// How a job's turn in a group ended.
pub(crate) enum Turn {
    /// Its writes, if any, are part of the group.
    Kept,
    /// The engine failed, or the group's transaction is gone: everybody's writes have to be done again.
    GroupLost(Broken),
}

/// How the group ended, as far as a job is concerned.
pub(crate) enum End {
    /// On disk.
    Committed,
    /// Nobody knows.
    Unknown(String),
    /// It had no part in what was committed.
    NotDone(Refusal),
}

/// One job of the writer. It may have several turns; the last one counts.
pub(crate) trait Work: Send {
    /// Does nobody wait for it any more?
    fn abandoned(&self) -> bool;
    /// About how many bytes it writes.
    fn weight(&self) -> usize;
    /// Does it in the open transaction, and keeps its answer for [`Work::end`].
    fn turn(&mut self, tx: &Transaction, board: &Board) -> Turn;
    /// Answers.
    fn end(self: Box<Self>, store: StoreId, end: End);
}

pub(crate) struct Append {
    pub(crate) act: Prepared,
    pub(crate) answer: Option<Result<Acted, Refusal>>,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The answer to an append, and the act itself, so that it is freed where it was made: freeing another
/// thread's memory would cost the writer a tenth of its time.
pub(crate) type Answer = (Result<Appended, AppendError>, Prepared);

impl Work for Append {
    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn weight(&self) -> usize {
        self.act.bytes
    }

    fn turn(&mut self, tx: &Transaction, board: &Board) -> Turn {
        // Only conditions can take long: what they look at is the caller's choice.
        let limited = (!self.act.conditions.is_empty()).then(|| {
            board.runs("an append's conditions");
            tx.guard().closure_runs()
        });
        let result = tx.act(&self.act);
        drop(limited);
        if let Some(mut broken) = tx.broken() {
            if matches!(broken.refusal, Refusal::Closure { .. }) {
                let why = "its conditions look at more events than the time limit allows; count from a later \
                           position, or put the rarest tag first";
                broken.refusal = Refusal::Invalid { what: "act", why: why.into() };
            }
            return Turn::GroupLost(broken);
        }
        self.answer = Some(result);
        Turn::Kept
    }

    fn end(self: Box<Self>, store: StoreId, end: End) {
        let answer = match (end, self.answer) {
            (End::Committed, Some(Ok(acted))) => Ok(Appended {
                versions: acted.versions,
                receipt: Receipt::new(store, acted.last.0),
                repeated: acted.repeated,
            }),
            (End::Committed, Some(Err(refusal))) | (End::NotDone(refusal), _) => Err(refusal.into()),
            (End::Unknown(why), _) => Err(AppendError::Unknown { why }),
            (End::Committed, None) => Err(AppendError::Unknown { why: "the act never had its turn".into() }),
        };
        // Who does not wait any more does not want to know.
        let _ = self.reply.send((answer, self.act));
    }
}

pub(crate) struct Transact<F, T, E> {
    pub(crate) origin: Author,
    pub(crate) closure: F,
    pub(crate) name: &'static str,
    pub(crate) answer: Option<Result<(T, u64), TransactError<E>>>,
    pub(crate) reply: oneshot::Sender<Result<Committed<T>, TransactError<E>>>,
}

impl<F, T, E> Work for Transact<F, T, E>
where
    F: Fn(&Transaction) -> Result<T, Abort<E>> + Send,
    T: Send,
    E: Send,
{
    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn weight(&self) -> usize {
        1 << 16 // not known before it runs
    }

    fn turn(&mut self, tx: &Transaction, board: &Board) -> Turn {
        let tail = tx.tail();
        let failed =
            |error: &rusqlite::Error| Turn::GroupLost(Broken { refusal: refusal(error), reopen: true });
        if let Err(error) = tx.savepoint() {
            return failed(&error);
        }
        tx.begin_job(self.origin.clone());
        tx.guard().tables_changed();
        board.runs(self.name);
        let running = tx.guard().closure_runs();
        // The closure only sees the transaction, and what it did to that is rolled back.
        let ran = catch_unwind(AssertUnwindSafe(|| (self.closure)(tx)));
        if matches!(ran, Ok(Ok(_))) && !tx.is_lost() {
            // A failure is noted in the transaction, and looked at with all else that can be wrong.
            let _ = tx.finish();
        }
        drop(running);
        let answer = match ran {
            Ok(Ok(value)) => match fault(tx) {
                Some(refusal) => Err(refusal.into()),
                None => Ok((value, tx.tail().position.0)),
            },
            Ok(Err(abort)) => Err(abort.into()),
            Err(panic) => Err(Refusal::Closure { why: format!("panicked: {}", panic_text(&*panic)) }.into()),
        };
        if tx.is_lost() {
            // In the engine's words where there are any; the user's own may rest on what is lost with it.
            let refusal = match answer {
                Err(TransactError::Store(AppendError::Refused(refusal))) => refusal,
                _ => Refusal::Closure { why: "rolled the whole transaction back".into() },
            };
            return Turn::GroupLost(Broken {
                refusal,
                reopen: tx.broken().is_some_and(|broken| broken.reopen),
            });
        }
        if let Some(broken) = tx.broken().filter(|broken| broken.reopen) {
            return Turn::GroupLost(broken);
        }
        let kept = answer.is_ok();
        self.answer = Some(answer);
        match tx.end_savepoint(kept) {
            Ok(()) if kept => {}
            Ok(()) => tx.restore(tail),
            Err(error) => return failed(&error),
        }
        Turn::Kept
    }

    fn end(self: Box<Self>, store: StoreId, end: End) {
        let answer = match (end, self.answer) {
            (End::Committed, Some(Ok((value, mark)))) => {
                Ok(Committed { value, receipt: Receipt::new(store, mark) })
            }
            (End::Committed, Some(Err(error))) => Err(error),
            (End::NotDone(refusal), _) => Err(refusal.into()),
            (End::Unknown(why), _) => Err(AppendError::Unknown { why }.into()),
            (End::Committed, None) => {
                Err(AppendError::Unknown { why: "the transaction never had its turn".into() }.into())
            }
        };
        let _ = self.reply.send(answer);
    }
}

/// Why a closure that believes to be done is refused all the same.
fn fault(tx: &Transaction) -> Option<Refusal> {
    let fault = |why: String| Some(Refusal::Closure { why });
    // It swallowed a refusal: what it believes to have written is not there.
    if let Some(refusal) = tx.broken().map(|broken| broken.refusal).or_else(|| tx.refused()) {
        return Some(refusal);
    }
    if tx.is_lost() {
        return fault("rolled the whole transaction back (ON CONFLICT ROLLBACK?)".into());
    }
    if tx.guard().tables_changed() {
        match schema::in_the_way(tx.conn()) {
            Ok(None) => {}
            Ok(Some(name)) => {
                return fault(format!("makes {name} refer to a table of the store, or look like one"));
            }
            Err(error) => return Some(tx.engine(error)),
        }
    }
    if ffi::foreign_key_violated(tx.conn()) {
        return fault("leaves a foreign key violated".into());
    }
    None
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
