//! Proof that the rows are what the feed says: a second fold of the feed, compared row by row.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_envelope::Context;
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Abort, Position, Scan, Store, StoreId, TransactError, ViewName, limits};

use super::control::{Mode, consumer_name, view_name};
use super::error::ProjectionError;
use super::failure::Failure;
use super::model::{Observed, Projection};
use super::pipe::{Pipe, Trouble, check_version, reading};
use super::projector::Projector;
use super::view::View;
use crate::event::{open, query};
use crate::pace::Pace;

/// How often what differs is looked at again because the rows moved on meanwhile.
const ROUNDS_MAX: usize = 100;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Up to where the feed was folded.
    pub at: Position,
    /// Rows compared.
    pub rows: usize,
    /// Rows that are not what the feed says, by key. Empty: the read model is the replay.
    pub drift: Vec<Drift>,
}

/// A row that is not what the feed says. The values may be personal data: they are in no message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drift {
    /// Its key.
    pub key: String,
    /// What is stored; none when the row is missing.
    pub stored: Option<Vec<u8>>,
    /// What the feed says; none when there should be no row.
    pub replayed: Option<Vec<u8>>,
}

impl<P: Projection, Source: Store, Target: Store> Projector<P, Source, Target> {
    /// Folds the whole feed again, in memory, and compares every row with what is stored. Changes nothing;
    /// everybody goes on meanwhile. Rows are equal when their JSON is, whatever the order of its members.
    ///
    /// Takes as long as applying the whole feed, and the memory of all rows. A row that changes all the time
    /// is looked at again until it stands still for a moment; should that never happen, it counts as drift.
    pub async fn verify(&self, cx: &Context) -> Result<Verified, ProjectionError> {
        let mut pace = Pace::new(cx, self.settings);
        loop {
            match self.compare(cx).await {
                Ok(verified) => return Ok(verified),
                Err(trouble) => self.wait_out(cx, &mut pace, trouble).await?,
            }
        }
    }

    async fn compare(&self, cx: &Context) -> Result<Verified, Trouble> {
        let mut shadow = Shadow::<P, Source, Target>::new(&self.pipe)?;
        let mut stand = self.stand(cx).await?;
        shadow.fold(cx, stand.1).await?;
        let stored = rows_of(&self.pipe.target, &stand.2).await.map_err(reading::<P>)?;
        let replayed = rows_of(&shadow.store, &shadow.view).await.map_err(reading::<P>)?;
        let keys: BTreeSet<_> = stored.keys().chain(replayed.keys()).cloned().collect();
        let compared = keys.len();
        let mut suspects: BTreeSet<_> =
            keys.into_iter().filter(|key| !same(stored.get(key), replayed.get(key))).collect();
        for _ in 0..ROUNDS_MAX {
            let before = stand;
            stand = self.stand(cx).await?;
            if stand.0 != before.0 {
                return Err(Trouble::Passing("it was rebuilt while it was verified".into()));
            }
            if suspects.is_empty() || stand.1 == before.1 {
                break;
            }
            shadow.fold(cx, stand.1).await?;
            let mut left = BTreeSet::new();
            for key in suspects {
                let (stored, replayed) = (self.row(&stand.2, &key).await?, shadow.row(&key).await?);
                if !same(stored.as_ref(), replayed.as_ref()) {
                    left.insert(key);
                }
            }
            suspects = left;
        }
        let mut drift = Vec::new();
        for key in suspects {
            let (stored, replayed) = (self.row(&stand.2, &key).await?, shadow.row(&key).await?);
            drift.push(Drift { key, stored, replayed });
        }
        Ok(Verified { at: shadow.at, rows: compared, drift })
    }

    /// Which generation is read, up to where the feed is in it, and its view.
    async fn stand(&self, cx: &Context) -> Result<(u64, Position, ViewName), Trouble> {
        let control = self.pipe.control(cx, self.mode).await?;
        check_version::<P>(&control)?;
        let number = control.live.number;
        let at = match control.mode {
            Mode::Inline => self.pipe.source.head().await.map_err(reading::<P>)?.position,
            Mode::Asynchronous => {
                let consumer = consumer_name(P::NAME, number).map_err(unusable::<P>)?;
                let at = self.pipe.target.checkpoint(&consumer).await.map_err(reading::<P>)?;
                at.unwrap_or(Position::START)
            }
        };
        Ok((number, at, view_name(P::NAME, number).map_err(unusable::<P>)?))
    }

    async fn row(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.pipe.target.view_get(view, key).await.map_err(reading::<P>)
    }
}

/// A second set of rows, in memory.
struct Shadow<'a, P, Source, Target> {
    pipe: &'a Pipe<P, Source, Target>,
    store: Memory,
    view: ViewName,
    at: Position,
}

impl<'a, P: Projection, Source: Store, Target: Store> Shadow<'a, P, Source, Target> {
    fn new(pipe: &'a Pipe<P, Source, Target>) -> Result<Self, Trouble> {
        let store = Memory::with_id(StoreId(uuid::Uuid::nil()));
        Ok(Self { pipe, store, view: view_name(P::NAME, 0).map_err(unusable::<P>)?, at: Position::START })
    }

    /// Applies everything up to `to`, included.
    async fn fold(&mut self, cx: &Context, to: Position) -> Result<(), Trouble> {
        let query = query::<P::Event>().map_err(unusable::<P>)?;
        while self.at < to {
            let page = self
                .pipe
                .source
                .read(&query, self.at, limits::PAGE_EVENTS_MAX)
                .await
                .map_err(reading::<P>)?;
            let (projection, view) = (self.pipe.projection.clone(), self.view.clone());
            let events = page.events;
            let folded = self.store.transact(cx, move |tx| {
                let rows = View::new(tx, &view, P::indices);
                for recorded in events.iter().take_while(|recorded| recorded.position <= to) {
                    rows.begin(recorded.position);
                    let applied = open::<P::Event>(recorded)
                        .map_err(Failure::from)
                        .and_then(|event| projection.apply(&rows, &Observed::new(recorded, &event)));
                    applied.map_err(|why| Abort::User((recorded.position, why)))?;
                }
                rows.flush().map_err(Abort::User)
            });
            folded.await.map_err(|error| match error {
                TransactError::User((position, why)) => {
                    Trouble::Fatal(ProjectionError::Failed { projection: P::NAME, position, why })
                }
                TransactError::Store(error) => Trouble::Passing(error.to_string()),
            })?;
            self.at = page.next.min(to);
        }
        Ok(())
    }

    async fn row(&self, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.store.view_get(&self.view, key).await.map_err(reading::<P>)
    }
}

async fn rows_of(
    store: &impl Store,
    view: &ViewName,
) -> Result<BTreeMap<String, Vec<u8>>, mainstay_event_store::ReadError> {
    let mut all = BTreeMap::new();
    let mut scan = Scan::keys(view.clone(), limits::PAGE_EVENTS_MAX);
    loop {
        let page = store.view_scan(&scan).await?;
        all.extend(page.rows);
        match page.next {
            Some(cursor) => scan.after = Some(cursor),
            None => return Ok(all),
        }
    }
}

fn same(a: Option<&Vec<u8>>, b: Option<&Vec<u8>>) -> bool {
    let value = |bytes: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    match (a, b) {
        (Some(a), Some(b)) => a == b || (value(a).is_some() && value(a) == value(b)),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn unusable<P: Projection>(bad: mainstay_event_store::BadName) -> Trouble {
    Trouble::Fatal(ProjectionError::Store { projection: P::NAME, refusal: bad.into() })
}
