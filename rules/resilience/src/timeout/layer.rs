//! The tower glue: lowers the deadline, and arms a timer when, and only when, there is something to wait for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mainstay_envelope::Deadline;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::spec::Checked;
use super::state::{self, Kind, Limit};
use crate::call::Call;
use crate::live::{Link, Live};
use crate::refusal::{Failed, Refusal, Rule, Why};
use crate::scope::Scope;

/// The timeouts of one policy. A clone is another handle on the same.
#[derive(Debug, Clone)]
pub struct Timeouts(Live<Core>);

#[derive(Debug)]
struct Core {
    settings: Checked,
    scope: Arc<Scope>,
}

impl Timeouts {
    /// These.
    pub fn new(settings: Checked, scope: Arc<Scope>) -> Self {
        Timeouts(Live::new(Core { settings, scope }))
    }

    /// Other limits from now on; calls under way keep theirs.
    pub fn reconfigure(&self, settings: Checked) {
        let change = |old: &Core| match old.settings == settings {
            true => Err(()),
            false => Ok(Core { settings, scope: Arc::clone(&old.scope) }),
        };
        // Refused where there is nothing to change.
        let _ = self.0.replace(change);
    }

    /// The present settings.
    pub fn settings(&self) -> Checked {
        self.0.get().settings
    }
}

/// Puts a timeout around a service. With none, the deadline of the call alone is kept, by others.
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    timeouts: Timeouts,
    kind: Kind,
}

impl TimeoutLayer {
    /// A layer that keeps one of the two limits, and the call's deadline.
    pub const fn new(timeouts: Timeouts, kind: Kind) -> Self {
        TimeoutLayer { timeouts, kind }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = TimeoutService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService { inner, timeouts: self.timeouts.clone(), kind: self.kind, limited: None }
    }
}

/// A service that is not waited for for ever.
#[derive(Debug)]
pub struct TimeoutService<S> {
    inner: S,
    timeouts: Timeouts,
    kind: Kind,
    /// That of the call that is just being made: here and not on the stack, so that its future is made where it stays.
    limited: Option<Limited>,
}

impl<S: Clone> Clone for TimeoutService<S> {
    fn clone(&self) -> Self {
        let TimeoutService { inner, timeouts, kind, limited: _ } = self;
        TimeoutService { inner: inner.clone(), timeouts: timeouts.clone(), kind: *kind, limited: None }
    }
}

impl<R, T, E, S> Service<Call<R>> for TimeoutService<S>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, mut call: Call<R>) -> Self::Future {
        let link = self.timeouts.0.refresh();
        let core = link.value();
        let spec = core.settings.spec();
        let at_most = match self.kind {
            Kind::Total => spec.total,
            Kind::Attempt => spec.attempt,
        };
        let (now, deadline) = (call.facts.now, call.facts.deadline);
        let decided = state::limit(self.kind, now, at_most, deadline);
        let recorder = core.scope.recorder();
        if recorder.keeps_all() && decided.is_ok() {
            let inputs = state::begin_inputs(self.kind, at_most, deadline);
            recorder.plain(Rule::Timeout, state::BEGIN, now, inputs, state::begin_verdict(&decided));
        }
        let limit = match decided {
            Ok(limit) => limit,
            Err(why) => {
                let (inputs, verdict) =
                    (state::begin_inputs(self.kind, at_most, deadline), state::begin_verdict(&decided));
                let refusal = core.scope.refuse(Rule::Timeout, state::BEGIN, now, inputs, verdict, why);
                return ResponseFuture { future: None, kept: Kept::Refused(Some(refusal)), sleep: None };
            }
        };
        if let Some(limit) = limit {
            call.facts.deadline = Some(Deadline::at(limit.at));
            self.limited = Some(Limited { limit, link: Arc::clone(link) });
        }
        ResponseFuture {
            future: Some(self.inner.call(call)),
            kept: Kept::Limit(self.limited.take()),
            sleep: None,
        }
    }
}

/// A limit, and who keeps it.
#[derive(Debug)]
struct Limited {
    limit: Limit,
    link: Arc<Link<Core>>,
}

impl Limited {
    fn scope(&self) -> &Scope {
        &self.link.value().scope
    }

    /// That its time is up.
    fn over(&self) -> Refusal {
        let Limit { at, why } = self.limit;
        // The timer may be a hair early of the clock; what was decided is what the timer said.
        let now = self.scope().now().max(at);
        self.scope().refuse(Rule::Timeout, state::OVER, now, state::over_inputs(at), 1, why)
    }
}

/// What is known of a call.
enum Kept {
    /// None if nothing limits it.
    Limit(Option<Limited>),
    /// It was not begun. None once that was handed out.
    Refused(Option<Refusal>),
}

pin_project! {
    /// The answer, or that its time is up.
    pub struct ResponseFuture<F> {
        // None if it was not begun.
        #[pin]
        future: Option<F>,
        kept: Kept,
        // Armed when there is something to wait for.
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, Failed<E>>>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            let refusal = match this.kept {
                Kept::Refused(refusal) => refusal.take(),
                Kept::Limit(_) => None,
            };
            // Polled again after its end, which no caller may do, it stays pending.
            return refusal.map_or(Poll::Pending, |refusal| Poll::Ready(Err(Failed::Refused(refusal))));
        };
        let limit = match this.kept {
            Kept::Limit(limit) => limit.as_ref(),
            Kept::Refused(_) => None,
        };
        if let Poll::Ready(result) = future.poll(cx) {
            return Poll::Ready(result.map_err(|failed| owned(failed, limit)));
        }
        let Some(limit) = limit else { return Poll::Pending };
        if this.sleep.is_none() {
            let remaining = limit.limit.at.saturating_since(limit.scope().now());
            this.sleep.set(Some(tokio::time::sleep(remaining)));
        }
        match this.sleep.as_pin_mut().map(|sleep| sleep.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Failed::Refused(limit.over()))),
            _ => Poll::Pending,
        }
    }
}

/// The deadline that a rule further in met may be the one that was lowered here; then this limit is the reason.
fn owned<E>(failed: Failed<E>, limit: Option<&Limited>) -> Failed<E> {
    match (failed, limit) {
        (Failed::Refused(mut refusal), Some(limit)) if refusal.why == Why::DeadlineRanOut => {
            refusal.why = limit.limit.why;
            Failed::Refused(refusal)
        }
        (failed, _) => failed,
    }
}
