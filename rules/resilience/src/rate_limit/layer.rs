//! The tower glue of the limits that refuse and never wait.

use std::borrow::Borrow;
use std::fmt::{self, Debug};
use std::future::Future;
use std::hash::{Hash, RandomState};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mainstay_envelope::Monotonic;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::spec::{Checked, Kind};
use super::state::{Denied, Keyed, Taken, TokenBucket};
use crate::call::{Call, Describe};
use crate::invalid::Invalid;
use crate::refusal::{Failed, Refusal, Rule, Why};
use crate::scope::Scope;
use crate::switch::Switch;

/// Decides on a call at once, from what is known of it.
pub trait Admit<R> {
    /// Admits the call or refuses it.
    ///
    /// # Errors
    /// The refusal. Nothing was taken for the call then.
    fn admit(&mut self, call: &Call<R>) -> Result<(), Refusal>;
}

/// A limit on everything that goes through one place: live, shared by its clones.
///
/// ```
/// use mainstay_resilience::Scope;
/// use mainstay_resilience::rate_limit::{RateLimit, Spec};
/// use std::{sync::Arc, time::Duration};
///
/// let scope = Arc::new(Scope::system("search"));
/// let limit = RateLimit::new(&scope, Spec::token_bucket(2, Duration::from_secs(60)).check()?)?;
/// assert!(limit.take(scope.now(), 1).is_ok() && limit.take(scope.now(), 1).is_ok());
/// let refused = limit.take(scope.now(), 1).unwrap_err();
/// assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_secs(30)));
/// # Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone)]
pub struct RateLimit {
    shared: Arc<Shared<TokenBucket>>,
}

#[derive(Debug)]
struct Shared<L> {
    scope: Arc<Scope>,
    limit: L,
}

impl RateLimit {
    /// A full bucket for the policy of `scope`.
    ///
    /// # Errors
    /// [`Invalid`] for the settings of a queue: use a [`Pacer`](super::Pacer).
    pub fn new(scope: &Arc<Scope>, settings: Checked) -> Result<Self, Invalid> {
        refuses(&settings)?;
        Ok(Self::of(scope, settings))
    }

    /// Of settings that are known not to be a queue's.
    pub(crate) fn of(scope: &Arc<Scope>, settings: Checked) -> Self {
        let limit = TokenBucket::new(&settings);
        RateLimit { shared: Arc::new(Shared { scope: Arc::clone(scope), limit }) }
    }

    pub(crate) fn change(&self, settings: Checked) {
        self.shared.limit.reconfigure(&settings, self.shared.scope.now());
    }

    /// Takes `cost` permits at `now`, a reading of the policy's clock.
    ///
    /// # Errors
    /// The refusal, with the exact time after which the same is admitted if nobody else takes a permit.
    pub fn take(&self, now: Monotonic, cost: u32) -> Result<(), Refusal> {
        let Shared { scope, limit } = &*self.shared;
        answer(scope, now, cost, 0, limit.take_explained(now, cost))
    }

    /// Whole permits that are there at `now`.
    pub fn left(&self, now: Monotonic) -> u32 {
        self.shared.limit.left(now)
    }

    /// Changes the settings and keeps the permits that are there: see [`TokenBucket::reconfigure`].
    ///
    /// # Errors
    /// [`Invalid`] for the settings of a queue; nothing is changed then.
    pub fn reconfigure(&self, settings: Checked) -> Result<(), Invalid> {
        refuses(&settings)?;
        self.change(settings);
        Ok(())
    }

    /// A layer that limits any service of [`Call`]s, each at a cost of 1.
    pub fn layer(&self) -> RateLimitLayer<Self> {
        RateLimitLayer { admit: self.clone() }
    }
}

impl<R> Admit<R> for RateLimit {
    fn admit(&mut self, call: &Call<R>) -> Result<(), Refusal> {
        self.take(call.facts.now, 1)
    }
}

/// Off, it admits everything.
impl<R> Admit<R> for Switch<RateLimit> {
    #[inline]
    fn admit(&mut self, call: &Call<R>) -> Result<(), Refusal> {
        match self.refresh() {
            None => Ok(()),
            Some(limit) => limit.take(call.facts.now, 1),
        }
    }
}

