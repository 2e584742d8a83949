//! Our own "no": which rule said it, why, what was not done, and when it is worth asking again.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::Priority;

use crate::outcome::{Classify, Outcome};

/// Names one decision of one process, in an answer and in a log; the [`Recorder`](crate::record::Recorder) of the
/// policy that took it expands it to rule, inputs and state. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId(pub u64);

impl DecisionId {
    /// A decision that nothing recorded.
    pub const UNRECORDED: Self = DecisionId(0);
}

impl Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DecisionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(DecisionId)
    }
}

/// Which pattern decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the name of its room")]
pub enum Rule {
    Timeout = 1,
    Retry = 2,
    Hedge = 3,
    CircuitBreaker = 4,
    Bulkhead = 5,
    RateLimit = 6,
    LoadShed = 7,
    Cache = 8,
    Fallback = 9,
}

impl Rule {
    /// Every rule, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Retry,
        Self::Hedge,
        Self::CircuitBreaker,
        Self::Bulkhead,
        Self::RateLimit,
        Self::LoadShed,
        Self::Cache,
        Self::Fallback,
    ];

    /// Its room's name, as in settings, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::CircuitBreaker => "circuit_breaker",
            Self::Bulkhead => "bulkhead",
            Self::RateLimit => "rate_limit",
            Self::LoadShed => "load_shed",
            Self::Cache => "cache",
            Self::Fallback => "fallback",
        }
    }

    /// The rule of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }

    /// The rule of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| *rule as u8 == number)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why it was refused: one variant for each thing an operator would do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// Too many recent calls failed or were slow; no more are made until it was given time.
    #[error(
        "the circuit breaker is open, because too many recent calls failed or were slow; look at the callee"
    )]
    BreakerOpen,
    /// An operator opened it.
    #[error("an operator holds the circuit breaker open; it closes when its mode is set back")]
    BreakerForcedOpen,
    /// It is being found out whether the callee is well again; the probes are under way.
    #[error("the circuit breaker is half-open and its probes are under way; their result decides")]
    ProbesUnderWay,
    /// All permits are taken and nobody may wait for one.
    #[error("all {permits} permits of the bulkhead are taken; the callee is slow, or `permits` is too small")]
    BulkheadFull {
        /// As configured.
        permits: u32,
    },
    /// All permits are taken and as many wait as may.
    #[error(
        "all permits are taken and the queue of {capacity} is full; the callee is slow, or too much is asked"
    )]
    QueueFull {
        /// As configured.
        capacity: u32,
    },
    /// It waited for its turn until the time for waiting was over.
    #[error("its turn did not come within {limit:?}; the callee is slow, or too much is asked of it")]
    WaitedTooLong {
        /// How long it may wait.
        limit: Duration,
    },
    /// The deadline was reached before it was begun: nobody waits any more.
    #[error("its deadline was reached before it was begun; give it more time, or find what used it up")]
    DeadlineReached,
    /// The deadline came while it was under way.
    #[error("its deadline came while it was under way; give it more time, or find what used it up")]
    DeadlineRanOut,
    /// One try took longer than a try may.
    #[error("a try took longer than the {limit:?} it may; the callee is slow, or `attempt` is too short")]
    AttemptTimedOut {
        /// As configured.
        limit: Duration,
    },
    /// All tries together took longer than they may.
    #[error("all tries together took longer than the {limit:?} they may; look at the tries")]
    TotalTimedOut {
        /// As configured.
        limit: Duration,
    },
    /// More than the rate allows.
    #[error("more is asked than the rate allows; ask again after `retry_after`")]
    RateExceeded,
    /// It costs more than the limit ever admits at once: waiting does not help.
    #[error(
        "it costs {cost}, more than the limit ever admits at once ({burst}); make it smaller, or raise `burst`"
    )]
    CostTooLarge {
        /// What it costs.
        cost: u32,
        /// As configured.
        burst: u32,
    },
    /// Its turn would come after its deadline.
    #[error(
        "its turn would come after its deadline, so it was not queued; ask less often, or give it more time"
    )]
    TurnTooLate,
    /// The day's or month's allowance is used up.
    #[error("the quota is used up; it begins anew after `retry_after`")]
    QuotaUsedUp,
    /// More keys than can be told apart at a time.
    #[error(
        "more keys are in use than the limit keeps apart; raise `max_keys`, or look for a flood of made-up keys"
    )]
    TooManyKeys,
    /// The store of a shared limit does not answer, and the settings say to refuse then.
    #[error(
        "the store of the shared limit does not answer and the limit is set to refuse then; look at the store"
    )]
    LimitStoreUnavailable,
    /// There is too much to do, and this is among what is given up first.
    #[error("there is too much to do and what has priority {} is given up; ask again later", priority.as_str())]
    PriorityShed {
        /// The refused call's.
        priority: Priority,
    },
    /// As many are under way as the callee bears, as far as has been measured.
    #[error("{limit} calls are under way, which is what the callee was measured to bear; ask again later")]
    ConcurrencyExceeded {
        /// The limit at that moment.
        limit: u32,
    },
    /// What is queued has been waiting too long for too long (CoDel).
    #[error(
        "calls wait too long in the queue, so some are refused to keep the others in time; ask again later"
    )]
    QueueDelayTooLong,
    /// The journal of a write-back cache holds as much as it may.
    #[error("the write-back journal holds as much as it may; the store behind it is slow or gone")]
    JournalFull,
    /// A cache has as many loads, writes or waiters under way as it may.
    #[error(
        "{limit} loads, writes or waiters are under way in the cache, which is all it may have; the source is slow"
    )]
    CacheBusy {
        /// As configured.
        limit: u32,
    },
    /// The task that wrote through a cache died.
    #[error("the write died before its end; read the value anew to find out whether it was written")]
    WriterDied,
    /// The load that many waited for failed, and nothing stale may be served.
    #[error("the value could not be loaded and none may be served in its place; look at the source")]
    LoadFailed,
    /// The pool that blocking work runs in was shut down.
    #[error("the pool for blocking work is shut down; nothing new is begun in it")]
    PoolClosed,
    /// The system gives the pool for blocking work no thread at all.
    #[error("the system gave no thread for blocking work; look at the limits of the process")]
    NoThread,
    /// Blocking work panicked: its own fault, and its thread goes on.
    #[error("the blocking work panicked; its thread goes on, and the panic is its own fault")]
    WorkPanicked,
}

