//! One open file: each method of SQLite's file layer, on the disk that it belongs to, with SQLite's own codes.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use rusqlite::ffi;

use super::disk::{Inner, Node, State, Turn};
use super::locks::{Held, SLOTS};
use super::model::File;
use super::{Call, FailedSync, Fault};

/// An open file.
pub(super) struct Handle {
    disk: Arc<Inner>,
    node: u64,
    name: String,
    read_only: bool,
    delete_on_close: bool,
    /// The next sync of this handle syncs the directory too: it may have created a journal.
    directory_due: bool,
    lock: c_int,
    mapped: bool,
    slots: Held,
    persist_wal: bool,
}

/// Opens a path, or a file without a name. The error is the code to return.
pub(super) fn open(path: Option<&str>, flags: c_int) -> Result<Handle, c_int> {
    let (disk, name) = match path {
        None => (Inner::scratch(), ""),
        Some(path) => Inner::find(path).ok_or(ffi::SQLITE_CANTOPEN)?,
    };
    let may_create = flags & ffi::SQLITE_OPEN_CREATE != 0;
    let journal =
        flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL) != 0;
    let mut state = disk.lock();
    let found = state.directory.find(name);
    match state.turn(Call::Open, name, found.is_none() && may_create) {
        Turn::Off => return Err(ffi::SQLITE_IOERR),
        Turn::Fail(_) => return Err(ffi::SQLITE_CANTOPEN),
        Turn::Go => {}
    }
    let node = match found {
        Some(_) if may_create && flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0 => return Err(ffi::SQLITE_CANTOPEN),
        Some(node) => node,
        None if may_create => {
            let node = state.add(File::default());
            state.directory.set(name, Some(node));
            node
        }
        None => return Err(ffi::SQLITE_CANTOPEN),
    };
    if let Some(node) = state.nodes.get_mut(&node) {
        node.handles += 1;
    }
    drop(state);
    Ok(Handle {
        disk,
        node,
        name: name.to_owned(),
        read_only: flags & ffi::SQLITE_OPEN_READONLY != 0,
        delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        directory_due: may_create && journal,
        lock: ffi::SQLITE_LOCK_NONE,
        mapped: false,
        slots: Held::default(),
        persist_wal: false,
    })
}

/// Deletes a file's name.
pub(super) fn delete(path: &str, sync_directory: bool) -> c_int {
    let Some((disk, name)) = Inner::find(path) else { return ffi::SQLITE_IOERR_DELETE };
    let mut state = disk.lock();
    let Turn::Go = state.turn(Call::Delete, name, false) else { return ffi::SQLITE_IOERR_DELETE };
    if state.directory.find(name).is_none() {
        return ffi::SQLITE_IOERR_DELETE_NOENT;
    }
    state.directory.set(name, None);
    if sync_directory {
        state.directory.sync();
    }
    state.sweep();
    ffi::SQLITE_OK
}

/// Whether a file exists; an empty one counts as absent, as in SQLite's unix layer.
pub(super) fn exists(path: &str) -> Result<bool, c_int> {
    let Some((disk, name)) = Inner::find(path) else { return Ok(false) };
    let state = disk.lock();
    if state.off {
        return Err(ffi::SQLITE_IOERR_ACCESS);
    }
    Ok(state.directory.find(name).and_then(|node| state.nodes.get(&node)).is_some_and(|n| n.file.size() > 0))
}

/// How many of `len` bytes at `offset` the disk has room for, when `size` is the file's size now.
fn room(state: &State, size: u64, offset: u64, len: usize) -> usize {
    let others = state.used().saturating_sub(size);
    let end = state.capacity.saturating_sub(others).max(size);
    end.saturating_sub(offset).min(len as u64) as usize
}

impl Handle {
    /// Runs `act` on this handle's node, which lives as long as the handle.
    fn with<T>(&mut self, missing: T, act: impl FnOnce(&mut Handle, &mut Node) -> T) -> T {
        let disk = Arc::clone(&self.disk);
        let mut state = disk.lock();
        state.nodes.get_mut(&self.node).map_or(missing, |node| act(self, node))
    }

