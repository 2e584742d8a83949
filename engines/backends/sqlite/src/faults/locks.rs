//! SQLite's two kinds of lock, and the shared memory of a WAL, among the connections of one process.
//!
//! The meanings are those of `sqlite3_io_methods` (sqlite.org/c3ref/io_methods.html) and of the WAL's eight
//! slots (sqlite.org/walformat.html, "WAL locks"). Nothing waits here: a conflict is told at once, and SQLite's
//! busy handler decides what to do.

use std::ffi::c_int;
use std::sync::atomic::AtomicU64;

use rusqlite::ffi;

/// The database file's lock: any number of SHARED, of whom one may go on to RESERVED, PENDING, EXCLUSIVE.
#[derive(Default)]
pub(super) struct FileLock {
    shared: usize,
    /// How far the one that has gone on has come; `SQLITE_LOCK_NONE` when there is none.
    writer: c_int,
}

impl FileLock {
    /// Raises a handle's lock from `held` to `wanted`; false is a conflict. A handle that waits for the readers
    /// to leave keeps PENDING, so that no new ones come.
    pub(super) fn raise(&mut self, held: &mut c_int, wanted: c_int) -> bool {
        if *held >= wanted {
            return true;
        }
        let others_write = self.writer != ffi::SQLITE_LOCK_NONE && *held <= ffi::SQLITE_LOCK_SHARED;
        if wanted == ffi::SQLITE_LOCK_SHARED {
            if self.writer >= ffi::SQLITE_LOCK_PENDING {
                return false;
            }
            self.shared += 1;
            *held = wanted;
            return true;
        }
        if others_write {
            return false;
        }
        if wanted == ffi::SQLITE_LOCK_EXCLUSIVE && self.shared > 1 {
            if *held >= ffi::SQLITE_LOCK_RESERVED {
                self.writer = ffi::SQLITE_LOCK_PENDING;
                *held = ffi::SQLITE_LOCK_PENDING;
            }
            return false;
        }
        self.writer = wanted;
        *held = wanted;
        true
    }

    /// Lowers a handle's lock to SHARED or NONE.
    pub(super) fn lower(&mut self, held: &mut c_int, wanted: c_int) {
        if *held <= wanted {
            return;
        }
        if *held > ffi::SQLITE_LOCK_SHARED {
            self.writer = ffi::SQLITE_LOCK_NONE;
        }
        if wanted == ffi::SQLITE_LOCK_NONE {
            self.shared -= 1;
        }
        *held = wanted;
    }

    /// Whether some handle has gone past SHARED.
    pub(super) fn is_reserved(&self) -> bool {
        self.writer != ffi::SQLITE_LOCK_NONE
    }
}

/// How many lock slots the shared memory has.
pub(super) const SLOTS: usize = ffi::SQLITE_SHM_NLOCK as usize;

/// The shared memory of one database: its lock slots and its regions.
#[derive(Default)]
pub(super) struct Shm {
    /// For each slot the number of shared holders, or -1 for an exclusive one.
    slots: [i32; SLOTS],
    regions: Vec<Box<[AtomicU64]>>,
    /// The handles that have mapped it.
    pub(super) handles: usize,
}

/// The slots that one handle holds, as bit masks.
#[derive(Clone, Copy, Default)]
pub(super) struct Held {
    shared: u8,
    exclusive: u8,
}

impl Shm {
    /// The address of region `index`, made (zeroed) when missing and wanted; null when missing and not wanted.
    ///
    /// The atomics are what makes a write through this address legal while others hold it too. A region stays
    /// where it is until the whole `Shm` goes, which is when its last handle has unmapped it.
    pub(super) fn region(&mut self, index: usize, bytes: usize, make: bool) -> *mut std::ffi::c_void {
        while make && self.regions.len() <= index {
            self.regions.push((0..bytes.div_ceil(8)).map(|_| AtomicU64::new(0)).collect());
        }
        self.regions.get(index).map_or(std::ptr::null_mut(), |region| region.as_ptr().cast_mut().cast())
    }

    /// Takes slots, shared (one) or exclusive; false is a conflict, and then none is taken.
    pub(super) fn take(&mut self, held: &mut Held, first: usize, count: usize, exclusive: bool) -> bool {
        let mask = mask(first, count);
        let Some(slots) = self.slots.get_mut(first..first + count) else { return false };
        if exclusive {
            if slots.iter().any(|holders| *holders != 0) {
                return false;
            }
            slots.fill(-1);
            held.exclusive |= mask;
        } else if held.shared & mask == 0 {
            if slots.iter().any(|holders| *holders < 0) {
                return false;
            }
            slots.iter_mut().for_each(|holders| *holders += 1);
            held.shared |= mask;
        }
        true
    }

    /// Gives slots back; those that the handle does not hold are left alone.
    pub(super) fn give_back(&mut self, held: &mut Held, first: usize, count: usize) {
        for slot in first..SLOTS.min(first + count) {
            let bit = mask(slot, 1);
            if held.exclusive & bit != 0 {
                self.slots[slot] = 0;
            } else if held.shared & bit != 0 {
                self.slots[slot] -= 1;
            }
            held.exclusive &= !bit;
            held.shared &= !bit;
        }
    }
}

fn mask(first: usize, count: usize) -> u8 {
    (((1_u32 << count) - 1) << first) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_held_by_many_or_by_one() {
        let mut shm = Shm::default();
        let (mut a, mut b) = (Held::default(), Held::default());
        assert!(shm.take(&mut a, 3, 1, false) && shm.take(&mut b, 3, 1, false));
        assert!(!shm.take(&mut b, 2, 2, true), "the range holds a slot that is shared");
        assert!(shm.take(&mut b, 0, 2, true), "and none of it was taken");
        assert!(!shm.take(&mut a, 1, 1, false), "shared beside exclusive");
        shm.give_back(&mut b, 0, SLOTS);
        assert!(!shm.take(&mut b, 3, 1, true), "the other one still reads");
        shm.give_back(&mut a, 3, 1);
        assert!(shm.take(&mut b, 0, SLOTS, true));
        assert!(!shm.take(&mut a, 7, 1, false) && !shm.take(&mut a, 8, 1, false));
    }

    #[test]
    fn regions_start_as_zeros_and_stay_where_they_are() {
        let mut shm = Shm::default();
        assert!(shm.region(0, 32, false).is_null());
        let first = shm.region(0, 32, true);
        assert!(!shm.region(9, 32, true).is_null());
        assert_eq!(shm.region(0, 32, false), first);
        assert!(
            shm.regions.iter().flatten().all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0)
        );
    }
}
