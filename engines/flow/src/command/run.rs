//! One command, from its stream to its receipt.
//!
//! ```text
//! load ──► decide ──► record {events, inline rows, closures, snapshot} ──► done
//!   ▲                   │ conflict: nothing was written, the decision is stale
//!   └───────────────────┤
//!                       │ busy, or outcome unknown: the same ids again, so that it is recorded once
//!                       └──► record …
//! ```

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Act, AppendError, EventType, Expected, NewEvent, Payload, Receipt, Recorded, Refusal, Retry, Store,
    StreamName, TransactError, Version,
};

use super::batch::{Batch, Ended};
use super::commands::{Also, Commands, Done, Pending};
use super::decider::Decider;
use super::error::CommandError;
use super::identity::Identity;
use super::load::{Loaded, load};
use crate::event::{close, open};
use crate::pace::{self, Pace};

type Outcome<D> = Result<Done<<D as Decider>::Event>, CommandError<<D as Decider>::Refusal>>;

/// A command's work, and what it has spent of its tries.
struct Work<'a, D: Decider, S: Store> {
    commands: &'a Commands<D, S>,
    cx: &'a Context,
    stream: StreamName,
    identity: Identity,
    /// The identity is the call's idempotency key: the caller gave this command none of its own.
    by_call: bool,
    troubles: Pace,
}

/// How a try to record a decision ended, when it did not fail for good.
enum Step {
    /// Recorded now: version and receipt.
    Recorded(Version, Receipt),
    /// The stream, or something else the decision rests on, has changed: decide again.
    Stale(Refusal),
    /// The command's ids are recorded already, by an earlier time it was sent.
    Known,
}

impl<'a, D: Decider, S: Store> IntoFuture for Pending<'a, D, S> {
    type Output = Result<Done<D::Event>, CommandError<D::Refusal>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run(self))
    }
}

async fn run<D: Decider, S: Store>(pending: Pending<'_, D, S>) -> Outcome<D> {
    let Pending { commands, cx, stream, command, also, expected, id } = pending;
    let stream = stream?;
    let key = cx.envelope().idempotency_key();
    let identity = match (&id, key) {
        (Some(id), _) => Identity::known(id, &stream),
        (None, Some(key)) => Identity::known(key.as_str(), &stream),
        (None, None) => Identity::Fresh,
    };
    let by_call = id.is_none() && key.is_some();
    let also: Arc<[Also<S, D::Refusal>]> = also.into();
    let troubles = Pace::new(cx, commands.troubles);
    let mut conflicts = Pace::new(cx, commands.conflicts);
    let mut work = Work { commands, cx, stream, identity, by_call, troubles };
    loop {
        if pace::is_over(cx) {
            return Err(CommandError::DeadlineOver);
        }
        let mut loaded = work.load(true).await?;
        if !loaded.own.is_empty() {
            return work.recall(loaded.own).await;
        }
        let decided = match expected.filter(|expected| *expected != loaded.version) {
            None => loaded.state.decide(&command).map_err(CommandError::Refused),
            Some(expected) => Err(CommandError::VersionMoved {
                stream: work.stream.clone(),
                expected,
                actual: loaded.version,
            }),
        };
        // No, or nothing to do: perhaps because it was done already, and the first answer was lost.
        if !matches!(&decided, Ok(events) if !events.is_empty())
            && let Some(done) = work.recalled(&loaded).await?
        {
            return Ok(done);
        }
        let events = decided?;
        let stale = match work.record(&mut loaded, &events, &also).await? {
            Step::Recorded(version, receipt) => {
                return Ok(Done { receipt, version, events, repeated: false });
            }
            Step::Known => {
                let whole = work.load(false).await?;
                return work.recall(whole.own).await;
            }
            Step::Stale(refusal) => refusal,
        };
        // With a version asked for there is one more round too: it finds the command recorded, or says "moved".
        if let Err(reason) = conflicts.again(cx).await {
            let why = format!("{stale}; {reason}");
            return Err(CommandError::Conflict { stream: work.stream, tries: conflicts.failures(), why });
        }
    }
}

