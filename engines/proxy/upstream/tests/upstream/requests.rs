//! What goes out with each try, what comes back, and what is refused before anything is sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use mainstay_envelope::{
    CausationId, Clock, Context, IdempotencyKey, Identity, Priority, RetryTokens, Tenant,
};
use mainstay_resilience::{Failed, OutboundBuilder, Policy, Retry};
use mainstay_upstream::{Callee, Client, Http, HttpError, PolicyExt};
use serde::{Deserialize, Serialize};
use tower_service::Service;
use uuid::Uuid;

use super::kit::{Virtual, context, empty, http_over, ms, serve, with};

/// Answers what it is told to, and keeps the heads of requests.
#[derive(Clone, Default)]
struct Callees {
    answers: Arc<Mutex<VecDeque<Response<Full<Bytes>>>>>,
    heads: Arc<Mutex<Vec<Parts>>>,
}

impl Callees {
    fn answering(answers: impl IntoIterator<Item = Response<Full<Bytes>>>) -> Self {
        Callees { answers: Arc::new(Mutex::new(answers.into_iter().collect())), heads: Arc::default() }
    }

    fn http(&self, clock: &Arc<Virtual>) -> Http {
        let callee = self.clone();
        http_over(move |io| serve(io, callee.clone()), clock)
    }

    fn heads(&self) -> Vec<Parts> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

impl Service<Request<Incoming>> for Callees {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.heads.lock().unwrap().push(request.into_parts().0);
        let answer = self.answers.lock().unwrap().pop_front();
        ready(Ok(answer.unwrap_or_else(|| empty(200))))
    }
}

fn field<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next()?.to_str().unwrap();
    assert_eq!(values.next(), None, "`{name}` is there twice");
    Some(value)
}

fn policy(clock: &Arc<Virtual>, change: impl FnOnce(OutboundBuilder) -> OutboundBuilder) -> Policy {
    change(Policy::outbound("callee").clock(Arc::clone(clock) as Arc<dyn Clock>)).build().unwrap()
}

fn client(callee: &Callees, clock: &Arc<Virtual>) -> Client {
    let retry = Retry::exact(ms(100), ms(100)).max_attempts(3);
    policy(clock, |policy| policy.attempt(ms(300)).retry(retry)).client(callee.http(clock))
}

#[tokio::test(start_paused = true)]
async fn each_try_carries_what_holds_at_its_moment() {
    let clock = Virtual::new();
    let unavailable = || {
        let mut answer = empty(503);
        // The callee has spent nothing.
        answer.headers_mut().insert("mainstay-retry-tokens", "2".parse().unwrap());
        answer
    };
    let callee = Callees::answering([unavailable(), unavailable()]);
    let client = client(&callee, &clock);
    let cx = with(&context(&clock, 1), Some(450), 2, Priority::Critical);
    let envelope = cx
        .envelope()
        .clone()
        .with_idempotency_key(IdempotencyKey::new("order-17").unwrap())
        .with_tenant(Tenant::new("acme").unwrap())
        .with_caller(Identity::new("ada").unwrap());
    let cx = cx.with_envelope(envelope);
    client.post("/charges?a=b").json(&7).key(&cx, "charge").send(&cx).await.unwrap();
    let heads = callee.heads();
    let of = |name: &str| heads.iter().map(|head| field(head, name).unwrap()).collect::<Vec<_>>();
    assert_eq!(of("mainstay-remaining-ms"), ["300", "300", "250"], "the try's limit, then the call's");
    assert_eq!(of("mainstay-retry-tokens"), ["2", "1", "0"]);
    assert_eq!(of("mainstay-priority"), ["critical"; 3]);
    assert_eq!(of("mainstay-tenant"), ["\"acme\""; 3]);
    assert_eq!(of("mainstay-caller"), ["\"ada\""; 3]);
    assert_eq!(of("content-type"), ["application/json"; 3]);
    assert_eq!(of("host"), ["callee:8080"; 3]);
    let keys = of("idempotency-key");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_ne!(keys[0], "\"order-17\"", "that names the effect of the call that is served");
    let traces = of("traceparent");
    let (trace, spans): (Vec<_>, Vec<_>) =
        traces.iter().map(|parent| (&parent[..36], &parent[36..52])).unzip();
    assert!(trace.iter().all(|id| *id == &cx.envelope().trace().parent().to_string()[..36]));
    assert!(spans[0] != spans[1] && spans[1] != spans[2] && spans[0] != spans[2], "{spans:?}");
    assert!(heads.iter().all(|head| head.uri == "/charges?a=b"));
}

