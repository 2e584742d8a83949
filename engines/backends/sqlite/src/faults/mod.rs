//! A disk that can lose power: the file layer under SQLite by which the store's durability is proved.
//!
//! `kill -9` proves nothing about a power cut, because the kernel's page cache outlives the process. Here every
//! file lives in memory on a [`Disk`] that remembers which writes have reached the platter and which only the
//! cache; [`Disk::cut`] loses power and gives the disk as the next boot finds it. What may survive is written
//! down in prose in `model.rs`; that text is the claim, the code below it only carries it out.
//!
//! ```text
//!   connection ─┐                          ┌─ cache    what reads see
//!   connection ─┼─ VFS "mainstay-faults" ──┤   │ xSync
//!   connection ─┘   counts, fails, freezes └─ durable  what a cut surely leaves
//! ```
//!
//! A driver's loop: run a workload once and read [`Disk::calls`]; then for every call number `n` start from the
//! same disk (a [`Disk::kill`] of a prepared one costs microseconds), arm [`Disk::power_off_at`]`(n)`, run the
//! workload until it fails, keep what it acknowledged, and look for that on `disk.cut(seed)`.
//!
//! ```
//! use mainstay_sqlite::faults::Disk;
//!
//! let disk = Disk::new(1);
//! let db = disk.connect("store.db")?;
//! db.execute_batch("pragma journal_mode = wal; pragma synchronous = full; create table t (n); insert into t values (80)")?;
//! let after = disk.cut(7).connect("store.db")?;
//! assert_eq!(after.query_row("select n from t", [], |row| row.get::<_, i64>(0))?, 80);
//! # Ok::<(), rusqlite::Error>(())
//! ```
//!
//! What it is not: fast storage, or a model of bit rot, lying drives (a sync that returned has happened) or torn
//! sectors. Chance comes from seeds only: the same calls in the same order and the same seed leave the same
//! bytes. SQLite's own generator (WAL salts, `random()`) is seeded by the *default* VFS and stays outside; no
//! decision here looks at file contents.

mod disk;
mod handle;
mod image;
mod locks;
mod model;
mod vfs;

pub use disk::Disk;

/// The name under which the file layer is registered with SQLite, once for the process and for all disks.
///
/// For `Connection::open_with_flags_and_vfs(disk.path("store.db"), flags, faults::VFS)`.
pub const VFS: &std::ffi::CStr = c"mainstay-faults";

/// A kind of I/O call that is counted, and that can be made to fail.
///
/// Calls that move no data (file size, existence, locks, shared memory) are not counted; they fail only while
/// the power is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `xOpen` of a named file.
    Open,
    /// `xDelete`.
    Delete,
    /// `xRead`.
    Read,
    /// `xWrite`.
    Write,
    /// `xTruncate`.
    Truncate,
    /// `xSync`.
    Sync,
}

impl Call {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Call; 6] =
        [Call::Open, Call::Delete, Call::Read, Call::Write, Call::Truncate, Call::Sync];
}

/// A set of [`Call`] kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls(u8);

impl Calls {
    /// Every kind.
    pub const ALL: Calls = Calls(0b11_1111);

    /// The set of these kinds.
    pub fn of(kinds: &[Call]) -> Calls {
        Calls(kinds.iter().fold(0, |set, kind| set | 1 << *kind as u8))
    }

    /// Whether the set holds `kind`.
    pub fn contains(self, kind: Call) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// What a failing call does. SQLite sees the result code that its own unix layer would give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The device reports an error (EIO); nothing was done. Possible for every kind of call. What a failed sync
    /// leaves behind is chosen by [`Disk::set_failed_sync`].
    Eio,
    /// No space left (ENOSPC). Possible where space is allocated: opening a new file, writing, syncing.
    Enospc,
    /// Only the first bytes of a write (a seeded number, less than all) are written, then the space is used up.
    ShortWrite,
}

impl Fault {
    /// Whether a call of this kind can end this way; `creates` says that an open makes a new file.
    fn applies(self, call: Call, creates: bool) -> bool {
        match (self, call) {
            (Fault::Eio, _) => true,
            (Fault::Enospc, Call::Open) => creates,
            (Fault::Enospc, call) => matches!(call, Call::Write | Call::Sync),
            (Fault::ShortWrite, call) => call == Call::Write,
        }
    }
}

/// A fault that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    /// The number of the failed call, as counted by [`Disk::calls`].
    pub number: u64,
    /// Its kind.
    pub call: Call,
    /// How it failed.
    pub fault: Fault,
    /// The file's name on the disk.
    pub file: String,
}

/// What a failed sync leaves of the writes that it should have made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedSync {
    /// They stay unsynced: a later sync that succeeds makes them durable.
    #[default]
    StaysDirty,
    /// They stay readable but are marked clean: no later sync writes them, unless the same sector is written
    /// again. This is what Linux's file systems do, and more than SQLite can defend against alone: who commits
    /// again on top of such a WAL can lose the new commit in a power cut.
    MarksClean,
}