impl<D: Decider, S: Store> Work<'_, D, S> {
    async fn load(&mut self, from_snapshot: bool) -> Result<Loaded<D>, CommandError<D::Refusal>> {
        load(self.commands, self.cx, &self.stream, &self.identity, from_snapshot, &mut self.troubles).await
    }

    /// Records a decision, until it is known how that ended.
    async fn record(
        &mut self,
        loaded: &mut Loaded<D>,
        events: &[D::Event],
        also: &Arc<[Also<S, D::Refusal>]>,
    ) -> Result<Step, CommandError<D::Refusal>> {
        let batch = self.batch(loaded, events, also)?;
        // Once a try ended unknown, only a clear answer may say that nothing was written.
        let mut unknown = None;
        loop {
            let failed = match self.attempt(&batch).await {
                Ok((_, _, true)) if unknown.is_none() && self.identity.is_known() => return Ok(Step::Known),
                Ok((version, receipt, _)) => return Ok(Step::Recorded(version, receipt)),
                Err(failed) => failed,
            };
            let refusal = match failed {
                TransactError::User(Ended::Refused(refusal)) => return Err(CommandError::Refused(refusal)),
                TransactError::User(Ended::Projection { projection, why }) => {
                    return Err(CommandError::Projection { projection, why: why.to_string() });
                }
                TransactError::Store(AppendError::Refused(refusal)) => refusal,
                TransactError::Store(AppendError::Unknown { why }) => {
                    if self.troubles.again(self.cx).await.is_err() {
                        return Err(CommandError::Unknown { why, tries: self.troubles.failures() });
                    }
                    unknown = Some(why);
                    continue;
                }
            };
            match refusal.retry() {
                Retry::AfterReading => return Ok(Step::Stale(refusal)),
                Retry::Later if self.troubles.again(self.cx).await.is_ok() => {}
                _ if is_taken(&refusal, &self.identity) => return Ok(Step::Known),
                Retry::Later | Retry::Never => {
                    let tries = self.troubles.failures().max(1);
                    return Err(match unknown {
                        Some(why) => CommandError::Unknown { why, tries },
                        None => CommandError::Store { refusal, tries },
                    });
                }
            }
        }
    }

    /// What goes into one transaction.
    fn batch(
        &self,
        loaded: &mut Loaded<D>,
        events: &[D::Event],
        also: &Arc<[Also<S, D::Refusal>]>,
    ) -> Result<Batch<S, D::Refusal>, CommandError<D::Refusal>> {
        let closed =
            events.iter().enumerate().map(|(i, event)| close(event, self.identity.event_id(self.cx, i)));
        let recorded = closed.collect::<Result<Arc<[NewEvent]>, _>>()?;
        let after = Version(loaded.version.0 + recorded.len() as u64);
        let due = |every: u64| !events.is_empty() && after.0 - loaded.snapshot.0 >= every;
        let snapshot = match &self.commands.snapshots {
            Some(snapshots) if due(snapshots.every) => {
                events.iter().for_each(|event| loaded.state.evolve(event));
                snapshots.row(&self.stream, &loaded.state, after).map(|row| (snapshots.view.clone(), row))
            }
            _ => None,
        };
        Ok(Batch {
            store: self.commands.store.clone(),
            stream: self.stream.clone(),
            expected: Expected::Exactly(loaded.version),
            events: recorded,
            inline: Arc::clone(&self.commands.inline),
            also: Arc::clone(also),
            snapshot,
        })
    }

    /// One try: version, receipt, and whether the events had been recorded before.
    async fn attempt(
        &self,
        batch: &Batch<S, D::Refusal>,
    ) -> Result<(Version, Receipt, bool), TransactError<Ended<D::Refusal>>> {
        let store = &self.commands.store;
        if batch.is_plain() {
            let act = Act::append(batch.stream.clone(), batch.expected, batch.events.to_vec());
            let done = store.append(self.cx, act).await?;
            let version = done.versions.first().map_or(Version::EMPTY, |(_, version)| *version);
            return Ok((version, done.receipt, done.repeated));
        }
        let batch = batch.clone();
        let done = store.transact(self.cx, move |tx| batch.write(tx)).await?;
        let (version, repeated) = done.value;
        Ok((version, done.receipt, repeated))
    }

    /// The answer of the command's earlier time, if it had one that this replay could not meet.
    async fn recalled(
        &mut self,
        loaded: &Loaded<D>,
    ) -> Result<Option<Done<D::Event>>, CommandError<D::Refusal>> {
        if loaded.snapshot == Version::EMPTY || !self.is_recorded().await? {
            return Ok(None);
        }
        let whole = self.load(false).await?;
        if whole.own.is_empty() { Ok(None) } else { self.recall(whole.own).await.map(Some) }
    }

    /// Is the command's first event recorded, anywhere in the stream? Asked by an append that no stream can
    /// meet: a store looks at ids before versions. It costs one look-up, where reading the stream costs all of it.
    async fn is_recorded(&mut self) -> Result<bool, CommandError<D::Refusal>> {
        let Some(id) = self.identity.known_event_id(0) else { return Ok(false) };
        let probe = NewEvent::new(id, EventType::new("mainstay.probe")?, Payload::plain([]));
        let never = Expected::Exactly(Version(i64::MAX as u64));
        loop {
            let act = Act::append(self.stream.clone(), never, vec![probe.clone()]);
            let refusal = match self.commands.store.append(self.cx, act).await {
                Ok(_) => return Ok(true),
                Err(AppendError::Refused(refusal)) => refusal,
                Err(AppendError::Unknown { why }) => Refusal::Busy { why },
            };
            match refusal {
                Refusal::IdTaken { .. } => return Ok(true),
                Refusal::Conflict { .. } => return Ok(false),
                other if other.retry() == Retry::Later && self.troubles.again(self.cx).await.is_ok() => {}
                refusal => {
                    return Err(CommandError::Store { refusal, tries: self.troubles.failures().max(1) });
                }
            }
        }
    }

    /// The same answer again, from what was recorded. The receipt comes from handing in the same events once
    /// more, which every store acknowledges without writing.
    async fn recall(&mut self, own: Vec<Recorded>) -> Outcome<D> {
        let version = own.last().map_or(Version::EMPTY, |last| last.version);
        if self.by_call && own.first().is_some_and(|first| is_of_this_call(first, self.cx)) {
            // A client that repeats its call is another span. Within one call this is a second command, and to
            // acknowledge it as the first would lose it without a word.
            return Err(CommandError::KeyReused { stream: self.stream.clone(), version });
        }
        let mut events = Vec::with_capacity(own.len());
        let mut again = Vec::with_capacity(own.len());
        for recorded in own {
            events.push(open::<D::Event>(&recorded).map_err(|why| CommandError::Undecodable {
                stream: recorded.stream.clone(),
                version: recorded.version,
                why,
            })?);
            again.push(NewEvent {
                id: recorded.id,
                event_type: recorded.event_type,
                schema: recorded.schema,
                tags: recorded.tags.to_vec(),
                payload: recorded.payload,
            });
        }
        loop {
            let act = Act::append(self.stream.clone(), Expected::Any, again.clone());
            let refusal = match self.commands.store.append(self.cx, act).await {
                Ok(done) => return Ok(Done { receipt: done.receipt, version, events, repeated: true }),
                Err(AppendError::Refused(refusal)) => refusal,
                Err(AppendError::Unknown { why }) => Refusal::Busy { why },
            };
            if refusal.retry() != Retry::Later || self.troubles.again(self.cx).await.is_err() {
                return Err(CommandError::Store { refusal, tries: self.troubles.failures().max(1) });
            }
        }
    }
}

fn is_of_this_call(recorded: &Recorded, cx: &Context) -> bool {
    let ours = cx.fact().trace;
    ours.is_some() && recorded.fact().is_ok_and(|fact| fact.trace == ours)
}

fn is_taken(refusal: &Refusal, identity: &Identity) -> bool {
    matches!(refusal, Refusal::IdTaken { id, .. } if identity.owns(*id))
}
