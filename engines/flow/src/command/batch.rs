//! What one decision writes, as one transaction.

use std::sync::Arc;

use mainstay_event_store::{Abort, Expected, NewEvent, Row, Store, StreamName, Tx, Version, ViewName};

use super::commands::Also;
use crate::projection::{Failure, Inline};

/// Why a transaction of ours ended by itself.
pub(super) enum Ended<R> {
    Refused(R),
    Projection { projection: &'static str, why: Failure },
}

/// Everything that is recorded together.
pub(super) struct Batch<S: Store, R> {
    pub(super) store: S,
    pub(super) stream: StreamName,
    pub(super) expected: Expected,
    pub(super) events: Arc<[NewEvent]>,
    pub(super) inline: Arc<[Inline]>,
    pub(super) also: Arc<[Also<S, R>]>,
    pub(super) snapshot: Option<(ViewName, Row)>,
}

impl<S: Store, R> Clone for Batch<S, R> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            stream: self.stream.clone(),
            expected: self.expected,
            events: Arc::clone(&self.events),
            inline: Arc::clone(&self.inline),
            also: Arc::clone(&self.also),
            snapshot: self.snapshot.clone(),
        }
    }
}

impl<S: Store, R> Batch<S, R> {
    /// Nothing but events: no transaction of its own is needed. Without events there is nothing for the
    /// others to join.
    pub(super) fn is_plain(&self) -> bool {
        let alone = self.inline.is_empty() && self.also.is_empty() && self.snapshot.is_none();
        alone || self.events.is_empty()
    }

    /// Writes all of it: the stream's version, and whether the events had been recorded before.
    pub(super) fn write(&self, tx: &S::Tx) -> Result<(Version, bool), Abort<Ended<R>>> {
        let before = tx.version(&self.stream)?;
        let version = tx.append(&self.stream, self.expected, &self.events)?;
        if version.0 != before.0 + self.events.len() as u64 {
            // The events were there already, and so is everything that was recorded with them.
            return Ok((version, true));
        }
        if !self.inline.is_empty() {
            let recorded = tx.read_stream(&self.stream, Version(before.0 + 1), self.events.len())?;
            for inline in &*self.inline {
                inline.apply(tx, self.store.id(), &recorded).map_err(|why| match why {
                    Failure::Refused(refusal) => Abort::Refused(refusal),
                    why => Abort::User(Ended::Projection { projection: inline.name(), why }),
                })?;
            }
        }
        for also in &*self.also {
            also(tx).map_err(|abort| match abort {
                Abort::User(refusal) => Abort::User(Ended::Refused(refusal)),
                Abort::Refused(refusal) => Abort::Refused(refusal),
            })?;
        }
        if let Some((view, row)) = &self.snapshot {
            tx.view_put(view, row)?;
        }
        Ok((version, false))
    }
}
