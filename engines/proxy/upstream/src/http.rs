//! One callee over HTTP: its address, its connections, and one try.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use mainstay_envelope::{Clock, SystemClock};
use mainstay_resilience::Invalid;
use tower_service::Service;

use crate::answer::{Answer, ByAnswer};
use crate::connect::{Connect, Tcp};
use crate::error::HttpError;
use crate::fields::{self, Callee, Lent};
use crate::outgoing::Outgoing;
use crate::pool::{Connection, Pool};
use crate::spec::Spec;

/// A callee over HTTP/1.1: its address, its own pool of connections, and the limits of what it may send. A clone is
/// another handle on the same pool; two values never share one, so what hangs in one callee's pool is nobody else's.
///
/// As a tower service it makes one try of a call, without any rule: see [`Client`](crate::Client) for calls under a
/// policy.
#[derive(Debug, Clone)]
pub struct Http(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    to: Arc<str>,
    host: HeaderValue,
    /// Without a slash at its end; often empty.
    prefix: Arc<str>,
    callee: Callee,
    spec: Spec,
    clock: Arc<dyn Clock>,
    pool: Arc<Pool>,
}

/// The most connections that turn out closed which one try passes over, before it makes a new one.
const CLOSED_MAX: u32 = 3;

impl Http {
    /// The callee at this address, with [`Spec::default`]. Connects when the first call is made.
    ///
    /// # Errors
    /// [`Invalid`] if it is not `http://host[:port][/path]`. The address is not repeated where it could hold a
    /// password.
    pub fn new(url: &str) -> Result<Self, Invalid> {
        Self::with(url, Spec::default())
    }

    /// The same with these settings.
    ///
    /// # Errors
    /// [`Invalid`] names what can't mean what it says.
    pub fn with(url: &str, spec: Spec) -> Result<Self, Invalid> {
        let Address { to, host, prefix } = address(url)?;
        spec.check()?;
        let (keepalive, connect_time) = (spec.keepalive, spec.connect_time);
        let connect = Arc::new(Tcp { to: Arc::clone(&to), keepalive, connect_time });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let pool = Arc::new(Pool::new(Arc::clone(&to), connect, Arc::clone(&clock), spec));
        Ok(Http(Arc::new(Inner { to, host, prefix, callee: Callee::Ours, spec, clock, pool })))
    }

    /// The same callee over connections that `connect` makes, by `clock`, with a pool of its own: for tests, for the
    /// simulator, and for sockets that are not TCP.
    #[must_use]
    pub fn over(self, connect: Arc<dyn Connect>, clock: Arc<dyn Clock>) -> Self {
        let Inner { to, spec, .. } = &*self.0;
        let pool = Arc::new(Pool::new(Arc::clone(to), connect, Arc::clone(&clock), *spec));
        self.but(|inner| (inner.pool, inner.clock) = (pool, clock))
    }

    /// Says who the callee is to us. Default: [`Callee::Ours`].
    #[must_use]
    pub fn callee(self, callee: Callee) -> Self {
        self.but(|inner| inner.callee = callee)
    }

    fn but(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Http(Arc::new(inner))
    }

    /// Where it is: `host:port`.
    pub fn to(&self) -> &str {
        &self.0.to
    }

    /// Its settings.
    pub fn spec(&self) -> &Spec {
        &self.0.spec
    }

    /// How its answers are judged: by status and Retry-After, dates by this callee's clock.
    pub fn judge(&self) -> ByAnswer {
        ByAnswer::with_clock(Arc::clone(&self.0.clock))
    }

    /// Connections that are open now, idle ones included.
    pub fn connections(&self) -> usize {
        self.0.pool.count().0
    }

    /// Connections that are open now and used by nobody.
    pub fn idle_connections(&self) -> usize {
        self.0.pool.count().1
    }
}

impl Service<Outgoing> for Http {
    type Response = Answer;
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, HttpError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, outgoing: Outgoing) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let limit = inner.spec.exchange_time;
            match tokio::time::timeout(limit, inner.exchange(&outgoing)).await {
                Ok(result) => result,
                Err(_) => Err(HttpError::TooSlow { to: Arc::clone(&inner.to), limit }),
            }
        })
    }
}

impl Inner {
    /// One try: a connection, the request, the whole answer.
    async fn exchange(&self, outgoing: &Outgoing) -> Result<Answer, HttpError> {
        let mut closed = 0;
        loop {
            let reused = if closed < CLOSED_MAX { self.pool.idle_one() } else { None };
            let mut connection = match reused {
                Some(connection) => connection,
                None => self.pool.new_one().await?,
            };
            // After waiting for a connection, so that what is written is what remains.
            let lent = Lent::to(self.callee, outgoing.facts());
            let request = self.request(outgoing, &lent)?;
            let sent = match connection.sender.ready().await {
                Ok(()) => connection.sender.try_send_request(request).await,
                Err(source) if connection.is_reused => {
                    drop(source);
                    lent.back();
                    closed += 1;
                    continue;
                }
                Err(source) => {
                    lent.back();
                    return Err(HttpError::Unsent { to: Arc::clone(&self.to), source });
                }
            };
            match sent {
                Ok(answer) => {
                    lent.settle(answer.headers());
                    return self.read(connection, answer).await;
                }
                // hyper hands the request back where it wrote nothing of it. On a connection that was idle this is
                // the callee closing it meanwhile, which is no failure of this try.
                Err(mut failed) => match (failed.take_message(), failed.into_error()) {
                    (Some(_), _) if connection.is_reused => {
                        lent.back();
                        closed += 1;
                    }
                    (Some(_), source) => {
                        lent.back();
                        return Err(HttpError::Unsent { to: Arc::clone(&self.to), source });
                    }
                    (None, source) => {
                        let to = Arc::clone(&self.to);
                        return Err(HttpError::after_sending(to, self.spec.head_bytes_max, source));
                    }
                },
            }
        }
    }

