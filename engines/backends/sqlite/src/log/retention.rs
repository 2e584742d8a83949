//! Letting go of old messages, a bounded slice at a time.

use mainstay_envelope::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::schema::{OFFSET_MAX, offset_of, row_id};

/// Messages of the smallest slice.
pub(super) const SLICE: usize = 1_000;

/// Removes at most `max` messages that were published before an instant, from the starts of the channels, in a
/// transaction of its own. True when there may be more.
///
/// The first message of a channel that is young enough keeps all behind it, whatever the wall clock said when
/// they were published: nothing is taken out of the middle.
pub(super) fn slice(conn: &Connection, before: Timestamp, max: usize) -> rusqlite::Result<bool> {
    conn.prepare_cached("begin immediate")?.execute([])?;
    let done = (|| {
        let mut left = max;
        let mut channels = conn
            .prepare_cached("select channel, pruned_to from main.mainstay_log_channels order by channel")?;
        let channels: Vec<(i64, i64)> =
            channels.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        for (channel, pruned_to) in channels {
            left -= of_channel(conn, channel, pruned_to as u64, before, left)?;
            if left == 0 {
                break;
            }
        }
        conn.prepare_cached("commit")?.execute([])?;
        Ok(left == 0)
    })();
    if done.is_err() && !conn.is_autocommit() {
        // The first error is the one to report.
        let _ = conn.execute_batch("rollback");
    }
    done
}

fn of_channel(
    conn: &Connection,
    channel: i64,
    pruned_to: u64,
    before: Timestamp,
    max: usize,
) -> rusqlite::Result<usize> {
    let (first, last) = (row_id(channel, pruned_to), row_id(channel, OFFSET_MAX));
    let young: Option<i64> = conn
        .prepare_cached(
            "select id from (select id, published from main.mainstay_log_messages
                             where id > ?1 and id <= ?2 order by id limit ?3)
             where published >= ?4 order by id limit 1",
        )?
        .query_row((first, last, max as i64, before.as_millis()), |row| row.get(0))
        .optional()?;
    // Without a young one among them, all that were looked at go.
    let upto = match young {
        Some(young) => young - 1,
        None => {
            let looked: Option<i64> = conn
                .prepare_cached(
                    "select max(id) from (select id from main.mainstay_log_messages
                                          where id > ?1 and id <= ?2 order by id limit ?3)",
                )?
                .query_row((first, last, max as i64), |row| row.get(0))?;
            looked.unwrap_or(first)
        }
    };
    if upto <= first {
        return Ok(0);
    }
    let gone = conn
        .prepare_cached("delete from main.mainstay_log_messages where id > ?1 and id <= ?2")?
        .execute((first, upto))?;
    conn.prepare_cached("update main.mainstay_log_channels set pruned_to = ?2 where channel = ?1")?
        .execute((channel, offset_of(upto) as i64))?;
    Ok(gone)
}
