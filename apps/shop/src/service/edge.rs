//! The edge: what every request passes through before its route, and every answer after it.
//!
//! ```text
//! request ─► envelope (a stranger's) ─► host ours? ─► receipt seen? ─► its turn ─► route ─► answer + correlation id
//!                  400                   400 421        400 422 503       503
//! ```

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, Response};
use axum::response::IntoResponse;
use mainstay::Context;
use mainstay::envelope::wire::{self, Boundary, Edge};
use mainstay::envelope::{Priority, RetryTokens};
use mainstay::store::{Receipt, Store};
use serde::de::DeserializeOwned;

use super::admission;
use super::answer::RECEIPT;
use super::app::App;
use crate::http::problem::{Cause, Fault, Problem};
use crate::http::{body as bodies, host};

const CORRELATION: HeaderName = HeaderName::from_static("mainstay-correlation-id");

/// What a route knows of its request beside path and body. Made by the edge.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request's envelope, clock and chance.
    pub cx: Context,
}

impl<A: Sync> FromRequestParts<A> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &A) -> Result<Self, Problem> {
        let call = parts.extensions.get::<Self>().cloned();
        call.ok_or_else(|| {
            Problem::new(Fault::Internal, "a route was reached past the edge; nothing was done")
        })
    }
}

/// Handles one request, whatever it is.
pub async fn receive<S: Store>(app: Arc<App<S>>, routes: Router, request: Request<Body>) -> Response<Body> {
    app.stats().request();
    let (cx, request) = match begin(&app, request).await {
        Ok(begun) => begun,
        Err((problem, None)) => return problem.into_response(),
        Err((problem, Some(cx))) => return finished(&app, problem.into_response(), &cx),
    };
    let served = app.admission().serve(&cx, routes, request).await;
    finished(&app, served.unwrap_or_else(IntoResponse::into_response), &cx)
}

async fn begin<S: Store>(
    app: &App<S>,
    mut request: Request<Body>,
) -> Result<(Context, Request<Body>), (Problem, Option<Context>)> {
    let cx = envelope(app, &request).map_err(|problem| (problem, None))?;
    let fail = |problem| (problem, Some(cx.clone()));
    host::check(app.hosts(), &request).map_err(fail)?;
    if cx.remaining().is_some_and(|remaining| remaining.is_zero()) {
        return Err(fail(Problem::new(
            Fault::DeadlineOver,
            "no time was left when it arrived; nothing was done",
        )));
    }
    if let Some(receipt) = presented(&request).map_err(fail)? {
        app.seen(&cx, &receipt).await.map_err(fail)?;
    }
    request.extensions_mut().insert(Call { cx: cx.clone() });
    Ok((cx, request))
}

/// Everybody is a stranger here: what they say of priority, tokens and identity is not believed.
fn envelope<S: Store>(app: &App<S>, request: &Request<Body>) -> Result<Context, Problem> {
    let process = app.cx();
    let edge = Edge {
        max_deadline: app.limits().request_time,
        // By what is asked for; nobody is known who could ask for more.
        priority: admission::priority(request.method(), request.uri().path(), request.headers())
            .unwrap_or(Priority::Normal),
        // Calls made from here have budgets of their own.
        tokens: RetryTokens::none(),
        caller: None,
        tenant: None,
    };
    let fields = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    match wire::decode(fields, process.now(), Boundary::Edge(edge), &**process.chance()) {
        Ok(envelope) => Ok(process.with_envelope(envelope)),
        Err(error) => Err(Problem::new(Fault::BadHeader, error)),
    }
}

