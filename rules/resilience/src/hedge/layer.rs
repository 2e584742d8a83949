//! The tower glue: two tries in one future; the one that is not taken is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mainstay_envelope::{Monotonic, RetryBucket};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::spec::Checked;
use super::state::{self, Latencies};
use crate::call::{Call, Describe};
use crate::live::{Link, Live};
use crate::outcome::Classify;
use crate::refusal::{Failed, Rule, judge};
use crate::scope::Scope;

/// The hedges of one policy, with what was measured. A clone is another handle on the same.
#[derive(Debug, Clone)]
pub struct Hedges(Live<Core>);

#[derive(Debug)]
struct Core {
    /// None while nothing is hedged.
    settings: Option<Checked>,
    latencies: Arc<Latencies>,
    bucket: Arc<RetryBucket>,
    scope: Arc<Scope>,
}

impl Hedges {
    /// Hedges of calls of `scope`'s policy; without settings, none. Calls without tokens of their own draw on `bucket`.
    pub fn new(settings: Option<Checked>, bucket: Arc<RetryBucket>, scope: Arc<Scope>) -> Self {
        Hedges(Live::new(Core { settings, latencies: Arc::default(), bucket, scope }))
    }

    /// Other settings from now on, over the same measurements.
    pub fn reconfigure(&self, settings: Option<Checked>) {
        let change = |old: &Core| {
            if old.settings == settings {
                return Err(());
            }
            if let Some(settings) = &settings {
                old.latencies.look(settings);
            }
            let (latencies, bucket, scope) =
                (Arc::clone(&old.latencies), Arc::clone(&old.bucket), Arc::clone(&old.scope));
            Ok(Core { settings, latencies, bucket, scope })
        };
        // Refused where there is nothing to change.
        let _ = self.0.replace(change);
    }

    /// When a second try would be due, from the first. None while nothing is hedged.
    pub fn delay(&self) -> Option<Duration> {
        let core = self.0.get();
        core.settings.map(|settings| core.latencies.delay(&settings))
    }

    /// The present settings.
    pub fn settings(&self) -> Option<Checked> {
        self.0.get().settings
    }
}

/// Asks a second time what takes too long. With none, calls pass as they are.
#[derive(Debug, Clone)]
pub struct HedgeLayer<C, D> {
    hedges: Option<Hedges>,
    classify: C,
    describe: D,
}

impl<C, D> HedgeLayer<C, D> {
    /// A layer of `hedges`; `classify` judges which end to take, `describe` copies requests.
    pub const fn new(hedges: Option<Hedges>, classify: C, describe: D) -> Self {
        HedgeLayer { hedges, classify, describe }
    }
}

impl<S, C: Clone, D: Clone> Layer<S> for HedgeLayer<C, D> {
    type Service = HedgeService<S, C, D>;

    fn layer(&self, inner: S) -> Self::Service {
        let HedgeLayer { hedges, classify, describe } = self.clone();
        HedgeService { inner, hedges, classify, describe }
    }
}

/// A service whose slow answers are asked for twice.
#[derive(Debug, Clone)]
pub struct HedgeService<S, C, D> {
    inner: S,
    hedges: Option<Hedges>,
    classify: C,
    describe: D,
}

impl<R, T, E, S, C, D> Service<Call<R>> for HedgeService<S, C, D>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>> + Clone,
    C: Classify<T, E> + Clone,
    D: Describe<R>,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<S, R, S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        let Some(hedges) = &mut self.hedges else {
            return ResponseFuture { inner: Inner::Once { future: self.inner.call(call) } };
        };
        let link = hedges.0.refresh();
        let Some(settings) = link.value().settings else {
            return ResponseFuture { inner: Inner::Once { future: self.inner.call(call) } };
        };
        let link = Arc::clone(link);
        if call.facts.tokens.is_none() {
            link.value().bucket.gain();
        }
        let may_repeat = call.facts.safety.allows_repeating();
        let copy = may_repeat.then(|| self.describe.repeat(&call.request)).flatten();
        let spare = copy.map(|request| Call { request, facts: call.facts.clone() });
        let began = call.facts.now;
        let first = self.inner.call(call);
        // A call that can't be hedged is measured all the same.
        let service = spare.is_some().then(|| self.inner.clone());
        let classify = self.classify.clone();
        let kept = Kept { link, settings, service, spare, classify, began, hedged: None };
        ResponseFuture { inner: Inner::Hedged { first: Some(first), second: None, sleep: None, kept } }
    }
}

/// What a call keeps for its second try.
struct Kept<S, R, C> {
    link: Arc<Link<Core>>,
    settings: Checked,
    /// Who gets the second try. None if there may be none.
    service: Option<S>,
    /// None once it was sent, or if there may be no second try.
    spare: Option<Call<R>>,
    classify: C,
    began: Monotonic,
    /// When the second try began.
    hedged: Option<Monotonic>,
}

