//! Entering: waits for a permit, wakes who may begin, and gives back what was held.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic, Priority};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::spec::Checked;
use super::state::{Entered, GivenUp, Next, Permit, Refused, Room, Sample, State, Ticket, question};
use crate::record::nanos;
use crate::refusal::{Refusal, Rule, Why};
use crate::scope::Scope;

/// Load shedding of one policy: live, shared by its clones.
///
/// ```
/// use mainstay_resilience::Scope;
/// use mainstay_resilience::load_shed::{LoadShed, Sample, Spec};
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let shed = LoadShed::new(&Arc::new(Scope::system("orders")), Spec::fixed(1).queue(0).check()?);
/// let guard = shed.enter_now(Default::default(), None).expect("nobody else is there");
/// let refused = shed.enter_now(Default::default(), None).expect_err("one at a time");
/// assert!(refused.to_string().contains("1 calls are under way"));
/// guard.finish(Sample::Answered);
/// assert!(shed.enter_now(Default::default(), None).is_ok());
/// # Ok::<(), mainstay_resilience::Invalid>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LoadShed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    scope: Arc<Scope>,
    state: State<Arc<Slot>>,
    /// How long one waits before it is looked whether the queue stands, and how long at most.
    waits: Mutex<(Duration, Duration)>,
}

/// Where one that waits finds its verdict.
#[derive(Debug)]
struct Slot {
    priority: Priority,
    since: Monotonic,
    deadline: Option<Deadline>,
    inner: Mutex<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Since(Option<Waker>),
    Named(Verdict),
    /// The verdict was taken, or nobody will come for it.
    Over,
}

#[derive(Debug)]
enum Verdict {
    Admitted(Permit),
    /// When, and why.
    GivenUp(Monotonic, GivenUp),
    /// For one of this priority.
    Evicted(Monotonic, Priority),
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Only assignments happen under it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoadShed {
    /// Sheds for the policy of `scope`. Draws chance once.
    pub fn new(scope: &Arc<Scope>, settings: Checked) -> Self {
        let state = State::new(&settings, scope.now(), scope.draw());
        let waits = Mutex::new((settings.spec().target, settings.spec().interval));
        LoadShed { shared: Arc::new(Shared { scope: Arc::clone(scope), state, waits }) }
    }

    /// How many may be under way, as set or as measured.
    pub fn limit(&self) -> u32 {
        self.shared.state.limit()
    }

    /// How many are under way.
    pub fn in_flight(&self) -> u32 {
        self.shared.state.in_flight()
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.shared.state.waiting()
    }

    /// Changes the settings and keeps what was learnt: see [`State::reconfigure`].
    pub fn reconfigure(&self, settings: Checked) {
        let now = self.shared.scope.now();
        *self.shared.waits.lock().unwrap_or_else(PoisonError::into_inner) =
            (settings.spec().target, settings.spec().interval);
        self.shared.state.reconfigure(&settings, now);
        self.shared.settle(now);
    }

    /// Begins work now, or refuses: for whoever can't wait.
    ///
    /// # Errors
    /// The refusal, when no permit is free.
    pub fn enter_now(&self, priority: Priority, deadline: Option<Deadline>) -> Result<Guard, Refusal> {
        let now = self.shared.scope.now();
        match self.shared.state.try_enter(now, deadline) {
            Ok(permit) => Ok(self.shared.guard(permit)),
            Err((refused, room)) => Err(self.shared.refuse(now, priority, refused, room)),
        }
    }

    pub(super) fn begin(
        &self,
        now: Monotonic,
        priority: Priority,
        deadline: Option<Deadline>,
    ) -> Result<Begun, Refusal> {
        self.shared.enter(now, priority, deadline)
    }

    /// Begins work as soon as it is its turn. Cancel it by dropping the future.
    ///
    /// # Errors
    /// The refusal, when it is given up.
    pub async fn enter(&self, priority: Priority, deadline: Option<Deadline>) -> Result<Guard, Refusal> {
        match self.shared.enter(self.shared.scope.now(), priority, deadline)? {
            Begun::Admitted(guard) => Ok(guard),
            Begun::Waiting(waits) => waits.await,
        }
    }
}

/// Work under way. It counts until it is finished or dropped; dropped unfinished it was cancelled, and tells nothing
/// about the callee.
#[derive(Debug)]
#[must_use = "what is dropped at once does not limit anything"]
pub struct Guard {
    shared: Arc<Shared>,
    permit: Option<Permit>,
}

impl Guard {
    /// The work ended by itself, and this is what it told.
    pub fn finish(mut self, sample: Sample) {
        self.end(sample);
    }

