//! The tower glue: keeps a copy of the request, asks the state after a failure, waits, and tries again.

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use super::state::{Decision, Reason, State};
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
    seldom: Arc<Seldom>,
}

/// What only a call that failed looks at, whatever the settings: behind the one reference that every call takes anyway.
#[derive(Debug)]
struct Seldom {
    scope: Arc<Scope>,
    made: AtomicU64,
    budget_empty: AtomicU64,
}

/// What became of the retries of one policy, since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Tries made after a failed one; the first of a call is none. One that was waited for and not made, because the
    /// caller left or time was up, is not among them; one that a rule further in refused is.
    pub made: u64,
    /// Retries that nothing but their budget stood against: the call's own tokens, or the policy's bucket for one that has
    /// none, had no whole one left.
    pub budget_empty: u64,
}

impl Retries {
    /// Retries of calls of `scope`'s policy that draw on `bucket`.
    pub fn new(settings: Checked, bucket: Arc<RetryBucket>, scope: Arc<Scope>) -> Self {
        let seldom = Arc::new(Seldom { scope, made: AtomicU64::new(0), budget_empty: AtomicU64::new(0) });
        Retries(Live::new(Core { settings, bucket, seldom }))
    }

    /// Other settings from now on; calls under way keep theirs, the bucket what is in it, the counters what they counted.
    pub fn reconfigure(&self, settings: Checked) {
        let change = |old: &Core| {
            if old.settings == settings {
                return Err(());
            }
            let (bucket, seldom) = (Arc::clone(&old.bucket), Arc::clone(&old.seldom));
            Ok(Core { settings, bucket, seldom })
        };
        // Refused where there is nothing to change.
        let _ = self.0.replace(change);
    }

    /// The present settings.
    pub fn settings(&self) -> Checked {
        self.0.get().settings
    }

    /// What became of them so far. A call whose first try succeeds counts nothing and pays nothing for it.
    pub fn snapshot(&self) -> Snapshot {
        let Seldom { made, budget_empty, .. } = &*self.0.get().seldom;
        Snapshot { made: made.load(Ordering::Relaxed), budget_empty: budget_empty.load(Ordering::Relaxed) }
    }
}

/// What one call's retries spend.
#[derive(Debug)]
enum Supply {
    Tokens(RetryTokens),
    Bucket(Arc<Link<Core>>),
}

impl Supply {
    /// The call's own.
    fn tokens(&self) -> Option<&RetryTokens> {
        match self {
            Supply::Tokens(tokens) => Some(tokens),
            Supply::Bucket(_) => None,
        }
    }
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

impl<S: Clone, C: Clone, D: Clone> Layer<S> for RetryLayer<C, D> {
    type Service = RetryService<S, C, D>;

    fn layer(&self, inner: S) -> Self::Service {
        let RetryLayer { retries, classify, describe } = self.clone();
        let again = retries.map(|retries| {
            let seldom = Arc::clone(&retries.0.get().seldom);
            let spare = Mutex::new((inner.clone(), describe.clone()));
            (retries, Arc::new(Again { seldom, spare }))
        });
        RetryService { inner, again, classify, describe }
    }
}

/// What second tries are made with. Nearly no call makes one, so each call holds a reference and not a copy.
struct Again<S, D> {
    seldom: Arc<Seldom>,
    /// Locked for as long as it takes to clone it: what is behind it need not be shareable by itself.
    spare: Mutex<(S, D)>,
}

/// A service whose failures are tried again.
#[derive(Clone)]
pub struct RetryService<S, C, D> {
    inner: S,
    again: Option<(Retries, Arc<Again<S, D>>)>,
    classify: C,
    describe: D,
}

impl<S: Debug, C: Debug, D> Debug for RetryService<S, C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryService { inner, again, classify, .. } = self;
        let retries = again.as_ref().map(|(retries, _)| retries);
        let mut shown = f.debug_struct("RetryService");
        shown.field("inner", inner).field("retries", &retries).field("classify", classify);
        shown.finish_non_exhaustive()
    }
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

    #[inline(never)] // or its future is copied: see stack.rs
    fn call(&mut self, call: Call<R>) -> Self::Future {
        let Some((retries, again)) = &mut self.again else {
            return ResponseFuture {
                step: Step::Trying { future: self.inner.call(call) },
                next: None,
                kept: None,
            };
        };
        let link = retries.0.refresh();
        if link.value().settings.spec().max_attempts == 1 {
            return ResponseFuture {
                step: Step::Trying { future: self.inner.call(call) },
                next: None,
                kept: None,
            };
        }
        let Some(copy) = self.describe.repeat(&call.request) else {
            // It is counted as a call that begins all the same.
            if call.facts.tokens.is_none() {
                link.value().bucket.gain();
            }
            return ResponseFuture {
                step: Step::Trying { future: self.inner.call(call) },
                next: None,
                kept: None,
            };
        };
        let budget = match &call.facts.tokens {
            Some(tokens) => Supply::Tokens(tokens.clone()),
            None => Supply::Bucket(Arc::clone(link)),
        };
        let Facts { now, deadline, safety, priority, tokens: _, attempt } = call.facts;
        // Made where it stays, after the try's future: one that is made first is copied.
        ResponseFuture {
            step: Step::Trying { future: self.inner.call(call) },
            next: None,
            kept: Some(Kept {
                state: State::new(link.value().settings, now, deadline, budget),
                again: Arc::clone(again),
                facts: Facts { now, deadline, safety, priority, tokens: None, attempt },
                copy: Some(copy),
                classify: self.classify.clone(),
            }),
        }
    }
}

