//! Calling another service over HTTP: one policy around the client, one around the handler, and an envelope between them.
//! An answer is lost and nothing is charged twice; a callee that is down is left alone.
//!
//! Run it: `cargo run --example calling_a_service`. The chapter: docs/guide/calling-a-service.md.

use std::collections::HashSet;
use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use mainstay::Context;
use mainstay::envelope::IdempotencyKey;
use mainstay::resilience::{Breaker, Failed, Policy, Retry, Why};
use mainstay::upstream::inbound::{Arrivals, Receive};
use mainstay::upstream::{Callee, Http, PolicyExt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower::{Layer, service_fn};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Debug, Serialize, Deserialize)]
struct Charge {
    order: String,
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Charged {
    cents: u64,
}

/// The card processor: another service. Here it lives in the same process, behind a real socket.
#[derive(Default)]
struct Processor {
    /// What was charged, by the key of the effect.
    charged: Mutex<HashSet<String>>,
    asked: AtomicU32,
    /// How many of its next answers are never given, and how many of those after them are errors.
    hangs: AtomicU32,
    fails: AtomicU32,
}

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Processor {
    async fn charge(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // Put there by `Receive`: what the caller knows, with what is left of its time.
        let cx = request.extensions().get::<Context>().cloned();
        let key = cx.as_ref().and_then(|cx| cx.envelope().idempotency_key()).map(ToString::to_string);
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let Ok(charge) = serde_json::from_slice::<Charge>(&body) else {
            return Ok(answer(StatusCode::UNPROCESSABLE_ENTITY, String::new()));
        };
        if take(&self.fails) {
            return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, String::new()));
        }
        if let Some(key) = key {
            // The same key again is the same charge again: it is answered and not done.
            self.charged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key);
        }
        if take(&self.hangs) {
            // Charged, and nobody hears of it.
            std::future::pending::<()>().await;
        }
        let charged = serde_json::to_string(&Charged { cents: charge.cents }).unwrap_or_default();
        Ok(answer(StatusCode::OK, charged))
    }

    /// Serves it, and says where.
    async fn serve(self: &Arc<Self>) -> Result<String, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let policy = Policy::inbound("charges").deadline(Duration::from_secs(5)).bulkhead(100, 0).build()?;
        // Only our own services reach this port.
        let receive = Receive::from_ours(Context::system());
        let processor = Arc::clone(self);
        let handler = service_fn(move |request| Arc::clone(&processor).charge(request));
        let service = receive.layer(policy.layer(Arrivals).layer(handler));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                // A caller that leaves ends it; that is its right.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(url)
    }
}

fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let processor = Arc::new(Processor::default());
    let url = processor.serve().await?;
    let asked = || processor.asked.swap(0, Ordering::Relaxed);

    let policy = Policy::outbound("card-processor")
        .total(Duration::from_secs(5))
        .attempt(ms(200))
        .retry(Retry::full_jitter(ms(5), ms(50)).max_attempts(3))
        .breaker(Breaker::failure_rate(0.5).over(10).minimum_calls(6).open_for(Duration::from_secs(5)))
        .bulkhead(32, 64)
        .build()?;
    // It calls nobody on, so it is lent no retry tokens: they pay for our own second try.
    let payment = policy.client(Http::new(&url)?.callee(Callee::Leaf));

    // A command with a key of its own: however often it runs, "charge" names the same effect.
    let cx = Context::system();
    let cx = cx.with_envelope(cx.envelope().clone().with_idempotency_key(IdempotencyKey::new("order-17")?));
    let charge = Charge { order: "17".into(), cents: 1_250 };

    // The processor charges and its answer is lost. The second try carries the same key.
    processor.hangs.store(1, Ordering::Relaxed);
    let answer = payment.post("/charges").json(&charge).key(&cx, "charge").begins_here().send(&cx).await?;
    assert_eq!(answer.json::<Charged>()?, Charged { cents: 1_250 });
    assert_eq!((asked(), processor.charged.lock().map(|charged| charged.len()).unwrap_or(0)), (2, 1));
    println!("a lost answer: asked twice, charged once");

    // Without a key it is another type, and tried once.
    processor.hangs.store(1, Ordering::Relaxed);
    let told = match payment.post("/charges").json(&charge).begins_here().send(&cx).await {
        Err(Failed::Refused(refusal)) => {
            assert_eq!(refusal.why, Why::AttemptTimedOut { limit: ms(200) });
            refusal.to_string()
        }
        // The time limit of a try goes along with it: the callee may be the first of the two to give up.
        Ok(answer) => {
            assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
            format!("the callee answered {}", answer.status())
        }
        Err(Failed::Upstream(error)) => return Err(error.into()),
    };
    assert_eq!(asked(), 1);
    println!("without a key: asked once. {told}");

    // It is down: after some tries the breaker opens, and it is left alone.
    processor.fails.store(u32::MAX, Ordering::Relaxed);
    let refusal = loop {
        match payment.post("/charges").json(&charge).key(&cx, "charge").begins_here().send(&cx).await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE),
            Err(Failed::Refused(refusal)) => break refusal,
            Err(Failed::Upstream(error)) => return Err(error.into()),
        }
    };
    asked();
    assert_eq!(refusal.why, Why::BreakerOpen);
    assert!(refusal.retry_after.is_some() && policy.decision(refusal.decision).is_some());
    println!("it is down: {refusal}");
    assert_eq!(asked(), 0);
    Ok(())
}
