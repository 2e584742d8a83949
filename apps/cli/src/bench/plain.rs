//! What the store is held against: the same library, rows and indices in a plain loop; and the bare disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use mainstay::sqlite::rusqlite::Connection;

use super::rows::Draw;

/// How many rows, in how much time, and how long each commit took.
pub(crate) struct Run {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) commits_us: Vec<u64>,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds
    }

    pub(crate) fn p99_us(&mut self) -> f64 {
        self.commits_us.sort_unstable();
        self.commits_us.get(self.commits_us.len() * 99 / 100).copied().unwrap_or(0) as f64
    }
}

/// Inserts rows into the store's own tables, in groups of the given sizes, on one thread, with nothing
/// checked, hashed or handed over. The file must be a store's that nobody has open.
pub(crate) fn sqlite_loop(
    path: &Path,
    sizes: &[usize],
    payload: usize,
    streams: u64,
    lasts: Duration,
) -> Result<Run> {
    let conn = Connection::open(path)?;
    // As the store's writer has them: what its settings gain must not count as gained over SQLite.
    conn.execute_batch(
        "pragma synchronous = full; pragma temp_store = memory; pragma cache_size = -8192;
         pragma wal_autocheckpoint = 2000; pragma journal_size_limit = 16777216;",
    )?;
    let mut known: std::collections::HashMap<i64, i64> = conn
        .prepare("select stream, max(version) from mainstay_events group by stream")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut position: i64 =
        conn.query_row("select coalesce(max(position), 0) from mainstay_events", [], |row| row.get(0))?;
    let mut event = conn.prepare(
        "insert into mainstay_events(position, stream, version, id, type, schema, at, tags, envelope, key, payload, hash)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let mut key = conn.prepare("insert into mainstay_keys(key, position) values (?1, ?2)")?;
    let envelope = serde_json::to_vec(&mainstay::Context::system().fact())?;
    let (payload, hash) = (super::rows::payload(payload), [7u8; 32]);
    let mut draw = Draw(0x5EED_5EED_5EED);
    let mut run = Run { rows: 0, seconds: 0.0, commits_us: Vec::new() };
    let began = Instant::now();
    let start_ms = 1_700_000_000_000_u64;
    for size in sizes.iter().cycle() {
        let start = Instant::now();
        conn.execute_batch("begin immediate")?;
        for _ in 0..*size {
            let n = draw.next();
            let stream = (n % streams) as i64 + 1;
            let version = known.entry(stream).or_insert(0);
            *version += 1;
            position += 1;
            // As a UUID of version 7: sorted by time.
            let mut id = [0u8; 16];
            id[..8].copy_from_slice(&((start_ms << 16) + position as u64).to_be_bytes());
            id[8..].copy_from_slice(&n.to_be_bytes());
            let tag = (n >> 20) % 50_000;
            let tags = format!("customer:{tag}");
            event.execute((
                position,
                stream,
                *version,
                &id[..],
                "DepositMade",
                1,
                start_ms as i64,
                &tags,
                &envelope,
                None::<&str>,
                &payload,
                &hash[..],
            ))?;
            key.execute((0x1234_5678_i64, position))?;
            key.execute((tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64, position))?;
        }
        conn.execute_batch("commit")?;
        run.commits_us.push(start.elapsed().as_micros() as u64);
        run.rows += *size as u64;
        if began.elapsed() >= lasts {
            break;
        }
    }
    run.seconds = began.elapsed().as_secs_f64();
    Ok(run)
}

/// Appends records of `bytes` to a growing file, in groups of the given sizes, each ended by fdatasync.
pub(crate) fn raw_loop(path: &Path, sizes: &[usize], bytes: usize, lasts: Duration) -> Result<Run> {
    let mut file = File::create(path)?;
    let mut run = Run { rows: 0, seconds: 0.0, commits_us: Vec::new() };
    let began = Instant::now();
    let mut buffer = Vec::new();
    for size in sizes.iter().cycle() {
        let start = Instant::now();
        buffer.clear();
        buffer.resize(bytes * size, b'x');
        file.write_all(&buffer)?;
        file.sync_data()?;
        run.commits_us.push(start.elapsed().as_micros() as u64);
        run.rows += *size as u64;
        if began.elapsed() >= lasts {
            break;
        }
    }
    run.seconds = began.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path)?;
    Ok(run)
}

/// Reads every event's columns in the feed's order, in one statement, keeping nothing.
pub(crate) fn select_loop(path: &Path) -> Result<Run> {
    let conn = Connection::open(path)?;
    conn.execute_batch("pragma cache_size = -2048; pragma query_only = on;")?;
    let began = Instant::now();
    let mut statement = conn.prepare(
        "select position, stream, version, id, type, schema, at, tags, envelope, key, payload, hash
         from mainstay_events order by position",
    )?;
    let mut rows = statement.query([])?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        for column in 0..12 {
            use mainstay::sqlite::rusqlite::types::ValueRef as V;
            bytes += match row.get_ref(column)? {
                V::Text(bytes) | V::Blob(bytes) => bytes.len(),
                _ => 8,
            };
        }
        count += 1;
    }
    std::hint::black_box(bytes);
    Ok(Run { rows: count, seconds: began.elapsed().as_secs_f64(), commits_us: Vec::new() })
}
