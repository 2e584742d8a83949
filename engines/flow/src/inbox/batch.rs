//! A batch of messages as one transaction: the step that the follower is made of.
//!
//! ```text
//! one transaction {checkpoint: from ─► to, for each message: mark, effect | parked}
//! ```

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mainstay_event_store::inbox::SEQ_MAX;
use mainstay_event_store::{Abort, Mark, Position, Refusal, Store, Tx};

use super::apply::{Handler, Ready};
use super::lane::Lane;
use super::parking::release::{Rules, Stopped, Why, park};
use super::parking::rows::{Last, Rows, Views};
use crate::saga::{Failure, Reactor};

/// The parked keys of a lane, as they were last read.
#[derive(Debug, Clone, Default)]
pub(super) struct Parked {
    pub(super) generation: u64,
    pub(super) keys: HashSet<String>,
}

/// What one transaction is to do.
pub(super) struct Batch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) messages: Arc<[Ready]>,
    /// Which of them.
    pub(super) range: std::ops::Range<usize>,
    /// Those that are known to fail, by index: they are parked.
    pub(super) failed: Arc<BTreeMap<usize, Failure>>,
    pub(super) parked: Arc<Parked>,
}

/// What a batch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Messages that were parked.
    pub(super) parked: u64,
    /// Messages whose number came before with another content: an alarm for each.
    pub(super) altered: Vec<usize>,
    /// Messages whose number is none, by index: they are passed over.
    pub(super) unnumbered: Vec<usize>,
}

pub(super) fn transaction<S: Store, R: Reactor<S>>(
    handler: &Handler<S, R>,
    views: &Views,
    lane: &Lane,
    rules: &Rules,
    batch: Batch,
) -> impl Fn(&S::Tx) -> Result<Outcome, Abort<Stopped>> + Send + 'static {
    let (handler, views, lane, rules) = (handler.clone(), views.clone(), lane.clone(), rules.clone());
    move |tx| {
        // First of all: of two members of a group that came from one place, one stops here.
        tx.move_checkpoint(&lane.checkpoint, Position(batch.from), Position(batch.to))?;
        let rows = Rows { tx, views: &views, lane: &lane };
        let mut counts = rows.lane()?;
        if counts.generation != batch.parked.generation {
            return Err(Abort::User(Stopped::Stale));
        }
        let mut outcome = Outcome::default();
        // Keys that this very batch parks: what follows in it has to wait too.
        let mut joined = HashSet::new();
        for (index, ready) in batch.messages.iter().enumerate().take(batch.range.end).skip(batch.range.start)
        {
            let message = &ready.delivered.message;
            if !(1..=SEQ_MAX).contains(&message.identity.seq) {
                outcome.unnumbered.push(index);
                continue;
            }
            let why = match tx.inbox_mark(handler.publisher.consumer(), &message.identity)? {
                Mark::Repeated => continue,
                Mark::Altered => {
                    outcome.altered.push(index);
                    Why::Altered
                }
                Mark::First if !handler.consumes.contains(ready.event_type()) => continue,
                Mark::First => {
                    let waits = !(batch.parked.keys.is_empty() && joined.is_empty()) && {
                        let key = lane.key(&message.key);
                        batch.parked.keys.contains(&key) || joined.contains(&key)
                    };
                    match batch.failed.get(&index) {
                        _ if waits => Why::Follows,
                        Some(failure) => Why::Failed(failure.clone()),
                        None => {
                            handler.apply(tx, &lane, ready).map_err(|failure| stopped(index, failure))?;
                            continue;
                        }
                    }
                }
            };
            park(&rows, &mut counts, &rules, ready, &why)?;
            joined.insert(lane.key(&message.key));
            outcome.parked += 1;
        }
        if let Some(ready) = batch.messages.get(batch.range.clone()).and_then(<[Ready]>::last) {
            counts.last = Some(Last::of(&ready.delivered));
            rows.put_lane(&counts)?;
        }
        Ok(outcome)
    }
}

/// How a batch ends in which a message failed.
fn stopped(index: usize, failure: Failure) -> Abort<Stopped> {
    match failure {
        // This is also what whoever happens to be at work hears when the whole batch has taken too long.
        Failure::Refused(refusal @ (Refusal::Closure { .. } | Refusal::Sql { retry: false, .. })) => {
            Abort::Refused(refusal)
        }
        failure => Abort::User(Stopped::At(index, failure)),
    }
}
