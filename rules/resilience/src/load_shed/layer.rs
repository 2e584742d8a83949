//! The tower glue: enters before the call, measures it, and leaves after it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::entry::{Begun, Guard, LoadShed, Waits};
use super::state::Sample;
use crate::call::Call;
use crate::outcome::{Classify, Outcome};
use crate::refusal::{Failed, Refusal, judge};

impl LoadShed {
    /// A layer that sheds around any service of [`Call`]s. `classify` says which answers are those of an overloaded
    /// callee.
    pub fn layer<C>(&self, classify: C) -> LoadShedLayer<C> {
        LoadShedLayer { shed: self.clone(), classify: Arc::new(classify) }
    }
}

/// Sheds around a service; made by [`LoadShed::layer`].
#[derive(Debug)]
pub struct LoadShedLayer<C> {
    shed: LoadShed,
    classify: Arc<C>,
}

impl<C> Clone for LoadShedLayer<C> {
    fn clone(&self) -> Self {
        LoadShedLayer { shed: self.shed.clone(), classify: Arc::clone(&self.classify) }
    }
}

impl<C, S> Layer<S> for LoadShedLayer<C> {
    type Service = Shedding<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Shedding { shed: self.shed.clone(), classify: Arc::clone(&self.classify), inner }
    }
}

/// A service that is begun only with a permit; made by [`LoadShedLayer`].
#[derive(Debug)]
pub struct Shedding<C, S> {
    shed: LoadShed,
    classify: Arc<C>,
    inner: S,
}

impl<C, S: Clone> Clone for Shedding<C, S> {
    fn clone(&self) -> Self {
        Shedding { shed: self.shed.clone(), classify: Arc::clone(&self.classify), inner: self.inner.clone() }
    }
}

impl<C, S, R, E> Service<Call<R>> for Shedding<C, S>
where
    S: Service<Call<R>, Error = Failed<E>> + Clone,
    C: Classify<S::Response, E>,
{
    type Response = S::Response;
    type Error = Failed<E>;
    type Future = SheddingFuture<C, S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Never "not ready" for want of a permit: whoever waited here would hold a place that nobody sees.
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let facts = &call.facts;
        let step = match self.shed.begin(facts.now, facts.priority, facts.deadline) {
            Ok(Begun::Admitted(guard)) => {
                Step::UnderWay { guard: Some(guard), future: self.inner.call(call) }
            }
            // With a service of its own: the one that is ready now serves the next call, which may not wait.
            Ok(Begun::Waiting(waits)) => {
                Step::Waiting { waits, service: Some(self.inner.clone()), call: Some(call) }
            }
            Err(refusal) => Step::Refused { refusal: Some(refusal) },
        };
        SheddingFuture { step, classify: Arc::clone(&self.classify) }
    }
}

pin_project! {
    /// The answer, or the refusal.
    pub struct SheddingFuture<C, S, R>
    where
        S: Service<Call<R>>,
    {
        #[pin]
        step: Step<S, R, S::Future>,
        classify: Arc<C>,
    }
}

pin_project! {
    #[project = Steps]
    enum Step<S, R, F> {
        Refused { refusal: Option<Refusal> },
        Waiting { #[pin] waits: Waits, service: Option<S>, call: Option<Call<R>> },
        Readying { guard: Option<Guard>, service: Option<S>, call: Option<Call<R>> },
        UnderWay { guard: Option<Guard>, #[pin] future: F },
        Over,
    }
}

impl<C, S, R, E> Future for SheddingFuture<C, S, R>
where
    S: Service<Call<R>, Error = Failed<E>>,
    C: Classify<S::Response, E>,
{
    type Output = Result<S::Response, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let step = match this.step.as_mut().project() {
                Steps::UnderWay { guard, future } => {
                    let result = ready!(future.poll(cx));
                    if let Some(guard) = guard.take() {
                        guard.finish(sample_of(judge(&**this.classify, &result)));
                    }
                    this.step.set(Step::Over);
                    return Poll::Ready(result);
                }
                Steps::Waiting { waits, service, call } => match ready!(waits.poll(cx)) {
                    Ok(guard) => {
                        let mut call = call.take();
                        if let Some(call) = &mut call {
                            call.facts.now = guard.began();
                        }
                        Step::Readying { guard: Some(guard), service: service.take(), call }
                    }
                    Err(refusal) => Step::Refused { refusal: Some(refusal) },
                },
                Steps::Readying { guard, service, call } => {
                    let (Some(ready), Some(_)) = (service.as_mut(), call.as_ref()) else {
                        return Poll::Pending;
                    };
                    if let Err(error) = ready!(ready.poll_ready(cx)) {
                        this.step.set(Step::Over);
                        return Poll::Ready(Err(error));
                    }
                    match call.take() {
                        Some(call) => Step::UnderWay { guard: guard.take(), future: ready.call(call) },
                        None => return Poll::Pending,
                    }
                }
                Steps::Refused { refusal } => match refusal.take() {
                    Some(refusal) => return Poll::Ready(Err(Failed::Refused(refusal))),
                    None => return Poll::Pending,
                },
                Steps::Over => return Poll::Pending,
            };
            this.step.set(step);
        }
    }
}

/// What an end tells about the callee's load. A refusal of our own tells nothing: the callee was not asked.
fn sample_of(outcome: Option<Outcome>) -> Sample {
    match outcome {
        Some(Outcome::Success | Outcome::Permanent) => Sample::Answered,
        Some(Outcome::Transient { .. }) => Sample::Overloaded,
        Some(Outcome::Cancelled) | None => Sample::Nothing,
    }
}
