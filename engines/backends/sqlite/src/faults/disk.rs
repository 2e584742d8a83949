//! [`Disk`]: files, counters and planted faults behind one mutex, and what a driver does with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rusqlite::{Connection, OpenFlags};

use super::locks::{FileLock, Shm};
use super::model::{self, Dice, Directory, File};
use super::{Call, Calls, FailedSync, Fault, Struck};

/// A disk's size unless [`Disk::set_capacity`] says otherwise, in bytes: nothing here grows without bound.
const CAPACITY_BYTES: u64 = 1 << 30;

/// A simulated disk. Clones are the same disk.
///
/// Connections to one disk may live in any number of threads of this process. They keep what they use of it
/// alive; opening needs a `Disk` or an open connection to be left.
#[derive(Clone)]
pub struct Disk(pub(super) Arc<Inner>);

/// What the handles of a disk share.
pub(super) struct Inner {
    id: u64,
    state: Mutex<State>,
}

/// A file with what the open handles to it share.
#[derive(Default)]
pub(super) struct Node {
    pub(super) file: File,
    pub(super) lock: FileLock,
    pub(super) shm: Option<Shm>,
    pub(super) handles: usize,
}

pub(super) struct State {
    pub(super) directory: Directory,
    pub(super) nodes: HashMap<u64, Node>,
    next_node: u64,
    pub(super) capacity: u64,
    pub(super) failed_sync: FailedSync,
    pub(super) dice: Dice,
    pub(super) off: bool,
    off_at: Option<(u64, Calls)>,
    counts: [u64; Call::ALL.len()],
    armed: Vec<Armed>,
    struck: Vec<Struck>,
}

struct Armed {
    from: u64,
    fault: Fault,
    calls: Calls,
}

/// How a call goes on.
pub(super) enum Turn {
    Go,
    Fail(Fault),
    /// The power is off, or goes off at this call.
    Off,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            directory: Directory::default(),
            nodes: HashMap::new(),
            next_node: 0,
            capacity: CAPACITY_BYTES,
            failed_sync: FailedSync::default(),
            dice: Dice::new(seed),
            off: false,
            off_at: None,
            counts: [0; Call::ALL.len()],
            armed: Vec::new(),
            struck: Vec::new(),
        }
    }

    /// Counts a call and says how it goes on; `creates` is about opening only.
    pub(super) fn turn(&mut self, call: Call, file: &str, creates: bool) -> Turn {
        let number = self.calls();
        self.off |= self.off_at.is_some_and(|(at, calls)| number >= at && calls.contains(call));
        if self.off {
            return Turn::Off;
        }
        self.counts[call as usize] += 1;
        let hit = |armed: &Armed| {
            number >= armed.from && armed.calls.contains(call) && armed.fault.applies(call, creates)
        };
        let Some(at) = self.armed.iter().position(hit) else { return Turn::Go };
        let fault = self.armed.remove(at).fault;
        self.struck.push(Struck { number, call, fault, file: file.to_owned() });
        Turn::Fail(fault)
    }

    fn calls(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A new node without a name.
    pub(super) fn add(&mut self, file: File) -> u64 {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, Node { file, ..Node::default() });
        id
    }

    pub(super) fn used(&self) -> u64 {
        self.nodes.values().map(|node| node.file.size()).sum()
    }

    /// Forgets files that nothing can reach any more: no handle, and no name even after a cut.
    pub(super) fn sweep(&mut self) {
        let State { nodes, directory, .. } = self;
        nodes.retain(|id, node| node.handles > 0 || directory.may_name(*id));
    }

    /// The same machine state without any fault planted or counted.
    fn successor(&self) -> State {
        State {
            capacity: self.capacity,
            failed_sync: self.failed_sync,
            ..State::new(self.dice.clone().next())
        }
    }
}

/// The disks that can be opened by path, by their number.
fn registry() -> MutexGuard<'static, HashMap<u64, Weak<Inner>>> {
    static DISKS: OnceLock<Mutex<HashMap<u64, Weak<Inner>>>> = OnceLock::new();
    DISKS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk and the file's name on it that a path means.
    pub(super) fn find(path: &str) -> Option<(Arc<Inner>, &str)> {
        let (id, name) = path.strip_prefix("disk-")?.split_once('/')?;
        let disk = registry().get(&id.parse().ok()?)?.upgrade()?;
        Some((disk, name))
    }

    /// A disk of its own for a file without a name (SQLite's temporary files), which no cut can matter to.
    pub(super) fn scratch() -> Arc<Inner> {
        Arc::new(Inner { id: 0, state: Mutex::new(State::new(0)) })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        registry().remove(&self.id);
    }
}

