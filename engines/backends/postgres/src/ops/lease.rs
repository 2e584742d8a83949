//! Leases: the rule is the contract's, the row is locked while it is asked.

use std::time::Duration;

use mainstay_envelope::Timestamp;
use mainstay_event_store::{ConsumerName, Lease, Leased};
use sqlx::{PgConnection, Row};

use super::{Ended, Place};
use crate::error::damaged;
use crate::select::unsigned;

/// How a lease's row is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Only looked at.
    Free,
    /// Nobody else may take the lease before this transaction has ended.
    Shared,
    /// It is about to be written.
    Alone,
}

pub(crate) async fn get(
    conn: &mut PgConnection,
    place: &Place,
    name: &ConsumerName,
    look: Look,
) -> sqlx::Result<Option<Lease>> {
    let sql = match look {
        Look::Free => "select epoch, holder, until from {s}.lease where name = $1",
        Look::Shared => "select epoch, holder, until from {s}.lease where name = $1 for share",
        Look::Alone => "select epoch, holder, until from {s}.lease where name = $1 for update",
    };
    let row = sqlx::query(place.schema.sql(sql))
        .bind(name.as_str())
        .persistent(place.persistent())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let holder = String::from_utf8(row.try_get(1)?).map_err(|_| damaged("a lease's holder"))?;
    Ok(Some(Lease {
        epoch: unsigned(row.try_get(0)?, "a lease's epoch")?,
        holder,
        until: Timestamp::from_millis(row.try_get(2)?),
    }))
}

/// Writes a lease over `before`; false when somebody was faster in making the first one.
async fn put(
    conn: &mut PgConnection,
    place: &Place,
    name: &ConsumerName,
    lease: &Lease,
    before: Option<&Lease>,
) -> sqlx::Result<bool> {
    let sql = match before {
        Some(_) => "update {s}.lease set epoch = $2, holder = $3, until = $4 where name = $1",
        None => {
            "insert into {s}.lease(name, epoch, holder, until) values ($1, $2, $3, $4) on conflict do nothing"
        }
    };
    let done = sqlx::query(place.schema.sql(sql))
        .bind(name.as_str())
        .bind(lease.epoch as i64)
        .bind(lease.holder.as_bytes())
        .bind(lease.until.as_millis())
        .persistent(place.persistent())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn acquire(
    conn: &mut PgConnection,
    place: &Place,
    name: &ConsumerName,
    holder: &str,
    now: Timestamp,
    lasts: Duration,
) -> Ended<Leased> {
    loop {
        let known = get(&mut *conn, place, name, Look::Alone).await?;
        let leased = match Lease::acquire(known.as_ref(), holder, now, lasts) {
            Ok(leased) => leased,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Leased::Held(held) = &leased
            && !put(&mut *conn, place, name, held, known.as_ref()).await?
        {
            continue;
        }
        return Ok(Ok(leased));
    }
}

pub(crate) async fn release(
    conn: &mut PgConnection,
    place: &Place,
    name: &ConsumerName,
    epoch: u64,
    now: Timestamp,
) -> Ended<()> {
    let known = get(&mut *conn, place, name, Look::Alone).await?;
    match Lease::release(name, known.as_ref(), epoch, now) {
        Ok(released) => put(conn, place, name, &released, known.as_ref()).await.map(|_| Ok(())),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Refuses unless the epoch is the lease's; from here on nobody takes it before this transaction has ended.
pub(crate) async fn fence(
    conn: &mut PgConnection,
    place: &Place,
    name: &ConsumerName,
    epoch: u64,
) -> Ended<()> {
    let known = get(conn, place, name, Look::Shared).await?;
    Ok(Lease::fence(name, known.as_ref(), epoch).map(drop))
}
