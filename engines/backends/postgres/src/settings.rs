//! A server's settings that decide what its acknowledgements survive, read.

use std::time::Duration;

use sqlx::{PgConnection, Row};

use crate::durability::{Replica, Settings, SynchronousCommit};

impl Settings {
    /// Asks a server that takes writes.
    pub(crate) async fn read(conn: &mut PgConnection) -> sqlx::Result<Self> {
        let row = sqlx::query(
            "select current_setting('fsync')::boolean, current_setting('full_page_writes')::boolean,
                current_setting('synchronous_commit'), current_setting('wal_sync_method'),
                current_setting('synchronous_standby_names'), current_setting('data_checksums')::boolean,
                (select setting::bigint from pg_catalog.pg_settings where name = 'wal_writer_delay'),
                (select setting::bigint from pg_catalog.pg_settings where name = 'commit_delay')",
        )
        .persistent(false)
        .fetch_one(&mut *conn)
        .await?;
        let commit: String = row.try_get(2)?;
        let unknown = || {
            sqlx::Error::Decode(format!("synchronous_commit is {commit:?}, which is not known here").into())
        };
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        let mut settings = Self {
            fsync: row.try_get(0)?,
            full_page_writes: row.try_get(1)?,
            synchronous_commit: SynchronousCommit::parse(&commit).ok_or_else(unknown)?,
            wal_sync_method: row.try_get(3)?,
            synchronous_standby_names: row.try_get::<String, _>(4)?.trim().to_owned(),
            data_checksums: row.try_get(5)?,
            wal_writer_delay: Duration::from_millis(unsigned(row.try_get(6)?)),
            commit_delay: Duration::from_micros(unsigned(row.try_get(7)?)),
            replicas: Vec::new(),
        };
        // One that has all is not behind, however long ago it said so. One that has not, and says nothing, is behind
        // for as long as it has said nothing.
        let rows = sqlx::query(
            "select application_name, sync_state,
                extract(epoch from case
                    when flush_lsn is null then null
                    when flush_lsn >= pg_current_wal_flush_lsn() then coalesce(flush_lag, interval '0')
                    else greatest(flush_lag, clock_timestamp() - reply_time, interval '0') end)::float8
             from pg_catalog.pg_stat_replication order by application_name, pid",
        )
        .persistent(false)
        .fetch_all(conn)
        .await?;
        for row in rows {
            let behind: Option<f64> = row.try_get(2)?;
            settings.replicas.push(Replica {
                name: row.try_get(0)?,
                sync_state: row.try_get(1)?,
                behind: behind.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
            });
        }
        Ok(settings)
    }
}
