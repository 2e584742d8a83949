//! Which outbox rows were sent: marks as inserted, and as folded.

use mainstay_event_store::Refusal;
use mainstay_event_store::outbox::{Epoch, Run, Sent, runs};
use sqlx::{PgConnection, Row};

use super::{Ended, Place};
use crate::error::damaged;
use crate::select::{signed, unsigned};

/// What is known of the rows after a number, all of one moment.
#[derive(Debug)]
pub(crate) struct SentMarks {
    pub(crate) sent: Sent,
    /// All that were opened, in order.
    pub(crate) epochs: Vec<Epoch>,
    /// The last number that was given.
    pub(crate) last: u64,
    /// Rows up to here are removed.
    pub(crate) pruned_to: u64,
}

/// An epoch as stored.
pub(crate) fn epoch(epoch: i64, after: i64) -> sqlx::Result<Epoch> {
    let number = u32::try_from(epoch).map_err(|_| damaged("an outbox epoch"))?;
    Ok(Epoch { epoch: number, after: unsigned(after, "an outbox epoch")? })
}

/// The last number that was given.
pub(crate) async fn last(conn: &mut PgConnection, place: &Place) -> sqlx::Result<u64> {
    let sql = "select outbox from {s}.round order by number desc limit 1";
    let last: Option<i64> =
        sqlx::query_scalar(place.schema.sql(sql)).persistent(place.persistent()).fetch_optional(conn).await?;
    unsigned(last.unwrap_or_default(), "an outbox number")
}

/// How far a mark reaches that was made in an epoch: not beyond the beginning of one opened later, under whose numbers
/// the rows have not been sent.
fn reach(epochs: &[Epoch], made_in: u32, run: Run) -> Option<Run> {
    let later = epochs.iter().filter(|epoch| epoch.epoch > made_in);
    let last = later.map(|epoch| epoch.after).fold(run.last, u64::min);
    (run.first <= last).then_some(Run { first: run.first, last })
}

/// Reads marks that reach past a number, folded or not, in one statement: while they are folded they stand in one of
/// the two, or in both.
pub(crate) async fn load(conn: &mut PgConnection, place: &Place, after: u64) -> sqlx::Result<SentMarks> {
    let sql = "select 'range' as kind, epoch, first, last from {s}.sent_range where last > $1
        union all select 'mark', epoch, first, last from {s}.sent_mark where last > $1
        union all select 'epoch', epoch, after, null from {s}.outbox_epoch
        union all select 'ends', null, p.pruned_to,
            coalesce((select r.outbox from {s}.round r order by r.number desc limit 1), 0) from {s}.outbox_pruned p";
    let rows = sqlx::query(place.schema.sql(sql))
        .bind(signed(after))
        .persistent(place.persistent())
        .fetch_all(conn)
        .await?;
    let mut known = SentMarks { sent: Sent::default(), epochs: Vec::new(), last: 0, pruned_to: 0 };
    let mut marks = Vec::new();
    for row in &rows {
        let kind: &str = row.try_get(0)?;
        let first: i64 = row.try_get(2)?;
        match kind {
            "ends" => {
                known.pruned_to = unsigned(first, "an outbox number")?;
                known.last = unsigned(row.try_get(3)?, "an outbox number")?;
            }
            "epoch" => known.epochs.push(epoch(row.try_get(1)?, first)?),
            _ => {
                let first = unsigned(first, "an outbox mark")?;
                let last = unsigned(row.try_get(3)?, "an outbox mark")?;
                marks.push((epoch(row.try_get(1)?, 0)?.epoch, Run { first, last }));
            }
        }
    }
    known.epochs.sort_by_key(|epoch| epoch.epoch);
    for (made_in, run) in marks {
        if let Some(run) = reach(&known.epochs, made_in, run) {
            known.sent.mark(run);
        }
    }
    Ok(known)
}

/// Marks rows as sent.
pub(crate) async fn mark(conn: &mut PgConnection, place: &Place, seqs: &[u64]) -> Ended<()> {
    // What the number of rows decides is looked at by the server, in the statement that writes.
    let runs_of = match runs(seqs, i64::MAX as u64) {
        Ok(runs) => runs,
        Err(refusal) => return refused(conn, place, seqs, refusal).await,
    };
    let Some(greatest) = runs_of.last() else { return Ok(Ok(())) };
    let firsts: Vec<i64> = runs_of.iter().map(|run| signed(run.first)).collect();
    let lasts: Vec<i64> = runs_of.iter().map(|run| signed(run.last)).collect();
    let last: i64 = sqlx::query_scalar(place.schema.sql("select {s}.outbox_sent($1, $2, $3)"))
        .bind(firsts)
        .bind(lasts)
        .bind(signed(greatest.last))
        .persistent(place.persistent())
        .fetch_one(conn)
        .await?;
    Ok(runs(seqs, unsigned(last, "an outbox number")?).map(drop))
}

/// The refusal in words that tell how many rows there are.
async fn refused(conn: &mut PgConnection, place: &Place, seqs: &[u64], refusal: Refusal) -> Ended<()> {
    let last = last(conn, place).await?;
    Ok(Err(runs(seqs, last).err().unwrap_or(refusal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_ends_where_a_later_epoch_begins() {
        let epochs =
            [Epoch { epoch: 2, after: 5 }, Epoch { epoch: 3, after: 5 }, Epoch { epoch: 4, after: 9 }];
        let run = |first, last| Run { first, last };
        let cases = [
            (1, run(1, 4), Some(run(1, 4))),
            (1, run(3, 12), Some(run(3, 5))),
            (1, run(6, 12), None),
            (2, run(6, 12), None),
            (3, run(6, 12), Some(run(6, 9))),
            (4, run(6, 12), Some(run(6, 12))),
        ];
        for (made_in, marked, expected) in cases {
            assert_eq!(reach(&epochs, made_in, marked), expected, "{marked:?} made in epoch {made_in}");
        }
    }
}
