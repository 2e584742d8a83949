//! The tower glue: keeps a copy of the request, asks the state after a failure, waits, and tries again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mainstay_envelope::{RetryBucket, RetryTokens};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::budget::Budget;
use super::record;
use super::spec::Checked;
use super::state::{Decision, State};
use crate::call::{Call, Describe, Facts};
use crate::live::{Link, Live};
use crate::outcome::{Classify, Outcome, Safety};
use crate::refusal::{Failed, Rule, judge};
use crate::scope::Scope;

/// The retries of one policy, with the bucket that calls without tokens of their own draw on. A clone is another handle
/// on the same.
#[derive(Debug, Clone)]
pub struct Retries(Live<Core>);

#[derive(Debug)]
struct Core {
    settings: Checked,
    bucket: Arc<RetryBucket>,
    scope: Arc<Scope>,
}

impl Retries {
    /// Retries of calls of `scope`'s policy that draw on `bucket`.
    pub fn new(settings: Checked, bucket: Arc<RetryBucket>, scope: Arc<Scope>) -> Self {
        Retries(Live::new(Core { settings, bucket, scope }))
    }

    /// Other settings from now on; calls under way keep theirs, and the bucket what is in it.
    pub fn reconfigure(&self, settings: Checked) {
        let change = |old: &Core| {
            if old.settings == settings {
                return Err(());
            }
            let (bucket, scope) = (Arc::clone(&old.bucket), Arc::clone(&old.scope));
            Ok(Core { settings, bucket, scope })
        };
        // Refused where there is nothing to change.
        let _ = self.0.replace(change);
    }

    /// The present settings.
    pub fn settings(&self) -> Checked {
        self.0.get().settings
    }
}

/// What one call's retries spend.
#[derive(Debug)]
enum Supply {
    Tokens(RetryTokens),
    Bucket(Arc<Link<Core>>),
}

impl Budget for Supply {
    fn begin(&self) {
        match self {
            // The edge that lent them has counted the request already.
            Supply::Tokens(_) => {}
            Supply::Bucket(core) => core.value().bucket.gain(),
        }
    }

    fn spend(&self) -> bool {
        match self {
            Supply::Tokens(tokens) => tokens.spend(),
            Supply::Bucket(core) => core.value().bucket.spend(),
        }
    }
}

/// Tries again what failed in a way that may pass. With none, calls pass as they are.
#[derive(Debug, Clone)]
pub struct RetryLayer<C, D> {
    retries: Option<Retries>,
    classify: C,
    describe: D,
}

impl<C, D> RetryLayer<C, D> {
    /// A layer of `retries`; `classify` judges the ends of tries, `describe` copies requests.
    pub const fn new(retries: Option<Retries>, classify: C, describe: D) -> Self {
        RetryLayer { retries, classify, describe }
    }
}

impl<S, C: Clone, D: Clone> Layer<S> for RetryLayer<C, D> {
    type Service = RetryService<S, C, D>;

    fn layer(&self, inner: S) -> Self::Service {
        let RetryLayer { retries, classify, describe } = self.clone();
        RetryService { inner, retries, classify, describe }
    }
}

/// A service whose failures are tried again.
#[derive(Debug, Clone)]
pub struct RetryService<S, C, D> {
    inner: S,
    retries: Option<Retries>,
    classify: C,
    describe: D,
}

impl<R, T, E, S, C, D> Service<Call<R>> for RetryService<S, C, D>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>> + Clone,
    C: Classify<T, E> + Clone,
    D: Describe<R> + Clone,
{
    type Response = T;
    type Error = Failed<E>;
    type Future = ResponseFuture<S, R, S::Future, C, D>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let Some(retries) = &mut self.retries else {
            return ResponseFuture { inner: Inner::Once { future: self.inner.call(call) } };
        };
        let link = retries.0.refresh();
        let settings = link.value().settings;
        if settings.spec().max_attempts == 1 {
            return ResponseFuture { inner: Inner::Once { future: self.inner.call(call) } };
        }
        let budget = match &call.facts.tokens {
            Some(tokens) => Supply::Tokens(tokens.clone()),
            None => Supply::Bucket(Arc::clone(link)),
        };
        let state = State::new(settings, call.facts.now, call.facts.deadline, budget);
        let Some(copy) = self.describe.repeat(&call.request) else {
            return ResponseFuture { inner: Inner::Once { future: self.inner.call(call) } };
        };
        // The one that was made ready goes with the call; this handle goes on with another.
        let inner = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, inner);
        let kept = Kept {
            state,
            scope: Arc::clone(&link.value().scope),
            facts: call.facts.clone(),
            copy: Some(copy),
            classify: self.classify.clone(),
            describe: self.describe.clone(),
        };
        let step = Step::Trying { future: service.call(call) };
        ResponseFuture { inner: Inner::Again { step, service, kept } }
    }
}

