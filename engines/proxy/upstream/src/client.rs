//! A callee under a policy, and the requests that are made of it.

use std::future::poll_fn;
use std::marker::PhantomData;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mainstay_envelope::{Context, IdempotencyKey, wire};
use mainstay_resilience::stack::OutboundLayer;
use mainstay_resilience::{Failed, Policy, Safety};
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::{Answer, ByAnswer};
use crate::error::HttpError;
use crate::fields;
use crate::http::Http;
use crate::outgoing::{Calls, Draft, Outgoing};

/// The whole outbound order of a policy around one callee's connections.
pub type Stack = <OutboundLayer<ByAnswer, Calls> as Layer<Http>>::Service;

/// A policy makes clients.
pub trait PolicyExt {
    /// A client of this callee, whose every call goes through this policy.
    fn client(&self, http: Http) -> Client;
}

impl PolicyExt for Policy {
    fn client(&self, http: Http) -> Client {
        Client::new(http, self)
    }
}

/// Calls one callee under one policy. A clone is another handle on the same policy and the same connections.
#[derive(Debug, Clone)]
pub struct Client<S = Stack> {
    stack: S,
    request_bytes_max: usize,
}

impl Client {
    /// A client of this callee, whose every call goes through this policy. Give the policy a bulkhead of no more
    /// permits than the callee has `connections`.
    pub fn new(http: Http, policy: &Policy) -> Self {
        let request_bytes_max = http.spec().request_bytes_max;
        let stack = policy.layer(http.judge()).describe(Calls).layer(http);
        Client { stack, request_bytes_max }
    }
}