    fn request(&self, outgoing: &Outgoing, lent: &Lent) -> Result<Request<Full<Bytes>>, HttpError> {
        let draft = outgoing.draft();
        let target = format!("{}{}", self.prefix, draft.target);
        let target = target.parse::<PathAndQuery>().map_err(|error| HttpError::request(error.to_string()))?;
        let mut request = Request::new(Full::new(draft.body.clone()));
        *request.method_mut() = draft.method.clone();
        *request.uri_mut() = Uri::from(target);
        let headers = request.headers_mut();
        headers.clone_from(&draft.headers);
        headers.insert(HOST, self.host.clone());
        if draft.body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&draft.method) {
            // A body is to be expected of these, so that there is none is said (RFC 9110 §8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        fields::write(headers, self.callee, outgoing.cx(), outgoing.facts(), draft.key.as_ref(), lent)?;
        Ok(request)
    }

    /// Reads the body to its end, or closes the connection.
    async fn read(&self, connection: Connection, answer: Response<Incoming>) -> Result<Answer, HttpError> {
        let limit = self.spec.answer_bytes_max;
        let too_large = || HttpError::TooLarge { to: Arc::clone(&self.to), part: "body", limit };
        let (mut parts, body) = answer.into_parts();
        // What says beforehand that it is too large is not begun.
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let bytes = match Limited::new(body, limit).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                return Err(match error.downcast::<hyper::Error>() {
                    Ok(source) => {
                        let to = Arc::clone(&self.to);
                        HttpError::after_sending(to, self.spec.head_bytes_max, *source)
                    }
                    Err(error) if error.is::<LengthLimitError>() => too_large(),
                    Err(error) => HttpError::Undecodable { problem: error.to_string() },
                });
            }
        };
        self.pool.park(connection);
        // Of the message on the wire; the body is what it is.
        if parts.headers.remove(http::header::TRANSFER_ENCODING).is_some() {
            parts.headers.remove(CONTENT_LENGTH);
        }
        Ok(Answer::new(Response::from_parts(parts, bytes)))
    }
}

struct Address {
    to: Arc<str>,
    host: HeaderValue,
    prefix: Arc<str>,
}

/// Takes a base address apart.
fn address(url: &str) -> Result<Address, Invalid> {
    // Until it is known that there is no password in it, the address is not shown.
    let shown = if url.contains('@') { "(not shown)".to_owned() } else { format!("{url:?}") };
    let invalid = |problem, remedy| Err(Invalid::new("http", "url", shown.clone(), problem, remedy));
    const REMEDY: &str = "give `http://host:port`";
    if url.contains('@') {
        return invalid("it holds a name or a password, which would end in logs", "send them in a header");
    }
    if url.contains(['#', '?']) {
        return invalid("it has a query or a fragment, which a base address has not", REMEDY);
    }
    let Ok(uri) = url.parse::<Uri>() else { return invalid("it is no URL", REMEDY) };
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => {}
        Some(scheme) if *scheme == Scheme::HTTPS => {
            return invalid("TLS is not spoken here", "put a proxy that speaks it in between");
        }
        _ => return invalid("its scheme is not http", REMEDY),
    }
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return invalid("it names no host", REMEDY);
    };
    let Some(port) = port(authority) else { return invalid("its port is no port", REMEDY) };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else { return invalid("it is no URL", REMEDY) };
    let to = format!("{}:{port}", authority.host()).into();
    Ok(Address { to, host, prefix: uri.path().trim_end_matches('/').into() })
}

/// The port; none if there is one that is no port.
fn port(authority: &Authority) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => Some(80),
        _ => authority.port_u16().filter(|port| *port > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_is_taken_apart_or_refused_without_showing_a_password() {
        for (url, to, prefix) in [
            ("http://payment", "payment:80", ""),
            ("http://payment:8080", "payment:8080", ""),
            ("http://payment:8080/", "payment:8080", ""),
            ("http://10.0.0.1:1/api/v1/", "10.0.0.1:1", "/api/v1"),
            ("http://[::1]:8080/api", "[::1]:8080", "/api"),
            ("http://[::1]", "[::1]:80", ""),
        ] {
            let address = address(url).unwrap();
            assert_eq!((&*address.to, &*address.prefix), (to, prefix), "{url}");
        }
        for url in [
            "",
            "payment",
            "payment:8080",
            "https://payment",
            "ftp://payment",
            "http://",
            "http://:80",
            "http://payment:",
            "http://payment:0",
            "http://payment:65536",
            "http://payment/?a=b",
            "http://payment/#a",
            "http://pay ment",
            "http://ada:secret@payment",
        ] {
            let Err(invalid) = address(url) else { panic!("{url}") };
            assert!(!invalid.to_string().contains("secret"), "{invalid}");
        }
    }
}
