//! The walk along the chain that several commands make.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mainstay::store::chain::ArchiveError;
use mainstay::store::{Archived, Broken, Hash, Head, Position, Query, Store, Verifier};

use crate::output::{BadInput, Output, Unusable};

/// A walk from where a verifier stands to the end of the feed.
pub(crate) struct Walk<'a, S> {
    store: &'a S,
    verifier: Verifier,
    /// Heads seen before that are still ahead, by position.
    kept: BTreeMap<Position, Vec<Hash>>,
    /// Files of archived ranges, by digest.
    archives: BTreeMap<String, PathBuf>,
}

/// What a walk has proved.
pub(crate) struct Proof {
    pub(crate) head: Head,
    /// Events that are in archives.
    pub(crate) archived: u64,
    /// Of these, the events whose archive was proved too.
    pub(crate) archived_proved: u64,
}

impl<'a, S: Store> Walk<'a, S> {
    pub(crate) fn new(store: &'a S, verifier: Verifier) -> Self {
        Self { store, verifier, kept: BTreeMap::new(), archives: BTreeMap::new() }
    }

    /// Heads that the feed must have had.
    pub(crate) fn with_heads(mut self, heads: &[Head]) -> Self {
        for head in heads {
            self.kept.entry(head.position).or_default().push(head.hash);
        }
        self
    }

    /// Files that are to be proved as the store's archives.
    pub(crate) fn with_archives(mut self, files: &[PathBuf]) -> Result<Self> {
        for file in files {
            self.archives.insert(digest(file)?.to_string(), file.clone());
        }
        Ok(self)
    }

    /// Proves every link to the end of the feed, and that the feed had the kept heads.
    pub(crate) async fn prove(mut self, output: &Output) -> Result<Proof> {
        let (mut archived, mut archived_proved) = (0, 0);
        matches(&mut self.kept, self.verifier.head())?;
        for marker in self.store.archives().await? {
            archived += marker.count;
            if marker.to > self.verifier.head().position && self.pass(&marker).await? {
                archived_proved += marker.count;
            }
        }
        if let Some((digest, file)) = self.archives.first_key_value() {
            let file = file.display();
            return Err(BadInput(format!(
                "{file} is no archive that this store has a marker of, or it was changed: its digest is {digest}"
            ))
            .into());
        }
        loop {
            let page = self.store.read(&Query::all(), self.verifier.head().position, usize::MAX).await?;
            for event in &page.events {
                self.verifier.check(event)?;
                matches(&mut self.kept, self.verifier.head())?;
            }
            if page.next.0.is_multiple_of(100_000) || page.at_end() {
                output.progress(&format!("verified {} of {}", page.next, page.head));
            }
            if page.at_end() {
                break;
            }
        }
        output.progress_done();
        let head = self.verifier.head();
        match self.kept.keys().next() {
            Some(missing) => Err(Broken::Truncated { ends: head.position, expected: *missing }.into()),
            None => Ok(Proof { head, archived, archived_proved }),
        }
    }

    /// Goes on behind an archived range; was its file there to prove it?
    async fn pass(&mut self, marker: &Archived) -> Result<bool> {
        let wrong = Broken::Marker { from: marker.from, to: marker.to };
        // What the store keeps of the range, its hashes, must agree with the marker.
        for (position, hash) in [(marker.from, marker.first), (marker.to, marker.last)] {
            if self.store.head_at(position).await?.map(|head| head.hash) != Some(hash) {
                return Err(wrong.into());
            }
        }
        let Some(path) = self.archives.remove(&marker.digest.to_string()) else {
            let inside: Vec<Position> =
                self.kept.keys().copied().filter(|position| marker.contains(*position)).collect();
            for position in inside {
                if let Some(head) = self.store.head_at(position).await? {
                    matches(&mut self.kept, head)?;
                }
            }
            if marker.contains(self.verifier.head().position) {
                // The walk begins in the middle of the range, at a head that was compared already.
                self.verifier = Verifier::from_head(Head { position: marker.to, hash: marker.last });
            } else {
                self.verifier.accept(marker)?;
            }
            return Ok(false);
        };
        let (store, kept) = (self.store.id(), &mut self.kept);
        let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
        let checked = self.verifier.check_archive(store, marker, file, |head| matches(kept, head));
        checked.map_err(|error| match error {
            ArchiveError::Broken(broken) => anyhow::Error::new(broken).context(path.display().to_string()),
            error => Unusable(format!("{}: {error}", path.display())).into(),
        })?;
        Ok(true)
    }
}

/// Compares a head with those kept of its position.
fn matches(kept: &mut BTreeMap<Position, Vec<Hash>>, head: Head) -> Result<(), Broken> {
    let Some(hashes) = kept.remove(&head.position) else { return Ok(()) };
    if hashes.iter().any(|hash| *hash != head.hash) {
        return Err(Broken::Rewritten { at: head.position });
    }
    Ok(())
}

fn digest(path: &Path) -> Result<Hash> {
    let found = File::open(path).and_then(mainstay::store::chain::digest_of);
    Ok(found.map_err(|error| unreadable(path, &error))?)
}

fn unreadable(path: &Path, error: &std::io::Error) -> BadInput {
    BadInput(format!("{} can't be read: {error}", path.display()))
}
