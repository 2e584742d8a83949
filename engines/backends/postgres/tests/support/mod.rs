//! A way to a server that a test can cut, or let fall silent.

#![allow(dead_code)] // each test uses its part

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_postgres::sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A missing server is a failure that says what to do, not a test that passes.
pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs a PostgreSQL leader and two replicas. Start them with \
             `cargo xtask engines up postgres`, and set MAINSTAY_TEST_POSTGRES, MAINSTAY_TEST_POSTGRES_REPLICAS (their \
             URLs, separated by commas) as it says"
        )
    })
}

/// A way to a server that can be closed, and that can swallow everything without a word.
pub(crate) struct Way {
    pub(crate) port: u16,
    open: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    /// Of those who are connected now.
    connected_silent: Arc<Mutex<Arc<AtomicBool>>>,
}

/// Passes bytes on until one side ends; while it is silent they wait.
async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    silent: [Arc<AtomicBool>; 2],
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        while silent.iter().any(|silent| silent.load(Ordering::SeqCst)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

impl Way {
    pub(crate) async fn to(host: String, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let way = Self {
            port: own,
            open: Arc::new(AtomicBool::new(true)),
            silent: Arc::default(),
            connected_silent: Arc::default(),
        };
        let (passes, silent, connected) =
            (Arc::clone(&way.open), Arc::clone(&way.silent), Arc::clone(&way.connected_silent));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if !passes.load(Ordering::SeqCst) {
                    continue; // dropped: as if nobody were there
                }
                let (host, passes) = (host.clone(), Arc::clone(&passes));
                let silent = [Arc::clone(&silent), Arc::clone(&connected.lock().unwrap())];
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect((host, port)).await else { return };
                    let closed = async {
                        while passes.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pass(near_in, far_out, silent.clone()) => {}
                        () = pass(far_in, near_out, silent) => {}
                        () = closed => {}
                    }
                });
            }
        });
        way
    }

    pub(crate) fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Everything waits, also on connections that are made now.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// The connections there are fall silent for ever; new ones pass.
    pub(crate) fn silence_connected(&self) {
        std::mem::take(&mut *self.connected_silent.lock().unwrap()).store(true, Ordering::SeqCst);
    }
}

/// How to connect to this server by a way of its own.
pub(crate) async fn through(url: &str) -> (PgConnectOptions, Way) {
    let options: PgConnectOptions = url.parse().unwrap();
    let way = Way::to(options.get_host().to_owned(), options.get_port()).await;
    (options.host("127.0.0.1").port(way.port), way)
}
