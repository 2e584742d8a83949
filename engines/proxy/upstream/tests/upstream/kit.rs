//! A clock that is tokio's own, connections in memory, and servers on them.

use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use mainstay_envelope::{
    Clock, Context, Deadline, Envelope, Monotonic, Priority, RetryTokens, SeededChance, Timestamp,
};
use mainstay_upstream::{Connect, Connecting, Http, Io, Spec};
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;
use tower_service::Service;

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// tokio's clock, so that virtual time is one time for timers and rules.
#[derive(Debug)]
pub(crate) struct Virtual(Instant);

impl Virtual {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Virtual(Instant::now()))
    }

    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

impl Clock for Virtual {
    fn now(&self) -> Monotonic {
        Monotonic::from_origin(self.0.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_577_836_800_000 + i64::try_from(self.ms()).unwrap())
    }
}

/// A context of that clock.
pub(crate) fn context(clock: &Arc<Virtual>, seed: u64) -> Context {
    let chance = SeededChance::new(seed);
    let envelope = Envelope::begin(Priority::Normal, &chance);
    Context::new(envelope, Arc::clone(clock) as Arc<dyn Clock>, Arc::new(chance))
}

/// The same with a deadline, tokens and a priority.
pub(crate) fn with(cx: &Context, deadline: Option<u64>, tokens: u8, priority: Priority) -> Context {
    let chance = cx.chance();
    let mut envelope = Envelope::begin(priority, &**chance).with_tokens(RetryTokens::new(tokens));
    if let Some(remaining) = deadline {
        envelope = envelope.lower_deadline(Deadline::after(cx.now(), ms(remaining)));
    }
    cx.with_envelope(envelope)
}

/// Connections in memory: the other end of each is given to `accept`.
pub(crate) struct InMemory<F> {
    accept: F,
}

impl<F> InMemory<F> {
    pub(crate) fn new(accept: F) -> Arc<Self> {
        Arc::new(InMemory { accept })
    }
}

impl<F> Debug for InMemory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

impl<F: Fn(DuplexStream) + Send + Sync> Connect for InMemory<F> {
    fn connect(&self) -> Connecting {
        let (ours, theirs) = duplex(64 << 10);
        (self.accept)(theirs);
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}

/// Serves one connection with a tower service, as a server does.
pub(crate) fn serve<S, B>(io: DuplexStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = hyper::service::service_fn(move |request| service.clone().call(request));
    tokio::spawn(async move {
        // Its client's leaving is what some tests are about.
        drop(http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
    });
}

/// A client side whose connections go to `accept`.
pub(crate) fn http_over(accept: impl Fn(DuplexStream) + Send + Sync + 'static, clock: &Arc<Virtual>) -> Http {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Http::with("http://callee:8080", Spec::default()).unwrap().over(InMemory::new(accept), clock)
}

/// An answer without a body.
pub(crate) fn empty(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}
