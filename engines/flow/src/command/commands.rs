//! The way in: [`Commands`], and one command on its way ([`Pending`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, BadName, Receipt, Store, StreamName, Version};
use mainstay_resilience::retry::{Checked, Spec};

use super::decider::{Decider, Snapshot};
use super::snapshot::Snapshots;
use crate::projection::{Inline, Projection};

/// A closure of the user's, run in the transaction of a command's events.
pub(super) type Also<S, R> = Arc<dyn Fn(&<S as Store>::Tx) -> Result<(), Abort<R>> + Send + Sync>;

/// Commands to the things of one decider, in one store. Cheap to clone.
///
/// It keeps no state between commands: each one reads its stream (from the last snapshot on), so any number
/// of processes may command the same thing.
pub struct Commands<D: Decider, S: Store> {
    pub(super) store: S,
    pub(super) snapshots: Option<Snapshots<D>>,
    pub(super) inline: Arc<[Inline]>,
    pub(super) conflicts: Checked,
    pub(super) troubles: Checked,
}

impl<D: Decider, S: Store> Clone for Commands<D, S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            snapshots: self.snapshots.clone(),
            inline: Arc::clone(&self.inline),
            conflicts: self.conflicts,
            troubles: self.troubles,
        }
    }
}

impl<D: Decider, S: Store> fmt::Debug for Commands<D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Commands");
        shown.field("store", &self.store).field("inline", &self.inline);
        shown.field("snapshots", &self.snapshots.is_some()).finish_non_exhaustive()
    }
}

impl<D: Decider, S: Store> Commands<D, S> {
    /// Commands without snapshots and inline projections.
    pub fn new(store: S) -> Self {
        // A conflict is over as soon as the other's commit is, a disk's flush later: waits begin at that
        // scale. 20 tries let some dozens of commanders of one thing all come through.
        let conflicts =
            Spec::full_jitter(Duration::from_millis(2), Duration::from_millis(200)).max_attempts(20);
        Self {
            store,
            snapshots: None,
            inline: Arc::default(),
            conflicts: conflicts.check().unwrap_or_default(),
            troubles: Checked::default(),
        }
    }

    /// Keeps the state now and then, in the transaction of the events that lead to it; see [`Snapshot`].
    pub fn snapshots(mut self) -> Result<Self, BadName>
    where
        D: Snapshot,
    {
        self.snapshots = Some(Snapshots::new()?);
        Ok(self)
    }

    /// Runs this projection in the transaction of each command's events: its rows are never behind, and a
    /// command that it can't take is refused. It sees the events of these commands only; a projection that is
    /// added to a store with events has to be rebuilt once.
    pub fn inline(mut self, projection: impl Projection) -> Result<Self, BadName> {
        let inline = Inline::new(projection)?;
        self.inline = self.inline.iter().cloned().chain([inline]).collect();
        Ok(self)
    }

    /// How often a command is decided again when others changed its stream meanwhile, and how long it waits.
    /// Default: 20 tries, full jitter from 2 ms to 200 ms.
    pub fn conflict_retry(mut self, settings: Checked) -> Self {
        self.conflicts = settings;
        self
    }

    /// How often a store is asked again that is busy, or whose answer was lost. Default: [`Spec::default`].
    pub fn trouble_retry(mut self, settings: Checked) -> Self {
        self.troubles = settings;
        self
    }

    /// Commands the thing whose facts are in `stream`. Nothing happens until it is awaited.
    pub fn command<'a>(
        &'a self,
        cx: &'a Context,
        stream: impl AsRef<str>,
        command: D::Command,
    ) -> Pending<'a, D, S> {
        Pending {
            commands: self,
            cx,
            stream: StreamName::new(stream),
            command,
            also: Vec::new(),
            expected: None,
            id: None,
        }
    }
}

/// A command that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<E> {
    /// Presents what was recorded to readers: see [`Consistency`](crate::projection::Consistency).
    pub receipt: Receipt,
    /// The version of the stream after the command.
    pub version: Version,
    /// What was decided; empty when there was nothing to do.
    pub events: Vec<E>,
    /// True when the same command (by its id) had been recorded before: nothing was written now.
    pub repeated: bool,
}

/// One command on its way; `.await` sends it.
///
/// Dropped before it is done, it may or may not be recorded: the outcome is unknown to whoever dropped it.
#[must_use = "a command does nothing until it is awaited"]
pub struct Pending<'a, D: Decider, S: Store> {
    pub(super) commands: &'a Commands<D, S>,
    pub(super) cx: &'a Context,
    pub(super) stream: Result<StreamName, BadName>,
    pub(super) command: D::Command,
    pub(super) also: Vec<Also<S, D::Refusal>>,
    pub(super) expected: Option<Version>,
    pub(super) id: Option<String>,
}

impl<D: Decider, S: Store> fmt::Debug for Pending<'_, D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<'a, D: Decider, S: Store> Pending<'a, D, S> {
    /// Also does this, in the transaction of the command's events: both or nothing. May be given several
    /// times; they run in their order, after the events are recorded.
    ///
    /// The closure may run more than once, and only the last run counts: it must have no effect but through
    /// its `Tx`. It does not run when nothing was decided, or when the command had been recorded before.
    /// `Err(Abort::User(refusal))` refuses the command with the decider's own refusal.
    pub fn also<T, X, F>(mut self, closure: F) -> Self
    where
        F: Fn(&S::Tx) -> Result<T, X> + Send + Sync + 'static,
        X: Into<Abort<D::Refusal>>,
    {
        self.also.push(Arc::new(move |tx| closure(tx).map(drop).map_err(Into::into)));
        self
    }

    /// Only when the stream is at exactly this version: what the caller showed to somebody is what is changed.
    /// It is then never decided again on a newer state.
    pub fn expect_version(mut self, version: Version) -> Self {
        self.expected = Some(version);
        self
    }

    /// Gives the command an id: sent again with the same id to the same stream, it is acknowledged again and
    /// recorded once. The command itself is not compared: two different commands to one stream need two ids.
    ///
    /// Without an id of its own, a command has the idempotency key of its call, if there is one: right for the
    /// first command a call sends to a stream; a second one is refused ([`KeyReused`](super::CommandError::KeyReused)) and needs
    /// its own, such as `key.derive("fee", 0)`. Without either, a command that is sent twice is recorded twice.
    ///
    /// A command that decided nothing leaves no trace, so it is decided anew when it is repeated.
    pub fn idempotent(mut self, command_id: impl AsRef<str>) -> Self {
        self.id = Some(command_id.as_ref().to_owned());
        self
    }
}
