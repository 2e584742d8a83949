//! The tower layer: answers of a service, kept.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use mainstay_envelope::{Deadline, Envelope, Priority};
use mainstay_resilience::cache::{CacheLayer, Keep, Loaded, Spec};
use mainstay_resilience::{Call, Facts, Failed, Outcome, Rule, Scope, Why};
use tower_layer::Layer;
use tower_service::Service;

use crate::kit::{Broken, Gate, World, plain, secs, spawn, until, world};

/// What is asked: a key (or a change, which is not kept), in somebody's name.
#[derive(Debug, Clone)]
struct Ask {
    key: Option<&'static str>,
    envelope: Option<Envelope>,
}

type Answer = Result<u32, Failed<Broken>>;

struct Kept;

impl Keep<Ask, u32> for Kept {
    type Key = &'static str;

    fn key(&self, ask: &Ask) -> Option<&'static str> {
        ask.key
    }

    fn envelope<'a>(&self, ask: &'a Ask) -> Option<&'a Envelope> {
        ask.envelope.as_ref()
    }

    fn loaded(&self, answer: u32) -> Loaded<u32> {
        Loaded::found(answer).tag("all")
    }
}

/// Answers with what is scripted, in its order, once the gate lets it.
#[derive(Clone)]
struct Callee {
    gate: Gate,
    script: Arc<Mutex<Vec<Answer>>>,
    facts: Arc<Mutex<Vec<Facts>>>,
}

impl Service<Call<Ask>> for Callee {
    type Response = u32;
    type Error = Failed<Broken>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed<Broken>>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<Ask>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.facts.lock().unwrap().push(call.facts);
            let number = this.gate.pass().await as usize;
            this.script.lock().unwrap()[number - 1].clone()
        })
    }
}

fn callee(script: Vec<Answer>) -> Callee {
    let gate = Gate::new();
    gate.open(script.len());
    Callee { gate, script: Arc::new(Mutex::new(script)), facts: Arc::default() }
}

fn status(ended: Result<&u32, &Broken>) -> Outcome {
    match ended {
        Ok(500..) => Outcome::TRANSIENT,
        Ok(400..) => Outcome::Permanent,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::TRANSIENT,
    }
}

type Status = fn(Result<&u32, &Broken>) -> Outcome;

fn layer(world: &World, spec: Spec) -> CacheLayer<Ask, u32, Broken, Kept, Status> {
    CacheLayer::new(spec, Arc::clone(&world.scope), status as Status, Kept).unwrap()
}

fn call(world: &World, key: &'static str) -> Call<Ask> {
    Call { request: Ask { key: Some(key), envelope: None }, facts: Facts::unknown(world.now()) }
}

/// An inner rule's refusal, as a breaker makes it.
fn refused() -> Failed<Broken> {
    Failed::Refused(Scope::system("inner").refuse_unrecorded(Rule::CircuitBreaker, Why::BreakerOpen))
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_and_shared_and_failures_are_not() {
    let world = world();
    let callee =
        callee(vec![Ok(404), Err(Failed::Upstream(Broken("down"))), Err(refused()), Ok(200), Ok(201)]);
    let layer = layer(&world, plain());
    let mut service = layer.layer(callee.clone());
    assert_eq!(service.call(call(&world, "k")).await, Ok(404));
    assert_eq!(service.call(call(&world, "k")).await, Err(Failed::Upstream(Broken("down"))));
    let why = service.call(call(&world, "k")).await.unwrap_err().refusal().unwrap().why;
    assert_eq!(why, Why::BreakerOpen, "a refusal of a rule inside is handed on as it is");
    for _ in 0..10 {
        assert_eq!(service.call(call(&world, "k")).await, Ok(200));
    }
    assert_eq!(callee.gate.loads(), 4);
    layer.cache().invalidate_tag("all");
    assert_eq!(service.call(call(&world, "k")).await, Ok(201));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_at_once_are_one_with_the_most_that_any_of_them_may_spend() {
    let world = world();
    let callee = Callee { gate: Gate::new(), ..callee(vec![Ok(200)]) };
    let service = layer(&world, plain()).layer(callee.clone());
    let calls: Vec<_> = (0..1_000_u64)
        .map(|n| {
            let (mut service, mut call) = (service.clone(), call(&world, "k"));
            call.facts.deadline = Some(Deadline::after(world.now(), secs(1 + n % 7)));
            call.facts.priority = Priority::ALL[(n % 4) as usize];
            spawn(async move { service.call(call).await })
        })
        .collect();
    until("the callee is asked", || callee.gate.loads() == 1).await;
    callee.gate.open(1);
    for answer in calls {
        assert_eq!(answer.await.unwrap(), Ok(200));
    }
    assert_eq!(callee.gate.loads(), 1);
    let facts = callee.facts.lock().unwrap();
    assert_eq!((facts.len(), facts[0].priority), (1, Priority::Critical));
    assert_eq!(facts[0].deadline, Some(Deadline::after(world.now(), secs(7))));
}

#[tokio::test(start_paused = true)]
async fn in_place_of_what_may_pass_a_stale_answer_is_given() {
    let world = world();
    let callee = callee(vec![
        Ok(200),
        Ok(503),
        Err(Failed::Upstream(Broken("down"))),
        Err(refused()),
        Ok(404),
        Ok(201),
    ]);
    let mut service = layer(&world, plain().stale_if_error(secs(60))).layer(callee.clone());
    assert_eq!(service.call(call(&world, "k")).await, Ok(200));
    tokio::time::advance(secs(60)).await;
    for _ in 0..3 {
        assert_eq!(service.call(call(&world, "k")).await, Ok(200));
    }
    assert_eq!(service.call(call(&world, "k")).await, Ok(404), "what will not pass is the answer");
    assert_eq!(service.call(call(&world, "k")).await, Ok(201));
    assert_eq!(callee.gate.loads(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_key_or_nobody_it_could_be_kept_for_is_passed_on() {
    let world = world();
    let callee = callee(vec![Ok(200), Ok(201), Ok(202), Ok(203), Ok(204)]);
    let mut service = layer(&world, Spec::for_each_tenant(secs(60))).layer(callee.clone());
    let ask = |key, tenant: Option<&str>| {
        let envelope = tenant.map(|tenant| world.with(Some(tenant), None).envelope().clone());
        Call { request: Ask { key, envelope }, facts: Facts::unknown(world.now()) }
    };
    assert_eq!(service.call(ask(None, Some("a"))).await, Ok(200));
    assert_eq!(service.call(ask(Some("k"), None)).await, Ok(201));
    assert_eq!(service.call(ask(Some("k"), None)).await, Ok(202));
    for _ in 0..3 {
        assert_eq!(service.call(ask(Some("k"), Some("a"))).await, Ok(203));
        assert_eq!(service.call(ask(Some("k"), Some("b"))).await, Ok(204));
    }
    assert_eq!(callee.gate.loads(), 5);
}
