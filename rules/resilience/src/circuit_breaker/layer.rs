//! The tower glue: asks before a call, records when it ends, however it ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::guard::Guard;
use super::state::CircuitBreaker;
use crate::call::Call;
use crate::outcome::Classify;
use crate::refusal::{Failed, Refusal, judge};

/// Puts a breaker around a service. Services made by one layer share it; with none, calls pass as they are.
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer<C> {
    breaker: Option<CircuitBreaker>,
    classify: C,
}

impl<C> CircuitBreakerLayer<C> {
    /// A layer of `breaker`, whose calls' ends `classify` judges.
    pub const fn new(breaker: Option<CircuitBreaker>, classify: C) -> Self {
        CircuitBreakerLayer { breaker, classify }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService { inner, breaker: self.breaker.clone(), classify: self.classify.clone() }
    }
}

/// A service behind a breaker.
#[derive(Debug, Clone)]
pub struct CircuitBreakerService<S, C> {
    inner: S,
    breaker: Option<CircuitBreaker>,
    classify: C,
}

impl<R, T, E, S, C> Service<Call<R>> for CircuitBreakerService<S, C>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
    C: Classify<T, E> + Clone,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<S::Future, C>;

    /// The inner service's. The breaker itself is asked in `call`: a permission parked here would be one that
    /// others wait for.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let guard = match &mut self.breaker {
            None => None,
            Some(breaker) => match breaker.admit(call.facts.now, call.facts.deadline) {
                Ok(guard) => Some(guard),
                Err(refusal) => return ResponseFuture { inner: Inner::Refused { refusal: Some(refusal) } },
            },
        };
        let (future, classify) = (self.inner.call(call), self.classify.clone());
        ResponseFuture { inner: Inner::Calling { future, guard, classify } }
    }
}

pin_project! {
    /// The answer, on its way past the breaker. Dropping it counts the call as cancelled.
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: Inner<F, C>,
    }
}

pin_project! {
    #[project = Project]
    enum Inner<F, C> {
        // It was not asked.
        Refused {
            // None once it was handed out.
            refusal: Option<Refusal>,
        },
        // It was asked. Dropping this future counts the call as cancelled.
        Calling {
            // The call.
            #[pin]
            future: F,
            // None without a breaker, or once its end is recorded.
            guard: Option<Guard>,
            // Who judges its end.
            classify: C,
        },
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, Failed<E>>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<F, C, T, E> Future for Inner<F, C>
where
    F: Future<Output = Result<T, Failed<E>>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Project::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Err(Failed::Refused(refusal))),
                // Polled again after its end, which no caller may do.
                None => Poll::Pending,
            },
            Project::Calling { future, guard, classify } => {
                let result = ready!(future.poll(cx));
                if let Some(guard) = guard.take() {
                    match judge(classify, &result) {
                        Some(outcome) => guard.record(outcome),
                        None => guard.release(),
                    }
                }
                Poll::Ready(result)
            }
        }
    }
}
