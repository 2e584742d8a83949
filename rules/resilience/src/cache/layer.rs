//! The tower glue: answers of a service, kept.

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mainstay_envelope::{Deadline, Envelope};
use tower_layer::Layer;
use tower_service::Service;

use super::core::{Answer, Asking, Inner, Job, Seen};
use super::entry::{Cached, Loaded};
use super::handle::Cache;
use super::key::{MemberRef, Probe};
use super::spec::{Audience, Spec};
use crate::{ByError, Call, Classified, Classify, Failed, Invalid, Outcome, Scope, judge};

/// Says of a kind of request which answers may be kept, and under which key.
pub trait Keep<R, T>: Send + Sync + 'static {
    /// The key of an answer. Everything of the request on which its answer depends, apart from the audience, has to be
    /// in it: the host, the path, and whatever the answer's `Vary` names.
    type Key: Eq + Hash + Clone + Send + Sync + 'static;

    /// The key; none: this request is passed on and its answer not kept (it changes something, or says so).
    fn key(&self, request: &R) -> Option<Self::Key>;

    /// In whose name it is asked. Without one, a cache that is not for everybody passes the request on.
    fn envelope<'a>(&self, _: &'a R) -> Option<&'a Envelope> {
        None
    }

    /// A successful answer with its tags and its own time to live, if it has any; a time of zero is not kept. Default:
    /// kept for [`Spec::ttl`].
    fn loaded(&self, answer: T) -> Loaded<T> {
        Loaded::found(answer)
    }
}

/// What ended a load and is not kept: an answer that is a failure, or none.
#[derive(Debug, Clone)]
pub struct Unkept<T, E> {
    result: Result<T, Failed<E>>,
    outcome: Outcome,
}

impl<T, E> Classified for Unkept<T, E> {
    fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// Keeps the answers of the services it wraps; all of them share one cache. Requests for one key that come while it is
/// asked for wait for the same answer, which has to be cheap to clone (a buffered body, an `Arc`).
///
/// Only what the classifier calls a success is kept. Where [`Spec::stale_if_error`] allows, a stale answer is given in
/// place of a failure that may pass and of a refusal by the rules inside, an open breaker's for instance.
pub struct CacheLayer<R, T, E, P: Keep<R, T>, C> {
    cache: Cache<P::Key, T, Unkept<T, E>>,
    keep: Arc<P>,
    classify: Arc<C>,
    of: std::marker::PhantomData<fn(R)>,
}

impl<R, T, E, P: Keep<R, T>, C> Clone for CacheLayer<R, T, E, P, C> {
    fn clone(&self) -> Self {
        let (keep, classify) = (Arc::clone(&self.keep), Arc::clone(&self.classify));
        Self { cache: self.cache.clone(), keep, classify, of: self.of }
    }
}

impl<R, T, E, P: Keep<R, T>, C> fmt::Debug for CacheLayer<R, T, E, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl<R, T, E, P, C> CacheLayer<R, T, E, P, C>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
    P: Keep<R, T>,
{
    /// A layer with an empty cache of its own, in the scope of its policy.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting out of its range.
    pub fn new(spec: Spec, scope: Arc<Scope>, classify: C, keep: P) -> Result<Self, Invalid> {
        let cache = Cache::builder(Arc::clone(scope.name()), spec).scope(scope).classify(ByError).build()?;
        Ok(Self { cache, keep: Arc::new(keep), classify: Arc::new(classify), of: std::marker::PhantomData })
    }

    /// The cache itself, to invalidate and to look at.
    pub fn cache(&self) -> &Cache<P::Key, T, Unkept<T, E>> {
        &self.cache
    }
}

impl<S, R, T, E, P: Keep<R, T>, C> Layer<S> for CacheLayer<R, T, E, P, C> {
    type Service = CacheService<S, R, T, E, P, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService { inner, layer: self.clone() }
    }
}

/// A service whose answers are kept.
pub struct CacheService<S, R, T, E, P: Keep<R, T>, C> {
    inner: S,
    layer: CacheLayer<R, T, E, P, C>,
}

