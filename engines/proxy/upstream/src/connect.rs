//! How a connection is made: a port, and the one that makes TCP connections.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Both directions of a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Makes connections to one callee. Any `Fn() -> Connecting` that is `Debug` can be wrapped as one; tests and the
/// simulator give connections in memory.
pub trait Connect: Send + Sync + Debug {
    /// A new one. Dropped when it takes too long.
    fn connect(&self) -> Connecting;
}

/// TCP, with the addresses that the system's resolver gives, in its order.
#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    /// `host:port`.
    pub(crate) to: Arc<str>,
    /// See [`Spec::keepalive`](crate::Spec::keepalive).
    pub(crate) keepalive: Duration,
    /// See [`Spec::connect_time`](crate::Spec::connect_time).
    pub(crate) connect_time: Duration,
}

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

impl Connect for Tcp {
    fn connect(&self) -> Connecting {
        let tcp = self.clone();
        Box::pin(async move { Ok(Box::new(tcp.stream().await?) as Box<dyn Io>) })
    }
}

impl Tcp {
    async fn stream(&self) -> io::Result<TcpStream> {
        let until = Instant::now() + self.connect_time;
        let addresses: Vec<_> = lookup_host(&*self.to).await?.take(ADDRESSES_MAX).collect();
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // A share of what is left, so that one address that swallows everything leaves time for the others.
            let left = until.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.prepared(stream),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::Error::new(io::ErrorKind::TimedOut, "the address does not answer"),
            }
        }
        Err(failed)
    }

    fn prepared(&self, stream: TcpStream) -> io::Result<TcpStream> {
        // What is written is whole requests: waiting to fill a packet only adds time.
        stream.set_nodelay(true)?;
        let third = (self.keepalive / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(self.keepalive).with_interval(third).with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    }
}