fn presented(request: &Request<Body>) -> Result<Option<Receipt>, Problem> {
    let mut values = request.headers().get_all(RECEIPT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let receipt = value.to_str().ok().and_then(|text| text.parse().ok());
    match (receipt, values.next()) {
        (Some(receipt), None) => Ok(Some(receipt)),
        _ => Err(Problem::new(
            Fault::BadHeader,
            "Mainstay-Receipt is not one receipt; nothing was done; send it exactly as it was answered, once",
        )),
    }
}

/// An answer on its way out: with the correlation id, and told of if it is a fault of ours.
fn finished<S: Store>(app: &App<S>, mut answer: Response<Body>, cx: &Context) -> Response<Body> {
    if let Some(Cause(cause)) = answer.extensions_mut().remove() {
        app.failed(cx, &cause);
    }
    let text = format!("\"{}\"", cx.envelope().correlation().0);
    if let Ok(value) = HeaderValue::from_str(&text) {
        answer.headers_mut().insert(CORRELATION, value);
    }
    answer
}

/// A route's body as a checked value.
pub async fn body<T: DeserializeOwned, S: Store>(app: &App<S>, request: Request<Body>) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    bodies::json(&parts.headers, body, app.limits().body_time).await
}

#[cfg(test)]
mod tests {
    use axum::http::{StatusCode, header};
    use axum::routing::{get, post};
    use mainstay::flow::saga::Participant;
    use mainstay::messaging::memory::Memory as Log;
    use mainstay::store::memory::Memory;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::service::Wiring;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_takes_too_long_is_to_be_repeated_with_its_key_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stops = watch::channel(false).1;
        let wiring = Wiring::new(Memory::new(), Log::new(1), listener, Context::system(), stops);
        let app = App::new(&wiring, &Participant::new("slow")).unwrap();
        let routes = Router::new().route("/", post(std::future::pending::<()>));
        for (key, retry_after) in [(Some("k"), Some("1")), (None, None)] {
            let mut request = Request::post("/").header("host", "localhost");
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let request = request.body(Body::empty()).unwrap();
            let answer = receive(Arc::clone(&app), routes.clone(), request).await;
            let told = answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!((answer.status().as_u16(), told), (503, retry_after), "{key:?}");
        }
    }

    #[tokio::test]
    async fn when_there_is_too_much_to_do_browsing_is_refused_and_checkout_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stops = watch::channel(false).1;
        let mut wiring = Wiring::new(Memory::new(), Log::new(1), listener, Context::system(), stops);
        (wiring.limits.under_way_max, wiring.limits.queue_max) = (1, 1);
        let app = App::new(&wiring, &Participant::new("shop")).unwrap();
        let go = Arc::new(tokio::sync::Notify::new());
        let held = Arc::clone(&go);
        let routes = Router::new()
            .route("/orders/{id}", get(move || async move { held.notified().await }))
            .route("/orders", get(|| async {}).post(|| async {}))
            .route("/health/live", get(|| async {}));
        let ask = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).header("host", "localhost");
            tokio::spawn(receive(Arc::clone(&app), routes.clone(), request.body(Body::empty()).unwrap()))
        };
        let until = async |name: &str| {
            while app.metrics().text(app.cx().now()).json()[&format!("{name}{{policy=\"shop\"}}")] != 1.0 {
                tokio::task::yield_now().await;
            }
        };
        let holds = ask("GET", "/orders/1");
        until("mainstay_load_shed_in_flight").await;
        let browses = ask("GET", "/orders");
        until("mainstay_load_shed_waiting").await;
        let checkout = ask("POST", "/orders");
        // The one that waits is refused for the more important one.
        let shed = browses.await.unwrap();
        assert_eq!(
            (shed.status().as_u16(), &shed.headers()[header::RETRY_AFTER]),
            (503, &"1".parse().unwrap())
        );
        let body = axum::body::to_bytes(shed.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "urn:mainstay:problem:shed");
        let decision = body["decision"].as_str().unwrap();
        assert!(decision.len() == 16 && decision != "0000000000000000", "{body}");
        // Who asks how the service is needs no turn.
        assert_eq!(ask("GET", "/health/live").await.unwrap().status(), 200);
        go.notify_one();
        assert_eq!(
            (checkout.await.unwrap().status(), holds.await.unwrap().status()),
            (StatusCode::OK, StatusCode::OK)
        );
    }
}
