//! An inbound policy that is data: every rule of it around a handler, in virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod kit;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use kit::{Virtual, ms, secs};
use mainstay_envelope::{Monotonic, Priority, SeededChance};
use mainstay_resilience::bulkhead::Spec as Permits;
use mainstay_resilience::load_shed::{Adaptive, LARGEST_LIMIT};
use mainstay_resilience::record::Recording;
use mainstay_resilience::{
    Cloned, Facts, Failed, Identified, InboundPolicy, InboundSpec, Limit, NotDone, Policy, Rate, Refusal,
    Replayed, Rule, Shed, Why, replay,
};
use tower_layer::Layer;
use tower_service::Service;

fn policy(spec: InboundSpec) -> InboundPolicy {
    Policy::inbound("route")
        .clock(Arc::new(Virtual::new()))
        .chance(Arc::new(SeededChance::new(1)))
        .record(Recording::All, 4_096)
        .spec(spec)
        .build()
        .unwrap()
}

#[derive(Debug, Clone)]
struct Request {
    who: Option<&'static str>,
    priority: Priority,
    /// How long it takes to serve.
    work: Duration,
}

const QUICK: Request = Request { who: None, priority: Priority::Normal, work: Duration::ZERO };
const SLOW: Request = Request { work: secs(1), ..QUICK };

#[derive(Clone)]
struct Handler;

impl Service<Request> for Handler {
    type Response = &'static str;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<&'static str, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(async move {
            if !request.work.is_zero() {
                tokio::time::sleep(request.work).await;
            }
            Ok("served")
        })
    }
}

type Answer = Result<&'static str, Failed<Infallible>>;

