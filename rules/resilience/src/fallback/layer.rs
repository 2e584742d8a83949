//! The tower glue: looks at a failure, and hands out something else where it may.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::spec::Checked;
use super::state::{self, Cause};
use crate::call::Call;
use crate::outcome::{Classify, Outcome};
use crate::refusal::{Failed, Rule};
use crate::scope::Scope;

/// Replaces failures by what a function `Fn(&Result<T, Failed<E>>) -> Option<T>` has instead; with none from it, the
/// failure stays. The function gets the answer, too, where that is a failure (an HTTP 503).
#[derive(Debug, Clone)]
pub struct FallbackLayer<C, F> {
    settings: Checked,
    scope: Arc<Scope>,
    classify: C,
    instead: F,
}

impl<C, F> FallbackLayer<C, F> {
    /// A layer that asks `instead`.
    pub const fn new(settings: Checked, scope: Arc<Scope>, classify: C, instead: F) -> Self {
        FallbackLayer { settings, scope, classify, instead }
    }
}

impl<S, C: Clone, F: Clone> Layer<S> for FallbackLayer<C, F> {
    type Service = FallbackService<S, C, F>;

    fn layer(&self, inner: S) -> Self::Service {
        FallbackService { inner, layer: self.clone() }
    }
}

/// A service whose failures may be replaced.
#[derive(Debug, Clone)]
pub struct FallbackService<S, C, F> {
    inner: S,
    layer: FallbackLayer<C, F>,
}

impl<R, T, E, S, C, F> Service<Call<R>> for FallbackService<S, C, F>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
    C: Classify<T, E> + Clone,
    F: Fn(&Result<T, Failed<E>>) -> Option<T> + Clone,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<S::Future, C, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        ResponseFuture { future: self.inner.call(call), layer: self.layer.clone() }
    }
}

pin_project! {
    /// The answer, or what is there instead.
    #[derive(Debug)]
    pub struct ResponseFuture<Fut, C, F> {
        #[pin]
        future: Fut,
        layer: FallbackLayer<C, F>,
    }
}

impl<Fut, C, F, T, E> Future for ResponseFuture<Fut, C, F>
where
    Fut: Future<Output = Result<T, Failed<E>>>,
    C: Classify<T, E>,
    F: Fn(&Result<T, Failed<E>>) -> Option<T>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx));
        let FallbackLayer { settings, scope, classify, instead } = this.layer;
        let cause = match &result {
            Ok(answer) => match classify.classify(Ok(answer)) {
                Outcome::Success => return Poll::Ready(result),
                outcome => Cause::Callee(outcome),
            },
            Err(Failed::Upstream(error)) => Cause::Callee(classify.classify(Err(error))),
            Err(Failed::Refused(_)) => Cause::Refused,
        };
        if !state::applies(settings, cause) {
            return Poll::Ready(result);
        }
        let Some(other) = instead(&result) else { return Poll::Ready(result) };
        let inputs = state::inputs(settings, cause);
        scope.recorder().notable(Rule::Fallback, state::APPLIES, scope.now(), inputs, 1);
        Poll::Ready(Ok(other))
    }
}
