//! From a path to connections: every way in which a file can be unusable, in the operator's words.

use std::path::PathBuf;

use mainstay_event_store::StoreId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use crate::options::Options;
use crate::schema::{self, Found};

/// Why a file can't be used as a store. It was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No file there.
    #[error("{path}: there is no store; nothing was made; check the path")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The file, or its folder, can't be opened by this user.
    #[error(
        "{path}: can't be opened ({why}); nothing was changed; check the path, its folder and their permissions"
    )]
    Access {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
    /// The file is not a database.
    #[error("{path}: is not a store, but some other file ({why}); nothing was changed; check the path")]
    NotAStore {
        /// Where.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// The file is damaged.
    #[error("{path}: is damaged ({why}); nothing was changed; keep the file and restore from a copy")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A newer build wrote the file.
    #[error(
        "{path}: was written by a newer version (schema {found}, this build knows up to {known}); \
         nothing was changed; use the newer build"
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// This build's.
        known: i64,
    },
    /// An older build wrote it, and it was opened read-only.
    #[error(
        "{path}: was written by an older version (schema {found}, this build reads {known}); \
         nothing was changed; open it once for writing to bring it up to date"
    )]
    Older {
        /// Where.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// This build's.
        known: i64,
    },
    /// Another program holds a lock on the file.
    #[error(
        "{path}: another program keeps the file locked ({why}); nothing was changed; end it and try again"
    )]
    Locked {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
    /// The disk is full.
    #[error("{path}: the disk is full ({why}); no store was made; free space and try again")]
    Full {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
    /// Anything else.
    #[error("{path}: can't be used ({why}); nothing was changed")]
    Failed {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
}

fn explain(options: &Options, error: &rusqlite::Error) -> OpenError {
    let (path, why) = (options.path.clone(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotAStore { path, why },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, why },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::Access { path, why }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path, why },
        Some(ErrorCode::DiskFull) => OpenError::Full { path, why },
        _ => OpenError::Failed { path, why },
    }
}

fn connect(options: &Options, write: bool) -> rusqlite::Result<Connection> {
    // The path is a path, never a URI: a name with a question mark must not change how it is opened.
    let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags |= if options.read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else if write && options.create {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    #[cfg(feature = "faults")]
    let conn = match options.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(&options.path, flags, vfs)?,
        None => Connection::open_with_flags(&options.path, flags)?,
    };
    #[cfg(not(feature = "faults"))]
    let conn = Connection::open_with_flags(&options.path, flags)?;
    conn.busy_timeout(options.busy)?;
    conn.set_prepared_statement_cache_capacity(128);
    // Without it SQLite plans a statement anew for every value of its LIMIT, or of a range: a tenth of a commit's time.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// A connection for the writer thread.
pub(crate) fn writer(options: &Options) -> rusqlite::Result<Connection> {
    let conn = connect(options, true)?;
    // FULL: the write-ahead log is synced before a commit returns, and only then do readers see it.
    conn.execute_batch(&format!(
        "pragma synchronous = {};
         pragma foreign_keys = on;
         pragma trusted_schema = off;
         pragma temp_store = memory;
         pragma cache_size = -{};
         pragma journal_size_limit = 16777216;
         pragma wal_autocheckpoint = {};",
        options.synchronous(),
        options.cache_kib,
        options.checkpoint_frames
    ))?;
    Ok(conn)
}

/// A connection for a reader thread.
pub(crate) fn reader(options: &Options) -> rusqlite::Result<Connection> {
    let conn = connect(options, false)?;
    conn.execute_batch(&format!(
        "pragma query_only = on; pragma trusted_schema = off; pragma temp_store = memory; pragma cache_size = -{};",
        (options.cache_kib / 4).max(256)
    ))?;
    Ok(conn)
}

/// Turns the write-ahead log on; the mode the file is in now.
fn write_ahead(conn: &Connection) -> rusqlite::Result<String> {
    let mut statement = conn.prepare("pragma journal_mode = wal")?;
    let mut rows = statement.query([])?;
    let mode = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?.get(0)?;
    // The pragma names the mode first and writes it to the file when it ends: without this step a failure to
    // write would be dropped with the statement, and the store would work without a log that it believes in.
    rows.next()?;
    Ok(mode)
}

/// Is this still the store that was opened, in a shape this build knows? The file may have been swapped, or
/// migrated by a newer build in another process.
pub(crate) fn same_store(conn: &Connection, store: StoreId) -> rusqlite::Result<()> {
    let other = |why: &str| {
        Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(format!("the file is not what was opened: {why}")),
        ))
    };
    match schema::found(conn)? {
        Found::Version(schema::VERSION) => {}
        Found::Version(_) => return other("another build has changed its schema"),
        Found::Nothing => return other("it holds no store"),
    }
    let id: Vec<u8> =
        conn.query_row("select value from main.mainstay_meta where key = 'store'", [], |row| row.get(0))?;
    if id == store.0.as_bytes() { Ok(()) } else { other("it is another store") }
}

/// Looks at the file, makes or migrates it, and says who it is.
pub(crate) fn prepare(options: &Options) -> Result<StoreId, OpenError> {
    let failed = |error: &rusqlite::Error| explain(options, error);
    // SQLite takes these two names for databases without a file, which no second connection would share.
    if options.path.as_os_str().is_empty() || options.path.as_os_str() == ":memory:" {
        return Err(OpenError::NotAStore {
            path: options.path.clone(),
            why: "a store needs a file; the memory store is in mainstay_event_store::memory".into(),
        });
    }
    #[cfg(feature = "faults")]
    let real = options.vfs.is_none();
    #[cfg(not(feature = "faults"))]
    let real = true;
    if real {
        if options.path.is_dir() {
            return Err(OpenError::NotAStore { path: options.path.clone(), why: "it is a folder".into() });
        }
        if !options.create && !options.path.exists() {
            return Err(OpenError::Missing { path: options.path.clone() });
        }
    }
    let conn = if options.read_only { reader(options) } else { writer(options) }.map_err(|e| failed(&e))?;
    let newer = |found| OpenError::Newer { path: options.path.clone(), found, known: schema::VERSION };
    // Before anything else touches the file: what is it?
    match schema::found(&conn).map_err(|e| failed(&e))? {
        Found::Version(found) if found > schema::VERSION => return Err(newer(found)),
        Found::Version(found) if found < schema::VERSION && options.read_only => {
            return Err(OpenError::Older { path: options.path.clone(), found, known: schema::VERSION });
        }
        Found::Nothing if options.read_only => {
            return Err(OpenError::NotAStore {
                path: options.path.clone(),
                why: "a database without a table of ours".into(),
            });
        }
        _ => {}
    }
    if !options.read_only {
        let mode = write_ahead(&conn).map_err(|e| failed(&e))?;
        if mode != "wal" {
            return Err(OpenError::Failed {
                path: options.path.clone(),
                why: format!("its journal mode stays {mode}; a store needs a write-ahead log"),
            });
        }
        schema::migrate(&conn, Uuid::new_v4()).map_err(|e| failed(&e))?;
    }
    match schema::found(&conn).map_err(|e| failed(&e))? {
        Found::Version(found) if found > schema::VERSION => return Err(newer(found)),
        _ => {}
    }
    let id: Vec<u8> = conn
        .query_row("select value from main.mainstay_meta where key = 'store'", [], |row| row.get(0))
        .map_err(|e| failed(&e))?;
    let id = Uuid::from_slice(&id).map_err(|error| OpenError::Damaged {
        path: options.path.clone(),
        why: format!("its store id is spoilt: {error}"),
    })?;
    Ok(StoreId(id))
}