async fn ask(policy: &InboundPolicy, request: Request) -> Answer {
    let facts =
        |request: &Request, now: Monotonic| Facts { priority: request.priority, ..Facts::unknown(now) };
    let describe = Identified::new(Cloned(facts), |request: &Request| request.who);
    let mut service = policy.layer(describe).layer(Handler);
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// Begins it, and comes back when it waits for something.
async fn begin(policy: &InboundPolicy, request: Request) -> tokio::task::JoinHandle<Answer> {
    let policy = policy.clone();
    let task = tokio::spawn(async move { ask(&policy, request).await });
    tokio::task::yield_now().await;
    task
}

fn refusal(answer: Answer) -> Refusal {
    answer.unwrap_err().refusal().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn nobody_is_served_longer_than_the_deadline_whatever_they_say() {
    let policy = policy(InboundSpec { deadline: Some(ms(300)), ..InboundSpec::default() });
    let refused = refusal(ask(&policy, SLOW).await);
    assert_eq!((refused.why, refused.not_done), (Why::TotalTimedOut { limit: ms(300) }, NotDone::Answer));
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_refused_before_anybody_is_known() {
    let rate = Rate::token_bucket(1, secs(1_000));
    let spec = InboundSpec {
        coarse_shed: Some(Limit::Fixed(2)),
        rate_limit: Some(rate.burst(2)),
        ..InboundSpec::default()
    };
    let policy = policy(spec);
    let tasks = [begin(&policy, SLOW).await, begin(&policy, SLOW).await];
    let refused = refusal(ask(&policy, QUICK).await);
    assert_eq!((refused.rule, refused.why), (Rule::LoadShed, Why::ConcurrencyExceeded { limit: 2 }));
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok("served"));
    }
    // Its refusal took no permit of the rate's: two had been taken, and that is all there were.
    assert_eq!(refusal(ask(&policy, QUICK).await).why, Why::RateExceeded);
    assert_eq!(policy.coarse_shed().unwrap().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_identity_has_its_own_rate_and_those_without_share_one() {
    let spec = InboundSpec { rate_limit: Some(Rate::token_bucket(2, secs(10))), ..InboundSpec::default() };
    let policy = policy(spec);
    let of = |who| Request { who, ..QUICK };
    for (who, served) in [
        (Some("a"), true),
        (Some("a"), true),
        (Some("a"), false),
        (Some("b"), true),
        (None, true),
        (None, true),
        (None, false),
        (Some("b"), true),
        (Some("b"), false),
    ] {
        let answer = ask(&policy, of(who)).await;
        assert_eq!(answer.is_ok(), served, "{who:?}");
        if !served {
            let refused = refusal(answer);
            assert_eq!((refused.why, refused.retry_after), (Why::RateExceeded, Some(secs(5))));
        }
    }
    assert_eq!(policy.rate_limit().unwrap().keys(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_important_is_served_first_and_the_least_is_given_up() {
    let shed = Shed::fixed(1).queue(1).target(secs(5)).interval(secs(5));
    let policy = policy(InboundSpec { load_shed: Some(shed), ..InboundSpec::default() });
    let first = begin(&policy, SLOW).await;
    let low = begin(&policy, Request { priority: Priority::Low, ..SLOW }).await;
    let high = begin(&policy, Request { priority: Priority::Critical, ..SLOW }).await;
    assert_eq!(refusal(low.await.unwrap()).why, Why::PriorityShed { priority: Priority::Low });
    assert_eq!((first.await.unwrap(), high.await.unwrap()), (Ok("served"), Ok("served")));
}

#[tokio::test(start_paused = true)]
async fn a_route_has_its_own_permits() {
    let spec = InboundSpec { bulkhead: Some(Permits::permits(1)), ..InboundSpec::default() };
    let (one, other) = (policy(spec), policy(spec));
    let held = begin(&one, SLOW).await;
    assert_eq!(refusal(ask(&one, QUICK).await).why, Why::BulkheadFull { permits: 1 });
    assert_eq!(ask(&other, QUICK).await, Ok("served"));
    assert_eq!(held.await.unwrap(), Ok("served"));
}

#[tokio::test(start_paused = true)]
async fn a_service_follows_a_change_and_its_decisions_are_decided_again_bit_for_bit() {
    let policy = policy(InboundSpec::default());
    let held = begin(&policy, SLOW).await;
    policy
        .reconfigure(&InboundSpec {
            coarse_shed: Some(Limit::Fixed(3)),
            rate_limit: Some(Rate::token_bucket(3, secs(10))),
            load_shed: Some(Shed::fixed(1).queue(1)),
            bulkhead: Some(Permits::permits(1).queue(0)),
            deadline: Some(secs(9)),
        })
        .unwrap();
    // The bulkhead knew who was there before.
    assert_eq!(refusal(ask(&policy, QUICK).await).why, Why::BulkheadFull { permits: 1 });
    assert_eq!(held.await.unwrap(), Ok("served"));
    let under_way = begin(&policy, SLOW).await;
    let late = refusal(ask(&policy, QUICK).await);
    assert_eq!(late.rule, Rule::LoadShed);
    assert_eq!(refusal(ask(&policy, QUICK).await).why, Why::RateExceeded);
    assert_eq!(under_way.await.unwrap(), Ok("served"));
    policy.reconfigure(&InboundSpec::default()).unwrap();
    assert_eq!(ask(&policy, QUICK).await, Ok("served"));
    let decisions = policy.decisions();
    for rule in [Rule::RateLimit, Rule::LoadShed, Rule::Bulkhead, Rule::Timeout] {
        assert!(decisions.iter().any(|decision| decision.rule == rule), "{rule} decided something");
    }
    for decision in decisions {
        assert_eq!(replay(&decision), Replayed::Same, "{decision}");
    }
    assert_eq!(policy.decision(late.decision).unwrap().rule, Rule::LoadShed);
}

#[test]
fn settings_that_mean_nothing_are_refused_and_named() {
    let none = InboundSpec::default();
    let shed = |shed| InboundSpec { load_shed: Some(shed), ..none };
    let coarse = |limit| InboundSpec { coarse_shed: Some(limit), ..none };
    let rate = |rate| InboundSpec { rate_limit: Some(rate), ..none };
    let rows = [
        ("no time", InboundSpec { deadline: Some(Duration::ZERO), ..none }, "deadline", "total"),
        ("endless", InboundSpec { deadline: Some(Duration::MAX), ..none }, "deadline", "total"),
        ("nothing at all", coarse(Limit::Fixed(0)), "coarse_shed", "limit"),
        ("everything", coarse(Limit::Fixed(LARGEST_LIMIT + 1)), "coarse_shed", "limit"),
        (
            "tolerance that is no number",
            coarse(Limit::Adaptive(Adaptive { tolerance: f64::NAN, ..Adaptive::default() })),
            "coarse_shed",
            "tolerance",
        ),
        ("a limit that waits", rate(Rate::leaky_queue(1, secs(1), 1)), "rate_limit", "kind"),
        ("no rate", rate(Rate::token_bucket(0, secs(1))), "rate_limit", "permits"),
        ("a rate in no time", rate(Rate::token_bucket(1, Duration::ZERO)), "rate_limit", "per"),
        ("no keys", rate(Rate::token_bucket(1, secs(1)).keys_max(0)), "rate_limit", "keys_max"),
        ("nothing served", shed(Shed::fixed(0)), "load_shed", "limit"),
        ("no time to wait", shed(Shed::fixed(1).target(Duration::ZERO)), "load_shed", "target"),
        ("an endless wait", shed(Shed::fixed(1).interval(Duration::MAX)), "load_shed", "interval"),
        ("no permit", InboundSpec { bulkhead: Some(Permits::permits(0)), ..none }, "bulkhead", "permits"),
        // and beside each other
        (
            "nobody ever waits",
            InboundSpec { coarse_shed: Some(Limit::Fixed(8)), ..shed(Shed::fixed(8)) },
            "coarse_shed",
            "limit",
        ),
        (
            "waits past the deadline",
            InboundSpec { deadline: Some(ms(5)), ..shed(Shed::fixed(8)) },
            "load_shed",
            "target",
        ),
    ];
    for (case, spec, pattern, field) in rows {
        let refused = spec.check().expect_err(case);
        assert_eq!((refused.pattern(), refused.field()), (pattern, field), "{case}");
        let built = Policy::inbound("x").spec(spec).build();
        assert_eq!(built.map(drop), Err(refused), "{case}");
    }
    assert!(none.check().is_ok());
    let all = Policy::inbound("x")
        .deadline(secs(2))
        .coarse_shed(Limit::Fixed(1_000))
        .rate_limit(Rate::leaky_meter(50, secs(1)))
        .load_shed(Shed::adaptive().queue(200))
        .bulkhead(100, 10);
    assert!(all.build().is_ok());
}
