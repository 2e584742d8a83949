//! The trust boundary as a tower layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{Either, Full};
use mainstay_envelope::wire::{self, Boundary, Edge};
use mainstay_envelope::{Context, Monotonic, Priority, RetryBucket, RetryTokens};
use mainstay_resilience::{Describe, Facts, Failed};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::problem::{refused, unreadable};

/// Puts a trust boundary around a service that wears an inbound policy: it reads the envelope of each request, gives the
/// request its [`Context`] as an extension, and answers refusals as problem details.
///
/// Which of the two it is depends on who can reach the port, never on what a request says.
#[derive(Debug, Clone)]
pub struct Receive {
    process: Context,
    strangers: Option<Arc<Strangers>>,
}

#[derive(Debug)]
struct Strangers {
    max_deadline: Duration,
    bucket: RetryBucket,
}

impl Receive {
    /// Only our own services come in here, authenticated as such: what they say of priority, tokens, names and time
    /// holds, and a field of theirs that can't be read is an error. `process` is where contexts come from.
    pub const fn from_ours(process: Context) -> Self {
        Receive { process, strangers: None }
    }

    /// Anybody comes in here: priority is normal, names are unknown, tokens are lent from a bucket of this layer, and the
    /// time that is claimed counts up to `max_deadline`, which is also that of who claims none.
    pub fn from_anybody(process: Context, max_deadline: Duration) -> Self {
        let strangers = Strangers { max_deadline, bucket: RetryBucket::new() };
        Receive { process, strangers: Some(Arc::new(strangers)) }
    }

    /// What strangers' retries are lent from; none among our own.
    pub fn bucket(&self) -> Option<&RetryBucket> {
        self.strangers.as_deref().map(|strangers| &strangers.bucket)
    }

    /// The context of a request that arrives now, and what is to be given back when it ends.
    fn context(&self, headers: &HeaderMap) -> Result<(Context, Borrowed), wire::WireError> {
        let tokens = self.bucket().map(RetryBucket::lend).unwrap_or_default();
        let borrowed = Borrowed { from: self.strangers.clone(), tokens: tokens.clone() };
        let boundary = match &self.strangers {
            None => Boundary::Trusted,
            Some(strangers) => Boundary::Edge(Edge {
                max_deadline: strangers.max_deadline,
                priority: Priority::Normal,
                tokens,
                caller: None,
                tenant: None,
            }),
        };
        let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let envelope = wire::decode(fields, self.process.now(), boundary, &**self.process.chance())?;
        Ok((self.process.with_envelope(envelope), borrowed))
    }
}

impl<S> Layer<S> for Receive {
    type Service = Received<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Received { inner, receive: self.clone() }
    }
}

/// A service behind a trust boundary; made by [`Receive`].
#[derive(Debug, Clone)]
pub struct Received<S> {
    inner: S,
    receive: Receive,
}

impl<S, B, A, E> Service<Request<B>> for Received<S>
where
    S: Service<Request<B>, Response = Response<A>, Error = Failed<E>>,
{
    type Response = Response<Either<A, Full<Bytes>>>;
    type Error = E;
    type Future = ReceivedFuture<S::Future>;

    fn poll_ready(&mut self, poller: &mut Poller<'_>) -> Poll<Result<(), E>> {
        match ready!(self.inner.poll_ready(poller)) {
            // A rule admits in `call`; one that refuses before has nobody to refuse.
            Ok(()) | Err(Failed::Refused(_)) => Poll::Ready(Ok(())),
            Err(Failed::Upstream(error)) => Poll::Ready(Err(error)),
        }
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (cx, borrowed) = match self.receive.context(request.headers()) {
            Ok(begun) => begun,
            Err(error) => return ReceivedFuture { step: Step::Refused { answer: Some(unreadable(&error)) } },
        };
        request.extensions_mut().insert(cx.clone());
        let future = self.inner.call(request);
        ReceivedFuture { step: Step::UnderWay { future, cx, borrowed } }
    }
}

/// Tokens of the edge's bucket. Given back when the request ends, however it ends: what is left of them nobody spent.
#[derive(Debug)]
struct Borrowed {
    from: Option<Arc<Strangers>>,
    tokens: RetryTokens,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(strangers) = &self.from {
            strangers.bucket.give_back(self.tokens.clone());
        }
    }
}

pin_project! {
    /// The answer.
    pub struct ReceivedFuture<F> {
        #[pin]
        step: Step<F>,
    }
}

pin_project! {
    #[project = Steps]
    enum Step<F> {
        // Its envelope can't be read.
        Refused {
            // None once it was handed out.
            answer: Option<Response<Full<Bytes>>>,
        },
        // The rules and the handler.
        UnderWay {
            // They.
            #[pin]
            future: F,
            // Whose answer it is.
            cx: Context,
            // What goes back at its end.
            borrowed: Borrowed,
        },
    }
}

impl<F, A, E> Future for ReceivedFuture<F>
where
    F: Future<Output = Result<Response<A>, Failed<E>>>,
{
    type Output = Result<Response<Either<A, Full<Bytes>>>, E>;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        match self.project().step.project() {
            Steps::Refused { answer } => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer.map(Either::Right))),
                // Polled again after its end, which no caller may do.
                None => Poll::Pending,
            },
            Steps::UnderWay { future, cx, borrowed } => {
                let mut answer = match ready!(future.poll(poller)) {
                    Ok(answer) => answer.map(Either::Left),
                    Err(Failed::Refused(refusal)) => refused(&refusal).map(Either::Right),
                    Err(Failed::Upstream(error)) => return Poll::Ready(Err(error)),
                };
                finish(answer.headers_mut(), cx, borrowed);
                Poll::Ready(Ok(answer))
            }
        }
    }
}

/// What an answer carries beside what it says.
fn finish(headers: &mut HeaderMap, cx: &Context, borrowed: &Borrowed) {
    let envelope = cx.envelope();
    if borrowed.from.is_none() {
        // Taken out, so that what is reported to be left can't be spent by something that goes on in the background.
        let left = envelope.tokens().take_all();
        let (name, value) = wire::answer(&left);
        insert(headers, name, &value);
    }
    insert(headers, "mainstay-correlation-id", &format!("\"{}\"", envelope.correlation().0));
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Tells inbound rules about requests that came through [`Receive`]: deadline and priority of their context, whose
/// caller is their identity. Before the handler begins, the context's deadline is lowered to that of the rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrivals;

impl<B> Describe<Request<B>> for Arrivals {
    fn facts(&self, request: &Request<B>, now: Monotonic) -> Facts {
        match request.extensions().get::<Context>() {
            Some(cx) => Facts::of(cx.envelope(), now),
            None => Facts::unknown(now),
        }
    }

    fn identity<'a>(&self, request: &'a Request<B>) -> Option<&'a str> {
        Some(request.extensions().get::<Context>()?.envelope().caller()?.as_str())
    }

    fn send(&self, request: &mut Request<B>, facts: &Facts) {
        if let Some(deadline) = facts.deadline
            && let Some(cx) = request.extensions_mut().get_mut::<Context>()
        {
            *cx = cx.with_envelope(cx.envelope().clone().lower_deadline(deadline));
        }
    }
}
