//! Which things a work commands, and how their state is found.

use std::fmt;

use mainstay_event_store::{BadName, Expected, NewEvent, Refusal, StreamName, Tx, Version, limits};

use crate::command::{Decider, Snapshot, Snapshots};
use crate::event::open;

/// The things of one decider, as a work commands them. Make one at the start and keep it.
///
/// [`Entity::replayed`] reads the stream from its beginning each time: right for things with a short life, such as
/// an order. [`Entity::kept`] keeps the state in a row that each act rewrites, so that the thousandth event of a
/// stream costs what the first did: right for an account, or a stock.
pub struct Entity<D: Decider> {
    kept: Option<Snapshots<D>>,
}

impl<D: Decider> Clone for Entity<D> {
    fn clone(&self) -> Self {
        Self { kept: self.kept.clone() }
    }
}

impl<D: Decider> fmt::Debug for Entity<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entity").field("kept", &self.kept.is_some()).finish()
    }
}

impl<D: Decider> Entity<D> {
    /// Things whose streams are short: replayed each time.
    pub fn replayed() -> Self {
        Self { kept: None }
    }

    /// Things whose streams grow: the state is kept in a row, in the transaction of the events that lead to it.
    ///
    /// The row is a copy, never the truth: what was appended since by somebody who keeps none is read after it, and
    /// a row of another [`Snapshot::SCHEMA`] is passed over. [`Snapshot::EVERY`] plays no part here.
    pub fn kept() -> Result<Self, BadName>
    where
        D: Snapshot,
    {
        Ok(Self { kept: Some(Snapshots::new()?) })
    }

    /// The state of a thing as this transaction sees it, and its version.
    pub(super) fn load(&self, tx: &impl Tx, stream: &StreamName) -> Result<(D, Version), Refusal> {
        let (mut state, mut version) = self.row(tx, stream)?.unwrap_or((D::default(), Version::EMPTY));
        // A row of what is not there: the store was put together from parts. The stream is the truth.
        if version > Version::EMPTY && tx.version(stream)? < version {
            (state, version) = (D::default(), Version::EMPTY);
        }
        loop {
            let next = Version(version.0 + 1);
            let events = tx.read_stream(stream, next, limits::PAGE_EVENTS_MAX)?;
            let full = events.len() == limits::PAGE_EVENTS_MAX;
            for recorded in events {
                let event = open::<D::Event>(&recorded).map_err(|why| Refusal::Invalid {
                    what: "stream",
                    why: format!("{stream} can't be replayed, version {}: {why}", recorded.version),
                })?;
                state.evolve(&event);
                version = recorded.version;
            }
            if !full {
                return Ok((state, version));
            }
        }
    }

    /// Records the events that lead to a state.
    pub(super) fn store(
        &self,
        tx: &impl Tx,
        stream: &StreamName,
        before: Version,
        state: &D,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        let version = tx.append(stream, Expected::Exactly(before), events)?;
        if let Some(kept) = &self.kept {
            match kept.row(stream, state, version) {
                Some(row) => tx.view_put(&kept.view, &row)?,
                // It has grown too large for a row: from here on it is replayed.
                None => drop(tx.view_delete(&kept.view, &kept.key(stream))?),
            }
        }
        Ok(version)
    }

    fn row(&self, tx: &impl Tx, stream: &StreamName) -> Result<Option<(D, Version)>, Refusal> {
        let Some(kept) = &self.kept else { return Ok(None) };
        let bytes = tx.view_get(&kept.view, &kept.key(stream))?;
        Ok(bytes.and_then(|bytes| kept.decode(&bytes)))
    }
}
