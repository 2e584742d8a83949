//! The doorbell: a Unix datagram socket for each follower, to which the writer sends a datagram after a commit: a byte,
//! or what was appended ([`parcel`]).
//!
//! ```text
//!  $XDG_RUNTIME_DIR, or the temporary folder
//!  └─ mainstay-<uid>           0700, ours
//!     └─ <16 hex of the log's path>
//!        ├─ <16 hex at random>   a follower's socket
//!        └─ …
//! ```
//! A hint, never more: what it brings stands in the file too, and a follower also looks there every second. So whatever
//! goes wrong here costs a second of delay and nothing else, and the writer never waits for it. A socket whose follower
//! is gone is removed by the writer; a follower whose socket was removed (some systems clean their temporary folders) hangs out another one.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::heard::Heard;
use super::options::LogOptions;
use super::parcel::{self, PARCEL_BYTES_MAX};

/// The longest path of a socket: `sun_path` of unix(7), without its terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A slash and 16 digits.
const NAME_BYTES: usize = 17;

/// Followers that are told; more have to look by themselves.
const FOLLOWERS_MAX: usize = 256;

/// Where the doorbells of a log are. Only computed: nothing is made or checked.
fn place(options: &LogOptions) -> Result<PathBuf, String> {
    // The same file by another path is the same log, as far as its folder can be resolved.
    let path = &options.path;
    let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let path = match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.clone(),
    };
    let hash = blake3::hash(path.as_os_str().as_bytes()).to_hex();
    let owned = format!("mainstay-{}", rustix::process::getuid().as_raw());
    let environment = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let bases = match &options.runtime {
        Some(folder) => vec![folder.clone()],
        None => environment.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]).collect(),
    };
    let fits = |folder: &PathBuf| folder.as_os_str().len() + NAME_BYTES <= SOCKET_PATH_BYTES_MAX;
    let mut folders = bases.into_iter().map(|base| base.join(&owned).join(&hash.as_str()[..16]));
    folders.find(fits).ok_or_else(|| {
        format!("every folder for doorbells has a path too long for a socket ({SOCKET_PATH_BYTES_MAX} bytes)")
    })
}

/// Is the folder ours alone? Another user's folder could lead anywhere.
fn check_owner(folder: &Path) -> Result<(), String> {
    let found = fs::symlink_metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if !found.is_dir() || found.uid() != rustix::process::getuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(format!("{} is not a folder of this user alone (mode 0700)", folder.display()));
    }
    Ok(())
}

/// Makes the folder and the one above it, where they are not there, and checks both.
fn make(folder: &Path) -> Result<(), String> {
    for folder in [folder.parent().unwrap_or(folder), folder] {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(format!("{} can't be made: {error}", folder.display()));
            }
            _ => check_owner(folder)?,
        }
    }
    Ok(())
}

/// The writer's side.
pub(super) struct Ringer {
    /// None where there is no folder to look into.
    folder: Option<PathBuf>,
    followers: Vec<Follower>,
    /// When the folder last changed, as it was when it was read.
    read_at: Option<SystemTime>,
    /// A change within the clock's grain of the last look would not show: look once more.
    again: bool,
    parcel: Vec<u8>,
}

struct Follower {
    path: PathBuf,
    /// Its own to send from: a socket bears a number of bytes that nobody has received, and one follower that stands
    /// still would use up the others' share.
    from: UnixDatagram,
}

impl Ringer {
    pub(super) fn new(options: &LogOptions) -> Self {
        let folder = place(options).ok();
        Self { folder, followers: Vec::new(), read_at: None, again: false, parcel: Vec::new() }
    }

    /// Tells every follower, with a parcel if there is one: `pack` says whether it has made one. Never waits; costs a
    /// system call, and one for each follower.
    pub(super) fn ring(&mut self, pack: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.look();
        if self.followers.is_empty() {
            return;
        }
        let parcel = if pack(&mut self.parcel) { &self.parcel[..] } else { &[parcel::RING] };
        self.followers.retain(|follower| follower.tell(parcel));
    }

    /// Who follows now.
    fn look(&mut self) {
        let Some(folder) = &self.folder else { return };
        let changed = fs::metadata(folder).and_then(|found| found.modified()).ok();
        if changed.is_none() {
            // Nobody follows.
            self.followers.clear();
            self.read_at = None;
            return;
        }
        if changed != self.read_at || self.again {
            self.again = changed != self.read_at;
            self.read_at = changed;
            let mut known = std::mem::take(&mut self.followers);
            let follower = |path: PathBuf| match known.iter().position(|known| known.path == path) {
                Some(at) => Some(known.swap_remove(at)),
                None => Follower::new(path).ok(),
            };
            self.followers = sockets(folder).into_iter().filter_map(follower).collect();
        }
    }
}

