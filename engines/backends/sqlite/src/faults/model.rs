//! The disk model: what a power cut may leave. Pure; chance comes from a seed.
//!
//! **A file** has a durable image and, on top of it, the ordered writes and size changes since its last sync,
//! which only the cache holds. A sync that returned has moved all of them to the durable image: drives that lie
//! about that are not modelled. Without a sync the disk may still write at any time, in any order, so each
//! unsynced change may have happened or not.
//!
//! **The unit is a sector of 512 bytes, written whole or not at all.** A write that covers part of a sector
//! takes the rest of it from the cache, so what the disk can hold of a sector is one of the versions that the
//! cache held since the last sync, or the durable one; never a mix. The VFS therefore reports a sector size of
//! 512 and `SQLITE_IOCAP_POWERSAFE_OVERWRITE` (bytes beside a write are safe), which is what SQLite's unix
//! layer claims for every disk; without the claim SQLite would pad its commits, and the proof would be about
//! another program than the one that ships.
//!
//! **A cut** draws one fate for each file with unsynced changes:
//! - dropped: the durable image;
//! - kept: every change;
//! - in order: the changes up to some point, the one at that point torn between its sectors;
//! - reordered: every write survives or not, whole;
//! - torn: every sector, on its own, is any of its versions.
//!
//! **Size.** Growth survives or not like a write, independent of the bytes: sectors inside the size that the
//! disk never got read as zeros or, with the last three fates, sometimes as garbage (old blocks). Shrinking is
//! a journaled act of the file system: of several, those up to some point survive; what a surviving one cut off
//! is gone; past a lost one, what was later written beyond its size is lost too, because those blocks were
//! never the file's.
//!
//! **Names.** Creating and deleting change the directory. Syncing the directory makes every change in it
//! durable: it happens at the first sync of a new file, at the first sync through a handle that may have
//! created a journal (as SQLite's unix layer does), and at a delete that asks for it. Until then a cut leaves
//! each name, on its own, at any of the files (or none) that it meant since the last directory sync. So a
//! deleted file may come back; SQLite's rollback journal needs `synchronous=EXTRA` for that reason.
//!
//! **Bounds.** A cache does not grow for ever: past [`DIRTY_BYTES_MAX`] a file's oldest changes become durable,
//! and past [`RENAMES_MAX`] so do a name's.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::image::Image;

/// What the disk writes whole, in bytes.
pub(super) const SECTOR: usize = 512;

/// The unsynced bytes that one file's cache holds at most.
const DIRTY_BYTES_MAX: usize = 64 << 20;

/// The unsynced changes of one name that are kept at most.
const RENAMES_MAX: usize = 64;

/// Seeded chance (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Dice for one name, so that what happens to one file does not depend on which others there are (the
    /// name is mixed in by FNV-1a).
    fn for_name(seed: u64, name: &str) -> Dice {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Dice(Dice(seed).next() ^ hash)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// One unsynced change.
#[derive(Clone)]
struct Change {
    /// The first sector written.
    sector: u64,
    /// Whole sectors as the cache held them after the write; empty when only the size changed.
    data: Arc<[u8]>,
    /// The file's size after the change.
    size: u64,
    /// A size change that cut bytes off.
    shrinks: bool,
}

/// A file: the durable image, the cache above it, and what lies between them.
#[derive(Clone, Default)]
pub(super) struct File {
    durable: Image,
    cache: Image,
    unsynced: VecDeque<Change>,
    dirty_bytes: usize,
    /// It was synced once, so its name is durable.
    pub(super) synced: bool,
}

/// What the cache held of one sector: the change that made it, by position, and the bytes.
type Versions<'a> = Vec<(usize, Cow<'a, [u8]>)>;

/// What happens to a file's unsynced changes. The indices are positions in the list of changes.
enum Fate {
    Kept,
    InOrder(usize),
    Reordered(Vec<bool>),
    Torn,
}

