//! Marks of sent rows, folded into ranges.

use mainstay_event_store::outbox::Run;
use sqlx::{Executor as _, Row as _};

use super::Desk;
use super::fold::join;
use super::inbox::{Folded, signed, unsigned};

/// Partitions of sent_mark.
pub(crate) const SLOTS: u16 = 3;

impl Desk<'_> {
    /// Folds one partition's marks and truncates it, when it has at least so many. All in one transaction that holds the
    /// partition: a relay marks a batch with one row, so they are few.
    pub(crate) async fn fold_sent(&mut self, slot: u16, at_least: u32) -> Result<Folded, sqlx::Error> {
        let mut folded = Folded::default();
        let at_least = i64::from(at_least.max(1));
        let sql = "select count(*) from (select from {s}.sent_mark_{p} limit $1) bounded";
        let query = self.query(sql, slot).bind(at_least);
        let some: i64 = self.conn.fetch_one(query).await?.try_get(0)?;
        if some < at_least {
            return Ok(folded);
        }
        if !self.begin_alone(&["sent_mark"], slot).await? {
            folded.busy = true;
            return Ok(folded);
        }
        let query = self.query("select epoch, first, last from {s}.sent_mark_{p}", slot);
        let rows = self.conn.fetch_all(query).await?;
        let runs = join(rows.iter().map(run).collect::<Result<Vec<_>, _>>()?);
        // What they touch goes, and comes back as one with them.
        let touched = "delete from {s}.sent_range r
                       using unnest($1::bigint[], $2::bigint[], $3::bigint[]) n(epoch, first, last)
                       where r.epoch = n.epoch and r.first <= n.last + 1 and r.last + 1 >= n.first
                       returning r.epoch, r.first, r.last";
        let query = self.bound(touched, &runs);
        let touched = self.conn.fetch_all(query).await?;
        let mut all = touched.iter().map(run).collect::<Result<Vec<_>, _>>()?;
        all.extend(runs);
        let sql = "insert into {s}.sent_range(epoch, first, last)
                   select * from unnest($1::bigint[], $2::bigint[], $3::bigint[])";
        let query = self.bound(sql, &join(all));
        self.conn.execute(query).await?;
        self.truncate(&["sent_mark"], slot).await?;
        (folded.rows, folded.emptied) = (rows.len() as u64, true);
        Ok(folded)
    }

    fn bound<'q>(
        &self,
        sql: &str,
        runs: &[(i64, Run)],
    ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
        self.query(sql, 0)
            .bind(runs.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>())
            .bind(runs.iter().map(|(_, run)| signed(run.first)).collect::<Vec<_>>())
            .bind(runs.iter().map(|(_, run)| signed(run.last)).collect::<Vec<_>>())
    }
}

fn run(row: &sqlx::postgres::PgRow) -> Result<(i64, Run), sqlx::Error> {
    Ok((row.try_get(0)?, Run { first: unsigned(row.try_get(1)?)?, last: unsigned(row.try_get(2)?)? }))
}