impl Follower {
    fn new(path: PathBuf) -> io::Result<Self> {
        let from = UnixDatagram::unbound()?;
        from.set_nonblocking(true)?;
        Ok(Self { path, from })
    }

    /// False when it is not there any more.
    fn tell(&self, parcel: &[u8]) -> bool {
        let told = match self.from.send_to(parcel, &self.path) {
            // A socket may be allowed few bytes, or the machine has few left: less may pass.
            Err(error) if !is_gone(&error) && error.kind() != ErrorKind::WouldBlock => {
                self.from.send_to(&[parcel::RING], &self.path)
            }
            told => told,
        };
        told.map_or_else(|error| stays(&self.path, &error), |_| true)
    }
}

/// Is a follower still there whose ring failed so? Only these two errors say that it is not. The others pass: its
/// socket is full (it has not heard the last ring yet, and looks after it), or the machine is short of buffers or
/// memory; and who is dropped for nothing is not told again before another follower comes or goes.
fn stays(follower: &Path, error: &io::Error) -> bool {
    if error.kind() == ErrorKind::ConnectionRefused {
        // A socket whose follower is gone for good. If it can't be removed it is met again.
        let _ = fs::remove_file(follower);
    }
    !is_gone(error)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}

/// The sockets that hang out in a folder of ours.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let ours = folder.parent().is_some_and(|above| check_owner(above).is_ok()) && check_owner(folder).is_ok();
    if !ours {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let sockets = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path());
    sockets.take(FOLLOWERS_MAX).collect()
}

/// The follower's side: a socket, and a task that waits at it, on the runtime of whoever waits for the log.
///
/// A task and not a thread: the reactor's own wake-up is then the only one between a ring and its follower.
pub(super) struct Doorbell {
    options: LogOptions,
    grown: watch::Sender<u64>,
    heard: Arc<Heard>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What hangs out now.
    socket: Option<(PathBuf, UnixDatagram)>,
    listening: Option<JoinHandle<()>>,
    failure: Option<String>,
}

fn bind(folder: &Path) -> Result<(PathBuf, UnixDatagram), String> {
    make(folder)?;
    let path = folder.join(&Uuid::new_v4().simple().to_string()[..16]);
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let socket = UnixDatagram::bind(&path).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok((path, socket))
}

impl State {
    /// Hangs out a socket, if that is possible.
    fn hang(&mut self, options: &LogOptions) {
        // Twice: whoever took down the last socket may remove the folder between its making and its use.
        let bound = place(options).and_then(|folder| bind(&folder).or_else(|_| bind(&folder)));
        match bound {
            Ok(socket) => (self.socket, self.failure) = (Some(socket), None),
            Err(why) => self.failure = Some(why),
        }
    }

    fn take_down(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        if let Some((path, _)) = self.socket.take() {
            let _ = fs::remove_file(&path); // may be gone already
            // Only while nobody else's socket is in it; the next one makes it again.
            let _ = path.parent().map(fs::remove_dir);
        }
    }
}

