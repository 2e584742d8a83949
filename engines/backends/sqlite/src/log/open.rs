//! From a path to a log: every way in which a file can be unusable, and noticing when it is no longer the same.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mainstay_messaging::ReadError;
use rusqlite::Connection;
use uuid::Uuid;

use super::error::LogError;
use super::options::LogOptions;
use super::schema::{self, Found};
use crate::open;

/// Which log a file is, and in which file on disk it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    pub(super) id: Uuid,
    pub(super) partitions: u32,
    file: (u64, u64),
}

/// What to do about a file that is no longer the one that was opened.
pub(super) const REOPEN: &str = "find out who did that, then open the log anew";

impl Identity {
    /// Is the file still there, and the same one? A log that was removed or replaced while it is open would take
    /// appends, and give reads, that nobody else sees.
    pub(super) fn still_there(&self) -> Result<(), String> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.file => Ok(()),
            Ok(_) => Err(format!("{} was replaced by another file", self.path.display())),
            Err(error) => Err(format!("{} is no longer there ({error})", self.path.display())),
        }
    }
}

fn refuse_odd(path: &Path) -> Result<(), LogError> {
    let not = |why: &str| Err(LogError::NotALog { path: path.to_owned(), why: why.into() });
    // SQLite takes these two names for databases without a file, which no other process would share.
    if path.as_os_str().is_empty() || path.file_name().is_some_and(|name| name == ":memory:") {
        return not("a log needs a file; the memory log is in mainstay_messaging::memory");
    }
    if path.is_dir() {
        return not("it is a folder");
    }
    Ok(())
}

/// Looks at the file, makes the log where there is none, and says which it is.
pub(super) fn prepare(options: &LogOptions) -> Result<Identity, LogError> {
    refuse_odd(&options.path)?;
    if !options.path.exists() {
        make(options)?;
    }
    let failed = |error: rusqlite::Error| LogError::of(options.path.clone(), &error);
    let conn = open::writer(&options.for_writer()).map_err(failed)?;
    // An empty file, or what a maker left that died half-way: no follower takes it for a log yet.
    if let Found::Empty = schema::found(&conn).map_err(failed)? {
        let mode = write_ahead(&conn).map_err(failed)?;
        if mode != "wal" {
            let why = format!("its journal mode stays {mode}; a log needs a write-ahead log");
            return Err(LogError::Failed { path: options.path.clone(), why });
        }
        schema::create(&conn, Uuid::new_v4(), options.partitions).map_err(failed)?;
    }
    match identify(&conn, options)? {
        Some(identity) => Ok(identity),
        None => Err(LogError::Failed { path: options.path.clone(), why: "its tables are gone again".into() }),
    }
}

/// Makes the log beside its path and moves it there whole, so that a follower sees nothing or all of it.
fn make(options: &LogOptions) -> Result<(), LogError> {
    let path = &options.path;
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".new-{}", Uuid::new_v4().simple()));
    let beside = PathBuf::from(beside);
    let failed = |error: rusqlite::Error| LogError::of(path.clone(), &error);
    let made = (|| {
        let conn = open::writer(&crate::options::Options::new(&beside)).map_err(failed)?;
        write_ahead(&conn).map_err(failed)?;
        schema::create(&conn, Uuid::new_v4(), options.partitions).map_err(failed)?;
        // Closing the last connection moves everything into the main file and removes the write-ahead log.
        conn.close().map_err(|(_, error)| failed(error))?;
        let io = |error: std::io::Error| LogError::Access { path: path.clone(), why: error.to_string() };
        match fs::hard_link(&beside, path) {
            // Another process was faster: its log is the one.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            // Some file systems have no hard links; then there is a moment in which a racer would be replaced.
            Err(_) => fs::rename(&beside, path).map_err(io)?,
            Ok(()) => {}
        }
        // The name is on disk before anything is acknowledged under it.
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    })();
    for end in ["", "-wal", "-shm"] {
        let mut left = beside.clone().into_os_string();
        left.push(end);
        let _ = fs::remove_file(left); // mostly not there
    }
    made
}

/// Turns the write-ahead log on; the mode the file is in now.
fn write_ahead(conn: &Connection) -> rusqlite::Result<String> {
    let mut statement = conn.prepare("pragma journal_mode = wal")?;
    let mut rows = statement.query([])?;
    let mode = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?.get(0)?;
    // The pragma names the mode first and writes it to the file when it ends.
    rows.next()?;
    Ok(mode)
}

/// What the file is, if it is there and a log; none if there is none yet.
pub(super) fn look(options: &LogOptions) -> Result<Option<Identity>, LogError> {
    refuse_odd(&options.path)?;
    match fs::metadata(&options.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(LogError::Access { path: options.path.clone(), why: error.to_string() });
        }
        Ok(_) => {}
    }
    let conn =
        open::reader(&options.for_readers()).map_err(|error| LogError::of(options.path.clone(), &error))?;
    identify(&conn, options)
}

/// As far as is known, or else as [`look`] finds. A known file must still be there.
pub(super) fn known(
    options: &LogOptions,
    identity: &OnceLock<Identity>,
) -> Result<Option<Identity>, ReadError> {
    if let Some(known) = identity.get() {
        return match known.still_there() {
            Ok(()) => Ok(Some(known.clone())),
            Err(why) => Err(ReadError::Unavailable { why: format!("{why}; {REOPEN}"), passing: false }),
        };
    }
    Ok(look(options)?.map(|found| identity.get_or_init(|| found).clone()))
}

fn identify(conn: &Connection, options: &LogOptions) -> Result<Option<Identity>, LogError> {
    let path = || options.path.clone();
    let failed = |error: rusqlite::Error| LogError::of(path(), &error);
    match schema::found(conn).map_err(failed)? {
        Found::Empty => return Ok(None),
        Found::Foreign(why) => return Err(LogError::NotALog { path: path(), why }),
        Found::Version(schema::VERSION) => {}
        Found::Version(found) => {
            return Err(LogError::Newer { path: path(), found, known: schema::VERSION });
        }
    }
    let (id, partitions) = meta(conn).map_err(failed)?;
    let spoilt = |why: String| LogError::Damaged { path: path(), why };
    let id = Uuid::from_slice(&id).map_err(|error| spoilt(format!("its id is spoilt: {error}")))?;
    if partitions != options.partitions {
        return Err(LogError::Partitions { path: path(), found: partitions, asked: options.partitions });
    }
    let file = fs::metadata(&options.path)
        .map_err(|error| LogError::Access { path: path(), why: error.to_string() })?;
    Ok(Some(Identity { path: path(), id, partitions, file: (file.dev(), file.ino()) }))
}

fn meta(conn: &Connection) -> rusqlite::Result<(Vec<u8>, u32)> {
    conn.prepare_cached(
        "select (select value from main.mainstay_log_meta where key = 'log'), value
         from main.mainstay_log_meta where key = 'partitions'",
    )?
    .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Is this connection one to the log that is known?
pub(super) fn check(conn: &Connection, known: &Identity) -> rusqlite::Result<Result<(), ReadError>> {
    if meta(conn)?.0 == known.id.as_bytes() {
        return Ok(Ok(()));
    }
    let why = format!("{} is another log than it was; {REOPEN}", known.path.display());
    Ok(Err(ReadError::Unavailable { why, passing: false }))
}
