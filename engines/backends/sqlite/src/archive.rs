//! Moving old events out of the store: into a file first, then, in one transaction, a marker in their place.
//!
//! ```text
//! 1. events ──► file (each link proved) ──► fsync file and folder ──► read back and proved
//! 2. begin immediate: marker recorded · envelopes and payloads emptied: commit
//! ```
//! What stays of an archived event is what later writes rest on: its id, so that it is not recorded twice; its stream
//! and version; its type and tags, so that conditions see it; its hash. An emptied envelope is how a row is
//! known to be archived: an event's own is never empty.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::error::refusal;
use crate::open;
use crate::options::Options;
use crate::store::Sqlite;
use crate::{markers, select};
use mainstay_event_store::chain::{ARCHIVE_EVENTS_MAX, ArchiveError, ArchiveWriter, Archived};
use mainstay_event_store::{Head, Position, Query, ReadError, Refusal, Store, StoreId, Verifier};

/// Why nothing was archived. Of the store nothing was changed, except where it says so.
#[derive(Debug, thiserror::Error)]
pub enum NotArchived {
    /// The range is none that can be archived.
    #[error("nothing was archived: {0}")]
    Range(String),
    /// The archive's file.
    #[error("nothing was archived: {path}: {why}; the store is as it was")]
    File {
        /// The archive.
        path: PathBuf,
        /// What happened.
        why: ArchiveError,
    },
    /// The store could not be read.
    #[error("nothing was archived: {0}")]
    Read(#[from] ReadError),
    /// The store could not be written. The archive's file is whole, and nothing refers to it.
    #[error(
        "nothing was archived: {0}; the store is as it was; remove the archive's file before the next try"
    )]
    Refused(Refusal),
    /// The commit failed.
    #[error(
        "it is not known whether the events were archived: {0}; keep the archive's file, and look with a verification \
         whether the store refers to it"
    )]
    Unknown(String),
}

impl Sqlite {
    /// Moves the events before a position, and after those archived earlier, to a new file; the marker that stands
    /// for them now. At most [`ARCHIVE_EVENTS_MAX`] at once.
    ///
    /// The file is on disk and proved before anything of the store is changed. Reading what was archived is
    /// refused from then on ([`ReadError::Archived`]), so whoever follows the feed should be past it. An append
    /// that repeats an archived event is refused too, since it can't be compared any more. Other writers wait
    /// while the marker is recorded, a second for some 100,000 events. The store's file does not shrink; the space is
    /// used again. Blocks its thread while it writes: call it where nobody else is served.
    pub async fn archive(&self, before: Position, to: &Path) -> Result<Archived, NotArchived> {
        let after = self.archives().await?.last().map_or(Position::START, |last| last.to);
        let head = self.head().await?;
        let last = Position(before.0.saturating_sub(1));
        if last > head.position {
            let why = format!("position {before} is past the end of the feed, {}", head.position);
            return Err(NotArchived::Range(why));
        }
        if last <= after {
            let why = format!("there is nothing before position {before} that is not archived already");
            return Err(NotArchived::Range(why));
        }
        if last.0 - after.0 > ARCHIVE_EVENTS_MAX {
            let up_to = after.0 + ARCHIVE_EVENTS_MAX + 1;
            let why = format!(
                "{} events at once, at most {ARCHIVE_EVENTS_MAX}: archive what is before position {up_to} first",
                last.0 - after.0
            );
            return Err(NotArchived::Range(why));
        }
        let past = ReadError::PastEnd { asked: after, ends: head.position };
        let after = self.head_at(after).await?.ok_or(past)?;
        let marker = self.write_archive(after, last, to).await?;
        let (options, store) = (Options::new(self.path()).existing(), self.id());
        record(&options, store, &marker)?;
        Ok(marker)
    }

    /// Writes the file, syncs it, reads it back.
    async fn write_archive(&self, after: Head, last: Position, to: &Path) -> Result<Archived, NotArchived> {
        let failed = |why: ArchiveError| NotArchived::File { path: to.to_owned(), why };
        let io = |why: std::io::Error| failed(why.into());
        let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = OpenOptions::new().write(true).create_new(true).open(to).map_err(io)?;
        let written = async {
            let mut writer =
                ArchiveWriter::begin(BufWriter::new(file), self.id(), after, last).map_err(failed)?;
            while writer.position() < last {
                let page = self.read(&Query::all(), writer.position(), usize::MAX).await?;
                for event in page.events.iter().take_while(|event| event.position <= last) {
                    writer.event(event).map_err(failed)?;
                }
            }
            let (file, marker) = writer.finish(&name).map_err(failed)?;
            let file = file.into_inner().map_err(|error| io(error.into_error()))?;
            file.sync_all().map_err(io)?;
            drop(file);
            let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(io)?;
            let back = File::open(to).map_err(io)?;
            let mut verifier = Verifier::from_head(after);
            verifier.check_archive(self.id(), &marker, back, |_| Ok(())).map_err(failed)?;
            Ok(marker)
        };
        let written = written.await;
        if written.is_err() {
            // It was made just now, and is of no use; the reason is what matters.
            let _ = std::fs::remove_file(to);
        }
        written
    }
}

/// Records the marker and empties the range, in one transaction on a connection of its own.
fn record(options: &Options, store: StoreId, marker: &Archived) -> Result<(), NotArchived> {
    let engine = |error: rusqlite::Error| NotArchived::Refused(refusal(&error));
    let mut conn = open::writer(options).map_err(engine)?;
    open::same_store(&conn, store).map_err(engine)?;
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(engine)?;
    let end = markers::all(&tx).map_err(engine)?.last().map_or(Position::START, |last| last.to);
    let changed = |why: &str| {
        let remedy = "try again".into();
        Err(NotArchived::Refused(Refusal::Unavailable { why: why.into(), remedy, passing: true }))
    };
    if end.next() != marker.from {
        return changed("somebody else archived events meanwhile");
    }
    let hash = select::head_at(&tx, marker.to).map_err(engine)?.map(|(_, hash)| hash);
    if hash != Some(marker.last) {
        return changed("the file was exchanged for another one meanwhile");
    }
    tx.execute(
        "insert into main.mainstay_archives(first, last, events, first_hash, last_hash, digest, file)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            marker.from.0 as i64,
            marker.to.0 as i64,
            marker.count as i64,
            marker.first.0.as_slice(),
            marker.last.0.as_slice(),
            marker.digest.0.as_slice(),
            &marker.file,
        ),
    )
    .map_err(engine)?;
    let emptied = tx
        .execute(
            "update main.mainstay_events set envelope = x'', payload = x'' where position between ?1 and ?2",
            (marker.from.0 as i64, marker.to.0 as i64),
        )
        .map_err(engine)?;
    if emptied as u64 != marker.count {
        return changed("the store does not have as many events there as were read");
    }
    tx.commit().map_err(|error| NotArchived::Unknown(error.to_string()))
}
