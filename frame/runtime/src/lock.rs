//! Locks on files: one process at a time uses a folder.
//!
//! The operating system holds them (`flock` through [`std::fs::File::try_lock`]) and lets go when the process
//! ends, however it ends. What a lock file says is for people: who holds it, or held it last. It is never
//! removed, because a process that waits for the removed file and one that makes a new one would both win.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a held lock is tried again while waiting for it. The wait has an end, and nothing rings when
/// another process ends.
const RECHECK: Duration = Duration::from_millis(50);

/// More than any holder writes about itself, in bytes.
const NOTE_MAX: u64 = 256;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it gives the lock back.
    _file: File,
}

/// Why a lock is not held. Nothing was changed but, perhaps, that the empty lock file was made.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// Another process holds it.
    #[error("{path}: {holder} holds this lock", path = .path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who says to hold it, in words: `process 4711 (up)`, or `another process`.
        holder: String,
    },
    /// The file can't be made, written or locked.
    #[error("{path}: this lock file can't be used: {cause}; check the folder and who may write to it", path = .path.display())]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Lock {
    /// Takes the lock on `path`, whose folder exists, and leaves there who holds it: this process and `role`,
    /// a word or two.
    ///
    /// # Errors
    /// [`NotLocked::Held`] at once when another process (or this one) holds it.
    pub fn take(path: &Path, role: &str) -> Result<Self, NotLocked> {
        let unusable = |cause| NotLocked::Unusable { path: path.to_owned(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(NotLocked::Held { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
        }
        let note = format!("process {} ({role})\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(note.as_bytes())).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _file: file })
    }

    /// The same, trying again for at most `at_most`. `waiting` is told once who holds it, when there is a wait.
    ///
    /// # Errors
    /// [`NotLocked::Held`] when it is still held at the end.
    pub async fn take_within(
        path: &Path,
        role: &str,
        at_most: Duration,
        mut waiting: impl FnMut(&NotLocked),
    ) -> Result<Self, NotLocked> {
        let ends = tokio::time::Instant::now() + at_most;
        let mut told = false;
        loop {
            let held = match Self::take(path, role) {
                Err(held @ NotLocked::Held { .. }) => held,
                other => return other,
            };
            let now = tokio::time::Instant::now();
            if now >= ends {
                return Err(held);
            }
            if !std::mem::replace(&mut told, true) {
                waiting(&held);
            }
            tokio::time::sleep_until((now + RECHECK).min(ends)).await;
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the holder wrote. It may not have written yet, so this is a hint for people and nothing more.
fn holder(file: &mut File) -> String {
    let mut note = String::new();
    let read = file.rewind().and_then(|()| file.take(NOTE_MAX).read_to_string(&mut note));
    match note.trim() {
        "" => "another process".to_owned(),
        _ if read.is_err() => "another process".to_owned(),
        note => note.chars().filter(|c| !c.is_control()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_other_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("up.lock");
        let first = Lock::take(&path, "up").unwrap();
        let refused = Lock::take(&path, "up").unwrap_err();
        let holder = format!("process {} (up)", std::process::id());
        assert!(matches!(&refused, NotLocked::Held { holder: h, .. } if *h == holder), "{refused}");
        drop(first);
        Lock::take(&path, "up").unwrap();
    }

    #[test]
    fn a_file_that_can_not_be_made_is_the_folders_fault() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Lock::take(&folder.path().join("missing/up.lock"), "up").unwrap_err();
        assert!(matches!(refused, NotLocked::Unusable { .. }), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_lock_or_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path, "order").unwrap();
        let mut told = 0;
        let began = tokio::time::Instant::now();
        let at_most = Duration::from_secs(3);
        let refused = Lock::take_within(&path, "up", at_most, |_| told += 1).await.unwrap_err();
        assert!(matches!(refused, NotLocked::Held { .. }), "{refused}");
        assert_eq!((told, began.elapsed()), (1, at_most));

        let release = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        };
        let (taken, ()) = tokio::join!(Lock::take_within(&path, "up", at_most, |_| told += 1), release);
        taken.unwrap();
        assert_eq!(told, 2);
        assert!(began.elapsed() < at_most + Duration::from_millis(1_200));
    }
}