/// What a call keeps for its next try.
struct Kept<R, C, D> {
    state: State<Supply>,
    scope: Arc<Scope>,
    facts: Facts,
    copy: Option<R>,
    classify: C,
    describe: D,
}

impl<R, C, D: Describe<R>> Kept<R, C, D> {
    /// How long to wait before the next try, or none if there is none.
    fn after<T, E>(&mut self, result: &Result<T, Failed<E>>) -> Option<Duration>
    where
        C: Classify<T, E>,
    {
        // A refusal of ours is final: the same endpoint would be refused again.
        let outcome = judge(&self.classify, result).filter(|outcome| outcome.is_transient())?;
        self.copy.as_ref()?;
        let safety = match result {
            Err(Failed::Upstream(error)) if self.classify.had_no_effect(error) => Safety::Safe,
            _ => self.facts.safety,
        };
        self.decide(outcome, safety)
    }

    fn decide(&mut self, outcome: Outcome, safety: Safety) -> Option<Duration> {
        let (now, draw) = (self.scope.now(), self.scope.draw());
        let inputs = record::inputs(&self.state, outcome, safety, draw);
        let decision = self.state.after(now, outcome, safety, draw);
        let (inputs, verdict) = record::judged(inputs, decision);
        self.scope.recorder().notable(Rule::Retry, record::AFTER, now, inputs, verdict);
        match decision {
            Decision::RetryAfter(wait) => Some(wait),
            Decision::GiveUp(_) => None,
        }
    }

    /// The next try's call.
    fn next(&mut self) -> Option<Call<R>> {
        let copy = self.copy.take()?;
        self.copy = self.describe.repeat(&copy);
        self.facts.now = self.scope.now();
        self.facts.attempt = self.facts.attempt.saturating_add(1);
        Some(Call { request: copy, facts: self.facts.clone() })
    }
}

pin_project! {
    /// What a call that may be retried is at.
    #[project = StepProject]
    enum Step<F> {
        /// A try is under way.
        Trying {
            // The try.
            #[pin]
            future: F,
        },
        /// The wait before the next one.
        Waiting {
            // Its end.
            #[pin]
            sleep: Sleep,
        },
        /// The service is asked whether it is ready.
        Readying,
    }
}

pin_project! {
    /// The answer of the last try.
    pub struct ResponseFuture<S, R, F, C, D> {
        #[pin]
        inner: Inner<S, R, F, C, D>,
    }
}

pin_project! {
    #[project = Project]
    enum Inner<S, R, F, C, D> {
        // There is one try.
        Once {
            // It.
            #[pin]
            future: F,
        },
        // There may be more.
        Again {
            // Where it is.
            #[pin]
            step: Step<F>,
            // Who is called.
            service: S,
            // What the next try needs.
            kept: Kept<R, C, D>,
        },
    }
}

impl<S, R, C, D, T, E> Future for ResponseFuture<S, R, S::Future, C, D>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
    C: Classify<T, E>,
    D: Describe<R>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S, R, C, D, T, E> Future for Inner<S, R, S::Future, C, D>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>>,
    C: Classify<T, E>,
    D: Describe<R>,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut step, service, kept) = match self.project() {
            Project::Once { future } => return future.poll(cx),
            Project::Again { step, service, kept } => (step, service, kept),
        };
        loop {
            let next = match step.as_mut().project() {
                StepProject::Trying { future } => {
                    let result = ready!(future.poll(cx));
                    match kept.after(&result) {
                        None => return Poll::Ready(result),
                        Some(wait) if wait.is_zero() => Step::Readying,
                        Some(wait) => Step::Waiting { sleep: tokio::time::sleep(wait) },
                    }
                }
                StepProject::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    Step::Readying
                }
                StepProject::Readying => {
                    ready!(service.poll_ready(cx))?;
                    // A copy was there when the retry was decided.
                    let Some(call) = kept.next() else { return Poll::Pending };
                    Step::Trying { future: service.call(call) }
                }
            };
            step.set(next);
        }
    }
}
