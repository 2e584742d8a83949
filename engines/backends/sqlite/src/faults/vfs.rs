//! Unsafe: SQLite calls a file layer through C function pointers and hands it raw pointers to the file, the
//! buffers and the answers; this file turns them into references and does nothing else. What every block relies
//! on is SQLite's contract for `sqlite3_vfs` and `sqlite3_io_methods` (sqlite.org/c3ref/vfs.html,
//! sqlite.org/c3ref/io_methods.html): pointers are valid for the call, buffers have the stated length, and the
//! calls on one file never overlap, because its connection serializes them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use super::disk::{Disk, State};
use super::handle::{self, Handle};
use super::model::{Dice, SECTOR};

/// The longest path, in bytes with its end.
const PATH_BYTES_MAX: c_int = 512;

/// 2000-01-01 12:00 UTC as a Julian day in milliseconds, where this file layer's clock starts. It moves only by
/// what was slept.
const EPOCH_MS: i64 = 2_451_545 * 86_400_000;

static SLEPT_US: AtomicU64 = AtomicU64::new(0);
static RANDOM_CALLS: AtomicU64 = AtomicU64::new(0);

/// SQLite's view of an open file: it allocates `szOsFile` bytes for it and looks at the first field only.
#[repr(C)]
struct OpenFile {
    base: sqlite3_file,
    handle: *mut Handle,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Version 2 is the one with shared memory and without memory-mapped reads, which would bypass the model.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

impl Disk {
    /// An empty disk. The seed decides what chance decides on the running disk (how short a short write is);
    /// what a cut leaves is decided by the cut's own seed.
    ///
    /// The first call registers the VFS. Should SQLite refuse that, every open says "no such vfs".
    pub fn new(seed: u64) -> Disk {
        register();
        Disk::with(State::new(seed))
    }
}

/// Registers the file layer with SQLite, once for the process. It stays registered: SQLite keeps the address.
pub(super) fn register() {
    static DONE: OnceLock<c_int> = OnceLock::new();
    DONE.get_or_init(|| {
        let vfs = Box::leak(Box::new(sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<OpenFile>() as c_int,
            mxPathname: PATH_BYTES_MAX,
            pNext: null_mut(),
            zName: super::VFS.as_ptr(),
            pAppData: null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: Some(dl_open),
            xDlError: Some(dl_error),
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the structure is complete and, being leaked, lives as long as the process.
        unsafe { ffi::sqlite3_vfs_register(vfs, 0) }
    });
}

/// The handle behind SQLite's file.
///
/// # Safety
/// `file` was filled by [`open`] and not yet closed, and no other call on it runs.
unsafe fn handle_of<'a>(file: *mut sqlite3_file) -> &'a mut Handle {
    // SAFETY: `open` stored a boxed handle there, which only `close` frees; calls on one file do not overlap.
    unsafe { &mut *(*file.cast::<OpenFile>()).handle }
}

/// # Safety
/// `text` is null or a C string that lives for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string, as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes at `file`. No methods means "not open, nothing to close".
    unsafe { (*file).pMethods = std::ptr::null() };
    // SAFETY: a C string, or null for a temporary file.
    let name = unsafe { text(path) };
    if name.is_none() && !path.is_null() {
        return ffi::SQLITE_CANTOPEN;
    }
    match handle::open(name, flags) {
        Err(code) => code,
        Ok(handle) => {
            let opened = OpenFile {
                base: sqlite3_file { pMethods: &METHODS },
                handle: Box::into_raw(Box::new(handle)),
            };
            // SAFETY: as above; the memory is SQLite's, aligned for any pointer, and holds nothing to drop.
            unsafe { file.cast::<OpenFile>().write(opened) };
            if !flags_out.is_null() {
                // SAFETY: not null, so it points to SQLite's integer.
                unsafe { *flags_out = flags };
            }
            ffi::SQLITE_OK
        }
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: `open` made the handle by `Box::into_raw`; SQLite closes once, and with the methods gone never
    // calls again.
    unsafe {
        drop(Box::from_raw((*file.cast::<OpenFile>()).handle));
        (*file).pMethods = std::ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    out: *mut c_void,
    len: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let (Ok(offset), Ok(len)) = (u64::try_from(offset), usize::try_from(len)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: an open file, and a buffer of `len` bytes that SQLite allocated.
    let (handle, out) = unsafe { (handle_of(file), std::slice::from_raw_parts_mut(out.cast::<u8>(), len)) };
    handle.read(offset, out)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let (Ok(offset), Ok(len)) = (u64::try_from(offset), usize::try_from(len)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: an open file, and `len` bytes that SQLite wants written.
    let (handle, data) = unsafe { (handle_of(file), std::slice::from_raw_parts(data.cast::<u8>(), len)) };
    handle.write(offset, data)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    let Ok(size) = u64::try_from(size) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: an open file.
    unsafe { handle_of(file) }.truncate(size)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle_of(file) }.sync()
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let Some(size) = unsafe { handle_of(file) }.size() else { return ffi::SQLITE_IOERR_FSTAT };
    // SAFETY: SQLite's integer.
    unsafe { *out = size as sqlite3_int64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle_of(file) }.lock(level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle_of(file) }.unlock(level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file.
    let Some(reserved) = unsafe { handle_of(file) }.is_reserved() else {
        return ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    };
    // SAFETY: SQLite's integer.
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle_of(file) };
    match op {
        ffi::SQLITE_FCNTL_PERSIST_WAL => {
            // SAFETY: for this operation the argument is an integer to read and to answer in.
            unsafe { *arg.cast::<c_int>() = handle.persist_wal(*arg.cast::<c_int>()) };
            ffi::SQLITE_OK
        }
        ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE => {
            // SAFETY: as above. The model keeps this promise always, so asking and setting answer the same.
            unsafe { *arg.cast::<c_int>() = 1 };
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_NOTFOUND,
    }
}

unsafe extern "C" fn sector_size(_: *mut sqlite3_file) -> c_int {
    SECTOR as c_int
}

unsafe extern "C" fn device_characteristics(_: *mut sqlite3_file) -> c_int {
    // Why this claim and no other: `model.rs`, "The unit is a sector".
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    bytes: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let mapped = unsafe { handle_of(file) }.shm_map(region.max(0) as usize, bytes.max(0) as usize, make != 0);
    let (code, address) = mapped.map_or_else(|code| (code, null_mut()), |address| (ffi::SQLITE_OK, address));
    // SAFETY: SQLite's pointer. It uses the address only until it unmaps, and until then the region lives.
    unsafe { *out = address };
    code
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle_of(file) }.shm_lock(first.max(0) as usize, count.max(0) as usize, flags)
}

unsafe extern "C" fn shm_barrier(_: *mut sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { handle_of(file) }.shm_unmap();
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, path: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: a C string.
    let Some(path) = (unsafe { text(path) }) else { return ffi::SQLITE_IOERR_DELETE };
    handle::delete(path, sync_directory != 0)
}

unsafe extern "C" fn access(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: a C string.
    let exists = unsafe { text(path) }.map_or(Ok(false), handle::exists);
    // SAFETY: SQLite's integer.
    unsafe { *out = c_int::from(exists == Ok(true)) };
    exists.err().unwrap_or(ffi::SQLITE_OK)
}

/// Names are flat, so a path is full already.
unsafe extern "C" fn full_pathname(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: a C string.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if bytes.len() > room.max(0) as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has `room` bytes, which suffice; SQLite's two buffers do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast::<u8>(), bytes.len()) };
    ffi::SQLITE_OK
}

/// Extensions are not loaded from a simulated disk.
unsafe extern "C" fn dl_open(_: *mut sqlite3_vfs, _: *const c_char) -> *mut c_void {
    null_mut()
}

unsafe extern "C" fn dl_error(_: *mut sqlite3_vfs, room: c_int, out: *mut c_char) {
    if room > 0 {
        // SAFETY: `out` has at least one byte; this ends the (empty) message.
        unsafe { *out = 0 };
    }
}

unsafe extern "C" fn randomness(_: *mut sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    let seed = RANDOM_CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: SQLite's buffer of `len` bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), len.max(0) as usize) };
    Dice::new(seed).fill(out);
    len
}

/// Really sleeps: whom SQLite waits for is another thread of this process, and a busy timeout that passed in no
/// time would make every contention an error.
unsafe extern "C" fn sleep(_: *mut sqlite3_vfs, micros: c_int) -> c_int {
    let wanted = micros.max(0) as u64;
    SLEPT_US.fetch_add(wanted, Ordering::Relaxed);
    std::thread::sleep(Duration::from_micros(wanted));
    micros
}

fn now_ms() -> i64 {
    EPOCH_MS + (SLEPT_US.load(Ordering::Relaxed) / 1000) as i64
}

unsafe extern "C" fn current_time(_: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite's number.
    unsafe { *out = now_ms() as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: SQLite's number.
    unsafe { *out = now_ms() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
