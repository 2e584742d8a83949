//! The whole stack around a service, in virtual time: what a user of a policy sees.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod kit;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use kit::{Virtual, ms, secs};
use mainstay_envelope::{Deadline, Monotonic, RetryTokens, SeededChance};
use mainstay_resilience::bulkhead::Spec as Permits;
use mainstay_resilience::circuit_breaker::{Counts, Phase};
use mainstay_resilience::record::Recording;
use mainstay_resilience::retry::Snapshot as RetryCounts;
use mainstay_resilience::{
    Adaptive, Breaker, ByError, Call, Classified, Cloned, Facts, Failed, Hedge, NotDone, OutboundBuilder,
    Outcome, Policy, PolicySpec, Rate, Replayed, Retry, Rule, Safety, Why, fallback, replay,
};
use tower_layer::{Layer, layer_fn};
use tower_service::Service;

fn outbound() -> OutboundBuilder {
    Policy::outbound("callee")
        .clock(Arc::new(Virtual::new()))
        .chance(Arc::new(SeededChance::new(1)))
        .record(Recording::All, 4_096)
}

#[derive(Debug, Clone, PartialEq)]
struct Trouble(Outcome);

impl Classified for Trouble {
    fn outcome(&self) -> Outcome {
        self.0
    }
}

/// What the callee does with one call: how long it takes, and what it says. Past the end, the last one again.
type Script = Vec<(Duration, Result<&'static str, Outcome>)>;

type Seen = (u32, Option<Duration>);

/// A callee that follows a script and writes down what it sees.
#[derive(Clone)]
struct Callee {
    script: Arc<Script>,
    calls: Arc<AtomicU32>,
    /// Calls that were dropped before their end.
    dropped: Arc<AtomicU32>,
    /// Of each try: its number, and what was left of its time.
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Callee {
    fn new(script: impl Into<Script>) -> Self {
        Callee {
            script: Arc::new(script.into()),
            calls: Arc::default(),
            dropped: Arc::default(),
            seen: Arc::default(),
        }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Counts a call that is dropped before it is done.
struct CountDrop {
    dropped: Arc<AtomicU32>,
    is_done: bool,
}

impl CountDrop {
    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.dropped.fetch_add(u32::from(!self.is_done), Ordering::Relaxed);
    }
}

impl Service<Request> for Callee {
    type Response = &'static str;
    type Error = Trouble;
    type Future = Pin<Box<dyn Future<Output = Result<&'static str, Trouble>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let n = self.calls.fetch_add(1, Ordering::Relaxed) as usize;
        let (takes, says) = self.script.get(n).or(self.script.last()).copied().unwrap();
        self.seen.lock().unwrap().push((request.attempt, request.remaining));
        let end = CountDrop { dropped: Arc::clone(&self.dropped), is_done: false };
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            end.done();
            says.map_err(Trouble)
        })
    }
}

#[derive(Debug, Clone)]
struct Request {
    safety: Safety,
    deadline: Option<Duration>,
    tokens: Option<RetryTokens>,
    attempt: u32,
    remaining: Option<Duration>,
}

const SAFE: Request =
    Request { safety: Safety::Safe, deadline: None, tokens: None, attempt: 0, remaining: None };

fn facts(request: &Request, now: Monotonic) -> Facts {
    Facts {
        deadline: request.deadline.map(|in_time| Deadline::after(now, in_time)),
        tokens: request.tokens.clone(),
        ..Facts::unknown(now).with_safety(request.safety)
    }
}

/// Describes requests, and shows the callee what it is told of a try.
#[derive(Clone)]
struct Describe;

impl mainstay_resilience::Describe<Request> for Describe {
    fn facts(&self, request: &Request, now: Monotonic) -> Facts {
        facts(request, now)
    }

