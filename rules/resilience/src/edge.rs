//! The two ends of a stack: where a request becomes a [`Call`], and where it is a request again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::call::{Call, Describe};
use crate::refusal::Failed;
use crate::scope::Scope;

/// The outer end: takes a request, and hands a [`Call`] on.
#[derive(Debug, Clone)]
pub struct Outside<S, D> {
    inner: S,
    scope: Arc<Scope>,
    describe: D,
}

impl<S, D> Outside<S, D> {
    /// Around a stack; `describe` tells the rules about requests.
    pub const fn new(inner: S, scope: Arc<Scope>, describe: D) -> Self {
        Outside { inner, scope, describe }
    }
}

impl<R, S, D> Service<R> for Outside<S, D>
where
    S: Service<Call<R>>,
    D: Describe<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let facts = self.describe.facts(&request, self.scope.now());
        self.inner.call(Call { request, facts })
    }
}

/// Makes [`Inside`]s: the innermost layer of every stack.
#[derive(Debug, Clone, Copy, Default)]
pub struct InsideLayer<D> {
    describe: D,
}

impl<D> InsideLayer<D> {
    /// `describe` has the last touch on every request.
    pub const fn new(describe: D) -> Self {
        InsideLayer { describe }
    }
}

impl<S, D: Clone> Layer<S> for InsideLayer<D> {
    type Service = Inside<S, D>;

    fn layer(&self, inner: S) -> Self::Service {
        Inside { inner, describe: self.describe.clone() }
    }
}

/// The inner end: hands the request to the user's service, whose errors are the callee's.
#[derive(Debug, Clone)]
pub struct Inside<S, D> {
    inner: S,
    describe: D,
}

impl<R, S, D> Service<Call<R>> for Inside<S, D>
where
    S: Service<R>,
    D: Describe<R>,
{
    type Response = S::Response;
    type Error = Failed<S::Error>;
    type Future = InsideFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Failed::Upstream)
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let Call { mut request, facts } = call;
        self.describe.send(&mut request, &facts);
        InsideFuture { future: self.inner.call(request) }
    }
}

pin_project! {
    /// The user's service's answer.
    #[derive(Debug)]
    pub struct InsideFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, T, E> Future for InsideFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map_err(Failed::Upstream)
    }
}
