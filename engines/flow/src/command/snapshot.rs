//! How a state is kept and found again.

use mainstay_event_store::{BadName, Row, StreamName, Version, ViewName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::decider::Snapshot;

/// The view that holds all snapshots, by decider and stream.
const SNAPSHOTS: &str = "mainstay.snapshots";

#[derive(Serialize)]
struct Kept<'a, D> {
    schema: u32,
    version: Version,
    state: &'a D,
}

#[derive(Deserialize)]
struct Found<'a> {
    schema: u32,
    version: Version,
    /// Read only when the schema is ours: another one's may have any shape.
    #[serde(borrow)]
    state: &'a RawValue,
}

/// What a decider's snapshots are, without its being known to be a [`Snapshot`] everywhere.
pub(crate) struct Snapshots<D> {
    pub(crate) view: ViewName,
    pub(crate) every: u64,
    name: &'static str,
    encode: fn(&D, Version) -> Option<Vec<u8>>,
    decode: fn(&[u8]) -> Option<(D, Version)>,
}

impl<D> Clone for Snapshots<D> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), ..*self }
    }
}

impl<D: Snapshot> Snapshots<D> {
    pub(crate) fn new() -> Result<Self, BadName> {
        Ok(Self {
            view: ViewName::new(SNAPSHOTS)?,
            every: D::EVERY.max(1),
            name: D::NAME,
            encode: |state, version| serde_json::to_vec(&Kept { schema: D::SCHEMA, version, state }).ok(),
            decode: |bytes| {
                let found: Found<'_> = serde_json::from_slice(bytes).ok()?;
                if found.schema != D::SCHEMA {
                    return None;
                }
                Some((serde_json::from_str(found.state.get()).ok()?, found.version))
            },
        })
    }
}

impl<D> Snapshots<D> {
    /// Where the snapshot of a stream is.
    pub(crate) fn key(&self, stream: &StreamName) -> String {
        format!("{}/{stream}", self.name)
    }

    /// A state and its version; none when the bytes are of another schema or can't be read.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<(D, Version)> {
        (self.decode)(bytes)
    }

    /// The row to write; none when the state can't be kept (no JSON, or too large for a row): the stream is
    /// then replayed as if there were no snapshots.
    pub(crate) fn row(&self, stream: &StreamName, state: &D, version: Version) -> Option<Row> {
        let row = Row::new(self.key(stream), (self.encode)(state, version)?);
        row.check().is_ok().then_some(row)
    }
}
