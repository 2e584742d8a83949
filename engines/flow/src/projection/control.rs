//! The record of a projection: which generation of its rows is read, which is being filled, which is going.
//!
//! It is one row, so switching from one generation to the next is one write. Every page of every generation
//! reads it in its own transaction: whoever was overtaken by a rebuild writes nothing any more.
//!
//! ```text
//! (none) ──first run──► live 1 ──begin──► live 1, filling 2 ──switch──► live 2, clearing 1 ──done──► live 2
//!                                              │ a crash: resumed, or begun anew as 3 when VERSION changed
//! ```

use mainstay_envelope::Timestamp;
use mainstay_event_store::{BadName, ConsumerName, Refusal, Row, StoreId, Tx, ViewName};
use serde::{Deserialize, Serialize};

use super::model::Projection;

/// The view that holds these records, by projection name.
const RECORDS: &str = "mainstay.projections";

/// How a projection is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A projector follows the feed.
    Asynchronous,
    /// The transaction that records the events writes the rows too.
    Inline,
}

/// One complete set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    /// The [`Projection::VERSION`] that makes its rows.
    pub(crate) version: u32,
}

/// The record of one projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    pub(crate) mode: Mode,
    /// The store whose events it shows.
    pub(crate) source: StoreId,
    /// What readers read.
    pub(crate) live: Generation,
    /// What a rebuild is filling.
    pub(crate) filling: Option<Generation>,
    /// What is not read any more, and has to be cleared.
    pub(crate) clearing: Vec<u64>,
    /// The highest number ever given. None is given twice: a generation's checkpoint outlives its rows.
    pub(crate) numbered: u64,
    /// Until then inline writers stand back, so that a rebuild can switch.
    #[serde(default)]
    pub(crate) paused_until: Option<Timestamp>,
}

impl Control {
    pub(crate) fn first<P: Projection>(mode: Mode, source: StoreId) -> Self {
        let live = Generation { number: 1, version: P::VERSION };
        Self { mode, source, live, filling: None, clearing: Vec::new(), numbered: 1, paused_until: None }
    }

    /// May rows of this generation be written?
    pub(crate) fn permits(&self, generation: Generation) -> bool {
        self.live == generation || self.filling == Some(generation)
    }

    /// Begins a rebuild, or finds the one that was begun by the same version of the projection.
    pub(crate) fn begin(&mut self, version: u32) -> Generation {
        if let Some(filling) = self.filling {
            if filling.version == version {
                return filling;
            }
            self.clearing.push(filling.number);
        }
        self.numbered += 1;
        let filling = Generation { number: self.numbered, version };
        self.filling = Some(filling);
        filling
    }

    /// Readers go over to what was filled.
    pub(crate) fn switch(&mut self, filled: Generation) {
        self.clearing.push(self.live.number);
        self.live = filled;
        self.filling = None;
        self.paused_until = None;
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(bytes).map_err(|error| Refusal::Invalid {
            what: "projection record",
            why: format!("{RECORDS} can't be read ({error}): written by a newer program?"),
        })
    }

    pub(crate) fn read(tx: &dyn Tx, name: &str) -> Result<Option<Self>, Refusal> {
        tx.view_get(&records()?, name)?.map(|bytes| Self::decode(&bytes)).transpose()
    }

    pub(crate) fn write(&self, tx: &dyn Tx, name: &str) -> Result<(), Refusal> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Refusal::Invalid { what: "projection record", why: error.to_string() })?;
        tx.view_put(&records()?, &Row::new(name, bytes))
    }
}

/// The view that holds the records.
pub(crate) fn records() -> Result<ViewName, BadName> {
    ViewName::new(RECORDS)
}

/// The view of one generation's rows.
pub(crate) fn view_name(projection: &str, generation: u64) -> Result<ViewName, BadName> {
    ViewName::new(format!("{projection}#{generation}"))
}

/// The checkpoint of one generation.
pub(crate) fn consumer_name(projection: &str, generation: u64) -> Result<ConsumerName, BadName> {
    ConsumerName::new(format!("{projection}#{generation}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Control {
        Control {
            mode: Mode::Asynchronous,
            source: StoreId(uuid::Uuid::from_u128(7)),
            live: Generation { number: 1, version: 1 },
            filling: None,
            clearing: Vec::new(),
            numbered: 1,
            paused_until: None,
        }
    }

    #[test]
    fn a_rebuild_is_resumed_by_its_own_version_and_begun_anew_by_another() {
        let mut control = fresh();
        let second = control.begin(2);
        assert_eq!(second, Generation { number: 2, version: 2 });
        assert_eq!(control.begin(2), second, "after a crash the same is filled further");
        let third = control.begin(3);
        assert_eq!(third, Generation { number: 3, version: 3 }, "rows of two versions are never mixed");
        assert_eq!(control.clearing, [2]);
        assert!(!control.permits(second), "whoever still fills the second is stopped");
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut control = fresh();
        control.begin(2);
        control.begin(3);
        control.clearing.clear();
        let third = control.filling.unwrap();
        control.switch(third);
        assert_eq!((control.live.number, control.clearing.as_slice()), (3, &[1][..]));
        control.clearing.clear();
        assert_eq!(control.begin(3).number, 4, "not 2, whose checkpoint is still there");
    }
}
