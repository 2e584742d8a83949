//! Unsafe: one question that rusqlite has no safe call for.
#![allow(unsafe_code)]

use rusqlite::{Connection, ffi};

/// Is any deferred foreign key of the open transaction violated?
pub(crate) fn foreign_key_violated(conn: &Connection) -> bool {
    let (mut now, mut highest) = (0, 0);
    // SAFETY: the handle is live while `conn` is borrowed, and both out-pointers are to live integers.
    let code = unsafe {
        ffi::sqlite3_db_status(conn.handle(), ffi::SQLITE_DBSTATUS_DEFERRED_FKS, &mut now, &mut highest, 0)
    };
    // A call that fails tells nothing; then the commit itself would refuse, and with it the whole group.
    code != ffi::SQLITE_OK || now != 0
}
