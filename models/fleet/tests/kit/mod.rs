//! One script, in virtual time, around a policy; and all that it decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay_envelope::{Clock, Deadline, Monotonic, Priority, SeededChance, Timestamp};
use mainstay_resilience::record::{Decision, Recording};
use mainstay_resilience::{
    ByError, Classified, Describe, Facts, Failed, InboundBuilder, InboundSpec, OutboundBuilder, Outcome,
    PolicySpec, Rule, Safety,
};
use tower_layer::Layer;
use tower_service::Service;

/// How each call ended and when, and every decision in between.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trace {
    pub(crate) ends: Vec<(u128, String)>,
    pub(crate) decisions: Vec<Decision>,
}

#[derive(Debug)]
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Monotonic {
        Monotonic::from_origin(self.0.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Trouble;

impl Classified for Trouble {
    fn outcome(&self) -> Outcome {
        Outcome::TRANSIENT
    }
}

#[derive(Debug, Clone)]
struct Request {
    number: u64,
    attempt: u32,
}

#[derive(Debug, Clone)]
struct Described;

impl Describe<Request> for Described {
    fn facts(&self, request: &Request, now: Monotonic) -> Facts {
        let deadline =
            request.number.is_multiple_of(5).then(|| Deadline::after(now, Duration::from_millis(700)));
        let safety = if request.number.is_multiple_of(7) { Safety::Unsafe } else { Safety::Safe };
        let priority = if request.number.is_multiple_of(2) { Priority::Normal } else { Priority::Low };
        Facts { deadline, priority, ..Facts::unknown(now).with_safety(safety) }
    }

    fn repeat(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn identity<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.number.is_multiple_of(3).then_some("often")
    }

    fn send(&self, request: &mut Request, facts: &Facts) {
        request.attempt = facts.attempt;
    }
}

/// Whoever is asked: mostly well for a while, then not, then well again; some tries hang.
#[derive(Debug, Clone)]
struct Callee;

impl Service<Request> for Callee {
    type Response = u64;
    type Error = Trouble;
    type Future = Pin<Box<dyn Future<Output = Result<u64, Trouble>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let seed =
            request.number.wrapping_mul(2_654_435_761).wrapping_add(u64::from(request.attempt) * 97) >> 3;
        let is_ill = (40..70).contains(&request.number);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5 + seed % 90)).await;
            match seed % 11 {
                0 => std::future::pending().await,
                1..=2 => Err(Trouble),
                _ if is_ill => Err(Trouble),
                _ => Ok(request.number),
            }
        })
    }
}

/// A hundred and twenty calls, four at a time and some milliseconds apart.
async fn run<S>(service: S, began: tokio::time::Instant) -> Vec<(u128, String)>
where
    S: Service<Request, Response = u64, Error = Failed<Trouble>> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut calls = Vec::new();
    for number in 0..120_u64 {
        let mut service = service.clone();
        calls.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(number / 4 * 37)).await;
            let answer = async {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(Request { number, attempt: 0 }).await
            };
            // What no policy ends, the caller does.
            let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
            (began.elapsed().as_nanos(), format!("{answer:?}"))
        }));
    }
    let mut ends = Vec::new();
    for call in calls {
        ends.push(call.await.unwrap());
    }
    ends
}

fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(run)
}

pub(crate) fn outbound(builder: OutboundBuilder) -> (PolicySpec, Trace) {
    in_virtual_time(async {
        let began = tokio::time::Instant::now();
        let policy = builder
            .clock(Arc::new(Virtual(began)))
            .chance(Arc::new(SeededChance::new(1)))
            .record(Recording::All, 16_384)
            .build()
            .unwrap();
        let ends = run(policy.layer(ByError).describe(Described).layer(Callee), began).await;
        (policy.spec(), Trace { ends, decisions: policy.decisions() })
    })
}

pub(crate) fn inbound(builder: InboundBuilder) -> (InboundSpec, Trace) {
    in_virtual_time(async {
        let began = tokio::time::Instant::now();
        let policy = builder
            .clock(Arc::new(Virtual(began)))
            .chance(Arc::new(SeededChance::new(1)))
            .record(Recording::All, 16_384)
            .build()
            .unwrap();
        let ends = run(policy.layer(Described).layer(Callee), began).await;
        let mut decisions = policy.decisions();
        for decision in decisions.iter_mut().filter(|decision| decision.rule == Rule::RateLimit) {
            // Who it was goes in salted, by another salt in every recorder.
            decision.inputs[4] = 0;
        }
        (policy.spec(), Trace { ends, decisions })
    })
}
