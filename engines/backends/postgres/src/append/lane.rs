//! A lane: takes a batch, sends it, answers, takes the next.
//!
//! Two small batches cost the server more than a large one, so a lane leaves what waits to the batch under way, whose lane
//! takes it next. But that one may be waiting itself, for a lock or for a slow network: nobody waits behind it for longer
//! than [`PATIENCE`](super::PATIENCE).

use std::sync::Arc;

use mainstay_event_store::repeat::{self, Verdict as Repeat};
use mainstay_event_store::{AppendError, Appended, Refusal, StoreId, StreamName, Version};
use mainstay_resilience::retry::Checked;
use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::{Builder, Prepared};
use super::statement::{Form, Verdict, send};
use super::{Job, Queue, Turn, Waiting};
use crate::connect::Way;
use crate::error::{self, Kind, kind};
use crate::hints::Hints;
use crate::keys::Locks;
use crate::limit::within;
use crate::pool::Pool;
use crate::receipt::Mark;
use crate::retries::{RaceBudget, Retries};
use crate::schema::Schema;
use crate::select;

type Reply = oneshot::Sender<Result<Appended, AppendError>>;

/// What a lane works with.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) queue: Arc<Queue>,
    pub(crate) pool: Pool,
    pub(crate) way: Way,
    pub(crate) schema: Schema,
    pub(crate) store: StoreId,
    pub(crate) hints: Arc<Hints>,
    pub(crate) retry: Checked,
    pub(crate) budget: Arc<RaceBudget>,
    pub(crate) bytes_max: usize,
}

/// A batch that was taken; its streams are free again when it is gone, however that happens.
struct Taken {
    queue: Arc<Queue>,
    acts: Vec<Prepared>,
    locks: Locks,
    jobs: Vec<(mainstay_envelope::Context, Reply, tokio::sync::OwnedSemaphorePermit)>,
    streams: Vec<StreamName>,
    since: Instant,
}

impl Drop for Taken {
    fn drop(&mut self) {
        {
            let mut waiting = self.queue.waiting();
            for stream in &self.streams {
                waiting.busy.remove(stream);
            }
            if let Some(index) = waiting.under_way.iter().position(|since| *since == self.since) {
                waiting.under_way.swap_remove(index);
            }
        }
        self.queue.changed.notify_one();
    }
}

/// What a lane finds.
enum Next {
    Batch(Box<Taken>),
    /// Something waits, and is left to others until then.
    Later(Instant),
    Nothing,
    Closed,
}

impl Lane {
    /// Works until the queue is closed.
    pub(crate) async fn run(self) {
        loop {
            let changed = self.queue.changed.notified();
            match self.take() {
                Next::Batch(mut taken) => {
                    self.work(&mut taken).await;
                    // Who was answered often comes again at once: then it is in the next batch.
                    tokio::task::yield_now().await;
                }
                Next::Later(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                    self.queue.waiting().timers -= 1;
                }
                Next::Nothing => changed.await,
                Next::Closed => {
                    self.queue.changed.notify_one();
                    return;
                }
            }
        }
    }

    fn take(&self) -> Next {
        let mut waiting = self.queue.waiting();
        if waiting.closed.is_some() {
            return Next::Closed;
        }
        if let Turn::Later(at) = waiting.next(self.queue.batch_acts, Instant::now()) {
            waiting.timers += 1;
            return Next::Later(at);
        }
        self.batch(&mut waiting).map_or(Next::Nothing, |taken| Next::Batch(Box::new(taken)))
    }

    /// The next batch; none when nothing waits that could go out now.
    fn batch(&self, waiting: &mut Waiting) -> Option<Taken> {
        let mut builder = Builder::new(self.queue.batch_acts, self.bytes_max);
        let mut jobs = Vec::new();
        let mut left = std::collections::VecDeque::new();
        waiting.full = false;
        while let Some(job) = waiting.jobs.pop_front() {
            if job.reply.is_closed() {
                // Nobody waits for it any more, and nothing of it was done.
                continue;
            }
            if !builder.fits(&job.act, &waiting.busy) {
                waiting.full |= !builder.has_room_for(&job.act);
                left.push_back(job);
                if !builder.has_room() {
                    break;
                }
                continue;
            }
            let Job { act, cx, reply, _place } = job;
            builder.add(act);
            jobs.push((cx, reply, _place));
        }
        left.append(&mut waiting.jobs);
        waiting.jobs = left;
        if jobs.is_empty() {
            return None;
        }
        let (acts, locks) = builder.finish();
        let mut streams: Vec<StreamName> =
            acts.iter().flat_map(|act| &act.parts).map(|part| part.stream.clone()).collect();
        streams.sort_unstable();
        streams.dedup();
        waiting.busy.extend(streams.iter().cloned());
        let since = Instant::now();
        waiting.under_way.push(since);
        if !waiting.jobs.is_empty() {
            // What did not fit is another lane's.
            self.queue.changed.notify_one();
        }
        Some(Taken { queue: Arc::clone(&self.queue), acts, locks, jobs, streams, since })
    }