    fn end(&mut self, sample: Sample) {
        if let Some(permit) = self.permit.take() {
            let now = self.shared.scope.now();
            self.shared.state.complete(now, permit, sample);
            self.shared.settle(now);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(Sample::Nothing);
    }
}

pub(super) enum Begun {
    Admitted(Guard),
    Waiting(Waits),
}

impl Shared {
    fn enter(
        self: &Arc<Self>,
        now: Monotonic,
        priority: Priority,
        deadline: Option<Deadline>,
    ) -> Result<Begun, Refusal> {
        let mut slot = None;
        let waiter = || {
            let inner = Mutex::new(Waiting::Since(None));
            let new = Slot { priority, since: now, deadline, inner };
            Arc::clone(slot.insert(Arc::new(new)))
        };
        let entered = self.state.enter(now, priority, deadline, waiter);
        match (entered, slot) {
            (Entered::Admitted(permit), _) => Ok(Begun::Admitted(self.guard(permit))),
            (Entered::Waiting { ticket, evicted }, Some(slot)) => {
                // First, so that whatever happens below gives the place up again.
                let place = Place { shared: Arc::clone(self), slot, ticket };
                if let Some(evicted) = evicted {
                    name(&evicted, Verdict::Evicted(now, priority));
                }
                self.settle(now);
                let (soon, at_most) = *self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                let remaining = deadline.map_or(at_most, |deadline| deadline.remaining(now));
                let then = at_most.min(remaining).saturating_sub(soon);
                Ok(Begun::Waiting(Waits { place, sleep: sleep(soon.min(remaining)), then: Some(then) }))
            }
            (Entered::Refused(refused, room), _) => Err(self.refuse(now, priority, refused, room)),
            // The state has no waiter that it wasn't given.
            (Entered::Waiting { .. }, None) => {
                Err(self.scope.refuse_unrecorded(Rule::LoadShed, Why::PriorityShed { priority }))
            }
        }
    }

    fn guard(self: &Arc<Self>, permit: Permit) -> Guard {
        Guard { shared: Arc::clone(self), permit: Some(permit) }
    }

    fn refuse(&self, now: Monotonic, priority: Priority, refused: Refused, room: Room) -> Refusal {
        let why = match refused {
            Refused::LimitReached { limit } => Why::ConcurrencyExceeded { limit },
            Refused::QueueFull => Why::PriorityShed { priority },
            Refused::DeadlineReached => Why::DeadlineReached,
        };
        let inputs = room.inputs(priority, refused);
        self.scope.refuse(Rule::LoadShed, question::ENTER, now, inputs, refused.number(), why)
    }

