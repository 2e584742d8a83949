//! The tower glue: enters before the call, measures it, and leaves after it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::entry::{Begun, Guard, LoadShed, Waits};
use super::state::Sample;
use crate::call::Call;
use crate::outcome::{Classify, Outcome};
use crate::refusal::{Failed, Refusal, judge};
use crate::switch::Switch;

impl LoadShed {
    /// A layer that sheds around any service of [`Call`]s. `classify` says which answers are those of an overloaded
    /// callee.
    pub fn layer<C>(&self, classify: C) -> LoadShedLayer<C> {
        LoadShedLayer::new(Switch::new(Some(self.clone())), classify)
    }
}

/// Sheds around a service; made by [`LoadShed::layer`].
#[derive(Debug, Clone)]
pub struct LoadShedLayer<C> {
    shed: Switch<LoadShed>,
    classify: C,
}

impl<C> LoadShedLayer<C> {
    /// A layer that sheds while `shed` is on.
    pub const fn new(shed: Switch<LoadShed>, classify: C) -> Self {
        LoadShedLayer { shed, classify }
    }
}

impl<C: Clone, S> Layer<S> for LoadShedLayer<C> {
    type Service = Shedding<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Shedding { shed: self.shed.clone(), classify: self.classify.clone(), inner }
    }
}

/// A service that is begun only with a permit; made by [`LoadShedLayer`].
#[derive(Debug, Clone)]
pub struct Shedding<C, S> {
    shed: Switch<LoadShed>,
    classify: C,
    inner: S,
}

impl<C, S, R, E> Service<Call<R>> for Shedding<C, S>
where
    S: Service<Call<R>, Error = Failed<E>> + Clone,
    C: Classify<S::Response, E> + Clone,
{
    type Response = S::Response;
    type Error = Failed<E>;
    type Future = SheddingFuture<C, S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Never "not ready" for want of a permit: whoever waited here would hold a place that nobody sees.
        self.inner.poll_ready(cx)
    }

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        let Some(shed) = self.shed.refresh() else {
            return SheddingFuture { step: Step::UnderWay { future: self.inner.call(call), measured: None } };
        };
        let measured = match shed.begin(call.facts.now, call.facts.priority, call.facts.deadline) {
            Ok(Begun::Admitted(guard)) => Some(Measured { guard, classify: self.classify.clone() }),
            // With a service of its own: the one that is ready now serves the next call, which may not wait.
            Ok(Begun::Waiting(waits)) => {
                let (service, classify) = (self.inner.clone(), self.classify.clone());
                let asked = Some(Asked { service, call, classify });
                return SheddingFuture { step: Step::Waiting { waits, asked } };
            }
            Err(refusal) => return SheddingFuture { step: Step::Refused { refusal: Some(refusal) } },
        };
        SheddingFuture { step: Step::UnderWay { future: self.inner.call(call), measured } }
    }
}

/// What a call that waits keeps.
struct Asked<C, S, R> {
    service: S,
    call: Call<R>,
    classify: C,
}

/// What a call under way keeps.
struct Measured<C> {
    guard: Guard,
    classify: C,
}

pin_project! {
    /// The answer, or the refusal.
    pub struct SheddingFuture<C, S, R>
    where
        S: Service<Call<R>>,
    {
        #[pin]
        step: Step<C, S, R, S::Future>,
    }
}

pin_project! {
    #[project = Steps]
    enum Step<C, S, R, F> {
        Refused { refusal: Option<Refusal> },
        Waiting { #[pin] waits: Waits, asked: Option<Asked<C, S, R>> },
        Readying { guard: Option<Guard>, asked: Option<Asked<C, S, R>> },
        UnderWay { #[pin] future: F, measured: Option<Measured<C>> },
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
                Steps::UnderWay { measured, future } => {
                    let result = ready!(future.poll(cx));
                    if let Some(Measured { guard, classify }) = measured.take() {
                        guard.finish(sample_of(judge(&classify, &result)));
                    }
                    return Poll::Ready(result);
                }
                Steps::Waiting { waits, asked } => match ready!(waits.poll(cx)) {
                    Ok(guard) => {
                        let mut asked = asked.take();
                        if let Some(Asked { call, .. }) = &mut asked {
                            call.facts.now = guard.began();
                        }
                        Step::Readying { guard: Some(guard), asked }
                    }
                    Err(refusal) => Step::Refused { refusal: Some(refusal) },
                },
                Steps::Readying { guard, asked } => {
                    let Some(waiting) = asked.as_mut() else { return Poll::Pending };
                    if let Err(error) = ready!(waiting.service.poll_ready(cx)) {
                        this.step.set(Step::Over);
                        return Poll::Ready(Err(error));
                    }
                    let (Some(Asked { mut service, call, classify }), Some(guard)) =
                        (asked.take(), guard.take())
                    else {
                        return Poll::Pending;
                    };
                    Step::UnderWay {
                        measured: Some(Measured { guard, classify }),
                        future: service.call(call),
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
