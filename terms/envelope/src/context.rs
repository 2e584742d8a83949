//! The one explicit argument: what travels with the call, and where to read time and chance.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use uuid::Uuid;

use crate::chance::{Chance, IdSequence, SystemChance};
use crate::envelope::{Envelope, Fact};
use crate::parts::{Deadline, Priority};
use crate::time::{Clock, Monotonic, SystemClock, Timestamp};
use crate::tokens::RetryTokens;

/// An [`Envelope`], a [`Clock`] and a [`Chance`], passed as `cx: &Context` to whatever acts in a call's name.
///
/// Explicit, never task-local: a function that can wait, retry, record or draw says so in its signature. A clone
/// is one reference count. A process makes one at its start and gives each call its own by
/// [`with_envelope`](Self::with_envelope), so that all ids come from one sequence.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    envelope: Envelope,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    /// Shared with every context made from this one.
    ids: Arc<IdSequence>,
}

impl Context {
    /// The machine's clocks and chance, and an envelope that begins here: normal priority, no deadline, no tokens.
    ///
    /// For a program's own work, and for examples. Ids of all system contexts of a process are one sequence.
    pub fn system() -> Self {
        static CLOCK: LazyLock<Arc<SystemClock>> = LazyLock::new(Arc::default);
        static CHANCE: LazyLock<Arc<SystemChance>> = LazyLock::new(Arc::default);
        static IDS: LazyLock<Arc<IdSequence>> = LazyLock::new(Arc::default);
        let envelope = Envelope::begin(Priority::default(), &**CHANCE);
        Self(Arc::new(Inner { envelope, clock: CLOCK.clone(), chance: CHANCE.clone(), ids: IDS.clone() }))
    }

    /// A context of these parts, with a sequence of ids of its own.
    pub fn new(envelope: Envelope, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        Self(Arc::new(Inner { envelope, clock, chance, ids: Arc::default() }))
    }

    /// What travels with the call.
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }

    /// Monotonic time, for intervals and deadlines.
    pub fn now(&self) -> Monotonic {
        self.0.clock.now()
    }

    /// Wall time, as data.
    pub fn wall(&self) -> Timestamp {
        self.0.clock.wall()
    }

    /// Where this context reads the time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// Where this context draws its chance.
    pub fn chance(&self) -> &Arc<dyn Chance> {
        &self.0.chance
    }

    /// A UUID of version 7, made of this context's clock and chance, that sorts after those made before it.
    pub fn new_id(&self) -> Uuid {
        self.0.ids.next(self.wall(), &*self.0.chance)
    }

    /// 64 uniform random bits.
    pub fn next_u64(&self) -> u64 {
        self.0.chance.next_u64()
    }

    /// What is left until the deadline, zero once it is reached; none if there is no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.envelope().deadline().map(|deadline| deadline.remaining(self.now()))
    }

    /// What a fact made in this context keeps of it. The same each time.
    pub fn fact(&self) -> Fact {
        self.envelope().fact()
    }

    /// The same with at most `remaining` time left from now; an earlier deadline stays.
    #[must_use]
    pub fn with_deadline(&self, remaining: Duration) -> Self {
        let deadline = Deadline::after(self.now(), remaining);
        self.with_envelope(self.envelope().clone().lower_deadline(deadline))
    }

    /// The same clock, chance and sequence of ids around another envelope: how a process begins a call.
    #[must_use]
    pub fn with_envelope(&self, envelope: Envelope) -> Self {
        Self(Arc::new(Inner { envelope, ..Inner::clone(&self.0) }))
    }

    /// A part of the same work: a new span of the trace, all else the same, tokens and deadline included.
    #[must_use]
    pub fn child(&self) -> Self {
        let trace = self.envelope().trace().child(&*self.0.chance);
        self.with_envelope(self.envelope().clone().with_trace(trace))
    }

    /// A call to somebody else while this one is served, which takes `tokens` along:
    /// see [`Envelope::outgoing`].
    #[must_use]
    pub fn outgoing(&self, step: &str, ordinal: u32, tokens: RetryTokens) -> Self {
        self.with_envelope(self.envelope().outgoing(step, ordinal, tokens, &*self.0.chance))
    }
}