/// What a call keeps for its next try.
struct Kept<S, R, C, D> {
    state: State<Supply>,
    again: Arc<Again<S, D>>,
    /// Of the last try, without the tokens, which are in the state.
    facts: Facts,
    copy: Option<R>,
    classify: C,
}

impl<S: Clone, R, C, D: Describe<R> + Clone> Kept<S, R, C, D> {
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

    #[cold]
    fn decide(&mut self, outcome: Outcome, safety: Safety) -> Option<Duration> {
        let Seldom { scope, budget_empty, .. } = &*self.again.seldom;
        let (now, draw) = (scope.now(), scope.draw());
        let inputs = record::inputs(&self.state, outcome, safety, draw);
        let decision = self.state.after(now, outcome, safety, draw);
        let (inputs, verdict) = record::judged(inputs, decision);
        scope.recorder().notable(Rule::Retry, record::AFTER, now, inputs, verdict);
        match decision {
            Decision::RetryAfter(wait) => Some(wait),
            Decision::GiveUp(reason) => {
                if reason == Reason::BudgetEmpty {
                    budget_empty.fetch_add(1, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Who the next tries are made with.
    fn spare(&self) -> (S, D) {
        // Only cloned under it, so nothing is half done in there.
        let mut spare = self.again.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = spare.clone();
        // A clone's handles are on the present settings; so the spare lets go of those that were replaced.
        *spare = fresh.clone();
        fresh
    }

    /// The next try's call.
    fn call(&mut self, describe: &D) -> Option<Call<R>> {
        let copy = self.copy.take()?;
        self.copy = describe.repeat(&copy);
        let Seldom { scope, made, .. } = &*self.again.seldom;
        made.fetch_add(1, Ordering::Relaxed);
        self.facts.now = scope.now();
        self.facts.attempt = self.facts.attempt.saturating_add(1);
        let tokens = self.state.budget().tokens().cloned();
        Some(Call { request: copy, facts: Facts { tokens, ..self.facts.clone() } })
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
        // Where it is.
        #[pin]
        step: Step<F>,
        // Who is called next, once there is a second try.
        next: Option<(S, D)>,
        // What the next try needs; none if there is none whatever comes.
        kept: Option<Kept<S, R, C, D>>,
    }
}

impl<S, R, C, D, T, E> Future for ResponseFuture<S, R, S::Future, C, D>
where
    S: Service<Call<R>, Response = T, Error = Failed<E>> + Clone,
    C: Classify<T, E>,
    D: Describe<R> + Clone,
{
    type Output = Result<T, Failed<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (next, kept) = (this.next, this.kept);
        loop {
            let then = match this.step.as_mut().project() {
                StepProject::Trying { future } => {
                    let result = ready!(future.poll(cx));
                    match kept.as_mut().and_then(|kept| kept.after(&result)) {
                        // By variant: an answer is smaller than a refusal, and only what it is gets moved.
                        None => {
                            return Poll::Ready(match result {
                                Ok(answer) => Ok(answer),
                                Err(failed) => Err(failed),
                            });
                        }
                        Some(wait) if wait.is_zero() => Step::Readying,
                        Some(wait) => Step::Waiting { sleep: tokio::time::sleep(wait) },
                    }
                }
                StepProject::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    Step::Readying
                }
                StepProject::Readying => {
                    // It was there when the retry was decided, and so was a copy of the request.
                    let Some(kept) = kept else { return Poll::Pending };
                    let (service, describe) = next.get_or_insert_with(|| kept.spare());
                    ready!(service.poll_ready(cx))?;
                    let Some(call) = kept.call(describe) else { return Poll::Pending };
                    Step::Trying { future: service.call(call) }
                }
            };
            this.step.set(then);
        }
    }
}
