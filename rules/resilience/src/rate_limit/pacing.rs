//! The tower glue of the leaky queue: waits for its turn.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::spec::{Checked, Kind};
use super::state::{Joined, NotQueued, Queue, Ticket, question};
use crate::call::Call;
use crate::invalid::Invalid;
use crate::record::nanos;
use crate::refusal::{Failed, Refusal, Rule, Why};
use crate::scope::Scope;
use crate::switch::Switch;

/// Lets calls go one interval apart, in the order they came: live, shared by its clones.
///
/// ```
/// use mainstay_resilience::Scope;
/// use mainstay_resilience::rate_limit::{Pacer, Spec};
/// use std::{sync::Arc, time::Duration};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let scope = Arc::new(Scope::system("bank"));
/// let pacer = Pacer::new(&scope, Spec::leaky_queue(100, Duration::from_secs(1), 10).check()?)?;
/// let began = scope.now();
/// for _ in 0..3 {
///     pacer.turn(None).await.expect("the queue has ten places");
/// }
/// assert!(scope.now().saturating_since(began) >= Duration::from_millis(20));
/// # Ok::<(), mainstay_resilience::Invalid>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pacer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    scope: Arc<Scope>,
    queue: Mutex<Queue<Option<Waker>>>,
}

impl Pacer {
    /// An empty queue for the policy of `scope`.
    ///
    /// # Errors
    /// [`Invalid`] for settings that are not those of a queue: use a [`RateLimit`](super::RateLimit).
    pub fn new(scope: &Arc<Scope>, settings: Checked) -> Result<Self, Invalid> {
        queues(&settings)?;
        Ok(Self::of(scope, settings))
    }

    /// Of settings that are known to be a queue's.
    pub(crate) fn of(scope: &Arc<Scope>, settings: Checked) -> Self {
        let queue = Mutex::new(Queue::new(&settings));
        Pacer { shared: Arc::new(Shared { scope: Arc::clone(scope), queue }) }
    }

    pub(crate) fn change(&self, settings: Checked) {
        let now = self.shared.scope.now();
        self.shared.queue().reconfigure(&settings, now);
        self.shared.let_go(now);
    }

    /// Waits for its turn. Cancel it by dropping the future: the place goes to the next.
    ///
    /// # Errors
    /// The refusal, at once when there is no place or the turn would come at `deadline` or after it.
    pub async fn turn(&self, deadline: Option<Deadline>) -> Result<(), Refusal> {
        match self.shared.join(self.shared.scope.now(), deadline)? {
            None => Ok(()),
            Some(turn) => turn.await.map(|_| ()),
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.shared.queue().len()
    }

    /// Changes the settings; everybody keeps their place: see [`Queue::reconfigure`].
    ///
    /// # Errors
    /// [`Invalid`] for settings that are not those of a queue; nothing is changed then.
    pub fn reconfigure(&self, settings: Checked) -> Result<(), Invalid> {
        queues(&settings)?;
        self.change(settings);
        Ok(())
    }

    /// A layer that paces any service of [`Call`]s.
    pub fn layer(&self) -> PacingLayer {
        PacingLayer::new(Switch::new(Some(self.clone())))
    }
}

/// And one that a pacer can't.
pub(crate) fn queues(settings: &Checked) -> Result<(), Invalid> {
    if settings.spec().kind == Kind::LeakyQueue {
        return Ok(());
    }
    let problem = "a pacer queues and never lets anything burst";
    let given = format!("{:?}", settings.spec().kind);
    Err(Invalid::new("rate_limit", "kind", given, problem, "give a leaky queue, or use a rate limit"))
}

impl Shared {
    /// None: go now.
    fn join(self: &Arc<Self>, now: Monotonic, deadline: Option<Deadline>) -> Result<Option<Turn>, Refusal> {
        let mut queue = self.queue();
        let line = queue.line();
        let joined = queue.join(now, deadline, || None);
        drop(queue);
        let refuse = |not: NotQueued, why| {
            let inputs = line.inputs(deadline);
            self.scope.refuse(Rule::RateLimit, question::JOIN, now, inputs, not.verdict(), why)
        };
        match joined {
            Ok(Joined::Now) => Ok(None),
            Ok(Joined::Waiting(ticket, turn)) => {
                // First, so that whatever happens below gives the place up again.
                let place = Place { shared: Arc::clone(self), ticket };
                let sleep = sleep(turn.saturating_since(now));
                Ok(Some(Turn { place, deadline, sleep, is_over: false }))
            }
            Err(not @ NotQueued::Full { retry_after }) => {
                let capacity = u32::try_from(self.queue().len()).unwrap_or(u32::MAX);
                Err(refuse(not, Why::QueueFull { capacity }).after(retry_after))
            }
            Err(not @ NotQueued::TurnTooLate { turn_in }) if turn_in.is_zero() => {
                Err(refuse(not, Why::DeadlineReached))
            }
            Err(not @ NotQueued::TurnTooLate { .. }) => Err(refuse(not, Why::TurnTooLate)),
        }
    }

