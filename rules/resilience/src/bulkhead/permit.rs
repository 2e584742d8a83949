//! A bulkhead to ask by hand: a permit now, or in its turn.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay_envelope::sync::atomic::{AtomicU64, Ordering};
use mainstay_envelope::{Deadline, Monotonic};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::spec::Checked;
use super::state::{self, Admission, Arrival, Limits, Load, State, Waiter};
use crate::record::nanos;
use crate::refusal::{Refusal, Rule, Why};
use crate::scope::Scope;

/// The permits and the queue of one callee. A clone is another handle on the same.
#[derive(Clone)]
pub struct Bulkhead(Arc<Inner>);

struct Inner {
    state: State,
    /// In nanoseconds.
    wait: AtomicU64,
    refused: AtomicU64,
    scope: Arc<Scope>,
}

/// What a call holds while it is under way. Dropping it gives the permit to the first in the queue.
#[must_use = "dropping it gives the permit back"]
pub struct Permit(Arc<Inner>);

/// How a bulkhead stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// How full it is.
    pub load: Load,
    /// Permits there are.
    pub permits: u32,
    /// Calls that may wait.
    pub queue: u32,
    /// Calls refused so far.
    pub refused: u64,
}

impl Bulkhead {
    /// One that nobody is in. Without settings it limits nothing until it is given some.
    pub fn new(settings: Option<Checked>, scope: Arc<Scope>) -> Self {
        Bulkhead(Arc::new(Inner {
            state: State::new(settings.into()),
            wait: AtomicU64::new(longest_wait(settings)),
            refused: AtomicU64::new(0),
            scope,
        }))
    }

    /// A permit now, a place in the queue, or neither. `now` is a reading of the policy's clock; one exchange where
    /// a permit is free.
    ///
    /// # Errors
    /// Refused: all permits are taken, and as many wait as may.
    #[inline]
    pub fn enter(&self, now: Monotonic, deadline: Option<Deadline>) -> Result<Entered, Refusal> {
        match self.0.state.arrive() {
            Admission::Go => {
                if self.0.scope.recorder().keeps_all() {
                    self.keep_entry(now);
                }
                Ok(Entered::Permit(Permit(Arc::clone(&self.0))))
            }
            Admission::Wait(waiter) => Ok(Entered::Queued(self.queued(waiter, now, deadline))),
            Admission::Refuse(load, limits) => Err(self.full(load, limits, now)),
        }
    }

    /// Everything is kept, so that it had a permit is kept, too.
    #[cold]
    fn keep_entry(&self, now: Monotonic) {
        // The load as it is now: this call is in it already.
        let (load, limits) = (self.0.state.load(), self.0.state.limits());
        let load = Load { in_use: load.in_use.saturating_sub(1), ..load };
        let verdict = load.arrival(limits).verdict();
        let inputs = state::arrival_inputs(load, limits);
        self.0.scope.recorder().plain(Rule::Bulkhead, state::ARRIVE, now, inputs, verdict);
    }

    #[cold]
    fn full(&self, load: Load, limits: Limits, now: Monotonic) -> Refusal {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        let why = match limits.queue {
            0 => Why::BulkheadFull { permits: limits.permits },
            capacity => Why::QueueFull { capacity },
        };
        let inputs = state::arrival_inputs(load, limits);
        let verdict = Arrival::Refuse.verdict();
        self.0.scope.refuse(Rule::Bulkhead, state::ARRIVE, now, inputs, verdict, why)
    }

    #[cold]
    fn queued(&self, waiter: Arc<Waiter>, now: Monotonic, deadline: Option<Deadline>) -> Queued {
        let limit = Duration::from_nanos(self.0.wait.load(Ordering::Relaxed));
        let turn = Turn {
            bulkhead: Arc::clone(&self.0),
            waiter: Some(waiter),
            began: now,
            limit: deadline.map_or(limit, |deadline| deadline.remaining(now).min(limit)),
            is_deadlines: deadline.is_some_and(|deadline| deadline.remaining(now) <= limit),
        };
        Queued { turn, sleep: None }
    }

    /// A permit, now or in its turn.
    ///
    /// # Errors
    /// Refused: as [`enter`](Self::enter), or its turn did not come in time.
    pub async fn acquire(&self, deadline: Option<Deadline>) -> Result<Permit, Refusal> {
        match self.enter(self.0.scope.now(), deadline)? {
            Entered::Permit(permit) => Ok(permit),
            Entered::Queued(queued) => queued.await,
        }
    }

    /// Other settings from now on. Permits that are out stay out, whoever waits goes on waiting; with more permits,
    /// the first in the queue go at once.
    pub fn reconfigure(&self, settings: Option<Checked>) {
        self.0.wait.store(longest_wait(settings), Ordering::Relaxed);
        self.0.state.reconfigure(settings.into());
    }

    /// How it stands.
    pub fn snapshot(&self) -> Snapshot {
        let limits = self.0.state.limits();
        Snapshot {
            load: self.0.state.load(),
            permits: limits.permits,
            queue: limits.queue,
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn scope(&self) -> &Arc<Scope> {
        &self.0.scope
    }
}

fn longest_wait(settings: Option<Checked>) -> u64 {
    settings.map_or(0, |settings| nanos(Monotonic::from_origin(settings.spec().wait)))
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.0.state.leave();
    }
}

/// What [`Bulkhead::enter`] gives.
#[derive(Debug)]
pub enum Entered {
    /// Go.
    Permit(Permit),
    /// Wait.
    Queued(Queued),
}

/// A place in the queue; given up by being dropped.
struct Turn {
    bulkhead: Arc<Inner>,
    /// None once it was granted.
    waiter: Option<Arc<Waiter>>,
    began: Monotonic,
    limit: Duration,
    is_deadlines: bool,
}

impl Turn {
    /// The permit, if its turn has come.
    fn poll(&mut self, cx: &Context<'_>) -> Option<Permit> {
        let granted = self.waiter.as_ref().is_none_or(|waiter| waiter.poll(cx.waker()));
        granted.then(|| {
            self.waiter = None;
            Permit(Arc::clone(&self.bulkhead))
        })
    }

    fn too_late(&self) -> Refusal {
        let Inner { scope, refused, .. } = &*self.bulkhead;
        refused.fetch_add(1, Ordering::Relaxed);
        let until = self.began + self.limit;
        // The timer may be a hair early of the clock; what was decided is what the timer said.
        let now = scope.now().max(until);
        let why = match self.is_deadlines {
            true => Why::DeadlineReached,
            false => Why::WaitedTooLong { limit: self.limit },
        };
        scope.refuse(Rule::Bulkhead, state::WAITED, now, state::waited_inputs(nanos(until)), 1, why)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.bulkhead.state.give_up(&waiter);
        }
    }
}

pin_project! {
    /// A call in the queue. Dropping it leaves the queue; if its turn had just come, the next one gets it.
    pub struct Queued {
        turn: Turn,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Future for Queued {
    type Output = Result<Permit, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(permit) = this.turn.poll(cx) {
            return Poll::Ready(Ok(permit));
        }
        if this.sleep.is_none() {
            this.sleep.set(Some(tokio::time::sleep(this.turn.limit)));
        }
        match this.sleep.as_mut().as_pin_mut().map(|sleep| sleep.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(this.turn.too_late())),
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Bulkhead");
        shown.field("policy", self.0.scope.name()).field("load", &self.0.state.load()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("policy", self.0.scope.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").field("limit", &self.turn.limit).finish_non_exhaustive()
    }
}
