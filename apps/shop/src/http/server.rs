//! Connections: accepted, bounded, timed, and drained.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay::runtime::watchdog::Watchdog;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::limits::{HEAD_BYTES_MAX, Limits};
use super::progress::Progress;

/// How long accepting pauses when the machine refuses (out of descriptors): trying again at once would only
/// take the time that closing some needs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `stop` turns true, then lets open requests end, for [`Limits::drain_time`] at most.
///
/// HTTP/1.1 only: curl, browsers and proxies all speak it, and a second protocol is a second set of limits.
///
/// `watchdog` names what blocks.
pub async fn serve<H, F>(
    listener: TcpListener,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    watchdog: &Watchdog,
    handler: H,
) where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    let name: Arc<str> = "connection".into();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stopped(&mut stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, limits, stop.clone(), handler.clone());
                connections.spawn(watchdog.watch(Arc::clone(&name), async move {
                    connection.await;
                    drop(place);
                }));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
    // Nobody is accepted any more; a client that comes now is told so by its own system.
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.drain_time, ended).await;
    connections.shutdown().await;
}

/// Returns once `stop` is true, or nobody is left who could say so.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<H, F>(stream: TcpStream, limits: Limits, mut stop: watch::Receiver<bool>, handler: H)
where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Answers are small and whole; waiting to fill a segment would only delay them.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = handler(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // hyper bounds the time of reading a head only: one who takes no answers would be waited for without end.
    let stream = Progress::new(stream, limits.write_time);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // How a connection ends is the client's business: a broken one has nobody to be told.
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