    fn repeat(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn send(&self, request: &mut Request, facts: &Facts) {
        request.attempt = facts.attempt;
        request.remaining = facts.deadline.map(|deadline| deadline.remaining(facts.now));
    }
}

async fn ask(policy: &Policy, callee: &Callee, request: Request) -> Result<&'static str, Failed<Trouble>> {
    let mut service = policy.layer(ByError).describe(Describe).layer(callee.clone());
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

fn why(result: Result<&'static str, Failed<Trouble>>) -> Why {
    result.unwrap_err().refusal().unwrap().why
}

fn counts(policy: &Policy) -> Counts {
    policy.breaker().snapshot(policy.scope().now()).counts
}

const OK: (Duration, Result<&str, Outcome>) = (Duration::ZERO, Ok("done"));
const FAILS: (Duration, Result<&str, Outcome>) = (Duration::ZERO, Err(Outcome::TRANSIENT));

fn hangs() -> (Duration, Result<&'static str, Outcome>) {
    (secs(100_000), Ok("too late"))
}

fn retries() -> Retry {
    Retry::exact(secs(1), secs(8))
}

// ---- retry, timeout and breaker together ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_after_1_2_4_8_seconds() {
    let policy = outbound().retry(retries()).build().unwrap();
    let callee = Callee::new([FAILS, FAILS, FAILS, FAILS, OK]);
    let began = tokio::time::Instant::now();
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
    assert_eq!((began.elapsed(), callee.calls()), (secs(15), 5));
    let tries: Vec<u32> = callee.seen.lock().unwrap().iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(tries, [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_safe_to_repeat_is_tried_once() {
    let policy = outbound().attempt(ms(300)).retry(retries()).build().unwrap();
    for (safety, script, calls) in [
        (Safety::Unsafe, vec![FAILS], 1),
        (Safety::Unsafe, vec![hangs()], 1),
        (Safety::Keyed, vec![FAILS], 5),
        (Safety::Safe, vec![(Duration::ZERO, Err(Outcome::Permanent))], 1),
        (Safety::Safe, vec![(Duration::ZERO, Err(Outcome::Cancelled))], 1),
    ] {
        let callee = Callee::new(script);
        assert!(ask(&policy, &callee, Request { safety, ..SAFE }).await.is_err());
        assert_eq!(callee.calls(), calls, "{safety:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_proves_to_have_had_no_effect_is_tried_again_even_if_unsafe() {
    #[derive(Clone)]
    struct NothingSent;
    impl mainstay_resilience::Classify<&'static str, Trouble> for NothingSent {
        fn classify(&self, result: Result<&&'static str, &Trouble>) -> Outcome {
            result.map_or(Outcome::TRANSIENT, |_| Outcome::Success)
        }
        fn had_no_effect(&self, _: &Trouble) -> bool {
            true
        }
    }
    let policy = outbound().retry(retries()).build().unwrap();
    let callee = Callee::new([FAILS, OK]);
    let mut service = policy.layer(NothingSent).describe(Describe).layer(callee.clone());
    let answer = service.call(Request { safety: Safety::Unsafe, ..SAFE }).await;
    assert_eq!((answer, callee.calls()), (Ok("done"), 2));
}

#[tokio::test(start_paused = true)]
async fn a_try_that_hangs_is_cut_counted_and_tried_again() {
    let policy = outbound()
        .total(secs(2))
        .attempt(ms(300))
        .retry(Retry::exact(ms(100), ms(100)))
        .breaker(Breaker::failure_rate(0.5).over(10))
        .build()
        .unwrap();
    let callee = Callee::new([hangs(), hangs(), OK]);
    let began = tokio::time::Instant::now();
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
    assert_eq!(began.elapsed(), ms(800));
    assert_eq!(counts(&policy), Counts { calls: 3, failures: 2, slow: 0 });
    assert_eq!(callee.dropped.load(Ordering::Relaxed), 2);
    // What each try was told: never more than a try may take.
    let told: Vec<_> = callee.seen.lock().unwrap().iter().map(|(_, remaining)| remaining.unwrap()).collect();
    assert_eq!(told, [ms(300); 3]);
}

#[tokio::test(start_paused = true)]
async fn all_tries_together_end_with_the_total_and_the_earlier_of_two_limits_is_passed_on() {
    let policy =
        outbound().total(secs(2)).attempt(ms(1_500)).retry(Retry::exact(ms(1), ms(1))).build().unwrap();
    let callee = Callee::new([hangs()]);
    let began = tokio::time::Instant::now();
    assert_eq!(why(ask(&policy, &callee, SAFE).await), Why::TotalTimedOut { limit: secs(2) });
    assert_eq!((began.elapsed(), callee.calls()), (secs(2), 2));
    let told: Vec<_> = callee.seen.lock().unwrap().iter().map(|(_, remaining)| remaining.unwrap()).collect();
    assert_eq!(told, [ms(1_500), ms(499)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_not_begun() {
    let policy = outbound().bulkhead(1, 1).build().unwrap();
    let callee = Callee::new([OK]);
    let refused =
        ask(&policy, &callee, Request { deadline: Some(Duration::ZERO), ..SAFE }).await.unwrap_err();
    let refusal = refused.refusal().unwrap();
    assert_eq!(
        (refusal.why, refusal.rule, refusal.not_done),
        (Why::DeadlineReached, Rule::Timeout, NotDone::Call)
    );
    assert_eq!(callee.calls(), 0);
    assert_eq!(policy.decision(refusal.decision).unwrap().rule, Rule::Timeout);
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_open_no_breaker() {
    let breaker = Breaker::failure_rate(0.5).over(10).minimum_calls(1);
    let policy = outbound().attempt(ms(300)).breaker(breaker).build().unwrap();
    let callee = Callee::new([(ms(200), Ok("done"))]);
    for patience in [ms(1), ms(50), ms(199)] {
        // by their deadline
        let asked = ask(&policy, &callee, Request { deadline: Some(patience), ..SAFE });
        assert_eq!(why(asked.await), Why::DeadlineRanOut);
        // and by leaving
        let left = tokio::time::timeout(patience, ask(&policy, &callee, SAFE)).await;
        assert!(left.is_err());
    }
    assert_eq!(counts(&policy), Counts::default());
    assert_eq!(policy.breaker().snapshot(policy.scope().now()).phase, Phase::Closed);
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_says_it_failed_when_the_callers_time_was_up_is_not_blamed() {
    let breaker = Breaker::failure_rate(0.5).over(10).minimum_calls(1);
    let policy = outbound().breaker(breaker).build().unwrap();
    // It answers in the very moment in which the deadline comes.
    let callee = Callee::new([(ms(50), Err(Outcome::TRANSIENT))]);
    let _ = ask(&policy, &callee, Request { deadline: Some(ms(50)), ..SAFE }).await;
    assert_eq!(counts(&policy), Counts::default());
    let _ = ask(&policy, &callee, Request { deadline: Some(ms(51)), ..SAFE }).await;
    assert_eq!(counts(&policy), Counts { calls: 1, failures: 1, slow: 0 });
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_at_once_and_its_refusals_are_neither_counted_nor_tried_again() {
    let breaker = Breaker::failure_rate(1.0).over(2).minimum_calls(2).open_for(secs(5));
    let policy = outbound().retry(retries().max_attempts(2)).breaker(breaker).build().unwrap();
    let callee = Callee::new([FAILS, FAILS, OK]);
    assert!(ask(&policy, &callee, SAFE).await.is_err());
    assert!(matches!(policy.breaker().snapshot(policy.scope().now()).phase, Phase::Open { .. }));
    let began = tokio::time::Instant::now();
    let before = policy.bucket().whole();
    for _ in 0..100 {
        assert_eq!(why(ask(&policy, &callee, SAFE).await), Why::BreakerOpen);
    }
    assert_eq!((began.elapsed(), callee.calls()), (Duration::ZERO, 2));
    assert!(policy.bucket().whole() >= before, "no token was spent on it");
    tokio::time::sleep(secs(5)).await;
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
    assert_eq!(policy.breaker().snapshot(policy.scope().now()).phase, Phase::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_says_nothing_about_the_callee() {
    let breaker = Breaker::failure_rate(0.1).over(10).minimum_calls(1).slow(ms(1), 0.1);
    let policy = outbound().retry(retries()).breaker(breaker).bulkhead(1, 0).build().unwrap();
    let callee = Callee::new([(ms(1), Ok("done"))]);
    let first = tokio::spawn({
        let (policy, callee) = (policy.clone(), callee.clone());
        async move { ask(&policy, &callee, SAFE).await }
    });
    tokio::task::yield_now().await;
    for _ in 0..20 {
        assert_eq!(why(ask(&policy, &callee, SAFE).await), Why::BulkheadFull { permits: 1 });
    }
    assert_eq!(first.await.unwrap(), Ok("done"));
    assert_eq!((counts(&policy), callee.calls()), (Counts { calls: 1, failures: 0, slow: 0 }, 1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_rule_further_in_refuses_gives_its_slot_back() {
    let breaker = Breaker::failure_rate(1.0).over(1).open_for(secs(5)).probe_limit(secs(3_600));
    let policy = outbound().breaker(breaker).bulkhead(1, 0).build().unwrap();
    let callee = Callee::new([FAILS, OK]);
    let _ = ask(&policy, &callee, SAFE).await;
    tokio::time::sleep(secs(5)).await;
    let permit = policy.bulkhead().acquire(None).await.unwrap();
    assert_eq!(why(ask(&policy, &callee, SAFE).await), Why::BulkheadFull { permits: 1 });
    drop(permit);
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
}

#[tokio::test(start_paused = true)]
async fn retries_of_all_calls_are_a_tenth_of_them_in_the_long_run() {
    let policy = outbound().retry(Retry::exact(ms(1), ms(1)).max_attempts(10)).build().unwrap();
    let callee = Callee::new([FAILS]);
    for _ in 0..10_000 {
        let _ = ask(&policy, &callee, SAFE).await;
    }
    // What the bucket held at first, and a tenth.
    assert!((11_000..=11_110).contains(&callee.calls()), "{}", callee.calls());
    // A call with tokens of its own spends those.
    let callee = Callee::new([FAILS]);
    let _ = ask(&policy, &callee, Request { tokens: Some(RetryTokens::new(2)), ..SAFE }).await;
    assert_eq!(callee.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn retries_made_and_refused_by_the_budget_are_counted() {
    let policy = outbound().total(secs(60)).retry(retries()).build().unwrap();
    let counted = || {
        let RetryCounts { made, budget_empty } = policy.retries().snapshot();
        (made, budget_empty)
    };
    // Calls that need none, and one that must not be repeated.
    let _ = ask(&policy, &Callee::new([OK]), SAFE).await;
    let _ = ask(&policy, &Callee::new([FAILS]), Request { safety: Safety::Unsafe, ..SAFE }).await;
    assert_eq!(counted(), (0, 0));
    assert_eq!(ask(&policy, &Callee::new([FAILS, FAILS, OK]), SAFE).await, Ok("done"));
    assert_eq!(counted(), (2, 0));
    // Its caller leaves while it waits for the third try: that one is never made.
    let left = tokio::time::timeout(ms(1_500), ask(&policy, &Callee::new([FAILS]), SAFE)).await;
    assert!(left.is_err());
    assert_eq!(counted(), (3, 0));
    // Three tries are all that `max_attempts` allows now: no budget has a say in that.
    let spec = PolicySpec { retry: Some(retries().max_attempts(3)), ..policy.spec() };
    policy.reconfigure(&spec).unwrap();
    assert!(ask(&policy, &Callee::new([FAILS]), SAFE).await.is_err());
    assert_eq!(counted(), (5, 0));
    // A call that comes with one token makes one, and is refused the next.
    let lent = Request { tokens: Some(RetryTokens::new(1)), ..SAFE };
    assert!(ask(&policy, &Callee::new([FAILS]), lent).await.is_err());
    assert_eq!(counted(), (6, 1));
    while policy.bucket().spend() {}
    assert!(ask(&policy, &Callee::new([FAILS]), SAFE).await.is_err());
    assert_eq!(counted(), (6, 2));
}

// ---- bulkhead ------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn one_callee_that_hangs_leaves_the_others_as_they_were() {
    let (sick, well) =
        (outbound().bulkhead(2, 2).build().unwrap(), outbound().bulkhead(2, 2).build().unwrap());
    let (hung, fine) = (Callee::new([hangs()]), Callee::new([(ms(10), Ok("done"))]));
    for _ in 0..10 {
        tokio::spawn({
            let (sick, hung) = (sick.clone(), hung.clone());
            async move { ask(&sick, &hung, SAFE).await }
        });
    }
    tokio::task::yield_now().await;
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(ask(&well, &fine, SAFE).await, Ok("done"));
    }
    assert_eq!((began.elapsed(), hung.calls()), (ms(100), 2));
}

/// Panics when it is called, the first time: before there is a future that could be dropped.
#[derive(Clone)]
struct Clumsy(Arc<AtomicU32>);

impl Service<Request> for Clumsy {
    type Response = &'static str;
    type Error = Trouble;
    type Future = std::future::Ready<Result<&'static str, Trouble>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "it trips");
        std::future::ready(Ok("done"))
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_when_it_is_called_keeps_no_permit_and_no_probe() {
    let breaker = Breaker::failure_rate(0.5).over(2).minimum_calls(2).open_for(secs(1)).probes(1);
    let policy = outbound().breaker(breaker).bulkhead(1, 0).build().unwrap();
    let failing = Callee::new([(Duration::ZERO, Err(Outcome::TRANSIENT))]);
    for _ in 0..2 {
        ask(&policy, &failing, SAFE).await.unwrap_err();
    }
    tokio::time::advance(secs(1)).await;
    // The probe is the one that trips.
    let clumsy = Clumsy(Arc::default());
    let mut service = policy.layer(ByError).describe(facts).layer(clumsy);
    let mut call = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| service.call(SAFE)));
    assert!(call().is_err());
    // Another handle sees at once that nothing is held.
    assert_eq!(policy.bulkhead().snapshot().load.in_use, 0);
    assert!(matches!(
        policy.breaker().snapshot(Monotonic::ORIGIN).phase,
        Phase::HalfOpen { under_way: 0, .. }
    ));
    assert_eq!(call().unwrap_or_else(|_| panic!("once only")).await.unwrap(), "done");
    assert_eq!(policy.breaker().snapshot(Monotonic::ORIGIN).phase, Phase::Closed);
    assert_eq!(policy.bulkhead().snapshot().load.in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_queue_ends_with_the_deadline_or_its_own_limit() {
    let policy = outbound().bulkhead(1, 8).build().unwrap();
    let permit = policy.bulkhead().acquire(None).await.unwrap();
    let callee = Callee::new([OK]);
    for (deadline, expected, took) in [
        (Some(ms(200)), Why::DeadlineReached, ms(200)),
        (Some(secs(10)), Why::WaitedTooLong { limit: secs(1) }, secs(1)),
        (None, Why::WaitedTooLong { limit: secs(1) }, secs(1)),
    ] {
        let began = tokio::time::Instant::now();
        // The total timeout of the stack keeps the same deadline; the bulkhead asked by hand says it itself.
        let now = policy.scope().now();
        let refused =
            policy.bulkhead().acquire(deadline.map(|time| Deadline::after(now, time))).await.unwrap_err();
        assert_eq!((refused.why, began.elapsed(), refused.not_done), (expected, took, NotDone::Call));
    }
    assert_eq!(policy.bulkhead().snapshot().load.waiting, 0);
    // First come, first served; and whoever leaves the queue holds nobody up.
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiting: Vec<_> = (0..4)
        .map(|n| {
            let (policy, callee, order) = (policy.clone(), callee.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                let _ = ask(&policy, &callee, SAFE).await;
                order.lock().unwrap().push(n);
            })
        })
        .collect();
    tokio::task::yield_now().await;
    waiting[1].abort();
    drop(permit);
    for task in waiting {
        let _ = task.await;
    }
    assert_eq!(*order.lock().unwrap(), [0, 2, 3]);
    assert_eq!(policy.bulkhead().snapshot().load, Default::default());
}

// ---- hedge ---------------------------------------------------------------------------------------------

fn hedge(after: Duration) -> Hedge {
    Hedge::percentile(0.95).between(ms(1), after)
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_asked_for_again_and_the_first_to_come_is_taken() {
    for (script, answer, took, calls) in [
        (vec![(ms(10), Ok("first")), (ms(1), Ok("second"))], Ok("first"), ms(10), 1),
        (vec![(secs(9), Ok("first")), (ms(1), Ok("second"))], Ok("second"), ms(51), 2),
        (vec![(ms(60), Ok("first")), (secs(9), Ok("second"))], Ok("first"), ms(60), 2),
        // A failure leaves the other one its chance.
        (vec![(ms(60), Err(Outcome::TRANSIENT)), (ms(30), Ok("second"))], Ok("second"), ms(80), 2),
        (vec![(ms(90), Ok("first")), (ms(10), Err(Outcome::TRANSIENT))], Ok("first"), ms(90), 2),
        // An answer is taken, even if it is no.
        (vec![(ms(90), Ok("first")), (ms(10), Err(Outcome::Permanent))], Err(Outcome::Permanent), ms(60), 2),
        (vec![(ms(60), Err(Outcome::TRANSIENT)); 2], Err(Outcome::TRANSIENT), ms(110), 2),
        // Before it is late, a failure is handed out: this is no retry.
        (vec![(ms(10), Err(Outcome::TRANSIENT)), OK], Err(Outcome::TRANSIENT), ms(10), 1),
    ] {
        let policy = outbound().hedge(hedge(ms(50))).build().unwrap();
        let callee = Callee::new(script);
        let began = tokio::time::Instant::now();
        let result = ask(&policy, &callee, SAFE).await;
        let said = result.map_err(|failed| failed.upstream().unwrap().0);
        assert_eq!((said, began.elapsed(), callee.calls()), (answer, took, calls));
    }
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_opens_no_breaker_and_holds_no_permit() {
    let breaker = Breaker::failure_rate(0.1).over(10).minimum_calls(1);
    let policy = outbound().hedge(hedge(ms(50))).breaker(breaker).bulkhead(2, 0).build().unwrap();
    for _ in 0..20 {
        let callee = Callee::new([hangs(), (ms(1), Ok("second"))]);
        assert_eq!(ask(&policy, &callee, SAFE).await, Ok("second"));
        assert_eq!(callee.dropped.load(Ordering::Relaxed), 1);
    }
    assert_eq!(counts(&policy), Counts { calls: 10, failures: 0, slow: 0 });
    assert_eq!(policy.bulkhead().snapshot().load.in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_unsafe_is_asked_twice_and_nothing_without_a_token() {
    let policy = outbound().hedge(hedge(ms(50))).build().unwrap();
    for (request, calls) in [
        (Request { safety: Safety::Unsafe, ..SAFE }, 1),
        (Request { safety: Safety::Keyed, ..SAFE }, 2),
        (Request { tokens: Some(RetryTokens::none()), ..SAFE }, 1),
        (Request { tokens: Some(RetryTokens::new(1)), ..SAFE }, 2),
    ] {
        let callee = Callee::new([(ms(100), Ok("done")), hangs()]);
        assert_eq!(ask(&policy, &callee, request.clone()).await, Ok("done"));
        assert_eq!(callee.calls(), calls, "{request:?}");
    }
    // A callee that gets slow for all is asked twice by few.
    let callee = Callee::new([(secs(2), Ok("done"))]);
    for _ in 0..3_000 {
        let _ = ask(&policy, &callee, SAFE).await;
    }
    assert!(callee.calls() <= 3_000 + 300 + 101, "{}", callee.calls());
}

#[tokio::test(start_paused = true)]
async fn the_second_try_comes_at_the_measured_percentile() {
    let policy = outbound().hedge(hedge(secs(60))).build().unwrap();
    let callee = Callee::new([(ms(20), Ok("done"))]);
    assert_eq!(policy.hedge_delay(), Some(secs(60)));
    for _ in 0..200 {
        let _ = ask(&policy, &callee, SAFE).await;
    }
    let delay = policy.hedge_delay().unwrap();
    assert!((ms(20)..=ms(23)).contains(&delay), "{delay:?}");
}

// ---- rate limit, pacing, adaptive limit ----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn what_comes_too_often_is_refused_and_a_call_counts_once_whatever_its_tries() {
    let rate = Rate::token_bucket(2, secs(10));
    let policy = outbound().rate_limit(rate).retry(Retry::exact(ms(1), ms(1))).build().unwrap();
    let callee = Callee::new([FAILS, FAILS, OK]);
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
    let refused = ask(&policy, &callee, SAFE).await.unwrap_err();
    let refusal = refused.refusal().unwrap();
    assert_eq!((refusal.why, refusal.rule), (Why::RateExceeded, Rule::RateLimit));
    assert_eq!(callee.calls(), 4, "three tries of the first, one of the second");
    tokio::time::sleep(refusal.retry_after.unwrap()).await;
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
}

#[tokio::test(start_paused = true)]
async fn calls_begin_at_their_pace_and_one_whose_turn_is_too_late_is_refused_at_once() {
    let policy = outbound().total(secs(1)).pacing(Rate::leaky_queue(2, secs(1), 8)).build().unwrap();
    let callee = Callee::new([OK]);
    let began = tokio::time::Instant::now();
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (policy, callee) = (policy.clone(), callee.clone());
            tokio::spawn(async move { (ask(&policy, &callee, SAFE).await, began.elapsed()) })
        })
        .collect();
    let mut ends = Vec::new();
    for task in tasks {
        let (result, took) = task.await.unwrap();
        ends.push((result.map_err(|failed| failed.refusal().unwrap().why), took));
    }
    // The third one's turn is at the end of the total.
    assert_eq!(ends, [(Ok("done"), ms(0)), (Ok("done"), ms(500)), (Err(Why::TurnTooLate), ms(0))]);
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_measured_limit_used_up_is_told_so_and_no_breaker_counts_it() {
    let adaptive = Adaptive { initial: 1, min: 1, max: 10, ..Adaptive::default() };
    let breaker = Breaker::failure_rate(0.1).over(10).minimum_calls(1);
    let policy = outbound().retry(retries()).breaker(breaker).adaptive(adaptive).build().unwrap();
    let held = policy.adaptive().unwrap().enter_now(Default::default(), None).unwrap();
    let callee = Callee::new([OK]);
    assert_eq!(why(ask(&policy, &callee, SAFE).await), Why::ConcurrencyExceeded { limit: 1 });
    drop(held);
    assert_eq!(ask(&policy, &callee, SAFE).await, Ok("done"));
    assert_eq!((callee.calls(), policy.adaptive().unwrap().in_flight()), (1, 0));
    assert_eq!(counts(&policy), Counts { calls: 1, failures: 0, slow: 0 });
}

// ---- fallback ------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_failure_may_be_replaced_and_an_answer_never_is() {
    let policy = outbound().attempt(ms(300)).build().unwrap();
    let settings = fallback::Spec::default().check().unwrap();
    for (script, expected) in [
        (vec![OK], Ok("done")),
        (vec![FAILS], Ok("instead")),
        (vec![hangs()], Ok("instead")),
        (vec![(Duration::ZERO, Err(Outcome::Permanent))], Err(Outcome::Permanent)),
    ] {
        let scope = Arc::clone(policy.scope());
        let instead = fallback::FallbackLayer::new(settings, scope, ByError, |_: &_| Some("instead"));
        let mut service =
            policy.layer(ByError).describe(Describe).fallback(instead).layer(Callee::new(script));
        let said = service.call(SAFE).await.map_err(|failed| failed.upstream().unwrap().0);
        assert_eq!(said, expected);
    }
}

// ---- the order -----------------------------------------------------------------------------------------

/// Writes down that a call came by.
#[derive(Clone)]
struct Mark<S>(&'static str, S, Arc<Mutex<Vec<&'static str>>>);

impl<R, S: Service<Call<R>>> Service<Call<R>> for Mark<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.1.poll_ready(cx)
    }

    fn call(&mut self, call: Call<R>) -> S::Future {
        self.2.lock().unwrap().push(self.0);
        self.1.call(call)
    }
}

#[tokio::test(start_paused = true)]
async fn layers_come_into_their_places_in_whatever_order_they_are_named() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    macro_rules! mark {
        ($name:literal) => {{
            let seen = Arc::clone(&seen);
            layer_fn(move |inner| Mark($name, inner, Arc::clone(&seen)))
        }};
    }
    let policy = outbound().retry(retries()).bulkhead(1, 1).build().unwrap();
    let mut outbound = policy
        .layer(ByError)
        .adaptive(mark!("adaptive"))
        .balance(mark!("balance"))
        .fallback(mark!("fallback"))
        .pacing(mark!("pacing"))
        .cache(mark!("cache"))
        .describe(Describe)
        .layer(Callee::new([FAILS, OK]));
    assert_eq!(outbound.call(SAFE).await, Ok("done"));
    let marks = std::mem::take(&mut *seen.lock().unwrap());
    // A second try passes what is inside of the retry once more.
    assert_eq!(marks, ["fallback", "cache", "pacing", "balance", "adaptive", "balance", "adaptive"]);

    let policy = Policy::inbound("route").deadline(secs(1)).bulkhead(1, 1).build().unwrap();
    let mut inbound = policy
        .layer(Cloned(facts))
        .cache(mark!("cache"))
        .load_shed(mark!("load_shed"))
        .rate_limit(mark!("rate_limit"))
        .access(mark!("access"))
        .authenticate(mark!("authenticate"))
        .coarse_shed(mark!("coarse_shed"))
        .layer(Callee::new([OK]));
    assert_eq!(inbound.call(SAFE).await, Ok("done"));
    let marks = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(marks, ["coarse_shed", "authenticate", "access", "rate_limit", "load_shed", "cache"]);
}

// ---- a policy as data, and its changes -----------------------------------------------------------------

#[test]
fn settings_that_mean_nothing_beside_each_other_are_refused_and_named() {
    let some = PolicySpec { timeout: Default::default(), ..PolicySpec::default() };
    let attempt = |limit| PolicySpec { timeout: some.timeout.attempt(limit), ..some };
    let breaker = Breaker::default();
    let rows = [
        (
            "retry and hedge",
            PolicySpec { retry: Some(retries()), hedge: Some(Hedge::default()), ..some },
            "hedge",
            "hedge",
        ),
        (
            "a hedge after the end",
            PolicySpec { hedge: Some(Hedge::default().between(ms(300), secs(1))), ..attempt(ms(300)) },
            "hedge",
            "at_least",
        ),
        (
            "slow after the end",
            PolicySpec { breaker: Some(breaker.slow(ms(300), 0.5)), ..attempt(ms(300)) },
            "circuit_breaker",
            "slow.longer_than",
        ),
        (
            "a probe cut short",
            PolicySpec { breaker: Some(breaker.probe_limit(ms(299))), ..attempt(ms(300)) },
            "circuit_breaker",
            "probe_limit",
        ),
        (
            "a queue that refuses",
            PolicySpec { pacing: Some(Rate::token_bucket(10, secs(1))), ..some },
            "pacing",
            "kind",
        ),
        (
            "a limit that waits",
            PolicySpec { rate_limit: Some(Rate::leaky_queue(10, secs(1), 5)), ..some },
            "rate_limit",
            "kind",
        ),
        (
            "a measured limit that never limits",
            PolicySpec { adaptive: Some(Adaptive::default()), bulkhead: Some(Permits::permits(4)), ..some },
            "adaptive",
            "min",
        ),
        // and each rule's own, by the name of its place
        (
            "pacing of nothing",
            PolicySpec { pacing: Some(Rate::leaky_queue(0, secs(1), 5)), ..some },
            "pacing",
            "permits",
        ),
        (
            "pacing in no time",
            PolicySpec { pacing: Some(Rate::leaky_queue(1, Duration::ZERO, 5)), ..some },
            "pacing",
            "per",
        ),
        (
            "a rate of years",
            PolicySpec { rate_limit: Some(Rate::token_bucket(1, Duration::MAX)), ..some },
            "rate_limit",
            "per",
        ),
        (
            "a rate too high",
            PolicySpec { rate_limit: Some(Rate::token_bucket(u32::MAX, secs(1))), ..some },
            "rate_limit",
            "permits",
        ),
        (
            "tolerance that is no number",
            PolicySpec { adaptive: Some(Adaptive { tolerance: f64::NAN, ..Adaptive::default() }), ..some },
            "adaptive",
            "tolerance",
        ),
        (
            "no window to measure in",
            PolicySpec { adaptive: Some(Adaptive { window: Duration::ZERO, ..Adaptive::default() }), ..some },
            "adaptive",
            "window",
        ),
        ("no permit", PolicySpec { bulkhead: Some(Permits::permits(0)), ..some }, "bulkhead", "permits"),
        (
            "a hedge of no share",
            PolicySpec { hedge: Some(Hedge::percentile(f64::NAN)), ..some },
            "hedge",
            "percentile",
        ),
        ("shards", PolicySpec { breaker: Some(breaker.shards(65)), ..some }, "circuit_breaker", "shards"),
        ("retry", PolicySpec { retry: Some(retries().max_attempts(0)), ..some }, "retry", "max_attempts"),
        ("breaker", PolicySpec { breaker: Some(breaker.probes(0)), ..some }, "circuit_breaker", "probes"),
        ("timeout", PolicySpec { timeout: some.timeout.total(Duration::ZERO), ..some }, "timeout", "total"),
    ];
    for (case, spec, pattern, field) in rows {
        let refused = spec.check().expect_err(case);
        assert_eq!((refused.pattern(), refused.field()), (pattern, field), "{case}");
        let built = Policy::outbound("x").spec(spec).build();
        assert_eq!(built.map(drop), Err(refused), "{case}");
    }
    assert!(some.check().is_ok());
    let name = |name: &str| Policy::outbound(name).build().map(drop).unwrap_err();
    assert_eq!((name("").field(), name(&"x".repeat(129)).field()), ("name", "name"));
}

#[tokio::test(start_paused = true)]
async fn a_change_keeps_what_was_learnt_and_a_bad_one_changes_nothing() {
    let breaker = Breaker::failure_rate(0.5).over(10).minimum_calls(4).open_for(secs(5));
    let spec = PolicySpec { breaker: Some(breaker), ..PolicySpec::default() };
    let policy = outbound().spec(spec).build().unwrap();
    let callee = Callee::new([FAILS]);
    let mut service = policy.layer(ByError).describe(Describe).layer(callee.clone());
    for _ in 0..3 {
        let _ = service.call(SAFE).await;
    }
    // A service that was made before the change follows it.
    let bad = PolicySpec { breaker: Some(breaker.over(0)), timeout: spec.timeout.total(secs(1)), ..spec };
    assert_eq!(policy.reconfigure(&bad).unwrap_err().field(), "window");
    let bulkhead = Permits::permits(1);
    let good = PolicySpec {
        breaker: Some(breaker.minimum_calls(3).over(20)),
        timeout: spec.timeout.total(secs(1)),
        bulkhead: Some(bulkhead),
        ..spec
    };
    policy.reconfigure(&good).unwrap();
    assert_eq!(counts(&policy), Counts { calls: 3, failures: 3, slow: 0 });
    let permit = policy.bulkhead().acquire(None).await.unwrap();
    assert_eq!(why(service.call(SAFE).await), Why::BulkheadFull { permits: 1 });
    drop(permit);
    let _ = service.call(SAFE).await;
    assert!(matches!(policy.breaker().snapshot(policy.scope().now()).phase, Phase::Open { .. }));
    // Taken out, everything passes; put in again, it is still open.
    policy.reconfigure(&PolicySpec { breaker: None, ..good }).unwrap();
    assert!(service.call(SAFE).await.unwrap_err().upstream().is_some());
    policy.reconfigure(&good).unwrap();
    assert_eq!(why(service.call(SAFE).await), Why::BreakerOpen);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_a_function_goes_the_same_way() {
    let policy = outbound().attempt(ms(300)).retry(retries()).build().unwrap();
    let tries = AtomicU32::new(0);
    let answer = policy
        .call(
            |now| Facts::unknown(now).with_safety(Safety::Safe),
            ByError,
            |facts: Facts| {
                let n = tries.fetch_add(1, Ordering::Relaxed);
                async move {
                    assert_eq!((facts.attempt, facts.deadline.is_some()), (n, true));
                    if n == 0 { Err(Trouble(Outcome::TRANSIENT)) } else { Ok(n) }
                }
            },
        )
        .await;
    assert_eq!(answer, Ok(1));
}

// ---- recordings ----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn every_decision_of_a_whole_run_is_decided_again_bit_for_bit() {
    let breaker = Breaker::failure_rate(0.5).over(10).minimum_calls(4).open_for(secs(1));
    let policy = outbound()
        .total(secs(2))
        .attempt(ms(300))
        .retry(Retry::full_jitter(ms(50), secs(1)))
        .breaker(breaker)
        .bulkhead(2, 2)
        .build()
        .unwrap();
    let callee =
        Callee::new([OK, FAILS, hangs(), OK, FAILS, FAILS, hangs(), FAILS, OK, OK, FAILS, FAILS, OK]);
    let mut tasks = Vec::new();
    for n in 0..40_u64 {
        let (policy, callee) = (policy.clone(), callee.clone());
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(ms(n / 4 * 150)).await;
            let deadline = (n % 3 == 0).then_some(ms(n * 20));
            ask(&policy, &callee, Request { deadline, ..SAFE }).await
        }));
    }
    let mut refused = 0;
    for task in tasks {
        if let Err(Failed::Refused(refusal)) = task.await.unwrap() {
            refused += 1;
            let kept = policy.decision(refusal.decision).unwrap();
            assert_eq!(kept.rule, refusal.rule);
        }
    }
    let decisions = policy.decisions();
    assert!(refused > 0);
    for rule in [Rule::Timeout, Rule::Retry, Rule::CircuitBreaker, Rule::Bulkhead] {
        assert!(decisions.iter().any(|decision| decision.rule == rule), "{rule} decided something");
    }
    for decision in decisions {
        assert_eq!(replay(&decision), Replayed::Same, "{decision}");
    }
}
