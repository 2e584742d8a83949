//! Inline: the rows are written in the transaction that records the events.

use std::fmt;
use std::sync::Arc;

use mainstay_event_store::{BadName, Recorded, Refusal, StoreId, Tx};

use super::control::{Control, Mode, view_name};
use super::failure::Failure;
use super::model::{Observed, Projection};
use super::view::View;
use crate::event::{Event, open};

/// Brings the rows up to events just recorded by this transaction, in this store.
type Apply = dyn Fn(&dyn Tx, StoreId, &[Recorded]) -> Result<(), Failure> + Send + Sync;

/// A projection that runs in somebody else's transaction, whatever its type.
#[derive(Clone)]
pub(crate) struct Inline {
    name: &'static str,
    apply: Arc<Apply>,
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inline").field(&self.name).finish()
    }
}

impl Inline {
    pub(crate) fn new<P: Projection>(projection: P) -> Result<Self, BadName> {
        // Checked now: in the middle of a transaction it would be the command that fails.
        view_name(P::NAME, u64::MAX)?;
        let apply =
            move |tx: &dyn Tx, store: StoreId, recorded: &[Recorded]| apply(&projection, tx, store, recorded);
        Ok(Self { name: P::NAME, apply: Arc::new(apply) })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Brings the rows up to what this transaction has just recorded.
    pub(crate) fn apply(&self, tx: &dyn Tx, store: StoreId, recorded: &[Recorded]) -> Result<(), Failure> {
        (self.apply)(tx, store, recorded)
    }
}

fn apply<P: Projection>(
    projection: &P,
    tx: &dyn Tx,
    store: StoreId,
    recorded: &[Recorded],
) -> Result<(), Failure> {
    let control = match Control::read(tx, P::NAME)? {
        Some(control) => control,
        None => {
            let first = Control::first::<P>(Mode::Inline, store);
            first.write(tx, P::NAME)?;
            first
        }
    };
    if control.mode != Mode::Inline {
        let why = "its rows are written by a projector, so events would be counted twice; take it out of the command";
        return Err(Failure::because(why));
    }
    if control.live.version != P::VERSION {
        return Err(Failure::because(format!(
            "its rows are of version {}, this program's are of version {}; rebuild it, or run the other program",
            control.live.version,
            P::VERSION
        )));
    }
    if control.paused_until.is_some_and(|until| tx.at() < until) {
        return Err(Refusal::Busy { why: format!("the rebuild of {} is switching", P::NAME) }.into());
    }
    let name = view_name(P::NAME, control.live.number).map_err(Refusal::from)?;
    let view = View::new(tx, &name, P::indices);
    for recorded in
        recorded.iter().filter(|recorded| P::Event::types().contains(&recorded.event_type.as_str()))
    {
        let event = open::<P::Event>(recorded)?;
        projection.apply(&view, &Observed::new(recorded, &event))?;
    }
    view.flush().map_err(|(_, why)| why)
}