impl Fate {
    /// Which of these versions (the indices of the changes that made them, ascending) the disk holds; `None`
    /// is the one below them all.
    fn choose<T>(&self, versions: &[(usize, T)], dice: &mut Dice) -> Option<usize> {
        match self {
            Fate::Kept => versions.len().checked_sub(1),
            Fate::InOrder(end) => {
                let torn = dice.coin();
                versions.iter().rposition(|(change, _)| change < end || (change == end && torn))
            }
            Fate::Reordered(kept) => versions.iter().rposition(|(change, _)| kept[*change]),
            Fate::Torn => dice.below(versions.len() + 1).checked_sub(1),
        }
    }
}

impl File {
    /// A file that is durable with these bytes.
    pub(super) fn durable(bytes: &[u8]) -> File {
        let mut image = Image::default();
        image.write(0, bytes);
        File::from_image(image)
    }

    fn from_image(image: Image) -> File {
        File { durable: image.clone(), cache: image, synced: true, ..File::default() }
    }

    pub(super) fn size(&self) -> u64 {
        self.cache.size()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        self.cache.read(offset, out)
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.cache.to_vec()
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.cache.write(offset, data);
        let unit = SECTOR as u64;
        let first = offset / unit;
        let end = (offset + data.len() as u64).div_ceil(unit);
        let mut sectors = vec![0; (end - first) as usize * SECTOR];
        self.cache.read(first * unit, &mut sectors);
        self.push(Change { sector: first, data: sectors.into(), size: self.cache.size(), shrinks: false });
    }

    pub(super) fn truncate(&mut self, size: u64) {
        let before = self.cache.size();
        if size != before {
            self.cache.set_size(size);
            self.push(Change { sector: 0, data: Arc::new([]), size, shrinks: size < before });
        }
    }

    fn push(&mut self, change: Change) {
        self.dirty_bytes += change.data.len();
        self.unsynced.push_back(change);
        while self.dirty_bytes > DIRTY_BYTES_MAX
            && let Some(oldest) = self.unsynced.pop_front()
        {
            self.harden(&oldest);
        }
    }

    /// Makes one change durable. The changes before it are durable already, or lost for good.
    fn harden(&mut self, change: &Change) {
        self.dirty_bytes -= change.data.len();
        self.durable.write(change.sector * SECTOR as u64, &change.data);
        self.durable.set_size(change.size);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.harden(&change);
        }
        self.synced = true;
    }

    /// The cache forgets that it holds unsynced changes: reads still see them, no sync will write them.
    pub(super) fn mark_clean(&mut self) {
        self.unsynced.clear();
        self.dirty_bytes = 0;
    }

    fn after_cut(&self, dice: &mut Dice) -> File {
        let changes = self.unsynced.len();
        let shrinks = || self.unsynced.iter().enumerate().filter(|(_, c)| c.shrinks).map(|(at, _)| at);
        let some_shrink =
            |dice: &mut Dice| shrinks().nth(dice.below(shrinks().count() + 1)).unwrap_or(changes);
        let (fate, first_lost_shrink) = match dice.below(5) {
            _ if changes == 0 => return File::from_image(self.durable.clone()),
            0 => return File::from_image(self.durable.clone()),
            1 => (Fate::Kept, changes),
            2 => {
                let end = dice.below(changes);
                (Fate::InOrder(end), shrinks().find(|at| *at >= end).unwrap_or(changes))
            }
            3 => (Fate::Reordered((0..changes).map(|_| dice.coin()).collect()), some_shrink(dice)),
            _ => (Fate::Torn, some_shrink(dice)),
        };
        File::from_image(self.survivor(&fate, first_lost_shrink, dice))
    }

    /// The image that a fate leaves. Shrinks before `first_lost_shrink` survive, it and later ones do not.
    fn survivor(&self, fate: &Fate, first_lost_shrink: usize, dice: &mut Dice) -> Image {
        let unit = SECTOR as u64;
        let mut image = self.durable.clone();
        let mut sizes: Vec<(usize, u64)> = Vec::new();
        let mut versions: BTreeMap<u64, Versions<'_>> = BTreeMap::new();
        let mut end_of_blocks = u64::MAX;
        for (at, change) in self.unsynced.iter().enumerate() {
            if change.shrinks && at >= first_lost_shrink {
                end_of_blocks = end_of_blocks.min(change.size);
            } else if change.shrinks {
                image.set_size(change.size);
                sizes.clear();
                versions.split_off(&change.size.div_ceil(unit));
                // Of the sector that the new size lies in, no version of before may bring the rest back.
                for (_, bytes) in versions.get_mut(&(change.size / unit)).into_iter().flatten() {
                    bytes.to_mut()[(change.size % unit) as usize..].fill(0);
                }
            } else {
                for (sector, bytes) in (change.sector..).zip(change.data.chunks(SECTOR)) {
                    if (sector + 1) * unit <= end_of_blocks {
                        versions.entry(sector).or_default().push((at, Cow::Borrowed(bytes)));
                    }
                }
                if end_of_blocks == u64::MAX {
                    sizes.push((at, change.size));
                }
            }
        }
        let old_size = image.size();
        let size = fate.choose(&sizes, dice).map_or(old_size, |at| sizes[at].1);
        let garbage = !matches!(fate, Fate::Kept) && dice.below(4) == 0;
        let mut noise = [0; SECTOR];
        for (sector, versions) in versions {
            if let Some(chosen) = fate.choose(&versions, dice) {
                image.write(sector * unit, &versions[chosen].1);
            } else if garbage && sector * unit >= old_size {
                dice.fill(&mut noise);
                image.write(sector * unit, &noise);
            }
        }
        image.set_size(size);
        image
    }
}

