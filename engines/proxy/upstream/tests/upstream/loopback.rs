//! Real sockets, and what a callee can do to them. Each is classified, bounded, and tried again only where that does no
//! harm.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mainstay_envelope::Context;
use mainstay_resilience::circuit_breaker::Phase;
use mainstay_resilience::{Breaker, Classified, Failed, Outcome, Policy, Retry, Rule, Why};
use mainstay_upstream::{Callee, Http, HttpError, PolicyExt, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::kit::{Virtual, http_over, ms};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A callee that does what a test says with each connection, by its number.
struct Server {
    url: String,
    /// Requests whose head was read.
    requests: Arc<AtomicU32>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start<F>(act: impl Fn(u32, Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let peer = Peer { stream, requests: Arc::clone(&counted) };
                tokio::spawn(act(number, peer));
            }
        });
        Server { url, requests, task: task.abort_handle() }
    }

    fn http(&self, spec: Spec) -> Http {
        // Nobody behind it is called, so a lost answer takes no token along.
        Http::with(&self.url, spec).unwrap().callee(Callee::Leaf)
    }

    fn asked(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

struct Peer {
    stream: TcpStream,
    requests: Arc<AtomicU32>,
}

impl Peer {
    /// Reads a request without a body; an error at the end of the connection.
    async fn request(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Ends the connection as a crash does.
    fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Waits until the caller ends the connection.
    async fn until_closed(mut self) {
        let mut rest = [0; 1_024];
        while !matches!(self.stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}

fn policy() -> Policy {
    Policy::outbound("callee")
        .total(Duration::from_secs(20))
        .attempt(ms(5_000))
        .retry(Retry::exact(ms(1), ms(1)).max_attempts(3))
        .breaker(Breaker::failure_rate(0.5).over(10).minimum_calls(10).open_for(ms(5_000)))
        .build()
        .unwrap()
}

/// What one call was: read, repeated under a key, or once.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Get,
    Keyed,
    Once,
}

const KINDS: [Kind; 3] = [Kind::Get, Kind::Keyed, Kind::Once];

async fn ask(policy: &Policy, http: &Http, kind: Kind) -> Result<(), Failed<HttpError>> {
    let (cx, client) = (Context::system(), policy.client(http.clone()));
    let answer = match kind {
        Kind::Get => client.get("/").begins_here().send(&cx).await,
        Kind::Keyed => client.post("/").key(&cx, "it").begins_here().send(&cx).await,
        Kind::Once => client.post("/").begins_here().send(&cx).await,
    }?;
    assert_eq!((answer.status().as_u16(), &answer.bytes()[..]), (200, &b"ok"[..]));
    Ok(())
}

fn upstream(result: Result<(), Failed<HttpError>>) -> HttpError {
    match result {
        Err(Failed::Upstream(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reset_within_the_answer_is_tried_again_only_if_that_does_no_harm() {
    for (kind, is_reset) in KINDS.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
        let server = Server::start(move |number, mut peer| async move {
            peer.request().await?;
            if number > 0 {
                return peer.say(OK).await;
            }
            peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
            if is_reset {
                peer.reset();
            }
            Ok(())
        })
        .await;
        let (policy, http) = (policy(), server.http(Spec::default()));
        let result = ask(&policy, &http, kind).await;
        if kind == Kind::Once {
            let error = upstream(result);
            assert!(matches!(error, HttpError::Lost { .. }), "{error}");
            assert!(error.outcome().is_transient() && !error.had_no_effect());
            assert_eq!(server.asked(), 1);
        } else {
            result.unwrap();
            assert_eq!(server.asked(), 2, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_on_a_connection_used_before_is_tried_again_only_if_that_does_no_harm() {
    for kind in KINDS {
        let server = Server::start(|number, mut peer| async move {
            peer.request().await?;
            peer.say(OK).await?;
            // The second request is read, and maybe acted on, and nobody learns which.
            peer.request().await?;
            if number == 0 {
                peer.reset();
                return Ok(());
            }
            peer.say(OK).await
        })
        .await;
        let (policy, http) = (policy(), server.http(Spec::default()));
        ask(&policy, &http, Kind::Get).await.unwrap();
        assert_eq!((http.connections(), http.idle_connections()), (1, 1));
        let result = ask(&policy, &http, kind).await;
        if kind == Kind::Once {
            assert!(matches!(upstream(result), HttpError::Lost { .. }));
            assert_eq!(server.asked(), 2);
        } else {
            result.unwrap();
            assert_eq!(server.asked(), 3, "{kind:?}");
        }
    }
}

/// In memory, where it is certain what the caller has noticed yet.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_closed_while_idle_costs_no_try() {
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let (clock, accept) = (Virtual::new(), Arc::clone(&accepted));
    let http = http_over(move |io| accept.lock().unwrap().push(io), &clock);
    let policy = policy();
    // Reads a request on the next connection, and answers it.
    let serve = || {
        let accepted = Arc::clone(&accepted);
        tokio::spawn(async move {
            while accepted.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            let mut io = accepted.lock().unwrap().pop().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.unwrap());
            }
            io.write_all(OK).await.unwrap();
            io
        })
    };
    for is_noticed in [false, true] {
        let callee = serve();
        ask(&policy, &http, Kind::Get).await.unwrap();
        assert_eq!(http.idle_connections(), 1);
        let callee: DuplexStream = callee.await.unwrap();
        // Closed: at once for the callee, for the caller when its task has run.
        drop(callee);
        if is_noticed {
            tokio::time::sleep(ms(1)).await;
        }
        let callee = serve();
        // Without a key: sent twice it would be done twice.
        ask(&policy, &http, Kind::Once).await.unwrap();
        drop(callee.await.unwrap());
        tokio::time::sleep(ms(1)).await;
    }
    assert_eq!(policy.decisions(), [], "no retry, no failure");
}

#[tokio::test]
async fn who_never_answers_is_waited_for_as_long_as_the_policy_says() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await?;
        peer.until_closed().await;
        Ok(())
    })
    .await;
    let http = server.http(Spec::default());
    let policy = Policy::outbound("callee").attempt(ms(50)).build().unwrap();
    let began = Instant::now();
    let Err(Failed::Refused(refusal)) = ask(&policy, &http, Kind::Get).await else { panic!("it is refused") };
    assert_eq!(refusal.why, Why::AttemptTimedOut { limit: ms(50) });
    assert!(began.elapsed() >= ms(50) && began.elapsed() < ms(5_000));
    assert_eq!(http.connections(), 0, "closed with its try");
    // And without any policy's limit as long as the connection's settings say.
    let http = server.http(Spec::default().exchange_time(ms(50)));
    let policy = Policy::outbound("callee").build().unwrap();
    let error = upstream(ask(&policy, &http, Kind::Get).await);
    assert!(matches!(error, HttpError::TooSlow { .. }), "{error}");
    assert!(error.outcome().is_transient() && !error.had_no_effect());
    assert_eq!(http.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_with_its_try() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await?;
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
        loop {
            peer.say(b".").await?;
            tokio::time::sleep(ms(5)).await;
        }
    })
    .await;
    let http = server.http(Spec::default());
    let policy = Policy::outbound("callee").attempt(ms(60)).build().unwrap();
    let Err(Failed::Refused(refusal)) = ask(&policy, &http, Kind::Get).await else { panic!("it is refused") };
    assert_eq!(refusal.why, Why::AttemptTimedOut { limit: ms(60) });
    assert_eq!(http.connections(), 0, "closed with its try");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_and_not_asked_for_again() {
    let endless = |head: &'static [u8], rest: &'static [u8]| {
        move |_: u32, mut peer: Peer| async move {
            peer.request().await?;
            peer.say(head).await?;
            // Until the caller has had enough.
            loop {
                peer.say(rest).await?;
            }
        }
    };
    let declared = b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let until_closed = b"HTTP/1.0 200 OK\r\n\r\n";
    for (head, rest, part) in [
        (&declared[..], &b"."[..], "body"),
        (chunked, b"4\r\n....\r\n", "body"),
        (until_closed, b"....", "body"),
        (b"HTTP/1.1 200 OK\r\n", b"x: 0123456789012345678901234567890123456789\r\n", "head"),
    ] {
        let server = Server::start(endless(head, rest)).await;
        let spec = Spec { head_bytes_max: 8 << 10, ..Spec::default().answer_bytes_max(1_000) };
        let http = server.http(spec);
        let error = upstream(ask(&policy(), &http, Kind::Get).await);
        let HttpError::TooLarge { part: found, .. } = &error else { panic!("{error}") };
        assert_eq!(*found, part);
        assert_eq!((error.outcome(), server.asked(), http.connections()), (Outcome::Permanent, 1, 0));
    }
}

#[tokio::test]
async fn what_is_not_http_and_who_is_not_there_are_told_apart() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await?;
        peer.say(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await?;
        peer.until_closed().await;
        Ok(())
    })
    .await;
    let error = upstream(ask(&policy(), &server.http(Spec::default()), Kind::Once).await);
    assert!(matches!(error, HttpError::NotHttp { .. }) && error.outcome().is_transient(), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = Http::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let policy = policy();
    let error = upstream(ask(&policy, &gone, Kind::Once).await);
    assert!(matches!(error, HttpError::Connect { .. }) && error.had_no_effect(), "{error}");
    let decided: Vec<_> = policy.decisions().iter().map(|decision| decision.rule).collect();
    assert_eq!(decided, [Rule::Retry], "decided once: not again, though nothing was sent");
}

#[tokio::test]
async fn connections_are_bounded_and_a_limit_of_ours_is_not_the_callees_fault() {
    let may_answer = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&may_answer);
    let server = Server::start(move |_, mut peer| {
        let told = Arc::clone(&told);
        async move {
            peer.request().await?;
            told.acquire().await.unwrap().forget();
            peer.say(OK).await?;
            peer.until_closed().await;
            Ok(())
        }
    })
    .await;
    let http = server.http(Spec::default().connections(2).exchange_time(ms(5_000)));
    let policy = Policy::outbound("callee")
        .breaker(Breaker::failure_rate(0.5).over(2).minimum_calls(1).open_for(ms(60_000)))
        .build()
        .unwrap();
    let one = || {
        tokio::spawn({
            let (policy, http) = (policy.clone(), http.clone());
            async move { ask(&policy, &http, Kind::Get).await }
        })
    };
    let (first, second) = (one(), one());
    while server.asked() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(http.connections(), 2);
    let error = upstream(ask(&policy, &http, Kind::Get).await);
    assert!(matches!(error, HttpError::ConnectionsInUse { limit: 2, .. }), "{error}");
    assert!(error.had_no_effect() && !error.outcome().is_transient());
    // Had it counted, one failure of one call, the breaker were open.
    assert_eq!(policy.breaker().snapshot(Context::system().now()).phase, Phase::Closed);
    may_answer.add_permits(2);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_are_used_again_and_closed_when_they_are_old() {
    let server = Server::start(|_, mut peer| async move {
        loop {
            peer.request().await?;
            peer.say(OK).await?;
        }
    })
    .await;
    let http = server.http(Spec::default().idle(1, ms(50)));
    let policy = Policy::outbound("callee").build().unwrap();
    for _ in 0..10 {
        ask(&policy, &http, Kind::Get).await.unwrap();
        assert_eq!((http.connections(), http.idle_connections()), (1, 1));
    }
    let began = Instant::now();
    while http.connections() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "nobody closes it");
        tokio::time::sleep(ms(5)).await;
    }
}
