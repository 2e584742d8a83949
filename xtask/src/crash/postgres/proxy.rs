//! The network between a service and its server, as far as it can fail: passes bytes, holds them, cuts connections, and
//! leads to another server under the same address.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

/// A server that does not take a connection for so long is not there.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They pass.
    Pass,
    /// None passes, and no connection ends; what is sent waits.
    Hold,
    /// What clients say passes, and no answer does.
    HoldAnswers,
    /// New connections are cut at once.
    Refuse,
}

/// A connection's two ends.
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

struct State {
    mode: Mode,
    target: SocketAddr,
    next: u64,
    open: BTreeMap<u64, Ends>,
    /// On connections below this number nothing passes any more, and they do not end.
    silent_below: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy that listens for as long as this process lives.
pub(super) struct Proxy {
    shared: Arc<Shared>,
    pub(super) port: u16,
}

impl Proxy {
    pub(super) fn start(target: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for the fault proxy")?;
        let port = listener.local_addr()?.port();
        let state = State { mode: Mode::Pass, target, next: 0, open: BTreeMap::new(), silent_below: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || carry(&shared, client));
            }
        });
        Ok(Proxy { shared, port })
    }

    /// Where new connections lead from now on.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        self.shared.state().target = target;
    }

    pub(super) fn set(&self, mode: Mode) {
        self.shared.state().mode = mode;
        self.shared.changed.notify_all();
    }

    /// Cuts every connection, as a machine does that knows nothing of them: with a reset.
    pub(super) fn reset(&self) {
        let open = std::mem::take(&mut self.shared.state().open);
        for ends in open.values() {
            cut(&ends.client);
            cut(&ends.server);
        }
        self.shared.changed.notify_all();
    }

    /// The connections there are fall silent for ever; new ones pass.
    pub(super) fn silence(&self) {
        let mut state = self.shared.state();
        state.silent_below = state.next;
    }

    /// The silent ones are cut, so that their threads end.
    pub(super) fn forget(&self) {
        self.shared.state().silent_below = 0;
        self.reset();
    }
}

fn cut(stream: &TcpStream) {
    // Without it the other side would be told a goodbye.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}

/// Carries one connection until an end of it is gone.
fn carry(shared: &Arc<Shared>, client: TcpStream) {
    let (mode, target) = {
        let state = shared.state();
        (state.mode, state.target)
    };
    if mode == Mode::Refuse {
        return cut(&client);
    }
    let Ok(server) = TcpStream::connect_timeout(&target, CONNECT_MAX) else { return cut(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let clones = || {
        Some((
            client.try_clone().ok()?,
            server.try_clone().ok()?,
            client.try_clone().ok()?,
            server.try_clone().ok()?,
        ))
    };
    let Some((kept_client, kept_server, from_client, from_server)) = clones() else { return };
    let id = {
        let mut state = shared.state();
        state.next += 1;
        let id = state.next - 1;
        state.open.insert(id, Ends { client: kept_client, server: kept_server });
        id
    };
    let back = Arc::clone(shared);
    let answers = thread::spawn(move || pump(&back, id, from_server, client, true));
    pump(shared, id, from_client, server, false);
    let _ = answers.join();
    shared.state().open.remove(&id);
}

/// Carries one direction.
fn pump(shared: &Shared, id: u64, mut from: TcpStream, mut to: TcpStream, answers: bool) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).unwrap_or(0);
        {
            let mut state = shared.state();
            while state.open.contains_key(&id) && holds(&state, id, answers) {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if read == 0 || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // The other direction ends as well: half a connection is of no use to anybody here.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn holds(state: &State, id: u64, answers: bool) -> bool {
    id < state.silent_below || state.mode == Mode::Hold || (answers && state.mode == Mode::HoldAnswers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that repeats what it hears.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut bytes) {
                        if stream.write_all(&bytes[..read]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn answers(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        stream.write_all(b"x").is_ok() && matches!(stream.read(&mut byte), Ok(1))
    }

    fn is_silent(stream: &mut TcpStream) -> bool {
        stream.write_all(b"y").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let read = stream.read(&mut [0]);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        read.is_err_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        })
    }

    #[test]
    fn bytes_are_held_and_then_pass() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        assert!(answers(&mut stream));
        for mode in [Mode::Hold, Mode::HoldAnswers] {
            proxy.set(mode);
            assert!(is_silent(&mut stream), "{mode:?}");
            proxy.set(Mode::Pass);
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"y", "{mode:?}");
        }
    }

    #[test]
    fn a_reset_ends_what_there_is_and_lets_new_connections_pass() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        assert!(answers(&mut stream));
        proxy.reset();
        assert!(!answers(&mut stream));
        assert!(answers(&mut connect(&proxy)));
        proxy.set(Mode::Refuse);
        assert!(!answers(&mut connect(&proxy)));
    }

    #[test]
    fn the_silent_stay_silent_beside_new_ones() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut old = connect(&proxy);
        assert!(answers(&mut old));
        proxy.silence();
        assert!(is_silent(&mut old));
        assert!(answers(&mut connect(&proxy)));
        proxy.forget();
        assert!(!answers(&mut old));
    }

    #[test]
    fn it_leads_to_another_server_when_told() {
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 9))).unwrap();
        assert!(!answers(&mut connect(&proxy)));
        proxy.lead_to(echo());
        assert!(answers(&mut connect(&proxy)));
    }
}