/// The directory: which file each name means, now and after a cut. All files of a disk lie in one.
#[derive(Clone, Default)]
pub(super) struct Directory {
    names: BTreeMap<String, Name>,
}

#[derive(Clone, Default)]
struct Name {
    durable: Option<u64>,
    /// What it meant since, in order.
    unsynced: VecDeque<Option<u64>>,
}

impl Name {
    fn now(&self) -> Option<u64> {
        self.unsynced.back().copied().unwrap_or(self.durable)
    }
}

impl Directory {
    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name)?.now()
    }

    /// Lets a name mean a file, or (with `None`) nothing.
    pub(super) fn set(&mut self, name: &str, file: Option<u64>) {
        let entry = self.names.entry(name.to_owned()).or_default();
        entry.unsynced.push_back(file);
        if entry.unsynced.len() > RENAMES_MAX
            && let Some(oldest) = entry.unsynced.pop_front()
        {
            entry.durable = oldest;
        }
    }

    pub(super) fn sync(&mut self) {
        self.names.retain(|_, name| {
            name.durable = name.now();
            name.unsynced.clear();
            name.durable.is_some()
        });
    }

    /// Whether a name means this file, or may mean it again after a cut.
    pub(super) fn may_name(&self, file: u64) -> bool {
        self.names.values().any(|name| name.durable == Some(file) || name.unsynced.contains(&Some(file)))
    }

    /// The names that mean a file now.
    pub(super) fn list(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().filter_map(|(name, entry)| Some((name.as_str(), entry.now()?)))
    }
}

/// What a power cut leaves of a directory and its files: the names that survive, each with its file.
pub(super) fn cut<'a>(
    directory: &Directory,
    file: impl Fn(u64) -> Option<&'a File>,
    seed: u64,
) -> Vec<(String, File)> {
    let mut left = Vec::new();
    for (name, entry) in &directory.names {
        let mut dice = Dice::for_name(seed, name);
        let choice = dice.below(entry.unsynced.len() + 1).checked_sub(1);
        let meaning = choice.and_then(|at| entry.unsynced.get(at).copied()).unwrap_or(entry.durable);
        if let Some(file) = meaning.and_then(&file) {
            left.push((name.clone(), file.after_cut(&mut dice)));
        }
    }
    left
}

#[cfg(test)]
mod tests;