    /// Tells those that wait what is to be done now.
    fn settle(&self, now: Monotonic) {
        while let Some(next) = self.state.next(now) {
            match next {
                Next::Admit(slot, permit) => {
                    if let Some(permit) = name(&slot, Verdict::Admitted(permit)) {
                        self.state.complete(now, permit, Sample::Nothing);
                    }
                }
                Next::GiveUp(slot, why) => {
                    name(&slot, Verdict::GivenUp(now, why));
                }
            }
        }
    }
}

/// Gives one that waits its verdict. The permit comes back if nobody waits there any more.
fn name(slot: &Slot, verdict: Verdict) -> Option<Permit> {
    let mut waiting = slot.lock();
    if matches!(*waiting, Waiting::Over) {
        return match verdict {
            Verdict::Admitted(permit) => Some(permit),
            Verdict::GivenUp(..) | Verdict::Evicted(..) => None,
        };
    }
    let before = std::mem::replace(&mut *waiting, Waiting::Named(verdict));
    // Woken without the lock: a waker may run its task at once.
    drop(waiting);
    if let Waiting::Since(Some(waker)) = before {
        waker.wake();
    }
    None
}

/// A place in the queue. Dropped, it is given up, and so is a permit that was given there and not taken.
struct Place {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let last = std::mem::replace(&mut *self.slot.lock(), Waiting::Over);
        let state = &self.shared.state;
        let now = self.shared.scope.now();
        match last {
            Waiting::Over | Waiting::Named(Verdict::GivenUp(..) | Verdict::Evicted(..)) => return,
            Waiting::Since(_) => {
                state.cancel(self.ticket);
            }
            Waiting::Named(Verdict::Admitted(permit)) => state.complete(now, permit, Sample::Nothing),
        }
        self.shared.settle(now);
    }
}

pin_project! {
    /// Waits for a permit.
    pub(super) struct Waits {
        place: Place,
        #[pin]
        sleep: Sleep,
        // How long to sleep after the first time; then the wait is over.
        then: Option<Duration>,
    }
}

impl Future for Waits {
    type Output = Result<Guard, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Place { shared, slot, .. } = this.place;
        loop {
            {
                let mut waiting = slot.lock();
                match std::mem::replace(&mut *waiting, Waiting::Over) {
                    Waiting::Since(_) => *waiting = Waiting::Since(Some(cx.waker().clone())),
                    Waiting::Named(verdict) => {
                        drop(waiting);
                        return Poll::Ready(shared.answer(verdict, slot));
                    }
                    // Polled after its end: it stays pending, as nobody will wake it.
                    Waiting::Over => return Poll::Pending,
                }
            }
            ready!(this.sleep.as_mut().poll(cx));
            // It is late: whoever waits for too long is given up now, this one perhaps among them.
            shared.settle(shared.scope.now());
            let again = match this.then.take() {
                Some(then) => then,
                // The clock of the policy and the timer's need not agree to the millisecond.
                None => Duration::from_millis(1),
            };
            this.sleep.set(sleep(again));
        }
    }
}

impl Shared {
    fn answer(self: &Arc<Self>, verdict: Verdict, slot: &Slot) -> Result<Guard, Refusal> {
        let refuse = |now, question, inputs: [u64; 3], why| {
            let [a, b, c] = inputs;
            Err(self.scope.refuse(Rule::LoadShed, question, now, [a, b, c, 0, 0, 0, 0], 1, why))
        };
        let (now, why) = match verdict {
            Verdict::Admitted(permit) => return Ok(self.guard(permit)),
            Verdict::Evicted(now, by) => {
                let priority = slot.priority;
                let inputs = [priority as u64, by as u64, 0];
                return refuse(now, question::EVICT, inputs, Why::PriorityShed { priority });
            }
            Verdict::GivenUp(now, why) => (now, why),
        };
        let (limit, why) = match why {
            GivenUp::WaitedTooLong { limit, is_standing: true } => (limit, Why::QueueDelayTooLong),
            GivenUp::WaitedTooLong { limit, .. } => (limit, Why::WaitedTooLong { limit }),
            GivenUp::Deadline => (Duration::MAX, Why::DeadlineReached),
        };
        let deadline = slot.deadline.map_or(u64::MAX, |deadline| nanos(deadline.reading()));
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        refuse(now, question::GIVE_UP, [nanos(slot.since), deadline, limit], why)
    }
}

impl Guard {
    /// When it began.
    pub(super) fn began(&self) -> Monotonic {
        self.permit.as_ref().map_or(Monotonic::ORIGIN, Permit::began)
    }
}