/// A limit for each key: live, shared by its clones.
pub struct KeyedRateLimit<K> {
    shared: Arc<Shared<Keyed<K, RandomState>>>,
}

impl<K: Hash + Eq + Clone> KeyedRateLimit<K> {
    /// No key is known yet; each begins with a full bucket.
    ///
    /// # Errors
    /// [`Invalid`] for the settings of a queue: it has no keys.
    pub fn new(scope: &Arc<Scope>, settings: Checked) -> Result<Self, Invalid> {
        refuses(&settings)?;
        Ok(Self::of(scope, settings))
    }

    /// Of settings that are known not to be a queue's.
    pub(crate) fn of(scope: &Arc<Scope>, settings: Checked) -> Self {
        // Keys come from strangers, so the hash has a secret. It decides where a key is kept, never how much it gets.
        let limit = Keyed::new(&settings, RandomState::new());
        KeyedRateLimit { shared: Arc::new(Shared { scope: Arc::clone(scope), limit }) }
    }

    pub(crate) fn change(&self, settings: Checked) {
        self.shared.limit.reconfigure(&settings, self.shared.scope.now());
    }

    /// Takes `cost` permits of `key` at `now`, a reading of the policy's clock. The key may be borrowed: it is cloned
    /// when it is seen for the first time.
    ///
    /// # Errors
    /// The refusal, with the exact time after which the same is admitted if the key takes no other permit.
    pub fn take<Q>(&self, now: Monotonic, key: &Q, cost: u32) -> Result<(), Refusal>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let Shared { scope, limit } = &*self.shared;
        let taken = limit.take_explained(now, key, cost);
        let who = if taken.result.is_err() || scope.recorder().keeps_all() {
            scope.recorder().redacted(&key)
        } else {
            0
        };
        answer(scope, now, cost, who, taken)
    }

    /// Whole permits that are there for `key` at `now`.
    pub fn left<Q>(&self, now: Monotonic, key: &Q) -> u32
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.limit.left(now, key)
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.shared.limit.keys()
    }

    /// Changes the settings; each key keeps the permits it has: see [`Keyed::reconfigure`].
    ///
    /// # Errors
    /// [`Invalid`] for the settings of a queue; nothing is changed then.
    pub fn reconfigure(&self, settings: Checked) -> Result<(), Invalid> {
        refuses(&settings)?;
        self.change(settings);
        Ok(())
    }

    /// A layer that limits any service of [`Call`]s by what `key` says of the request, each at a cost of 1. Let it
    /// be cheap: an `Arc<str>`, a number.
    pub fn layer<F>(&self, key: F) -> RateLimitLayer<By<K, F>> {
        RateLimitLayer { admit: By { limit: self.clone(), key: Arc::new(key) } }
    }
}

impl<K> Clone for KeyedRateLimit<K> {
    fn clone(&self) -> Self {
        KeyedRateLimit { shared: Arc::clone(&self.shared) }
    }
}

impl<K> Debug for KeyedRateLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys may be personal data: a log has no business with them.
        f.debug_struct("KeyedRateLimit").field("scope", &self.shared.scope).finish_non_exhaustive()
    }
}

/// A keyed limit and how a request tells its key; made by [`KeyedRateLimit::layer`].
pub struct By<K, F> {
    limit: KeyedRateLimit<K>,
    key: Arc<F>,
}

impl<K, F> Clone for By<K, F> {
    fn clone(&self) -> Self {
        By { limit: self.limit.clone(), key: Arc::clone(&self.key) }
    }
}

impl<K, F> Debug for By<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("By").field(&self.limit).finish()
    }
}

impl<R, K: Hash + Eq + Clone, F: Fn(&R) -> K> Admit<R> for By<K, F> {
    fn admit(&mut self, call: &Call<R>) -> Result<(), Refusal> {
        self.limit.take::<K>(call.facts.now, &(self.key)(&call.request), 1)
    }
}

/// A limit for each identity that `describe` tells; off, it admits everything. Whoever has none shares one bucket with all
/// others who have none.
#[derive(Debug, Clone)]
pub struct ByIdentity<D> {
    limit: Switch<KeyedRateLimit<String>>,
    describe: D,
}