impl Disk {
    pub(super) fn with(state: State) -> Disk {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(Inner { id, state: Mutex::new(state) });
        registry().insert(id, Arc::downgrade(&inner));
        Disk(inner)
    }

    /// The path by which SQLite opens a file of this disk, to go with [`super::VFS`]: `disk-17/store.db`.
    pub fn path(&self, name: &str) -> String {
        format!("disk-{}/{name}", self.0.id)
    }

    /// Opens (or creates) a database of this disk for reading and writing.
    ///
    /// # Errors
    /// What SQLite says, for instance `CannotOpen` once the power is off.
    pub fn connect(&self, name: &str) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags_and_vfs(self.path(name), flags, super::VFS)
    }

    /// The disk as the next boot finds it after a power cut now, or, with the power off, at the moment it went:
    /// of everything unsynced, what this seed lets survive (`model.rs` says what is possible).
    ///
    /// This disk stays as it is, so that one moment can be cut with many seeds; connections to it do not reach
    /// the new one. Power is on there, nothing is planted, counters are at 0; capacity and the meaning of a
    /// failed sync are the same. Costs a reference count for each 4 KiB stored, and a look at each unsynced
    /// sector.
    pub fn cut(&self, seed: u64) -> Disk {
        let state = self.0.lock();
        let mut next = state.successor();
        for (name, file) in model::cut(&state.directory, |id| Some(&state.nodes.get(&id)?.file), seed) {
            let id = next.add(file);
            next.directory.set(&name, Some(id));
        }
        next.directory.sync();
        Disk::with(next)
    }

    /// The disk as after `kill -9` of every process that has it open: all writes are there, unsynced ones still
    /// unsynced; locks and shared memory are gone. As with [`Disk::cut`], a new disk, and the old one stays.
    pub fn kill(&self) -> Disk {
        let state = self.0.lock();
        let mut next = state.successor();
        next.directory = state.directory.clone();
        next.next_node = state.next_node;
        for (id, node) in &state.nodes {
            next.nodes.insert(*id, Node { file: node.file.clone(), ..Node::default() });
        }
        next.sweep();
        Disk::with(next)
    }

    /// The power goes off now: every later call fails with an I/O error, and nothing changes any more.
    pub fn power_off(&self) {
        self.0.lock().off = true;
    }

    /// The power goes off at call number `call`: that call and all later ones fail with an I/O error, and the
    /// disk stays as it was before that call.
    pub fn power_off_at(&self, call: u64) {
        self.power_off_at_next(call, Calls::ALL);
    }

    /// As [`Disk::power_off_at`], but at the first call numbered `call` or later that is of one of these kinds: at
    /// a sync, everything it was to make durable is written and may survive.
    pub fn power_off_at_next(&self, call: u64, calls: Calls) {
        self.0.lock().off_at = Some((call, calls));
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// Plants a fault, once: it strikes the first call numbered `call` or later that is of one of these kinds
    /// and that this fault can happen to ([`Fault`] says which). Several may be planted.
    pub fn fail_at(&self, call: u64, fault: Fault, calls: Calls) {
        self.0.lock().armed.push(Armed { from: call, fault, calls });
    }

    /// The planted faults that have struck, in order.
    pub fn struck(&self) -> Vec<Struck> {
        self.0.lock().struck.clone()
    }

    /// What a failed sync leaves from now on.
    pub fn set_failed_sync(&self, meaning: FailedSync) {
        self.0.lock().failed_sync = meaning;
    }

    /// Sets how many bytes all files may hold together (1 GiB at first). A write past it does what fits and
    /// then reports a full disk; what is over a lowered limit stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    /// The bytes that all files hold together, deleted but open ones included.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// How many calls were made so far; also the number that the next one gets. Calls refused because the power
    /// was off are not counted.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls()
    }

    /// How many calls of one kind were made so far.
    pub fn calls_of(&self, kind: Call) -> u64 {
        self.0.lock().counts[kind as usize]
    }

    /// The files that have a name, with their sizes in bytes, sorted by name.
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.0.lock();
        let size = |id| state.nodes.get(&id).map_or(0, |node| node.file.size());
        state.directory.list().map(|(name, id)| (name.to_owned(), size(id))).collect()
    }

    /// A file's bytes as a reader sees them now; `None` when there is no such file. Counts as no call.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.directory.find(name).and_then(|id| state.nodes.get(&id)).map(|node| node.file.to_vec())
    }

    /// Puts a file there, durably, in place of one of the same name; handles open on the old one keep the old
    /// one. For preparing a disk before it is used.
    pub fn install(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        let id = state.add(File::durable(bytes));
        state.directory.set(name, Some(id));
        state.directory.sync();
        state.sweep();
    }
}
