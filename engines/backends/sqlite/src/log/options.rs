//! How a log is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::options::Options;

/// Frames of the write-ahead log from which they are moved: a tenth of a store's. Messages are only appended, so a page is
/// hardly ever written twice; and as long as the write-ahead log grows, each flush writes its size and map, too.
const CHECKPOINT_FRAMES: u32 = 200;

/// Settings of one handle of a log. The defaults suit one service on one machine.
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub(crate) path: PathBuf,
    pub(crate) partitions: u32,
    pub(crate) retention: Option<Duration>,
    pub(crate) busy: Duration,
    pub(crate) runtime: Option<PathBuf>,
}

impl LogOptions {
    /// A log in this file, made when it is not there and is opened to write.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            partitions: 1,
            retention: Some(Duration::from_secs(7 * 24 * 3_600)),
            busy: Duration::from_secs(5),
            runtime: None,
        }
    }

    /// Partitions of each topic, 1 to 64, default 1. Fixed when the file is made; another number is refused later,
    /// since keys would change their partitions.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions.clamp(1, 64);
        self
    }

    /// For how long messages are kept, default 7 days; none: for ever. A consumer that was away for longer is
    /// told. By the wall clock of the appends.
    pub fn retention(mut self, kept: Option<Duration>) -> Self {
        self.retention = kept;
        self
    }

    /// How long an append waits for its place in the queue, and for another program's lock on the file, before it
    /// is refused as busy; default 5 s.
    pub fn busy_limit(mut self, limit: Duration) -> Self {
        self.busy = limit;
        self
    }

    /// The folder for doorbells: the same for the writer and its followers, writable by this user, its path short
    /// (a socket's path ends at 107 bytes). Default: `$XDG_RUNTIME_DIR`, or the system's temporary folder.
    pub fn runtime_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.runtime = Some(folder.as_ref().to_owned());
        self
    }

    /// Makes the path absolute, since threads open it later and the working folder may change until then.
    pub(super) fn settle_path(&mut self) {
        if let Ok(path) = std::path::absolute(&self.path)
            && !self.path.as_os_str().is_empty()
        {
            self.path = path;
        }
    }

    pub(super) fn for_readers(&self) -> Options {
        Options::new(&self.path).read_only().readers(1).busy_limit(self.busy).cache_mib(16)
    }

    pub(super) fn for_writer(&self) -> Options {
        let mut options = Options::new(&self.path).existing().busy_limit(self.busy).cache_mib(8);
        options.checkpoint_frames = CHECKPOINT_FRAMES;
        options
    }
}