impl<S: Clone, R, T, E, P: Keep<R, T>, C> Clone for CacheService<S, R, T, E, P, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, R, T, E, P: Keep<R, T>, C> fmt::Debug for CacheService<S, R, T, E, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheService").field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl<S, R, T, E, P, C> Service<Call<R>> for CacheService<S, R, T, E, P, C>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>> + Clone + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
    P: Keep<R, T>,
    C: Classify<T, E> + Send + Sync + 'static,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<T, E>;

    /// Always: an answer that is kept needs nobody. What is inside is waited for when it is asked.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let CacheLayer { cache, keep, classify, .. } = &self.layer;
        let inner = &cache.0;
        let member = match (inner.audience, keep.envelope(&call.request)) {
            (Audience::Everybody, _) => Some(MemberRef::Everybody),
            (audience, Some(envelope)) => Some(MemberRef::of(audience, envelope)),
            (_, None) => None,
        };
        let Some((key, member)) = keep.key(&call.request).zip(member) else {
            return ResponseFuture::passed(ask(self.inner.clone(), call));
        };
        let asked = inner.tags.stamp();
        let probe = Probe { member, key: &key };
        let seen = inner.look(&probe, call.facts.now);
        if let Seen::Serve(Some(found)) = seen {
            inner.tally(&found);
            return ResponseFuture(State::Kept(Some(found)));
        }
        let asking = Asking { priority: call.facts.priority, deadline: call.facts.deadline };
        let keyed = probe.to_keyed();
        let job = job(Arc::clone(inner), self.inner.clone(), Arc::clone(keep), Arc::clone(classify), call);
        match seen {
            Seen::Refresh(found) => {
                inner.tally(&found);
                inner.refresh(&found, keyed, job);
                ResponseFuture(State::Kept(Some(found)))
            }
            Seen::Failed(error) => ResponseFuture::passed(async move { error.result.clone() }),
            Seen::Serve(_) => {
                ResponseFuture::passed(finish(Arc::clone(inner), asking, asked, keyed, None, job))
            }
            Seen::Load(stale) => {
                ResponseFuture::passed(finish(Arc::clone(inner), asking, asked, keyed, stale, job))
            }
        }
    }
}

/// The load of an answer: the call, with what those who wait for it may spend.
fn job<S, R, T, E, P, C>(
    inner: Arc<Inner<P::Key, T, Unkept<T, E>>>,
    service: S,
    keep: Arc<P>,
    classify: Arc<C>,
    mut call: Call<R>,
) -> Job<T, Unkept<T, E>>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>> + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
    P: Keep<R, T>,
    C: Classify<T, E> + Send + Sync + 'static,
{
    Box::new(move |lead| {
        Box::pin(async move {
            call.facts.now = inner.scope.now();
            if let Some((priority, deadline)) = lead.terms() {
                (call.facts.priority, call.facts.deadline) = (priority, Some(Deadline::at(deadline)));
            }
            let result = ask(service, call).await;
            // A refusal by a rule inside says nothing of the callee, and passes.
            match judge(&*classify, &result).unwrap_or(Outcome::TRANSIENT) {
                Outcome::Success => match result {
                    Ok(answer) => Ok(keep.loaded(answer)),
                    Err(_) => Err(Unkept { result, outcome: Outcome::TRANSIENT }),
                },
                outcome => Err(Unkept { result, outcome }),
            }
        })
    })
}

async fn ask<S: Service<Q>, Q>(mut service: S, request: Q) -> Result<S::Response, S::Error> {
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

async fn finish<K, T, E>(
    inner: Arc<Inner<K, T, Unkept<T, E>>>,
    asking: Asking,
    asked: super::tags::Stamp,
    key: super::key::Keyed<K>,
    stale: Option<Arc<super::entry::Kept<T>>>,
    job: Job<T, Unkept<T, E>>,
) -> Result<T, Failed<E>>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    let answer: Answer<T, Unkept<T, E>> = inner.load(asking, asked, key, stale, job).await;
    match answer {
        Ok(Some(found)) => Ok((*found).clone()),
        Err(Failed::Upstream(unkept)) => unkept.result.clone(),
        Err(Failed::Refused(refusal)) => Err(Failed::Refused(refusal)),
        // `Keep::loaded` made nothing of an answer: there is none to give.
        Ok(None) => Err(Failed::Refused(inner.refuse(crate::Why::LoadFailed))),
    }
}

/// An answer: the kept one at once, without an allocation, or another one later.
pub struct ResponseFuture<T, E>(State<T, E>);

enum State<T, E> {
    Kept(Option<Cached<T>>),
    Passed(Pin<Box<dyn Future<Output = Result<T, Failed<E>>> + Send>>),
}

impl<T, E> ResponseFuture<T, E> {
    fn passed(future: impl Future<Output = Result<T, Failed<E>>> + Send + 'static) -> Self {
        Self(State::Passed(Box::pin(future)))
    }
}

impl<T, E> fmt::Debug for ResponseFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("kept", &matches!(self.0, State::Kept(_)))
            .finish_non_exhaustive()
    }
}

impl<T: Clone, E> Future for ResponseFuture<T, E> {
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Nothing in it is pinned in place: the future is boxed, the kept answer a reference count.
        match &mut self.get_mut().0 {
            State::Kept(kept) => match kept.take() {
                Some(found) => Poll::Ready(Ok((*found).clone())),
                None => Poll::Pending,
            },
            State::Passed(future) => future.as_mut().poll(cx),
        }
    }
}