impl<S> Client<S>
where
    S: Service<Outgoing, Response = Answer, Error = Failed<HttpError>> + Clone,
{
    /// A client of any service of [`Outgoing`] calls, such as a policy with layers of the user's put in:
    /// `policy.layer(http.judge()).describe(Calls).fallback(layer).layer(http)`. `request_bytes_max` is the largest
    /// body of a request, in bytes.
    pub const fn of(stack: S, request_bytes_max: usize) -> Self {
        Client { stack, request_bytes_max }
    }

    /// Reads (RFC 9110 §9.3.1). Safe: it may be tried again.
    pub fn get(&self, target: &str) -> Request<S, Safe> {
        self.request(Method::GET, target)
    }

    /// Reads the head (RFC 9110 §9.3.2). Safe: it may be tried again.
    pub fn head(&self, target: &str) -> Request<S, Safe> {
        self.request(Method::HEAD, target)
    }

    /// Replaces (RFC 9110 §9.3.4). Idempotent: it may be tried again.
    pub fn put(&self, target: &str) -> Request<S, Safe> {
        self.request(Method::PUT, target)
    }

    /// Removes (RFC 9110 §9.3.5). Idempotent: it may be tried again.
    pub fn delete(&self, target: &str) -> Request<S, Safe> {
        self.request(Method::DELETE, target)
    }

    /// Does something (RFC 9110 §9.3.3). Tried once, unless it is given a [`key`](Request::key).
    pub fn post(&self, target: &str) -> Request<S, Once> {
        self.request(Method::POST, target)
    }

    /// Changes (RFC 5789). Tried once, unless it is given a [`key`](Request::key).
    pub fn patch(&self, target: &str) -> Request<S, Once> {
        self.request(Method::PATCH, target)
    }

    fn request<R>(&self, method: Method, target: &str) -> Request<S, R> {
        let problem = match target.parse::<PathAndQuery>() {
            _ if !target.starts_with('/') => Some(HttpError::request("its path does not begin with `/`")),
            Ok(_) => None,
            Err(error) => Some(HttpError::request(format!("its path is none ({error})"))),
        };
        Request {
            client: self.clone(),
            draft: Draft {
                method,
                target: target.to_owned(),
                headers: HeaderMap::new(),
                body: Bytes::new(),
                key: None,
            },
            problem,
            begins_here: false,
            repetition: PhantomData,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Whether a request may be tried again: a fact of its type.
pub trait Repetition: sealed::Sealed {
    /// What repeating it does.
    const SAFETY: Safety;
}

macro_rules! repetitions {
    ($($(#[$doc:meta])* $name:ident => $safety:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        impl Repetition for $name {
            const SAFETY: Safety = $safety;
        }
    )*};
}

repetitions! {
    /// Its method says that a repetition does no harm (RFC 9110 §9.2.1, §9.2.2).
    Safe => Safety::Safe;
    /// It carries an idempotency key, by which the callee knows a repetition.
    Keyed => Safety::Keyed;
    /// A repetition would do it twice: it is tried once, whatever the policy says.
    Once => Safety::Unsafe;
}

/// A request in the making. What is wrong with it is told when it is sent.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Request<S, R> {
    client: Client<S>,
    draft: Draft,
    /// The first thing that was wrong.
    problem: Option<HttpError>,
    begins_here: bool,
    repetition: PhantomData<R>,
}

impl<S, R> Request<S, R> {
    /// Adds a header field. Those of the envelope ([`wire::NAMES`]) and of the message's frame (`host`,
    /// `content-length`, `transfer-encoding`) are not the caller's to write.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes());
        match (name, HeaderValue::from_str(value)) {
            (Ok(name), Ok(_)) if is_ours(&name) => {
                self.fail(|| {
                    format!("the header `{name}` is written here; give what it says through the context")
                });
            }
            (Ok(name), Ok(value)) => {
                self.draft.headers.append(name, value);
            }
            // Neither is repeated: a value may be a secret, a name a value in the wrong place.
            _ => self.fail(|| "a header's name or value has a character that none may have".to_owned()),
        }
        self
    }

    /// A body of bytes.
    pub fn body(mut self, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        match HeaderValue::from_str(media_type) {
            Ok(value) => {
                self.draft.headers.insert(CONTENT_TYPE, value);
            }
            Err(_) => self.fail(|| "its media type is none".to_owned()),
        }
        self.draft.body = bytes.into();
        let (bytes, most) = (self.draft.body.len(), self.client.request_bytes_max);
        if bytes > most {
            self.fail(|| format!("its body has {bytes} bytes, more than the {most} that it may have"));
            self.draft.body = Bytes::new();
        }
        self
    }

    /// A body of JSON.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.body("application/json", bytes),
            Err(error) => {
                self.fail(|| format!("its body is not to be had as JSON ({error})"));
                self
            }
        }
    }

    /// Gives it an idempotency key: the callee does it once however often it comes, so it may be tried again.
    ///
    /// The key is derived from the context and `label`, so it is the same for each try, and the same again when the
    /// command (by its own idempotency key) or the fact that is being handled comes again. Within one context a label
    /// names one effect: two effects with one label are one to the callee, and the second is swallowed. In a loop, put
    /// what differs into the label. A context with neither key nor cause gives a key that holds for this one run.
    pub fn key(self, cx: &Context, label: &str) -> Request<S, Keyed> {
        let key = fields::key(cx, label);
        self.keyed(key)
    }

    /// Gives it this very key, which the caller has made: such as the id of a row that says what is to be done.
    pub fn exact_key(self, key: IdempotencyKey) -> Request<S, Keyed> {
        self.keyed(Ok(key))
    }

    fn keyed(self, key: Result<IdempotencyKey, HttpError>) -> Request<S, Keyed> {
        let Request { client, mut draft, mut problem, begins_here, repetition: _ } = self;
        match key {
            Ok(key) => draft.key = Some(key),
            Err(error) => problem = problem.or(Some(error)),
        }
        Request { client, draft, problem, begins_here, repetition: PhantomData }
    }

    /// Says that this call begins here and is made for nobody's request: its retries draw on the policy's own bucket.
    /// Without this they draw on the tokens of the context, of which one that begins in this process has none.
    pub const fn begins_here(mut self) -> Self {
        self.begins_here = true;
        self
    }

    fn fail(&mut self, problem: impl FnOnce() -> String) {
        if self.problem.is_none() {
            self.problem = Some(HttpError::request(problem()));
        }
    }
}

impl<S, R> Request<S, R>
where
    S: Service<Outgoing, Response = Answer, Error = Failed<HttpError>> + Clone,
    R: Repetition,
{
    /// Sends it, as often as the policy says. Each try carries the envelope of `cx` with what holds at that moment:
    /// the deadline that is left to it, the tokens that are left, a span of its own.
    ///
    /// # Errors
    /// [`Failed::Refused`] if a rule said no, [`Failed::Upstream`] with what the last try failed with. An answer with
    /// an error status is an answer: see [`Answer::success`] and [`Answer::json`].
    pub async fn send(self, cx: &Context) -> Result<Answer, Failed<HttpError>> {
        let Request { client, draft, problem, begins_here, repetition: _ } = self;
        if let Some(problem) = problem {
            return Err(Failed::Upstream(problem));
        }
        let outgoing = Outgoing::new(draft, cx.clone(), R::SAFETY, begins_here);
        let mut stack = client.stack;
        poll_fn(|poller| stack.poll_ready(poller)).await?;
        stack.call(outgoing).await
    }
}

fn is_ours(name: &HeaderName) -> bool {
    wire::NAMES.contains(&name.as_str()) || [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}