impl Why {
    /// What was not done.
    pub const fn not_done(self) -> NotDone {
        match self {
            Why::DeadlineRanOut
            | Why::AttemptTimedOut { .. }
            | Why::TotalTimedOut { .. }
            | Why::WorkPanicked
            | Why::WriterDied
            | Why::LoadFailed => NotDone::Answer,
            _ => NotDone::Call,
        }
    }

    /// What this says of the callee, for a breaker. None: nothing, because the callee was not asked.
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Why::AttemptTimedOut { .. } => Some(Outcome::TRANSIENT),
            Why::DeadlineRanOut | Why::TotalTimedOut { .. } => Some(Outcome::Cancelled),
            _ => None,
        }
    }
}

/// What a refusal left undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotDone {
    /// The call was not made: nothing happened, and asking elsewhere is safe whatever it is.
    Call,
    /// The call was made and its answer not waited for: whether it took effect is not known.
    Answer,
}

impl Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotDone::Call => "the call was not made, nothing happened",
            NotDone::Answer => "the answer was not waited for, whether the call took effect is not known",
        })
    }
}

/// A rule of this process said no. Never counted by a breaker as the callee's failure (a timed-out try is: see
/// [`Why::outcome`]) and never retried on the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Expands to rule, inputs and state.
    pub decision: DecisionId,
    /// Which pattern.
    pub rule: Rule,
    /// The policy's name.
    pub policy: Arc<str>,
    /// Why.
    pub why: Why,
    /// When asking again may help, as a time from now, where the rule knows.
    pub retry_after: Option<Duration>,
    /// What was not done.
    pub not_done: NotDone,
}

impl Refusal {
    /// A refusal by `rule` of the policy named `policy`. One reference count, no allocation.
    pub fn new(decision: DecisionId, rule: Rule, policy: &Arc<str>, why: Why) -> Self {
        Refusal {
            decision,
            rule,
            policy: Arc::clone(policy),
            why,
            retry_after: None,
            not_done: why.not_done(),
        }
    }

    /// Says when asking again may help.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { decision, rule, policy, why, retry_after, not_done } = self;
        write!(f, "refused by {rule} of policy {policy:?}")?;
        if *decision != DecisionId::UNRECORDED {
            write!(f, " (decision {decision})")?;
        }
        write!(f, ": {why}. Not done: {not_done}")?;
        match retry_after {
            Some(wait) => write!(f, "; ask again in {wait:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// How a call through a policy fails: we said no, or the callee (or the way to it) failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed<E> {
    /// A rule of this process refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The call was made and failed.
    #[error("the call was made and failed: {0}")]
    Upstream(E),
}

impl<E> Failed<E> {
    /// The refusal, if it is one.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Failed::Refused(refusal) => Some(refusal),
            Failed::Upstream(_) => None,
        }
    }

    /// The callee's error, if it is one.
    pub const fn upstream(&self) -> Option<&E> {
        match self {
            Failed::Refused(_) => None,
            Failed::Upstream(error) => Some(error),
        }
    }
}

/// What this end says of the callee, as `classify` judges it. None: nothing, because a rule of ours refused and the
/// callee was not asked.
pub fn judge<T, E, C: Classify<T, E>>(classify: &C, result: &Result<T, Failed<E>>) -> Option<Outcome> {
    match result {
        Ok(answer) => Some(classify.classify(Ok(answer))),
        Err(Failed::Upstream(error)) => Some(classify.classify(Err(error))),
        Err(Failed::Refused(refusal)) => refusal.why.outcome(),
    }
}