impl<D> ByIdentity<D> {
    /// By what `describe` tells.
    pub const fn new(limit: Switch<KeyedRateLimit<String>>, describe: D) -> Self {
        ByIdentity { limit, describe }
    }
}

impl<R, D: Describe<R>> Admit<R> for ByIdentity<D> {
    #[inline]
    fn admit(&mut self, call: &Call<R>) -> Result<(), Refusal> {
        let Some(limit) = self.limit.refresh() else { return Ok(()) };
        // An identity is never empty, so this is nobody's.
        let who = self.describe.identity(&call.request).unwrap_or("");
        limit.take(call.facts.now, who, 1)
    }
}

/// A setting that these limits can't enforce is refused, not ignored.
pub(crate) fn refuses(settings: &Checked) -> Result<(), Invalid> {
    if settings.spec().kind == Kind::LeakyQueue {
        let given = "a leaky queue".to_owned();
        let problem = "this limit refuses and never queues";
        return Err(Invalid::new(
            "rate_limit",
            "kind",
            given,
            problem,
            "use a pacer, or give a token bucket",
        ));
    }
    Ok(())
}

/// Question 0: may it take so many? `who` stands for the key.
fn answer(scope: &Scope, now: Monotonic, cost: u32, who: u64, taken: Taken) -> Result<(), Refusal> {
    let denied = match taken.result {
        Ok(()) => {
            if scope.recorder().keeps_all() {
                scope.recorder().plain(Rule::RateLimit, 0, now, taken.inputs(cost, who), taken.verdict());
            }
            return Ok(());
        }
        Err(denied) => denied,
    };
    let refuse = |why| scope.refuse(Rule::RateLimit, 0, now, taken.inputs(cost, who), taken.verdict(), why);
    Err(match denied {
        Denied::NotYet { retry_after } => refuse(Why::RateExceeded).after(retry_after),
        Denied::TooLarge { cost, burst } => refuse(Why::CostTooLarge { cost, burst }),
    })
}

/// Limits a service; made by [`RateLimit::layer`] and [`KeyedRateLimit::layer`].
#[derive(Debug, Clone)]
pub struct RateLimitLayer<A> {
    admit: A,
}

impl<A> RateLimitLayer<A> {
    /// A layer that lets through what `admit` admits.
    pub const fn new(admit: A) -> Self {
        RateLimitLayer { admit }
    }
}

impl<A: Clone, S> Layer<S> for RateLimitLayer<A> {
    type Service = RateLimited<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimited { admit: self.admit.clone(), inner }
    }
}

/// A service that is called only within the limit; made by [`RateLimitLayer`].
#[derive(Debug, Clone)]
pub struct RateLimited<A, S> {
    admit: A,
    inner: S,
}

impl<A, S, R, E> Service<Call<R>> for RateLimited<A, S>
where
    A: Admit<R>,
    S: Service<Call<R>, Error = Failed<E>>,
{
    type Response = S::Response;
    type Error = Failed<E>;
    type Future = RateLimitedFuture<S::Future, E>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        // Each future is made where it is returned: one that is made first and put in later is copied.
        match self.admit.admit(&call) {
            Ok(()) => {
                RateLimitedFuture { step: Step::Called { future: self.inner.call(call) }, error: PhantomData }
            }
            Err(refusal) => {
                RateLimitedFuture { step: Step::Refused { refusal: Some(refusal) }, error: PhantomData }
            }
        }
    }
}

pin_project! {
    /// The answer, or the refusal.
    pub struct RateLimitedFuture<F, E> {
        #[pin]
        step: Step<F>,
        error: PhantomData<fn() -> E>,
    }
}

pin_project! {
    #[project = Steps]
    enum Step<F> {
        Called { #[pin] future: F },
        Refused { refusal: Option<Refusal> },
    }
}

impl<F, T, E> Future for RateLimitedFuture<F, E>
where
    F: Future<Output = Result<T, Failed<E>>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().step.project() {
            Steps::Called { future } => future.poll(cx),
            Steps::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Err(Failed::Refused(refusal))),
                None => Poll::Pending,
            },
        }
    }
}
