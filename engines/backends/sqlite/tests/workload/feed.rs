//! What a store holds: read to its end, each event proved to be the one that was handed in.

use mainstay_envelope::Context;
use mainstay_event_store::{Hash, Head, Position, Query, Recorded, Store, Verifier, limits, repeat};
use mainstay_sqlite::Sqlite;
use uuid::Uuid;

use super::acts::{self, Plan};
use super::{Failure, ledger};

/// Everything in a store, in order, without the payloads.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// By position, from 1.
    pub(crate) events: Vec<Event>,
    /// Rows of the user's table: act, version.
    pub(crate) audit: Vec<(u64, u64)>,
    /// Messages: number, act.
    pub(crate) outbox: Vec<(u64, u64)>,
    /// What is not as it was written.
    pub(crate) changed: Vec<String>,
}

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) position: u64,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) id: Uuid,
    pub(crate) hash: Hash,
    /// The act it belongs to and its ordinal there; none when nobody of the workload wrote it so.
    pub(crate) origin: Option<(u64, u64)>,
}

impl Feed {
    /// The end.
    pub(crate) fn head(&self) -> Option<Head> {
        self.events.last().map(|event| Head { position: Position(event.position), hash: event.hash })
    }
}

/// Reads a store and verifies its chain; `show` sees every event.
pub(crate) async fn read(
    store: &Sqlite,
    cx: &Context,
    seed: u64,
    writers: u64,
    mut show: impl FnMut(&Recorded),
) -> Result<Feed, Failure> {
    let mut feed = Feed::default();
    let (mut verifier, mut after) = (Verifier::new(store.id()), Position::START);
    let mut plan: Option<Plan> = None;
    loop {
        let page = store.read(&Query::all(), after, limits::PAGE_EVENTS_MAX).await?;
        for event in &page.events {
            show(event);
            if let Err(broken) = verifier.check(event) {
                feed.changed.push(broken.to_string());
                verifier = Verifier::from_head(Head { position: event.position, hash: event.hash });
            }
            let origin = acts::origin(&event.payload.bytes);
            let origin = match origin {
                Some((number, ordinal)) => {
                    if plan.as_ref().is_none_or(|plan| plan.number != number) {
                        plan = Some(Plan::new(seed, writers, number)?);
                    }
                    plan.as_ref().and_then(|plan| same(plan, ordinal, event)).map(|()| (number, ordinal))
                }
                None => None,
            };
            feed.events.push(Event {
                position: event.position.0,
                stream: event.stream.to_string(),
                version: event.version.0,
                id: event.id,
                hash: event.hash,
                origin,
            });
        }
        after = page.next;
        if page.at_end() {
            break;
        }
    }
    acts::prepare(store, cx).await?;
    let audit = store.transact(cx, |tx| {
        let pair = |row: &mainstay_sqlite::rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        };
        Ok::<_, mainstay_event_store::Abort<String>>(tx.sql().query(
            "select act, version from audit order by rowid",
            [],
            pair,
        )?)
    });
    feed.audit = audit.await?.value;
    loop {
        let last = feed.outbox.last().map_or(0, |(seq, _)| *seq);
        let records = store.outbox_after(last, limits::PAGE_EVENTS_MAX).await?;
        if records.is_empty() {
            return Ok(feed);
        }
        for record in records {
            let act = std::str::from_utf8(&record.row.payload).ok().and_then(|text| text.parse().ok());
            feed.outbox.push((record.seq, act.ok_or("an outbox row is not the workload's")?));
        }
    }
}

/// Is the recorded event the one of this ordinal in the plan?
fn same(plan: &Plan, ordinal: u64, event: &Recorded) -> Option<()> {
    let (stream, planned) = plan.events().nth(usize::try_from(ordinal).ok()?)?;
    (planned.id == event.id && repeat::difference(stream, planned, event).is_none()).then_some(())
}

/// Tries every act again whose end nobody knows; the lines for the ledger.
///
/// # Errors
/// When an act that is there is not acknowledged as a repetition, or one that is not there is; when one stays
/// unknown.
pub(crate) async fn resolve(
    store: &Sqlite,
    cx: &Context,
    (seed, writers): (u64, u64),
    feed: &Feed,
    open: &[(u64, u64)],
) -> Result<Vec<String>, Failure> {
    use super::acts::Outcome;
    let mut lines = Vec::new();
    for (number, basis) in open {
        let there = feed.events.iter().any(|event| event.origin.is_some_and(|(act, _)| act == *number));
        let outcome = Plan::new(seed, writers, *number)?.submit(store, cx, *basis).await;
        let right = match &outcome {
            Outcome::Acknowledged { repeated, .. } => *repeated == there,
            Outcome::Refused(_) => !there,
            Outcome::Failed(_) | Outcome::Unknown(_) => false,
        };
        if !right {
            let there = if there { "is" } else { "is not" };
            return Err(
                format!("act {number} {there} in the feed, and trying it again gives {outcome:?}").into()
            );
        }
        lines.push(ledger::ended(*number, &outcome));
    }
    Ok(lines)
}
