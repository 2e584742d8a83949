//! The commands' HTTP client: JSON over plain HTTP/1.1, to services on this machine.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 << 20;

/// How long an answer is waited for.
const WITHIN: Duration = Duration::from_secs(15);

/// Connections are kept and used again, unless a request says `connection: close`. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Http {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends one request, once: what may be repeated is for the caller to say.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(&method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request =
            request.body(Full::new(body)).with_context(|| format!("{method} {url}: no such request"))?;
        let answered = async {
            let answer =
                self.0.request(request).await.with_context(|| format!("{method} {url}: no answer"))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| {
                anyhow::anyhow!(
                    "{method} {url}: its answer broke off or is larger than {ANSWER_MAX} bytes: {error}"
                )
            })?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(WITHIN, answered).await {
            Ok(answer) => answer,
            Err(_) => anyhow::bail!("{method} {url}: no answer within {WITHIN:?}"),
        }
    }
}

impl Answer {
    /// The body.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("an answer that is no JSON")
    }

    /// A header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// This answer, if it is a success; otherwise what the service says is wrong.
    pub(crate) fn success(self, what: &str) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        anyhow::bail!("{what}: the service answered {}: {}", self.status, self.explanation())
    }

    /// What the service says about a failure: problem details (RFC 9457) explain themselves, and the text of
    /// anything else is not worth showing.
    pub(crate) fn explanation(&self) -> String {
        let body = serde_json::from_slice::<Value>(&self.body).ok();
        let detail = body.as_ref().and_then(|body| body["detail"].as_str().or(body["title"].as_str()));
        detail.unwrap_or("(no explanation)").to_owned()
    }
}
