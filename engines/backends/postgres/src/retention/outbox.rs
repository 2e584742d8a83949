//! Outbox rows: which partition new ones go to, and when an old one is truncated.

use sqlx::{Executor as _, Row as _};

use super::{Desk, Emptied};

/// Partitions of outbox and outbox_number.
pub(crate) const SLOTS: u16 = 3;

/// What became of the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turned {
    /// Partitions that were truncated.
    pub(crate) emptied: u64,
    /// Those that somebody used.
    pub(crate) busy: u64,
    /// New rows go to the next one.
    pub(crate) turned: bool,
}

impl Desk<'_> {
    /// Truncates the partitions whose rows are all numbered and removed, and goes on to the next one when it is time.
    pub(crate) async fn turn_outbox(&mut self, at_once: bool) -> Result<Turned, sqlx::Error> {
        let mut turned = Turned::default();
        let present = self.turn().await?;
        for slot in (0..SLOTS).filter(|slot| i64::from(*slot) != present.slot) {
            match self.empty_outbox(slot).await? {
                Some(Emptied::Done) => turned.emptied += 1,
                Some(Emptied::Busy) => turned.busy += 1,
                _ => {}
            }
        }
        let next = u16::try_from((present.slot + 1) % i64::from(SLOTS)).unwrap_or(0);
        let long = present.age_ms >= i64::try_from(self.spec.turn_after.as_millis()).unwrap_or(i64::MAX);
        if !(long || at_once) || !self.begin().await? {
            return Ok(turned);
        }
        // Only into an empty one, and out of one that is not: else its oldest row would never be old enough.
        let sql = "update {s}.outbox_turn set slot = {p}, since = clock_timestamp()
                   where slot = $1 and not exists (select from {s}.outbox_{p})
                     and not exists (select from {s}.outbox_number_{p})
                     and exists (select from {s}.outbox where slot = $1)";
        let query = self.query(sql, next).bind(i16::try_from(present.slot).unwrap_or(0));
        turned.turned = self.conn.execute(query).await?.rows_affected() == 1;
        self.commit().await?;
        Ok(turned)
    }

    async fn turn(&mut self) -> Result<Turn, sqlx::Error> {
        let sql = "select slot::bigint, (extract(epoch from clock_timestamp() - since) * 1000)::bigint
                   from {s}.outbox_turn";
        let query = self.query(sql, 0);
        let row = self.conn.fetch_one(query).await?;
        Ok(Turn { slot: row.try_get(0)?, age_ms: row.try_get(1)? })
    }

    /// None when there is nothing that may go.
    async fn empty_outbox(&mut self, slot: u16) -> Result<Option<Emptied>, sqlx::Error> {
        // The last number first: it mostly says no, at the cost of one look.
        let sql = "select n.number <= p.pruned_to from {s}.outbox_pruned p
                   cross join lateral (select number from {s}.outbox_number_{p} order by number desc limit 1) n";
        let query = self.query(sql, slot);
        let may_go = match self.conn.fetch_optional(query).await? {
            Some(row) => row.try_get(0)?,
            None => false,
        };
        if !may_go {
            return Ok(None);
        }
        let sql = "select count(*), count(n.number) from {s}.outbox_{p} o left join {s}.outbox_number_{p} n on n.seq = o.seq";
        let query = self.query(sql, slot);
        let row = self.conn.fetch_one(query).await?;
        let (rows, numbered): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if rows != numbered {
            return Ok(None);
        }
        if !self.begin_alone(&["outbox", "outbox_number"], slot).await? {
            return Ok(Some(Emptied::Busy));
        }
        // A statement of its own: its snapshot is taken after the lock. As many rows are the same ones.
        let sql =
            "select (select count(*) from {s}.outbox_{p}), (select count(*) from {s}.outbox_number_{p})";
        let query = self.query(sql, slot);
        let row = self.conn.fetch_one(query).await?;
        if (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?) != (rows, numbered) {
            self.rollback().await?;
            return Ok(Some(Emptied::Changed));
        }
        self.truncate(&["outbox", "outbox_number"], slot).await?;
        Ok(Some(Emptied::Done))
    }
}

/// The partition that new rows go to.
struct Turn {
    slot: i64,
    age_ms: i64,
}
