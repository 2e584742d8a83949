//! Marks of handled messages, folded lane by lane.

use std::collections::BTreeMap;

use mainstay_event_store::inbox::Recent;
use sqlx::{Executor as _, Row as _};

use super::fold::{Changed, Lane};
use super::{Desk, Emptied};

/// Partitions of inbox_mark.
pub(crate) const SLOTS: u16 = 4;

/// Marks that are folded while everybody waits.
const REST_MAX: i64 = 1_000;

/// What became of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) rows: u64,
    pub(crate) emptied: bool,
    pub(crate) busy: bool,
}

impl Desk<'_> {
    /// Folds one partition's marks and truncates it, when it has at least so many.
    pub(crate) async fn fold_inbox(&mut self, slot: u16, at_least: u32) -> Result<Folded, sqlx::Error> {
        let mut folded = Folded::default();
        let sql = "select count(*) from (select from {s}.inbox_mark_{p} limit $1) bounded";
        let query = self.query(sql, slot).bind(i64::from(at_least.max(1)));
        let some: i64 = self.conn.fetch_one(query).await?.try_get(0)?;
        if some < i64::from(at_least.max(1)) {
            return Ok(folded);
        }
        let query = self.query("select distinct lane from {s}.inbox_mark_{p}", slot);
        let lanes = self.conn.fetch_all(query).await?;
        for lane in lanes {
            let lane: i64 = lane.try_get(0)?;
            let mut after = 0;
            while let Some(part) = self.fold_lane(slot, lane, after).await? {
                folded.rows += part.rows;
                if part.rows < u64::from(self.spec.rows_max) {
                    break;
                }
                after = part.last;
            }
        }
        let emptied = self.empty_inbox(slot).await?;
        (folded.emptied, folded.busy) = (emptied == Emptied::Done, emptied == Emptied::Busy);
        Ok(folded)
    }

    /// Folds what is left, which is what came while the rest was folded, and truncates.
    async fn empty_inbox(&mut self, slot: u16) -> Result<Emptied, sqlx::Error> {
        if !self.begin_alone(&["inbox_mark"], slot).await? {
            return Ok(Emptied::Busy);
        }
        // A statement of its own: its snapshot is taken after the lock.
        let sql = "select m.lane, m.seq, m.content from {s}.inbox_mark_{p} m join {s}.inbox_lane l on l.id = m.lane
                   where m.seq > l.watermark or exists (
                       select from {s}.inbox_hole h where h.lane = m.lane and h.first <= m.seq and h.last >= m.seq)
                   order by m.lane, m.seq limit $1";
        let query = self.query(sql, slot).bind(REST_MAX + 1);
        let rows = self.conn.fetch_all(query).await?;
        let mut rest: BTreeMap<i64, Vec<Recent>> = BTreeMap::new();
        for row in &rows {
            rest.entry(row.try_get("lane")?).or_default().push(recent(row)?);
        }
        // Everybody waits for us now: what takes long, or can't be folded at all, stays.
        let mut stays = rows.len() as i64 > REST_MAX;
        for (lane, marks) in rest {
            if stays {
                break;
            }
            let mut known = self.read_lane(lane).await?;
            let changed = known.fold(&marks);
            stays = changed.left > 0;
            self.write_lane(lane, &known, &changed).await?;
        }
        if stays {
            self.rollback().await?;
            return Ok(Emptied::Changed);
        }
        self.truncate(&["inbox_mark"], slot).await?;
        Ok(Emptied::Done)
    }

    /// Folds a lane's marks after a number, in one transaction; none when another process is at it.
    async fn fold_lane(&mut self, slot: u16, lane: i64, after: i64) -> Result<Option<Part>, sqlx::Error> {
        if !self.begin().await? {
            return Ok(None);
        }
        let mut known = self.read_lane(lane).await?;
        let sql =
            "select seq, content from {s}.inbox_mark_{p} where lane = $1 and seq > $2 order by seq limit $3";
        let query = self.query(sql, slot).bind(lane).bind(after).bind(i64::from(self.spec.rows_max));
        let rows = self.conn.fetch_all(query).await?;
        let marks = rows.iter().map(recent).collect::<Result<Vec<_>, _>>()?;
        let changed = known.fold(&marks);
        self.write_lane(lane, &known, &changed).await?;
        self.commit().await?;
        let last = marks.last().map_or(after, |mark| signed(mark.seq));
        Ok(Some(Part { rows: marks.len() as u64, last }))
    }

    async fn read_lane(&mut self, lane: i64) -> Result<Lane, sqlx::Error> {
        let query =
            self.query("select watermark from {s}.inbox_lane where id = $1 for no key update", 0).bind(lane);
        let watermark = unsigned(self.conn.fetch_one(query).await?.try_get(0)?)?;
        let mut known = Lane { watermark, ..Lane::default() };
        let query = self.query("select first, last from {s}.inbox_hole where lane = $1", 0).bind(lane);
        for row in self.conn.fetch_all(query).await? {
            known.holes.insert(unsigned(row.try_get(0)?)?, unsigned(row.try_get(1)?)?);
        }
        let query = self.query("select seq, content from {s}.inbox_recent where lane = $1", 0).bind(lane);
        for row in self.conn.fetch_all(query).await? {
            let recent = recent(&row)?;
            known.ring.insert(mainstay_event_store::inbox::slot(recent.seq), recent);
        }
        Ok(known)
    }

    async fn write_lane(&mut self, lane: i64, known: &Lane, changed: &Changed) -> Result<(), sqlx::Error> {
        let numbers = |numbers: &mut dyn Iterator<Item = u64>| numbers.map(signed).collect::<Vec<i64>>();
        let sql = "update {s}.inbox_lane set watermark = $2, holes = $3
                   where id = $1 and (watermark <> $2 or holes <> $3)";
        let query = self
            .query(sql, 0)
            .bind(lane)
            .bind(signed(known.watermark))
            .bind(signed(known.holes.len() as u64));
        self.conn.execute(query).await?;
        if !changed.removed.is_empty() {
            let query = self
                .query("delete from {s}.inbox_hole where lane = $1 and first = any($2)", 0)
                .bind(lane)
                .bind(numbers(&mut changed.removed.iter().copied()));
            self.conn.execute(query).await?;
        }
        if !changed.added.is_empty() {
            let sql = "insert into {s}.inbox_hole(lane, first, last)
                       select $1, h.first, h.last from unnest($2::bigint[], $3::bigint[]) h(first, last)";
            let query = self
                .query(sql, 0)
                .bind(lane)
                .bind(numbers(&mut changed.added.iter().map(|hole| hole.first)))
                .bind(numbers(&mut changed.added.iter().map(|hole| hole.last)));
            self.conn.execute(query).await?;
        }
        if !changed.remembered.is_empty() {
            let sql = "insert into {s}.inbox_recent(lane, slot, seq, content)
                       select $1, r.seq % 1024, r.seq, r.content from unnest($2::bigint[], $3::bytea[]) r(seq, content)
                       on conflict (lane, slot) do update set seq = excluded.seq, content = excluded.content";
            let query = self
                .query(sql, 0)
                .bind(lane)
                .bind(numbers(&mut changed.remembered.iter().map(|recent| recent.seq)))
                .bind(changed.remembered.iter().map(|recent| recent.hash.to_vec()).collect::<Vec<_>>());
            self.conn.execute(query).await?;
        }
        Ok(())
    }
}

/// One transaction's worth of a lane.
struct Part {
    rows: u64,
    last: i64,
}

fn recent(row: &sqlx::postgres::PgRow) -> Result<Recent, sqlx::Error> {
    let content: &[u8] = row.try_get("content")?;
    let hash = content.try_into().map_err(|_| damaged("the hash of a message"))?;
    Ok(Recent { seq: unsigned(row.try_get("seq")?)?, hash })
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(number).map_err(|_| damaged("a number"))
}

fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} in the inbox is not what was written").into())
}
