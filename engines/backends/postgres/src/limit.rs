//! How long a server may say nothing.

use std::future::Future;
use std::time::Duration;

/// Waits no longer than this for what a server was asked. After that the connection must not be used any more.
pub(crate) async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(silent(limit)))
}

/// The server, or the network before it, says nothing.
pub(crate) fn silent(limit: Duration) -> sqlx::Error {
    let why = format!("the server did not answer for {limit:?}");
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
}
