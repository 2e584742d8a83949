//! What a participant does with a fact of another one: [`Reactor`], over what has come in: [`Incoming`].

use mainstay_envelope::{Fact, Timestamp};
use mainstay_event_store::{Refusal, Retry, Store};
use uuid::Uuid;

use crate::event::{Event, Undecodable};
use crate::participant::Participant;
use crate::unit_of_work::Work;

/// A participant of a choreography, as a running service: what it declares, and what it does.
///
/// `react` is called once for each message of a type that [`Reactor::participant`] declares to consume, in the order
/// of the message's key, inside the transaction that marks the message as handled. So its effect happens exactly
/// once, if it MUST have no other effect than through its [`Work`]: no clock, no chance, no I/O, nothing kept from
/// one call to the next. It may be run more than once; only the last run counts.
pub trait Reactor<S: Store>: Send + Sync + 'static {
    /// What it declares. The same each time.
    fn participant(&self) -> Participant;

    /// Acts on a fact. An error takes back everything this call did, and parks the message with what follows it
    /// under the same key; others flow on.
    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure>;
}

/// Why a message could not be handled. Nothing of its effect was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The store refused. Tried again when the refusal says so, else as [`Failure::Poisoned`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may go well later: tried again, with growing waits, so often and no more.
    #[error("{0}")]
    Transient(String),
    /// It will never go well as it is: waits for an operator at once.
    #[error("{0}")]
    Poisoned(String),
}

impl Failure {
    /// A reason that may pass, in the operator's words.
    pub fn transient(why: impl Into<String>) -> Self {
        Self::Transient(why.into())
    }

    /// A reason that will not pass, in the operator's words.
    pub fn poisoned(why: impl Into<String>) -> Self {
        Self::Poisoned(why.into())
    }

    /// Would the same message fail again?
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retry() == Retry::Never,
            Self::Transient(_) => false,
            Self::Poisoned(_) => true,
        }
    }
}

impl From<Undecodable> for Failure {
    fn from(why: Undecodable) -> Self {
        Self::Poisoned(why.to_string())
    }
}

/// A message as a reactor sees it.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    pub(crate) topic: &'a str,
    pub(crate) key: &'a str,
    pub(crate) id: Uuid,
    pub(crate) event_type: &'a str,
    pub(crate) schema: u32,
    pub(crate) at: Timestamp,
    pub(crate) fact: &'a Fact,
    pub(crate) data: &'a [u8],
}

impl<'a> Incoming<'a> {
    /// Whose fact it is: the name of the participant that published it.
    pub fn from(&self) -> &'a str {
        self.topic
    }

    /// Messages of one key come in their order.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The event's id at its producer.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What kind of fact it is.
    pub fn event_type(&self) -> &'a str {
        self.event_type
    }

    /// When it was recorded, by its producer's wall clock. Data, never an order.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// On whose account, in which correlation; its cause is the message itself.
    pub fn fact(&self) -> &'a Fact {
        self.fact
    }

    /// The payload as it was published.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The event, of a family that this program shares with the producer, upcast from older schemas.
    ///
    /// # Errors
    /// [`Failure::Poisoned`]: it will not be readable next time either, unless the program is mended.
    pub fn open<E: Event>(&self) -> Result<E, Failure> {
        Ok(E::decode(self.event_type, self.schema, self.data)?)
    }
}