    fn is_off(&self) -> bool {
        self.disk.lock().off
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> c_int {
        let mut state = self.disk.lock();
        let Turn::Go = state.turn(Call::Read, &self.name, false) else { return ffi::SQLITE_IOERR_READ };
        let Some(node) = state.nodes.get(&self.node) else { return ffi::SQLITE_IOERR_READ };
        if node.file.read(offset, out) < out.len() { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> c_int {
        if self.read_only {
            return ffi::SQLITE_READONLY;
        }
        let mut state = self.disk.lock();
        let wanted = match state.turn(Call::Write, &self.name, false) {
            Turn::Off | Turn::Fail(Fault::Eio) => return ffi::SQLITE_IOERR_WRITE,
            Turn::Fail(Fault::Enospc) => 0,
            Turn::Fail(Fault::ShortWrite) => state.dice.below(data.len()),
            Turn::Go => data.len(),
        };
        let Some(size) = state.nodes.get(&self.node).map(|node| node.file.size()) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        let written = wanted.min(room(&state, size, offset, data.len()));
        if let Some(node) = state.nodes.get_mut(&self.node) {
            node.file.write(offset, &data[..written]);
        }
        if written < data.len() { ffi::SQLITE_FULL } else { ffi::SQLITE_OK }
    }

    pub(super) fn truncate(&self, size: u64) -> c_int {
        if self.read_only {
            return ffi::SQLITE_READONLY;
        }
        let mut state = self.disk.lock();
        let Turn::Go = state.turn(Call::Truncate, &self.name, false) else {
            return ffi::SQLITE_IOERR_TRUNCATE;
        };
        let (used, capacity) = (state.used(), state.capacity);
        let Some(node) = state.nodes.get_mut(&self.node) else { return ffi::SQLITE_IOERR_TRUNCATE };
        let now = node.file.size();
        if size > now && used - now + size > capacity {
            return ffi::SQLITE_FULL;
        }
        node.file.truncate(size);
        ffi::SQLITE_OK
    }

    pub(super) fn sync(&mut self) -> c_int {
        let disk = Arc::clone(&self.disk);
        let mut state = disk.lock();
        let turn = state.turn(Call::Sync, &self.name, false);
        let State { nodes, directory, failed_sync, .. } = &mut *state;
        let Some(node) = nodes.get_mut(&self.node) else { return ffi::SQLITE_IOERR_FSYNC };
        match turn {
            Turn::Off => return ffi::SQLITE_IOERR_FSYNC,
            Turn::Fail(_) => {
                if *failed_sync == FailedSync::MarksClean {
                    node.file.mark_clean();
                }
                return ffi::SQLITE_IOERR_FSYNC;
            }
            Turn::Go => {}
        }
        let new_file = !node.file.synced;
        node.file.sync();
        if std::mem::take(&mut self.directory_due) || new_file {
            directory.sync();
            state.sweep();
        }
        ffi::SQLITE_OK
    }

    /// The file's size in bytes; `None` while the power is off.
    pub(super) fn size(&self) -> Option<u64> {
        let state = self.disk.lock();
        if state.off { None } else { state.nodes.get(&self.node).map(|node| node.file.size()) }
    }

    pub(super) fn lock(&mut self, wanted: c_int) -> c_int {
        if self.is_off() {
            return ffi::SQLITE_IOERR_LOCK;
        }
        let got = self.with(false, |handle, node| node.lock.raise(&mut handle.lock, wanted));
        if got { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
    }

    /// Works with the power off too: nothing may stay locked in a process that lives on.
    pub(super) fn unlock(&mut self, wanted: c_int) -> c_int {
        self.with((), |handle, node| node.lock.lower(&mut handle.lock, wanted));
        ffi::SQLITE_OK
    }

    /// Whether some connection holds RESERVED or more; `None` while the power is off.
    pub(super) fn is_reserved(&mut self) -> Option<bool> {
        if self.is_off() {
            return None;
        }
        Some(self.with(false, |_, node| node.lock.is_reserved()))
    }

    /// The address of a region of shared memory, null when it is missing and not to be made.
    pub(super) fn shm_map(&mut self, region: usize, bytes: usize, make: bool) -> Result<*mut c_void, c_int> {
        if self.is_off() {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        Ok(self.with(null_mut(), |handle, node| {
            let shm = node.shm.get_or_insert_default();
            shm.handles += usize::from(!std::mem::replace(&mut handle.mapped, true));
            shm.region(region, bytes, make)
        }))
    }

    pub(super) fn shm_lock(&mut self, first: usize, count: usize, flags: c_int) -> c_int {
        let release = flags & ffi::SQLITE_SHM_UNLOCK != 0;
        if first + count > SLOTS || !self.mapped || (!release && self.is_off()) {
            return ffi::SQLITE_IOERR_SHMLOCK;
        }
        self.with(ffi::SQLITE_IOERR_SHMLOCK, |handle, node| {
            let Some(shm) = &mut node.shm else { return ffi::SQLITE_IOERR_SHMLOCK };
            if release {
                shm.give_back(&mut handle.slots, first, count);
            } else if !shm.take(&mut handle.slots, first, count, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0) {
                return ffi::SQLITE_BUSY;
            }
            ffi::SQLITE_OK
        })
    }

    /// Lets the shared memory go; with the last handle its contents go too, and the next one recovers the WAL.
    pub(super) fn shm_unmap(&mut self) {
        self.with((), |handle, node| {
            if let Some(shm) = &mut node.shm
                && std::mem::take(&mut handle.mapped)
            {
                shm.give_back(&mut handle.slots, 0, SLOTS);
                shm.handles -= 1;
                if shm.handles == 0 {
                    node.shm = None;
                }
            }
        });
    }

    /// `SQLITE_FCNTL_PERSIST_WAL`: sets (0 or 1) or asks (negative) whether closing leaves the WAL there.
    pub(super) fn persist_wal(&mut self, wanted: c_int) -> c_int {
        if wanted >= 0 {
            self.persist_wal = wanted != 0;
        }
        c_int::from(self.persist_wal)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shm_unmap();
        self.unlock(ffi::SQLITE_LOCK_NONE);
        let mut state = self.disk.lock();
        if self.delete_on_close && !state.off && state.directory.find(&self.name) == Some(self.node) {
            state.directory.set(&self.name, None);
        }
        if let Some(node) = state.nodes.get_mut(&self.node) {
            node.handles -= 1;
        }
        state.sweep();
    }
}
