//! Being called: what is believed, what is refused before it is begun, and how a refusal looks from the other side.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use mainstay_envelope::{Clock, Context, Priority};
use mainstay_resilience::{DecisionId, Failed, InboundBuilder, InboundPolicy, Policy, Rate, Rule};
use mainstay_upstream::inbound::{Arrivals, Receive, failed, refused};
use mainstay_upstream::{Answer, HttpError, PolicyExt};
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use super::kit::{Virtual, context, empty, http_over, ms, serve, with};

/// Waits 100 ms, spends what it is told to, and answers what it saw.
#[derive(Clone, Default)]
struct Handler {
    begun: Arc<AtomicU32>,
    spends: u8,
}

impl<B: Send + 'static> Service<Request<B>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let cx = request.extensions().get::<Context>().unwrap().clone();
        let spends = self.spends;
        Box::pin(async move {
            let (left, envelope) = (cx.remaining().map(|left| left.as_millis()), cx.envelope());
            let saw = format!("{left:?} {} {}", envelope.priority().as_str(), envelope.tokens().left());
            tokio::time::sleep(ms(100)).await;
            for _ in 0..spends {
                assert!(envelope.tokens().spend());
            }
            Ok(empty(200).map(|_| Full::new(saw.into())))
        })
    }
}

fn inbound(clock: &Arc<Virtual>, change: impl FnOnce(InboundBuilder) -> InboundBuilder) -> InboundPolicy {
    change(Policy::inbound("orders").clock(Arc::clone(clock) as Arc<dyn Clock>)).build().unwrap()
}

type Served = Response<Either<Full<Bytes>, Full<Bytes>>>;