    async fn work(&self, taken: &mut Taken) {
        let acts = std::mem::take(&mut taken.acts);
        let jobs = std::mem::take(&mut taken.jobs);
        let Some((cx, ..)) = jobs.first() else { return };
        let together = match acts.len() {
            1 => self.until_done(cx, &acts, &taken.locks).await,
            // What harms a batch is one act's fault, and the others must not pay for it.
            _ => match self.once(&acts, &taken.locks).await {
                Ok(answers) => Ok(answers),
                Err(failed) if matches!(kind(&failed.error), Kind::Lost | Kind::Busy) => {
                    self.again(cx, &acts, &taken.locks, failed).await
                }
                Err(_) => {
                    for (act, (cx, reply, _)) in acts.into_iter().zip(jobs) {
                        let locks = act.locks.clone();
                        let answer = self.until_done(&cx, &[act], &locks).await;
                        let answer =
                            answer.and_then(|answers| answers.into_iter().next().ok_or_else(missing));
                        let _ = reply.send(answer.and_then(|answer| answer));
                    }
                    return;
                }
            },
        };
        match together {
            Ok(answers) => {
                for (answer, (_, reply, _)) in answers.into_iter().zip(jobs) {
                    // Who does not wait any more does not want to know.
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                for (_, reply, _) in jobs {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    async fn until_done(
        &self,
        cx: &mainstay_envelope::Context,
        acts: &[Prepared],
        locks: &Locks,
    ) -> Result<Vec<Result<Appended, AppendError>>, AppendError> {
        match self.once(acts, locks).await {
            Ok(answers) => Ok(answers),
            Err(failed) => self.again(cx, acts, locks, failed).await,
        }
    }

    /// Tries again what failed, as the rule says. An act may have been written by an earlier try: then its ids are
    /// recorded, and it is acknowledged.
    async fn again(
        &self,
        cx: &mainstay_envelope::Context,
        acts: &[Prepared],
        locks: &Locks,
        mut failed: Failed,
    ) -> Result<Vec<Result<Appended, AppendError>>, AppendError> {
        let mut retries = Retries::new(cx, self.retry, &self.budget);
        let mut unknown = failed.unknown;
        loop {
            let failure = kind(&failed.error);
            let wait = match error::passes(failure) || failure == Kind::Unique {
                true => retries.next(),
                false => None,
            };
            let Some(wait) = wait else {
                return Err(match unknown {
                    true => AppendError::Unknown { why: error::words(&failed.error) },
                    false => error::refusal(&failed.error).into(),
                });
            };
            tokio::time::sleep(wait).await;
            match self.once(acts, locks).await {
                Ok(answers) => return Ok(answers),
                Err(again) => {
                    unknown |= again.unknown;
                    failed = again;
                }
            }
        }
    }

    async fn once(
        &self,
        acts: &[Prepared],
        locks: &Locks,
    ) -> Result<Vec<Result<Appended, AppendError>>, Failed> {
        let mut conn = self.pool.acquire().await.map_err(|error| Failed { error, unknown: false })?;
        let limit = self.pool.answer_limit();
        let verdicts = match within(limit, self.send(&mut conn, acts, locks)).await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                conn.failed(&error);
                return Err(Failed { unknown: kind(&error) == Kind::Lost, error });
            }
        };
        let wrote = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Written { .. }));
        if wrote {
            self.hints.committed();
        }
        let mut answers = Vec::with_capacity(acts.len());
        for (act, verdict) in acts.iter().zip(verdicts) {
            answers.push(match verdict {
                Verdict::Written { versions, mark } => {
                    Ok(Appended { versions, receipt: mark.receipt(self.store), repeated: false })
                }
                Verdict::Refused(refusal) => Err(refusal.into()),
                Verdict::Known => {
                    match within(limit, self.resolve(&mut conn, act)).await {
                        Ok(Ok((versions, mark))) => {
                            Ok(Appended { versions, receipt: mark.receipt(self.store), repeated: true })
                        }
                        Ok(Err(refusal)) => Err(refusal.into()),
                        // What is written of the others is on disk: only this one has no answer yet.
                        Err(error) => {
                            conn.failed(&error);
                            return Err(Failed { error, unknown: false });
                        }
                    }
                }
            });
        }
        conn.keep();
        Ok(answers)
    }

    async fn resolve(
        &self,
        conn: &mut PgConnection,
        act: &Prepared,
    ) -> sqlx::Result<Result<(Vec<(StreamName, Version)>, Mark), Refusal>> {
        if self.way.explicit() {
            sqlx::raw_sql("begin read only").execute(&mut *conn).await?;
        }
        let resolved = resolve(&mut *conn, &self.schema, act, self.way.persistent()).await;
        if self.way.explicit() {
            let end = if resolved.is_ok() { "commit" } else { "rollback" };
            sqlx::raw_sql(end).execute(&mut *conn).await?;
        }
        resolved
    }

    async fn send(
        &self,
        conn: &mut PgConnection,
        acts: &[Prepared],
        locks: &Locks,
    ) -> sqlx::Result<Vec<Verdict>> {
        if acts.iter().all(Prepared::is_free) && self.queue.hopes() {
            let sent = self.send_as(&mut *conn, acts, locks, Form::Free).await;
            match sent {
                Err(error) if kind(&error) == Kind::Unique => self.queue.beware(),
                sent => return sent,
            }
        }
        self.send_as(conn, acts, locks, Form::Alone).await
    }

    async fn send_as(
        &self,
        conn: &mut PgConnection,
        acts: &[Prepared],
        locks: &Locks,
        form: Form,
    ) -> sqlx::Result<Vec<Verdict>> {
        let explicit = self.way.explicit();
        if explicit {
            sqlx::raw_sql("begin").execute(&mut *conn).await?;
        }
        let persistent = self.way.persistent();
        let answer = send(&mut *conn, &self.schema, self.store, acts, locks, form, persistent).await;
        if explicit {
            let end = if answer.is_ok() { "commit" } else { "rollback" };
            let ended = sqlx::raw_sql(end).execute(&mut *conn).await;
            let answer = answer?;
            ended?;
            return Ok(answer.verdicts);
        }
        Ok(answer?.verdicts)
    }
}

/// A batch that failed as a whole.
struct Failed {
    error: sqlx::Error,
    /// It may have been written all the same.
    unknown: bool,
}

fn missing() -> AppendError {
    AppendError::Unknown { why: "the server answered for fewer acts than it was sent".into() }
}

/// An act with an id that is recorded: is it a repetition? Then its versions, and the mark of its last event.
pub(crate) async fn resolve(
    conn: &mut PgConnection,
    schema: &Schema,
    act: &Prepared,
    persistent: bool,
) -> sqlx::Result<Result<(Vec<(StreamName, Version)>, Mark), Refusal>> {
    let ids: Vec<uuid::Uuid> = act.events().map(|(event, _)| event.id).collect();
    let recorded = select::by_ids(conn, schema, &ids, persistent).await?;
    let parts: Vec<repeat::Part<'_>> =
        act.parts.iter().map(|part| (&part.stream, part.events.as_slice())).collect();
    let judged = repeat::judge(&parts, |id| {
        Ok::<_, Refusal>(recorded.get(id).map(|(event, _)| std::borrow::Cow::Borrowed(event)))
    });
    let versions = match judged {
        Ok(Repeat::Repeated(versions)) => versions,
        // The ids were there a moment ago, and nothing is ever removed.
        Ok(Repeat::New) => return Err(error::damaged("an event's id")),
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut told = Vec::with_capacity(versions.len());
    for (part, version) in act.parts.iter().zip(versions) {
        let version = match version {
            Some(version) => version,
            None => select::version(conn, schema, &part.stream, persistent).await?,
        };
        told.push((part.stream.clone(), version));
    }
    let last = recorded.values().map(|(_, seq)| *seq).max().unwrap_or_default();
    Ok(Ok((told, Mark::Seq(last))))
}
