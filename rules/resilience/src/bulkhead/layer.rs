//! The tower glue: a permit for as long as the call is under way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::permit::{Bulkhead, Entered, Permit, Queued};
use crate::call::{Call, Parked};
use crate::refusal::{Failed, Refusal};

/// Puts a bulkhead around a service. Services made by one layer share it; with none, calls pass as they are.
#[derive(Debug, Clone)]
pub struct BulkheadLayer {
    bulkhead: Option<Bulkhead>,
}

impl BulkheadLayer {
    /// A layer of `bulkhead`.
    pub const fn new(bulkhead: Option<Bulkhead>) -> Self {
        BulkheadLayer { bulkhead }
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService { inner, bulkhead: self.bulkhead.clone(), permit: None }
    }
}

/// A service behind a bulkhead.
#[derive(Debug)]
pub struct BulkheadService<S> {
    inner: S,
    bulkhead: Option<Bulkhead>,
    /// That of the call that is just being made: here and not on the stack, so that its future is made where it stays.
    permit: Option<Permit>,
}

impl<S: Clone> Clone for BulkheadService<S> {
    fn clone(&self) -> Self {
        let BulkheadService { inner, bulkhead, permit: _ } = self;
        BulkheadService { inner: inner.clone(), bulkhead: bulkhead.clone(), permit: None }
    }
}

impl<R, T, E, S> Service<Call<R>> for BulkheadService<S>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>> + Clone,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<S, R, S::Future>;

    /// The inner service's. No permit is taken here: one parked in a handle that makes no call would be nobody's.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        if let Some(bulkhead) = &self.bulkhead {
            match bulkhead.enter(call.facts.now, call.facts.deadline) {
                Ok(Entered::Permit(permit)) => self.permit = Some(permit),
                Ok(Entered::Queued(queued)) => {
                    // The one that was made ready waits with the call; this handle goes on with another.
                    let other = self.inner.clone();
                    let service = std::mem::replace(&mut self.inner, other);
                    let waiting = Some(Waiting { service, bulkhead: bulkhead.clone(), call });
                    return ResponseFuture { inner: Inner::Waiting { queued, waiting } };
                }
                Err(refusal) => return ResponseFuture { inner: Inner::Refused { refusal: Some(refusal) } },
            }
        }
        let permit = Parked(&mut self.permit);
        ResponseFuture { inner: Inner::Calling { future: self.inner.call(call), permit: permit.0.take() } }
    }
}

/// What a call in the queue keeps.
struct Waiting<S, R> {
    service: S,
    bulkhead: Bulkhead,
    call: Call<R>,
}

pin_project! {
    /// The answer, in the queue or under way. Dropping it leaves the queue, or gives the permit back.
    pub struct ResponseFuture<S, R, F> {
        #[pin]
        inner: Inner<S, R, F>,
    }
}

pin_project! {
    #[project = Project]
    enum Inner<S, R, F> {
        // It was not asked.
        Refused {
            // None once it was handed out.
            refusal: Option<Refusal>,
        },
        // It waits for its turn. Dropping this future leaves the queue.
        Waiting {
            // Its place.
            #[pin]
            queued: Queued,
            // None once its turn came.
            waiting: Option<Waiting<S, R>>,
        },
        // It is under way. Dropping this future gives the permit back.
        Calling {
            // The call.
            #[pin]
            future: F,
            // None without a bulkhead, or once it ended.
            permit: Option<Permit>,
        },
    }
}

impl<S, R, T, E> Future for ResponseFuture<S, R, S::Future>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S, R, T, E> Future for Inner<S, R, S::Future>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                Project::Refused { refusal } => match refusal.take() {
                    Some(refusal) => return Poll::Ready(Err(Failed::Refused(refusal))),
                    // Polled again after its end, which no caller may do.
                    None => return Poll::Pending,
                },
                Project::Waiting { queued, waiting } => {
                    let permit = ready!(queued.poll(cx))?;
                    let Some(Waiting { mut service, bulkhead, mut call }) = waiting.take() else {
                        return Poll::Pending;
                    };
                    call.facts.now = bulkhead.scope().now();
                    Inner::Calling { future: service.call(call), permit: Some(permit) }
                }
                Project::Calling { future, permit } => {
                    let result = ready!(future.poll(cx));
                    // Not when the caller lets go of this future, which may be later.
                    permit.take();
                    // By variant: an answer is smaller than a refusal, and only what it is gets moved.
                    return Poll::Ready(match result {
                        Ok(answer) => Ok(answer),
                        Err(failed) => Err(failed),
                    });
                }
            };
            self.set(next);
        }
    }
}