/// Asks the service as a server does, with these fields.
async fn ask(
    receive: &Receive,
    policy: &InboundPolicy,
    handler: &Handler,
    fields: &[(&str, &str)],
) -> Answer {
    let mut request = Request::get("/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut service = receive.layer(policy.layer(Arrivals).layer(handler.clone()));
    let answer: Served = service.call(request.body(()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    Answer::new(Response::from_parts(parts, body.collect().await.unwrap().to_bytes()))
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(answer.bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn our_own_are_believed_and_strangers_get_what_the_edge_gives() {
    let clock = Virtual::new();
    let policy = inbound(&clock, |policy| policy.deadline(ms(2_000)));
    let claims = [
        ("mainstay-priority", "critical"),
        ("mainstay-retry-tokens", "1"),
        ("mainstay-remaining-ms", "1500"),
    ];
    let ours = Receive::from_ours(context(&clock, 1));
    let edge = Receive::from_anybody(context(&clock, 1), ms(1_000));
    let handler = Handler { spends: 1, ..Handler::default() };
    let answer = ask(&ours, &policy, &handler, &claims).await;
    assert_eq!(text(&answer), "Some(1500) critical 1");
    assert_eq!(answer.headers()["mainstay-retry-tokens"], "0", "what is left goes back");
    let answer = ask(&edge, &policy, &handler, &claims).await;
    assert_eq!(text(&answer), "Some(1000) normal 2");
    assert!(!answer.headers().contains_key("mainstay-retry-tokens"), "a stranger is told nothing of it");
    assert_eq!(edge.bucket().unwrap().whole(), 99, "one was spent, one came back");
    // The route's own limit holds where the caller would wait longer.
    let answer = ask(&ours, &policy, &Handler::default(), &[("mainstay-remaining-ms", "9000")]).await;
    assert_eq!(text(&answer), "Some(2000) normal 0");
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_no_longer_waits_for_is_not_begun() {
    let clock = Virtual::new();
    let policy = inbound(&clock, |policy| policy);
    let (receive, handler) = (Receive::from_ours(context(&clock, 1)), Handler::default());
    let answer = ask(&receive, &policy, &handler, &[("mainstay-remaining-ms", "0")]).await;
    assert_eq!((answer.status().as_u16(), handler.begun.load(Ordering::Relaxed)), (503, 0));
    let problem = answer.problem().unwrap();
    assert_eq!((problem["rule"].as_str(), problem["not_done"].as_str()), (Some("timeout"), Some("call")));
    // Begun, and not waited for: nobody knows.
    let answer = ask(&receive, &policy, &handler, &[("mainstay-remaining-ms", "50")]).await;
    assert_eq!((answer.status().as_u16(), clock.ms()), (504, 50));
    assert_eq!(answer.problem().unwrap()["not_done"], "answer");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_decision_and_when_to_come_back() {
    let clock = Virtual::new();
    let policy = inbound(&clock, |policy| policy.rate_limit(Rate::token_bucket(1, ms(1_500))));
    let (receive, handler) = (Receive::from_ours(context(&clock, 1)), Handler::default());
    let caller = [("mainstay-caller", "\"ada\"")];
    assert_eq!(ask(&receive, &policy, &handler, &caller).await.status(), 200);
    let answer = ask(&receive, &policy, &handler, &caller).await;
    assert_eq!((answer.status().as_u16(), handler.begun.load(Ordering::Relaxed)), (429, 1));
    assert_eq!(answer.headers()["retry-after"], "2", "1.4 s, rounded up");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem = answer.problem().unwrap();
    assert_eq!((&problem["rule"], &problem["policy"]), (&Value::from("rate_limit"), &Value::from("orders")));
    assert_eq!((&problem["status"], &problem["retry_after_ms"]), (&Value::from(429), &Value::from(1_400)));
    let id: DecisionId = problem["decision"].as_str().unwrap().parse().unwrap();
    assert_eq!(policy.decision(id).unwrap().rule, Rule::RateLimit, "it expands to what it was made of");
}

#[tokio::test(start_paused = true)]
async fn a_field_of_our_own_that_cant_be_read_is_the_senders_fault() {
    let clock = Virtual::new();
    let (policy, handler) = (inbound(&clock, |policy| policy), Handler::default());
    let bad = [("mainstay-priority", "urgent")];
    let answer = ask(&Receive::from_ours(context(&clock, 1)), &policy, &handler, &bad).await;
    assert_eq!((answer.status().as_u16(), handler.begun.load(Ordering::Relaxed)), (400, 0));
    assert!(answer.problem().unwrap()["detail"].as_str().unwrap().contains("`mainstay-priority`"));
    // A stranger's is as if it were not there, but for a key, which nobody may drop.
    let edge = Receive::from_anybody(context(&clock, 1), ms(1_000));
    assert_eq!(ask(&edge, &policy, &handler, &bad).await.status(), 200);
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(ask(&edge, &policy, &handler, &twice).await.status(), 400);
    assert_eq!(edge.bucket().unwrap().whole(), 100, "who is refused at the door takes no tokens along");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_caller_who_left_come_back_to_the_edge() {
    let clock = Virtual::new();
    let (policy, handler) = (inbound(&clock, |policy| policy), Handler::default());
    let edge = Receive::from_anybody(context(&clock, 1), ms(1_000));
    for _ in 0..10 {
        let asked = ask(&edge, &policy, &handler, &[]);
        tokio::time::timeout(ms(50), asked).await.unwrap_err();
    }
    assert_eq!((handler.begun.load(Ordering::Relaxed), edge.bucket().unwrap().whole()), (10, 100));
}

#[tokio::test(start_paused = true)]
async fn a_full_callee_is_seen_as_a_refusal_by_its_caller() {
    let clock = Virtual::new();
    let policy = inbound(&clock, |policy| policy.bulkhead(1, 0));
    let receive = Receive::from_ours(context(&clock, 1));
    let service = receive.layer(policy.layer(Arrivals).layer(Handler::default()));
    let outbound = Policy::outbound("orders").clock(Arc::clone(&clock) as Arc<dyn Clock>).build().unwrap();
    let client = outbound.client(http_over(move |io| serve(io, service.clone()), &clock));
    let cx = with(&context(&clock, 2), Some(1_000), 2, Priority::Low);
    let (one, other) = tokio::join!(client.get("/").send(&cx), client.get("/").send(&cx));
    let mut answers = [one.unwrap(), other.unwrap()];
    // Which of two connections is served first is their own affair.
    answers.sort_by_key(Answer::status);
    let [served, refused] = answers;
    assert!(text(&served).starts_with("Some(1000) low "), "{}", text(&served));
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.problem().unwrap()["rule"], "bulkhead");
    let HttpError::Status { detail: Some(detail), .. } = refused.success().unwrap_err() else { panic!() };
    assert!(detail.contains("the call was not made, nothing happened"), "{detail}");
}

#[test]
fn a_callees_failure_is_not_our_own() {
    let timed_out = HttpError::TooSlow { to: "a:80".into(), limit: ms(1) };
    let busy = HttpError::ConnectionsInUse { to: "a:80".into(), limit: 1 };
    let large = HttpError::TooLarge { to: "a:80".into(), part: "body", limit: 1 };
    let wrong = HttpError::Request { problem: "it is wrong".into() };
    for (error, status) in [(timed_out, 504), (busy, 503), (large, 502), (wrong, 500)] {
        assert_eq!(failed(&Failed::Upstream(error)).status(), status);
    }
    let policy = Policy::outbound("a").build().unwrap();
    let why = mainstay_resilience::Why::BreakerOpen;
    let refusal = policy.scope().refuse_unrecorded(Rule::CircuitBreaker, why).after(ms(1_001));
    let answer = refused(&refusal);
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    assert_eq!(failed(&Failed::Refused(refusal)).status(), 503);
}