impl Doorbell {
    /// Hangs out a doorbell that counts `grown` up, and puts into `heard` what rings bring. Where none can be hung out,
    /// it is tried again when [mended](Self::mend).
    pub(super) fn hang(options: &LogOptions, grown: watch::Sender<u64>, heard: Arc<Heard>) -> Self {
        let mut state = State::default();
        state.hang(options);
        Self { options: options.clone(), grown, heard, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Sees to it that somebody listens. Called on a runtime, by whoever is about to wait: the one that listened may
    /// have ended with another runtime.
    pub(super) fn listen(&self) {
        let mut state = self.lock();
        if state.listening.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Some((_, socket)) = &state.socket else { return };
        let listens = socket.try_clone().and_then(tokio::net::UnixDatagram::from_std);
        match listens {
            Ok(bell) => {
                let listens = listen(bell, self.grown.clone(), Arc::clone(&self.heard));
                state.listening = Some(tokio::spawn(listens));
            }
            Err(error) => state.failure = Some(error.to_string()),
        }
    }

    /// Called after a time without a ring: hangs out another socket if this one was removed, or none could be.
    pub(super) fn mend(&self) {
        let mut state = self.lock();
        if state.socket.as_ref().is_some_and(|(path, _)| path.exists()) {
            return;
        }
        state.take_down();
        state.hang(&self.options);
        drop(state);
        self.listen();
        // What was rung while nothing hung out.
        self.grown.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.lock().take_down();
    }
}

/// Counts rings, and takes in what they bring, until the socket fails. Whoever waits next lets somebody listen again.
async fn listen(bell: tokio::net::UnixDatagram, grown: watch::Sender<u64>, heard: Arc<Heard>) {
    // One byte more than a parcel has: what fills it was cut.
    let mut ring = vec![0; PARCEL_BYTES_MAX + 1];
    while let Ok(mut bytes) = bell.recv(&mut ring).await {
        let mut several = false;
        loop {
            if bytes <= PARCEL_BYTES_MAX {
                heard.push(&ring[..bytes]);
            } else {
                heard.doubt();
            }
            match bell.try_recv(&mut ring) {
                Ok(more) => (several, bytes) = (true, more),
                Err(_) => break,
            }
        }
        if several {
            // The kernel drops a ring only while others wait to be heard.
            heard.doubt();
        }
        grown.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_a_follower_that_is_gone_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let after = |errno: Errno| {
            let _bound = UnixDatagram::bind(&socket).unwrap();
            let stays = stays(&socket, &io::Error::from(errno));
            let there = socket.exists();
            let _ = fs::remove_file(&socket); // mostly there
            (stays, there)
        };
        for passing in [Errno::AGAIN, Errno::NOBUFS, Errno::NOMEM, Errno::INTR, Errno::NFILE, Errno::ACCESS] {
            assert_eq!(after(passing), (true, true), "{passing}");
        }
        assert_eq!(after(Errno::CONNREFUSED), (false, false));
        assert_eq!(after(Errno::NOENT), (false, true));
    }

    #[test]
    fn a_ring_that_fails_for_a_passing_reason_is_rung_again() {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions::new(folder.path().join("log.db")).runtime_folder(folder.path());
        let doorbells = place(&options).unwrap();
        make(&doorbells).unwrap();
        // A socket of another type: an error that says nothing about whether somebody is there.
        let odd = std::os::unix::net::UnixListener::bind(doorbells.join("odd")).unwrap();
        let gone = UnixDatagram::bind(doorbells.join("gone")).unwrap();
        let there = UnixDatagram::bind(doorbells.join("there")).unwrap();
        drop(gone);
        let mut ringer = Ringer::new(&options);
        ringer.ring(|_| false);
        let mut told: Vec<_> = ringer.followers.iter().map(|follower| follower.path.clone()).collect();
        told.sort();
        assert_eq!(told, [doorbells.join("odd"), doorbells.join("there")]);
        assert!(!doorbells.join("gone").exists());
        there.set_nonblocking(true).unwrap();
        assert_eq!(there.recv(&mut [0; 8]).unwrap(), 1);
        drop(odd);
    }

    #[test]
    fn a_ring_that_is_too_large_for_the_socket_brings_nothing_and_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let follower = UnixDatagram::bind(folder.path().join("there")).unwrap();
        follower.set_nonblocking(true).unwrap();
        let from = Follower::new(folder.path().join("there")).unwrap();
        // More than any socket takes at once, as Linux comes.
        assert!(from.tell(&vec![2; 16 << 20]));
        assert_eq!(follower.recv(&mut [0; 8]).unwrap(), 1);
        assert!(from.tell(&vec![2; PARCEL_BYTES_MAX]));
        assert_eq!(follower.recv(&mut vec![0; PARCEL_BYTES_MAX + 1]).unwrap(), PARCEL_BYTES_MAX);
    }

    #[test]
    fn a_follower_that_stands_still_does_not_keep_the_others_from_hearing() {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions::new(folder.path().join("log.db")).runtime_folder(folder.path());
        let doorbells = place(&options).unwrap();
        make(&doorbells).unwrap();
        let _still = UnixDatagram::bind(doorbells.join("still")).unwrap();
        let hears = UnixDatagram::bind(doorbells.join("hears")).unwrap();
        hears.set_nonblocking(true).unwrap();
        let mut ringer = Ringer::new(&options);
        for _ in 0..100 {
            ringer.ring(|parcel| {
                parcel.resize(PARCEL_BYTES_MAX, 2);
                true
            });
            assert_eq!(hears.recv(&mut vec![0; PARCEL_BYTES_MAX]).unwrap(), PARCEL_BYTES_MAX);
        }
        assert_eq!(ringer.followers.len(), 2);
    }
}
