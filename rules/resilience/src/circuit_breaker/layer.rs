//! The tower glue: asks before a call, records when it ends, however it ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::guard::Guard;
use super::state::CircuitBreaker;
use crate::call::{Call, Parked};
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
        let CircuitBreakerLayer { breaker, classify } = self.clone();
        CircuitBreakerService { inner, breaker, classify, admitted: None }
    }
}

/// A service behind a breaker.
#[derive(Debug)]
pub struct CircuitBreakerService<S, C> {
    inner: S,
    breaker: Option<CircuitBreaker>,
    classify: C,
    /// The call that is just being made: here and not on the stack, so that its future is made where it stays.
    admitted: Option<Guard>,
}

impl<S: Clone, C: Clone> Clone for CircuitBreakerService<S, C> {
    fn clone(&self) -> Self {
        let CircuitBreakerService { inner, breaker, classify, admitted: _ } = self;
        let (inner, breaker, classify) = (inner.clone(), breaker.clone(), classify.clone());
        CircuitBreakerService { inner, breaker, classify, admitted: None }
    }
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

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        if let Some(breaker) = &mut self.breaker {
            match breaker.admit(call.facts.now, call.facts.deadline) {
                Ok(guard) => self.admitted = Some(guard),
                Err(refusal) => {
                    let classify = self.classify.clone();
                    return ResponseFuture { future: None, end: End::Refused(Some(refusal)), classify };
                }
            }
        }
        let admitted = Parked(&mut self.admitted);
        ResponseFuture {
            future: Some(self.inner.call(call)),
            end: End::Told(admitted.0.take()),
            classify: self.classify.clone(),
        }
    }
}

/// Who hears of a call's end.
enum End {
    /// The breaker; none without one, or once it heard of it.
    Told(Option<Guard>),
    /// It was not asked. None once that was handed out.
    Refused(Option<Refusal>),
}

pin_project! {
    /// The answer, on its way past the breaker. Dropping it counts the call as cancelled.
    pub struct ResponseFuture<F, C> {
        // None if it was not asked.
        #[pin]
        future: Option<F>,
        end: End,
        // Who judges its end.
        classify: C,
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, Failed<E>>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.future.as_pin_mut() {
            Some(future) => ready!(future.poll(cx)),
            None => {
                let refusal = match this.end {
                    End::Refused(refusal) => refusal.take(),
                    End::Told(_) => None,
                };
                // Polled again after its end, which no caller may do, it stays pending.
                let Some(refusal) = refusal else { return Poll::Pending };
                return Poll::Ready(Err(Failed::Refused(refusal)));
            }
        };
        if let End::Told(guard) = this.end
            && let Some(guard) = guard.take()
        {
            match judge(this.classify, &result) {
                Some(outcome) => guard.record(outcome),
                None => guard.release(),
            }
        }
        // By variant: an answer is smaller than a refusal, and only what it is gets moved.
        Poll::Ready(match result {
            Ok(answer) => Ok(answer),
            Err(failed) => Err(failed),
        })
    }
}
