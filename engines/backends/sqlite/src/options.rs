//! How a store is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of one store handle. Every limit is explicit; the defaults suit one service on one machine.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) path: PathBuf,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) readers: usize,
    pub(crate) queue: usize,
    pub(crate) group: usize,
    pub(crate) closure_limit: Duration,
    pub(crate) busy: Duration,
    pub(crate) cache_kib: usize,
    pub(crate) wal_alarm: u64,
    /// Frames of the write-ahead log, each a page and 24 bytes, from which a commit moves them into the file. A page that
    /// was written several times is moved once, so that a longer log costs less; but the one commit takes longer.
    pub(crate) checkpoint_frames: u32,
    #[cfg(feature = "faults")]
    pub(crate) vfs: Option<&'static str>,
    #[cfg(feature = "faults")]
    pub(crate) synchronous: &'static str,
}

impl Options {
    /// A store in this file, made when it is not there.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            create: true,
            read_only: false,
            readers: 2,
            queue: 1_024,
            group: 512,
            closure_limit: Duration::from_secs(1),
            busy: Duration::from_secs(5),
            cache_kib: 8 * 1_024,
            wal_alarm: 256 << 20,
            checkpoint_frames: 2_000,
            #[cfg(feature = "faults")]
            vfs: None,
            #[cfg(feature = "faults")]
            synchronous: "full",
        }
    }

    /// Refuse to make a file that is not there.
    pub fn existing(mut self) -> Self {
        self.create = false;
        self
    }

    /// Never write: appends are refused. For the query side and for tools. Implies [`Options::existing`].
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self.existing()
    }

    /// Threads that read, each with a connection; 1 to 64, default 2. Readers never block the writer.
    pub fn readers(mut self, threads: usize) -> Self {
        self.readers = threads.clamp(1, 64);
        self
    }

    /// How long one closure may run, default 1 s. Its SQL is interrupted then. A closure that is stuck in
    /// Rust can't be stopped: new appends are refused as busy until it comes back.
    pub fn closure_limit(mut self, limit: Duration) -> Self {
        self.closure_limit = limit;
        self
    }

    /// How long to wait for another process's write lock, default 5 s; after it the act is refused as busy.
    pub fn busy_limit(mut self, limit: Duration) -> Self {
        self.busy = limit;
        self
    }

    /// Memory for pages of the writer's connection, default 8 MiB; each reader has a quarter of it.
    pub fn cache_mib(mut self, mib: usize) -> Self {
        self.cache_kib = mib.clamp(1, 1 << 20) * 1_024;
        self
    }

    /// The size of the write-ahead log, in bytes, from which [`crate::Health`] is red; default 256 MiB. It
    /// grows when a reader in some process keeps one read transaction open. Below 16 MiB, to which the log is
    /// cut when it begins anew, the alarm would not end.
    pub fn wal_alarm(mut self, bytes: u64) -> Self {
        self.wal_alarm = bytes;
        self
    }

    /// Opens the file through another file layer, as tests of power cuts do.
    #[cfg(feature = "faults")]
    pub fn vfs(mut self, name: &'static str) -> Self {
        self.vfs = Some(name);
        self
    }

    /// A planted defect: acknowledge before the data is on disk. For the test of the power-cut test.
    #[cfg(feature = "faults")]
    pub fn planted_synchronous_normal(mut self) -> Self {
        self.synchronous = "normal";
        self
    }

    /// Makes the path absolute, since threads open it later and the working folder may change until then.
    pub(crate) fn settle_path(&mut self) {
        #[cfg(feature = "faults")]
        if self.vfs.is_some() {
            return;
        }
        if self.path != Path::new(":memory:")
            && let Ok(path) = std::path::absolute(&self.path)
        {
            self.path = path;
        }
    }

    pub(crate) fn synchronous(&self) -> &'static str {
        #[cfg(feature = "faults")]
        return self.synchronous;
        #[cfg(not(feature = "faults"))]
        "full"
    }
}