impl<S, R, C> Kept<S, R, C> {
    fn core(&self) -> &Core {
        self.link.value()
    }

    fn took(&self, since: Monotonic) {
        let Core { latencies, scope, .. } = self.core();
        latencies.record(&self.settings, scope.now().saturating_since(since));
    }

    /// Whether the second try may be made now; if not, it never is.
    fn may_hedge(&mut self) -> bool {
        let Some(spare) = &self.spare else { return false };
        let Core { bucket, scope, .. } = self.link.value();
        let (now, facts) = (scope.now(), &spare.facts);
        let mut had_a_token = true;
        let may = state::may_hedge(now, facts.safety, facts.deadline, || {
            had_a_token = facts.tokens.as_ref().map_or_else(|| bucket.spend(), |tokens| tokens.spend());
            had_a_token
        });
        let inputs = state::inputs(facts.safety, facts.deadline, had_a_token);
        scope.recorder().notable(Rule::Hedge, state::HEDGE, now, inputs, u64::from(may));
        if !may {
            self.spare = None;
        }
        may
    }
}

pin_project! {
    /// The answer that came first. Dropping it drops both tries.
    pub struct ResponseFuture<S, R, F, C> {
        #[pin]
        inner: Inner<S, R, F, C>,
    }
}

pin_project! {
    #[project = Project]
    enum Inner<S, R, F, C> {
        // There is one try.
        Once {
            // It.
            #[pin]
            future: F,
        },
        // There may be two. Each is none when it has ended or was not begun.
        Hedged {
            // The first.
            #[pin]
            first: Option<F>,
            // The second.
            #[pin]
            second: Option<F>,
            // When the second is due; armed when the first is waited for.
            #[pin]
            sleep: Option<Sleep>,
            // What the second needs.
            kept: Kept<S, R, C>,
        },
    }
}

impl<S, R, C, T, E> Future for ResponseFuture<S, R, S::Future, C>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S, R, C, T, E> Future for Inner<S, R, S::Future, C>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut first, mut second, mut sleep, kept) = match self.project() {
            Project::Once { future } => return future.poll(cx),
            Project::Hedged { first, second, sleep, kept } => (first, second, sleep, kept),
        };
        if let Some(future) = first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = future.poll(cx)
        {
            first.set(None);
            kept.took(kept.began);
            // The other one may still do better than a failure that may pass.
            if second.is_none() || !is_transient(&kept.classify, &result) {
                return Poll::Ready(result);
            }
        }
        if let Some(future) = second.as_mut().as_pin_mut()
            && let Poll::Ready(result) = future.poll(cx)
        {
            second.set(None);
            kept.took(kept.hedged.unwrap_or(kept.began));
            if first.is_none() || !is_transient(&kept.classify, &result) {
                if first.is_some() {
                    // It is dropped unfinished: it would have taken at least this long.
                    kept.took(kept.began);
                }
                return Poll::Ready(result);
            }
        }
        if kept.spare.is_none() || kept.service.is_none() {
            return Poll::Pending;
        }
        if sleep.is_none() {
            let core = kept.core();
            let due = kept.began + core.latencies.delay(&kept.settings);
            sleep.set(Some(tokio::time::sleep(due.saturating_since(core.scope.now()))));
        }
        if let Some(timer) = sleep.as_mut().as_pin_mut() {
            // A timer that has fired must not be asked again: it is moved to "never" by taking the spare.
            if !timer.is_elapsed() {
                ready!(timer.poll(cx));
            }
        }
        // Due. First the service, then the token: one that is spent is used.
        let Some(service) = &mut kept.service else { return Poll::Pending };
        let is_ready = ready!(service.poll_ready(cx)).is_ok();
        if !is_ready || !kept.may_hedge() {
            // The first try goes on alone.
            kept.spare = None;
        }
        let (Some(mut spare), Some(mut service)) = (kept.spare.take(), kept.service.take()) else {
            return Poll::Pending;
        };
        let now = kept.core().scope.now();
        kept.hedged = Some(now);
        spare.facts.now = now;
        spare.facts.attempt = spare.facts.attempt.saturating_add(1);
        second.set(Some(service.call(spare)));
        match second.as_mut().as_pin_mut().map(|future| future.poll(cx)) {
            Some(Poll::Ready(result)) => {
                second.set(None);
                kept.took(now);
                if is_transient(&kept.classify, &result) {
                    return Poll::Pending;
                }
                kept.took(kept.began);
                Poll::Ready(result)
            }
            _ => Poll::Pending,
        }
    }
}

fn is_transient<T, E, C: Classify<T, E>>(classify: &C, result: &Result<T, Failed<E>>) -> bool {
    // A refusal of the second try by a rule of ours is no answer either.
    judge(classify, result).is_none_or(|outcome| outcome.is_transient())
}
