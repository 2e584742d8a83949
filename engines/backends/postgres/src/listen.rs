//! Hints between processes: LISTEN and NOTIFY, and a slow look behind them.
//!
//! NOTIFY takes a lock of the whole database while it commits, so no append ever carries one: the sequencer tells after
//! its round, and who appended in another process than the sequencer's tells so at most every [`TELL_EVERY`]. Behind a
//! pooler in transaction mode there is no LISTEN, and the slow look alone carries everything.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;

use crate::hints::{Ends, Hints};
use crate::limit::within;
use crate::ops::{self, Place};
use crate::pool::{Pool, asking};
use crate::select;
use crate::sequencer::{self, Role, Status};

/// Whoever waits looks by itself after this long.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Other processes are told of commits no more often.
const TELL_EVERY: Duration = Duration::from_millis(10);

/// Between two tries to listen again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// Between two tries on a server that only follows another one. The slow look carries everything there.
const PROMOTED_AFTER: Duration = Duration::from_secs(30);

/// One who has heard nothing for so long listens anew: the connection may have fallen silent, which nobody would tell.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// The first answers come within this.
const LISTENING_MAX: Duration = Duration::from_secs(10);

/// What it says when rows were committed that have no place yet.
const ROWS: &str = "rows";

/// Listens until the handle is gone.
pub(crate) async fn listen(connect: PgConnectOptions, channel: String, hints: Arc<Hints>) {
    loop {
        // A lost hint costs the time to the next slow look, so a failure is no more than that.
        let mut pause = LISTEN_AGAIN;
        // A pool of its own each time: one connection that never ends would keep the only place.
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(LISTENING_MAX);
        let pool = pool.connect_lazy_with(connect.clone());
        let listening = within(LISTENING_MAX, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&channel).await?;
            Ok(listener)
        });
        let listening = listening.await;
        if listening.as_ref().err().is_some_and(follows_only) {
            pause = PROMOTED_AFTER;
        }
        if let Ok(mut listener) = listening {
            while let Ok(Ok(Some(told))) = tokio::time::timeout(SILENT_MAX, listener.try_recv()).await {
                match sequencer::told(told.payload()) {
                    Some(ends) => hints.sequenced(ends),
                    None if told.payload() == ROWS => hints.committed_elsewhere(),
                    None => {}
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Is it a replica that was asked? There is no LISTEN on one (25006), until it leads.
fn follows_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "25006")
}

/// Tells other processes of this one's commits, unless the active sequencer is here.
pub(crate) async fn tell(
    pool: Pool,
    channel: String,
    place: Place,
    hints: Arc<Hints>,
    status: Option<watch::Receiver<Status>>,
) {
    loop {
        hints.wait_to_tell().await;
        let here = status.as_ref().is_some_and(|status| matches!(status.borrow().role, Role::Active { .. }));
        if !here {
            // A hint, no more.
            let _: sqlx::Result<_> = asking!(pool, place, |conn| {
                sqlx::query("select pg_notify($1, $2)")
                    .bind(&channel)
                    .bind(ROWS)
                    .persistent(false)
                    .execute(conn)
            });
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// How far feed and outbox have come.
pub(crate) async fn look(pool: &Pool, place: &Place) -> sqlx::Result<Ends> {
    asking!(pool, place, |conn| async {
        let head = select::head(&mut *conn, &place.schema, place.persistent()).await?;
        let outbox = ops::sent::last(conn, place).await?;
        Ok::<_, sqlx::Error>(Ends { position: head.map_or(0, |head| head.position.0), outbox })
    })
}