#[tokio::test(start_paused = true)]
async fn a_label_is_one_effect_however_often_the_command_runs() {
    let clock = Virtual::new();
    let callee = Callees::default();
    let client = client(&callee, &clock);
    let keyed = |seed, key: &str| {
        let cx = context(&clock, seed);
        let key = IdempotencyKey::new(key).unwrap();
        cx.with_envelope(cx.envelope().clone().with_idempotency_key(key))
    };
    let (run, again, other) = (keyed(1, "order-17"), keyed(2, "order-17"), keyed(1, "order-18"));
    for (cx, label) in [(&run, "charge"), (&again, "charge"), (&run, "refund"), (&other, "charge")] {
        client.post("/").key(cx, label).send(cx).await.unwrap();
    }
    let heads = callee.heads();
    let keys: Vec<_> = heads.iter().map(|head| field(head, "idempotency-key").unwrap()).collect();
    assert_eq!(keys[0], keys[1]);
    assert!(keys[0] != keys[2] && keys[0] != keys[3] && keys[2] != keys[3], "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_key_carries_nobody_elses() {
    let clock = Virtual::new();
    let callee = Callees::default();
    let client = client(&callee, &clock);
    let cx = context(&clock, 1);
    let envelope = cx
        .envelope()
        .clone()
        .with_idempotency_key(IdempotencyKey::new("order-17").unwrap())
        .with_causation(CausationId(Uuid::from_u128(7)));
    let cx = cx.with_envelope(envelope);
    client.get("/").send(&cx).await.unwrap();
    client.post("/").send(&cx).await.unwrap();
    client.put("/").key(&cx, "it").send(&cx).await.unwrap();
    let heads = callee.heads();
    for (head, is_there) in heads.iter().zip([false, false, true]) {
        assert_eq!(field(head, "idempotency-key").is_some(), is_there);
        assert_eq!(field(head, "mainstay-causation-id").is_some(), is_there);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_sees_the_trace_and_the_key_and_the_tokens_stay() {
    let clock = Virtual::new();
    let callee = Callees::answering([empty(503)]);
    let retry = Retry::exact(ms(100), ms(100));
    let client =
        policy(&clock, |policy| policy.retry(retry)).client(callee.http(&clock).callee(Callee::Stranger));
    let cx = with(&context(&clock, 1), Some(1_000), 2, Priority::Normal);
    let cx = cx.with_envelope(cx.envelope().clone().with_tenant(Tenant::new("acme").unwrap()));
    client.post("/").key(&cx, "charge").send(&cx).await.unwrap();
    for head in callee.heads() {
        let mut names: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "idempotency-key", "traceparent"]);
    }
    assert_eq!(cx.envelope().tokens().left(), 1, "one was spent on the second try");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_tell_what_is_left_has_spent_the_tokens() {
    for (told, left) in [(None, 0), (Some("1"), 1), (Some("2"), 2), (Some("9"), 0)] {
        let clock = Virtual::new();
        let mut answer = empty(200);
        if let Some(told) = told {
            answer.headers_mut().insert("mainstay-retry-tokens", told.parse().unwrap());
        }
        let callee = Callees::answering([answer]);
        let cx = with(&context(&clock, 1), None, 2, Priority::Normal);
        client(&callee, &clock).get("/").send(&cx).await.unwrap();
        assert_eq!(cx.envelope().tokens().left(), left, "{told:?}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Charge {
    cents: u64,
}

fn saying(status: u16, media_type: &str, body: &'static str) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header("content-type", media_type);
    answer.body(Full::new(body.into())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_a_successs_body_is_taken_for_the_value() {
    let clock = Virtual::new();
    let callee = Callees::answering([
        saying(200, "application/json", r#"{"cents":1}"#),
        saying(422, "application/problem+json; charset=utf-8", r#"{"cents":2,"detail":"no such card"}"#),
        saying(404, "application/json", r#"{"cents":3}"#),
        saying(200, "application/json", r#"{"euros":4}"#),
    ]);
    let (client, cx) = (client(&callee, &clock), context(&clock, 1));
    let next = async || client.get("/").send(&cx).await.unwrap();
    assert_eq!(next().await.json::<Charge>().unwrap(), Charge { cents: 1 });
    let said: Vec<_> = [
        next().await.json::<Charge>().unwrap_err().to_string(),
        next().await.success().unwrap_err().to_string(),
        next().await.json::<Charge>().unwrap_err().to_string(),
    ]
    .into();
    assert_eq!(said[0], "the callee answered 422 Unprocessable Entity: no such card");
    assert_eq!(said[1], "the callee answered 404 Not Found");
    assert!(said[2].contains("missing field `cents`"), "{}", said[2]);
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_sent_is_told_and_not_sent() {
    let clock = Virtual::new();
    let callee = Callees::default();
    let (client, cx) = (client(&callee, &clock), context(&clock, 1));
    let large = vec![0; (1 << 20) + 1];
    let unwritable: std::collections::BTreeMap<Vec<u8>, u8> = [(vec![1], 1)].into();
    for (request, says) in [
        (client.post("charges"), "does not begin with `/`"),
        (client.post("/a b"), "its path is none"),
        (client.post("/\r\nx: y"), "its path is none"),
        (client.post("/").header("x", "a\r\nb: c"), "has a character"),
        (client.post("/").header("x y", "secret"), "has a character"),
        (client.post("/").header("Mainstay-Priority", "critical"), "is written here"),
        (client.post("/").header("idempotency-key", "17"), "is written here"),
        (client.post("/").header("content-length", "5"), "is written here"),
        (client.post("/").body("application/octet-stream", large), "1048577 bytes"),
        (client.post("/").body("\n", "x"), "its media type is none"),
        (client.post("/").json(&unwritable), "not to be had as JSON"),
    ] {
        let Err(Failed::Upstream(error)) = request.send(&cx).await else { panic!("{says}") };
        assert!(matches!(error, HttpError::Request { .. }) && error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
    assert_eq!(callee.heads().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_begins_here_draws_on_the_policys_bucket() {
    let clock = Virtual::new();
    let callee = Callees::answering([empty(503), empty(503), empty(200)]);
    let policy = policy(&clock, |policy| policy.retry(Retry::exact(ms(100), ms(100)).max_attempts(2)));
    let (client, cx) = (policy.client(callee.http(&clock)), context(&clock, 1));
    assert_eq!(cx.envelope().tokens(), &RetryTokens::none());
    assert_eq!(client.get("/").send(&cx).await.unwrap().status(), 503, "its context has no tokens");
    assert_eq!(client.get("/").begins_here().send(&cx).await.unwrap().status(), 200);
    assert_eq!((policy.bucket().whole(), callee.heads().len()), (99, 3));
}

/// What a service does with a client, it does in tasks.
#[test]
fn clients_and_their_calls_go_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let (policy, http) = (Policy::outbound("a").build().unwrap(), Http::new("http://a").unwrap());
    let (client, cx) = (policy.client(http), Context::system());
    is_send(&client);
    is_send(&client.post("/").json(&Charge { cents: 1 }).key(&cx, "charge").send(&cx));
}