    /// Lets go who is due, and has the new first one look when its turn is.
    ///
    /// Whoever is polled does this for all: one whose task is not polled costs a slot and stops nobody.
    fn let_go(&self, now: Monotonic) {
        let mut queue = self.queue();
        let mut departed = Vec::new();
        while let Some((_, waker)) = queue.depart(now) {
            departed.extend(waker);
        }
        let first = queue.first_mut().and_then(|(_, waker)| waker.take());
        drop(queue);
        departed.into_iter().chain(first).for_each(Waker::wake);
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Option<Waker>>> {
        // Nothing of the caller's runs under it, so nothing is half done in there.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue. Dropped, it is given up.
struct Place {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let cancelled = self.shared.queue().cancel(self.ticket);
        if cancelled.is_some() {
            self.shared.let_go(self.shared.scope.now());
        }
    }
}

pin_project! {
    struct Turn {
        place: Place,
        deadline: Option<Deadline>,
        // Ends at its turn, as it stands: when somebody before it leaves, the first is woken and looks again.
        #[pin]
        sleep: Sleep,
        is_over: bool,
    }
}

impl Future for Turn {
    type Output = Result<Monotonic, Refusal>;

    /// The instant at which it left.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Place { shared, ticket } = this.place;
        if *this.is_over {
            return Poll::Pending;
        }
        loop {
            let now = shared.scope.now();
            let is_due = shared.queue().next_departure().is_some_and(|at| at <= now);
            if is_due {
                shared.let_go(now);
            }
            let mut queue = shared.queue();
            let Some((turn, waker)) = queue.turn_mut(*ticket) else {
                drop(queue);
                *this.is_over = true;
                // A timer that was late, or a task: what nobody waits for is not begun.
                let late = this.deadline.filter(|deadline| deadline.reading() <= now);
                return Poll::Ready(late.map_or(Ok(now), |deadline| {
                    let inputs = [nanos(deadline.reading()), 0, 0, 0, 0, 0, 0];
                    let why = Why::DeadlineReached;
                    Err(shared.scope.refuse(Rule::RateLimit, question::TURN, now, inputs, 1, why))
                }));
            };
            *waker = Some(cx.waker().clone());
            drop(queue);
            // Never less than a millisecond, the timer's own: its clock and the policy's need not agree to that.
            let wait = turn.saturating_since(now).max(Duration::from_millis(1));
            this.sleep.set(sleep(wait));
            ready!(this.sleep.as_mut().poll(cx));
        }
    }
}

/// Paces a service; made by [`Pacer::layer`].
#[derive(Debug, Clone)]
pub struct PacingLayer {
    pacer: Switch<Pacer>,
}

impl PacingLayer {
    /// A layer that paces while `pacer` is on.
    pub const fn new(pacer: Switch<Pacer>) -> Self {
        PacingLayer { pacer }
    }
}

impl<S> Layer<S> for PacingLayer {
    type Service = Paced<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Paced { pacer: self.pacer.clone(), inner }
    }
}

/// A service whose calls begin one interval apart; made by [`PacingLayer`].
#[derive(Debug, Clone)]
pub struct Paced<S> {
    pacer: Switch<Pacer>,
    inner: S,
}

impl<S, R, E> Service<Call<R>> for Paced<S>
where
    S: Service<Call<R>, Error = Failed<E>> + Clone,
{
    type Response = S::Response;
    type Error = Failed<E>;
    type Future = PacedFuture<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Never "not ready" for want of a turn: whoever waited here would hold a place that nobody sees.
        self.inner.poll_ready(cx)
    }

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        let Some(pacer) = self.pacer.refresh() else {
            return PacedFuture { step: Step::UnderWay { future: self.inner.call(call) } };
        };
        match pacer.shared.join(call.facts.now, call.facts.deadline) {
            Ok(None) => PacedFuture { step: Step::UnderWay { future: self.inner.call(call) } },
            Ok(Some(turn)) => {
                let (service, call) = (Some(self.inner.clone()), Some(call));
                PacedFuture { step: Step::Waiting { turn, service, call } }
            }
            Err(refusal) => PacedFuture { step: Step::Refused { refusal: Some(refusal) } },
        }
    }
}

pin_project! {
    /// The answer, or the refusal.
    pub struct PacedFuture<S, R>
    where
        S: Service<Call<R>>,
    {
        #[pin]
        step: Step<S, R, S::Future>,
    }
}

pin_project! {
    #[project = Steps]
    enum Step<S, R, F> {
        Refused { refusal: Option<Refusal> },
        Waiting { #[pin] turn: Turn, service: Option<S>, call: Option<Call<R>> },
        Readying { service: Option<S>, call: Option<Call<R>> },
        UnderWay { #[pin] future: F },
    }
}

impl<S, R, E> Future for PacedFuture<S, R>
where
    S: Service<Call<R>, Error = Failed<E>>,
{
    type Output = Result<S::Response, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let step = match this.step.as_mut().project() {
                Steps::UnderWay { future } => return future.poll(cx),
                Steps::Waiting { turn, service, call } => match ready!(turn.poll(cx)) {
                    Ok(now) => {
                        let mut call = call.take();
                        if let Some(call) = &mut call {
                            call.facts.now = now;
                        }
                        Step::Readying { service: service.take(), call }
                    }
                    Err(refusal) => Step::Refused { refusal: Some(refusal) },
                },
                Steps::Readying { service, call } => {
                    let (Some(ready), Some(_)) = (service.as_mut(), call.as_ref()) else {
                        return Poll::Pending;
                    };
                    ready!(ready.poll_ready(cx))?;
                    match call.take() {
                        Some(call) => Step::UnderWay { future: ready.call(call) },
                        None => return Poll::Pending,
                    }
                }
                Steps::Refused { refusal } => match refusal.take() {
                    Some(refusal) => return Poll::Ready(Err(Failed::Refused(refusal))),
                    None => return Poll::Pending,
                },
            };
            this.step.set(step);
        }
    }
}
