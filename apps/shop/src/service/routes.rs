//! The routes that every service has, and what all routes need.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use mainstay::store::Store;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer;
use super::app::App;
use super::metrics::TEXT_FORMAT;
use crate::http::problem::{Fault, Problem};

/// A service's own routes, and those that all have: health, the document, the counters, and what is answered
/// where there is no route.
pub fn all<S: Store>(app: Arc<App<S>>, document: &Value, own: Router) -> Router {
    let document = Bytes::from(document.to_string());
    let common = Router::new()
        .route("/health/live", get(|| async { answer::json(StatusCode::OK, r#"{"status":"live"}"#) }))
        .route("/health/ready", get(ready::<S>))
        .route("/openapi.json", get(move || async move { answer::json(StatusCode::OK, document) }))
        .route("/stats", get(stats::<S>))
        .route("/metrics", get(metrics::<S>))
        .with_state(app);
    common
        .merge(own)
        .fallback(|| async { Problem::new(Fault::NotFound, "there is no such path; see /openapi.json") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Fault::MethodNotAllowed, "see the header Allow, or /openapi.json; nothing was done")
        })
}

async fn ready<S: Store>(State(app): State<Arc<App<S>>>) -> Response<Body> {
    match app.not_ready().await {
        None => answer::json(StatusCode::OK, r#"{"status":"ready"}"#),
        Some(why) => Problem::new(Fault::NotReady, why).into_response(),
    }
}

async fn stats<S: Store>(State(app): State<Arc<App<S>>>) -> Result<Response<Body>, Problem> {
    let figures = app.figures().await.map_err(|error| answer::read_problem(&error))?;
    let body = json!({
        "service": app.name(),
        "requests": app.stats().requests(),
        "waiting": app.stats().waiting(),
        "failures": app.stats().failures(),
        "commits": app.stats().commits(),
        "published": figures.published,
        "handled": app.stats().reactions(),
        "backlog": figures.backlog,
        "parked": figures.parked,
        "metrics": app.metrics().text(app.cx().now()).json(),
    });
    Ok(answer::json(StatusCode::OK, body.to_string()))
}

async fn metrics<S: Store>(State(app): State<Arc<App<S>>>) -> Response<Body> {
    let mut answer = Response::new(Body::from(app.metrics().text(app.cx().now()).to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    answer
}

/// The query as a checked value: unknown, repeated and malformed parameters are refused.
pub fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::<T>::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| Problem::new(Fault::BadQuery, error.body_text()))
}

/// A part of the path as a checked value. One that can't be such a value names nothing: 404.
pub fn path<T: FromStr>(raw: Result<axum::extract::Path<String>, PathRejection>) -> Result<T, Problem> {
    let raw = raw.ok().and_then(|axum::extract::Path(text)| text.parse().ok());
    raw.ok_or_else(|| Problem::new(Fault::NotFound, "there is nothing of this name here"))
}
