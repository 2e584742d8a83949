//! The two orders in which rules are worn. They are decided here and nowhere else.
//!
//! ```text
//! outbound, outside in                                          said by the policy          a layer of one's own
//!
//!   request ─► fallback ............ something instead                                      .fallback(layer)
//!              cache ............... an answer kept                                         .cache(layer)
//!              timeout (total) ..... all tries together          timeout.total
//!              rate_limit .......... not so often                rate_limit
//!              pacing .............. constant departures         pacing                     .pacing(layer)
//!              retry | hedge ....... more than one try           retry, hedge
//!              balance ............. which endpoint                                         .balance(layer)
//!              circuit_breaker ..... is it well?                 breaker
//!              bulkhead ............ is there room?              bulkhead
//!              adaptive limit ...... how much does it bear?      adaptive                   .adaptive(layer)
//!              timeout (attempt) ... one try                     timeout.attempt
//!              ─► connection pool, the callee                                               the service that is wrapped
//!
//! inbound, outside in
//!
//!   request ─► deadline ............ nobody waits longer         deadline
//!              coarse shed ......... too much for anything       coarse_shed                .coarse_shed(layer)
//!              authenticate ........ who is it?                                             .authenticate(layer)
//!              access .............. may they?                                              .access(layer)
//!              rate_limit .......... not so often                rate_limit                 .rate_limit(layer)
//!              load_shed ........... the important first         load_shed                  .load_shed(layer)
//!              cache ............... key with audience, Vary                                .cache(layer)
//!              bulkhead (route) .... is there room?              bulkhead
//!              ─► handler
//! ```
//! What a policy says and a layer of one's own in the same place stand beside each other, the policy's outside.
//!
//! Why so. A *fallback* is outermost, because it replaces whatever the others could not prevent; a *cache* next, because
//! an answer that is kept needs no other rule. The *total* timeout covers pacing, waits between tries and queues. A *rate
//! limit* is outside of *pacing*, so that nobody waits to be refused, and both are outside of the retry: a call counts
//! once, and its tries are what the retry's budget bounds. A *retry* is outside the *balance*, so that the next try may go
//! elsewhere, and outside the *breaker*, so that the breaker sees every try and stops them all. The *bulkhead* and the
//! *adaptive limit* are inside the retry: a waiting call holds no permit, and each try is measured by itself. The try's
//! *timeout* is innermost: time in a queue is not the callee's. Inbound, what is cheap and needs to know nothing comes
//! first; rules that tell callers apart come after it is known who they are, and a cache after access, so that nothing
//! kept is handed to whom it is not for.
//!
//! What the layers cost. Their futures lie inside each other, and hold what a second try or a place in a queue would need:
//! a kilobyte or so. A `call` that is a function of its own writes its future where it stays, one that is inlined makes it
//! aside and copies it, so none of them is; and what a call holds meanwhile (a permit, a breaker's guard) waits in the
//! service.

use std::sync::Arc;

use tower_layer::{Identity, Layer};

use crate::bulkhead::{Bulkhead, BulkheadLayer, BulkheadService};
use crate::call::Undescribed;
use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitBreakerService};
use crate::edge::{Inside, InsideLayer, Outside};
use crate::hedge::{HedgeLayer, HedgeService, Hedges};
use crate::load_shed::{LoadShed, LoadShedLayer, Shedding};
use crate::outcome::EveryErrorIsTransient;
use crate::rate_limit::{
    ByIdentity, KeyedRateLimit, Paced, Pacer, PacingLayer, RateLimit, RateLimitLayer, RateLimited,
};
use crate::retry::{Retries, RetryLayer, RetryService};
use crate::scope::Scope;
use crate::switch::Switch;
use crate::timeout::{Kind, TimeoutLayer, TimeoutService, Timeouts};

/// The rules of an outbound policy: shared live state, one reference count each.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    pub(crate) scope: Arc<Scope>,
    pub(crate) timeouts: Timeouts,
    pub(crate) rate_limit: Switch<RateLimit>,
    pub(crate) pacing: Switch<Pacer>,
    pub(crate) retries: Retries,
    pub(crate) hedges: Hedges,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) adaptive: Switch<LoadShed>,
}

/// Wears an outbound policy around a service. Made by [`Policy::layer`](crate::Policy::layer); each method puts a layer
/// into its place in the order, whatever the order of the methods. Layers that are put in are services of
/// [`Call<R>`](crate::Call), too.
#[derive(Debug, Clone)]
pub struct OutboundLayer<
    C,
    D = Undescribed,
    Fallback = Identity,
    Cache = Identity,
    Pacing = Identity,
    Balance = Identity,
    Adaptive = Identity,
> {
    rules: Outbound,
    classify: C,
    describe: D,
    fallback: Fallback,
    cache: Cache,
    pacing: Pacing,
    balance: Balance,
    adaptive: Adaptive,
}

