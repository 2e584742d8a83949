//! From a stream to a state: the last snapshot, then the events after it.

use mainstay_envelope::Context;
use mainstay_event_store::{Direction, ReadError, Recorded, Store, StreamName, Version, limits};

use super::commands::Commands;
use super::decider::Decider;
use super::error::CommandError;
use super::identity::Identity;
use crate::event::open;
use crate::pace::Pace;

/// A state, and where it stands.
pub(super) struct Loaded<D> {
    pub(super) state: D,
    pub(super) version: Version,
    /// The version of the snapshot it was made from; empty when the whole stream was replayed.
    pub(super) snapshot: Version,
    /// The events among those replayed that are the command's own, from an earlier time it was sent.
    pub(super) own: Vec<Recorded>,
}

impl<D: Decider> Loaded<D> {
    fn new() -> Self {
        Self { state: D::default(), version: Version::EMPTY, snapshot: Version::EMPTY, own: Vec::new() }
    }

    fn take(&mut self, recorded: Recorded, identity: &Identity) -> Result<(), CommandError<D::Refusal>> {
        let event = open::<D::Event>(&recorded).map_err(|why| CommandError::Undecodable {
            stream: recorded.stream.clone(),
            version: recorded.version,
            why,
        })?;
        self.state.evolve(&event);
        self.version = recorded.version;
        if identity.known_event_id(self.own.len()) == Some(recorded.id) {
            self.own.push(recorded);
        }
        Ok(())
    }
}

impl<D: Decider, S: Store> Commands<D, S> {
    /// The present state of a thing and its version: read once, never locked.
    pub async fn state(
        &self,
        cx: &Context,
        stream: impl AsRef<str> + Send,
    ) -> Result<(D, Version), CommandError<D::Refusal>> {
        let stream = StreamName::new(stream)?;
        let mut troubles = Pace::new(cx, self.troubles);
        let loaded = load(self, cx, &stream, &Identity::Fresh, true, &mut troubles).await?;
        Ok((loaded.state, loaded.version))
    }
}

/// Reads a stream; from its snapshot when `from_snapshot` says so and there is one that can be used.
pub(super) async fn load<D: Decider, S: Store>(
    commands: &Commands<D, S>,
    cx: &Context,
    stream: &StreamName,
    identity: &Identity,
    from_snapshot: bool,
    troubles: &mut Pace,
) -> Result<Loaded<D>, CommandError<D::Refusal>> {
    let mut loaded = Loaded::new();
    if let Some(snapshots) = commands.snapshots.as_ref().filter(|_| from_snapshot) {
        let key = snapshots.key(stream);
        let kept = loop {
            match commands.store.view_get(&snapshots.view, &key).await {
                Ok(kept) => break kept,
                Err(error) => wait_out(cx, error, troubles).await?,
            }
        };
        if let Some((state, version)) = kept.and_then(|bytes| snapshots.decode(&bytes)) {
            (loaded.state, loaded.version, loaded.snapshot) = (state, version, version);
        }
    }
    loop {
        let next = Version(loaded.version.0 + 1);
        let read =
            commands.store.read_stream(stream, next, Direction::Forwards, limits::PAGE_EVENTS_MAX).await;
        let page = match read {
            Ok(page) => page,
            Err(error) => {
                wait_out(cx, error, troubles).await?;
                continue;
            }
        };
        if page.version < loaded.version {
            // A snapshot of what is not there: the store was put together from parts. The stream is the truth.
            loaded = Loaded::new();
            if page.version > Version::EMPTY {
                continue;
            }
        }
        let empty = page.events.is_empty();
        for recorded in page.events {
            loaded.take(recorded, identity)?;
        }
        if empty || loaded.version >= page.version {
            return Ok(loaded);
        }
    }
}

/// Waits when the store may be readable again soon; an error when it will not.
async fn wait_out<R>(cx: &Context, error: ReadError, troubles: &mut Pace) -> Result<(), CommandError<R>> {
    if matches!(error, ReadError::Unavailable { passing: true, .. }) && troubles.again(cx).await.is_ok() {
        return Ok(());
    }
    Err(error.into())
}