impl<C> OutboundLayer<C> {
    pub(crate) const fn new(rules: Outbound, classify: C) -> Self {
        OutboundLayer {
            rules,
            classify,
            describe: Undescribed,
            fallback: Identity::new(),
            cache: Identity::new(),
            pacing: Identity::new(),
            balance: Identity::new(),
            adaptive: Identity::new(),
        }
    }
}

/// Makes the methods that put a layer into its place.
macro_rules! places {
    ($layer:ident $told:tt $kept:tt $types:tt $($(#[$doc:meta])* $place:ident => $new:tt;)*) => {
        $(place! { $layer $told $kept $types $(#[$doc])* $place => $new })*
    };
}

/// One of them: everything but what was in the place stays.
macro_rules! place {
    ($layer:ident [ $($told:ident),* ] { $($kept:ident),* } [ $($type:ident),* ]
        $(#[$doc:meta])* $place:ident => [ $($new:ty),* ]) => {
        impl<$($told,)* $($type),*> $layer<$($told,)* $($type),*> {
            $(#[$doc])*
            pub fn $place<L>(self, layer: L) -> $layer<$($told,)* $($new),*> {
                let $layer { rules, classify, describe, $($kept),* } = self;
                // What was there before is let go of.
                let (_, $place) = ($place, layer);
                $layer { rules, classify, describe, $($kept),* }
            }
        }
    };
}

places! { OutboundLayer [C, D] { fallback, cache, pacing, balance, adaptive } [F, K, P, B, A]
    /// Outermost: something instead of a failure.
    fallback => [L, K, P, B, A];
    /// Answers that are kept.
    cache => [F, L, P, B, A];
    /// Constant departures.
    pacing => [F, K, L, B, A];
    /// Which endpoint, for each try.
    balance => [F, K, P, L, A];
    /// A limit that is measured, for each try.
    adaptive => [F, K, P, B, L];
}

impl<C, D, F, K, P, B, A> OutboundLayer<C, D, F, K, P, B, A> {
    /// Tells the rules about requests: deadline, safety, priority, tokens. Without it nothing is known, so nothing is
    /// retried or hedged.
    pub fn describe<New>(self, describe: New) -> OutboundLayer<C, New, F, K, P, B, A> {
        let OutboundLayer { rules, classify, describe: _, fallback, cache, pacing, balance, adaptive } = self;
        OutboundLayer { rules, classify, describe, fallback, cache, pacing, balance, adaptive }
    }
}

/// A try: from the breaker inwards, with what a layer in the place of the adaptive limit makes of the innermost part.
type Try<S, C> = CircuitBreakerService<BulkheadService<Shedding<C, S>>, C>;
/// All tries: around what a balance makes of one.
type Tries<S, C, D> = HedgeService<RetryService<S, C, D>, C, D>;
/// Calls at their pace: around what a layer in the place of pacing makes of all tries.
type Regulated<S> = TimeoutService<RateLimited<Switch<RateLimit>, Paced<S>>>;

impl<S, C, D, F, K, P, B, A> Layer<S> for OutboundLayer<C, D, F, K, P, B, A>
where
    C: Clone,
    D: Clone,
    A: Layer<TimeoutService<Inside<S, D>>>,
    B: Layer<Try<A::Service, C>, Service: Clone>,
    P: Layer<Tries<B::Service, C, D>>,
    K: Layer<Regulated<P::Service>>,
    F: Layer<K::Service>,
{
    type Service = Outside<F::Service, D>;

    fn layer(&self, service: S) -> Self::Service {
        let Outbound { scope, timeouts, rate_limit, pacing, retries, hedges, breaker, bulkhead, adaptive } =
            self.rules.clone();
        let (classify, describe) = (|| self.classify.clone(), || self.describe.clone());
        // From the inside out; the drawing above is read from below.
        let inside = InsideLayer::new(describe()).layer(service);
        let attempt = TimeoutLayer::new(timeouts.clone(), Kind::Attempt).layer(inside);
        let adaptive = LoadShedLayer::new(adaptive, classify()).layer(self.adaptive.layer(attempt));
        let bulkhead = BulkheadLayer::new(Some(bulkhead)).layer(adaptive);
        let breaker = CircuitBreakerLayer::new(Some(breaker), classify()).layer(bulkhead);
        let balance = self.balance.layer(breaker);
        // One of the two is off: a policy has either.
        let retry = RetryLayer::new(Some(retries), classify(), describe()).layer(balance);
        let hedge = HedgeLayer::new(Some(hedges), classify(), describe()).layer(retry);
        let pacing = PacingLayer::new(pacing).layer(self.pacing.layer(hedge));
        let rate_limit = RateLimitLayer::new(rate_limit).layer(pacing);
        let total = TimeoutLayer::new(timeouts, Kind::Total).layer(rate_limit);
        let cache = self.cache.layer(total);
        let fallback = self.fallback.layer(cache);
        Outside::new(fallback, scope, describe())
    }
}

/// The rules of an inbound policy.
#[derive(Debug, Clone)]
pub(crate) struct Inbound {
    pub(crate) scope: Arc<Scope>,
    pub(crate) timeouts: Timeouts,
    pub(crate) coarse_shed: Switch<LoadShed>,
    pub(crate) rate_limit: Switch<KeyedRateLimit<String>>,
    pub(crate) load_shed: Switch<LoadShed>,
    pub(crate) bulkhead: Bulkhead,
}

/// Wears an inbound policy around a handler. Made by [`InboundPolicy::layer`](crate::InboundPolicy::layer); each method
/// puts a layer into its place in the order, whatever the order of the methods.
#[derive(Debug, Clone)]
pub struct InboundLayer<
    D = Undescribed,
    C = EveryErrorIsTransient,
    CoarseShed = Identity,
    Authenticate = Identity,
    Access = Identity,
    RateLimit = Identity,
    LoadShed = Identity,
    Cache = Identity,
> {
    rules: Inbound,
    classify: C,
    describe: D,
    coarse_shed: CoarseShed,
    authenticate: Authenticate,
    access: Access,
    rate_limit: RateLimit,
    load_shed: LoadShed,
    cache: Cache,
}

impl<D> InboundLayer<D> {
    pub(crate) const fn new(rules: Inbound, describe: D) -> Self {
        InboundLayer {
            rules,
            classify: EveryErrorIsTransient,
            describe,
            coarse_shed: Identity::new(),
            authenticate: Identity::new(),
            access: Identity::new(),
            rate_limit: Identity::new(),
            load_shed: Identity::new(),
            cache: Identity::new(),
        }
    }
}

impl<D, C, H, N, X, R, P, K> InboundLayer<D, C, H, N, X, R, P, K> {
    /// Tells limits that are measured which answers are those of an overloaded handler. Without it, every error is.
    pub fn classify<New>(self, classify: New) -> InboundLayer<D, New, H, N, X, R, P, K> {
        let InboundLayer {
            rules,
            classify: _,
            describe,
            coarse_shed,
            authenticate,
            access,
            rate_limit,
            load_shed,
            cache,
        } = self;
        InboundLayer {
            rules,
            classify,
            describe,
            coarse_shed,
            authenticate,
            access,
            rate_limit,
            load_shed,
            cache,
        }
    }
}

places! { InboundLayer [D, C] { coarse_shed, authenticate, access, rate_limit, load_shed, cache } [H, N, X, R, P, K]
    /// Too much for anything: before anybody is known.
    coarse_shed => [L, N, X, R, P, K];
    /// Who it is.
    authenticate => [H, L, X, R, P, K];
    /// Whether they may.
    access => [H, N, L, R, P, K];
    /// Not so often, by identity.
    rate_limit => [H, N, X, L, P, K];
    /// The important first.
    load_shed => [H, N, X, R, L, K];
    /// Answers that are kept, by audience.
    cache => [H, N, X, R, P, L];
}

/// From the bulkhead inwards.
type Route<S, D> = BulkheadService<Inside<S, D>>;

impl<S, D, C, H, N, X, R, P, K> Layer<S> for InboundLayer<D, C, H, N, X, R, P, K>
where
    D: Clone,
    C: Clone,
    K: Layer<Route<S, D>>,
    P: Layer<K::Service>,
    R: Layer<Shedding<C, P::Service>>,
    X: Layer<RateLimited<ByIdentity<D>, R::Service>>,
    N: Layer<X::Service>,
    H: Layer<N::Service>,
{
    type Service = Outside<TimeoutService<Shedding<C, H::Service>>, D>;

    fn layer(&self, handler: S) -> Self::Service {
        let Inbound { scope, timeouts, coarse_shed, rate_limit, load_shed, bulkhead } = self.rules.clone();
        let (classify, describe) = (|| self.classify.clone(), || self.describe.clone());
        // From the inside out; the drawing above is read from below.
        let inside = InsideLayer::new(describe()).layer(handler);
        let bulkhead = BulkheadLayer::new(Some(bulkhead)).layer(inside);
        let cache = self.cache.layer(bulkhead);
        let load_shed = LoadShedLayer::new(load_shed, classify()).layer(self.load_shed.layer(cache));
        let by_identity = ByIdentity::new(rate_limit, describe());
        let rate_limit = RateLimitLayer::new(by_identity).layer(self.rate_limit.layer(load_shed));
        let access = self.access.layer(rate_limit);
        let authenticate = self.authenticate.layer(access);
        let coarse_shed =
            LoadShedLayer::new(coarse_shed, classify()).layer(self.coarse_shed.layer(authenticate));
        let deadline = TimeoutLayer::new(timeouts, Kind::Total).layer(coarse_shed);
        Outside::new(deadline, scope, describe())
    }
}
