//! The background task, and one look of it.

use std::time::Duration;

use mainstay_envelope::Context;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::spec::Spec;
use super::{Desk, inbox, outbox, sent};
use crate::limit::within;
use crate::schema::Schema;

/// A look that takes so long is given up, and its connection taken for lost. What it has folded and emptied stays so.
const LOOK_MAX: Duration = Duration::from_secs(5 * 60);

/// What one look did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Marks that were folded.
    pub folded: u64,
    /// Partitions that were truncated.
    pub emptied: u64,
    /// Partitions that could have been, but for somebody who uses them.
    pub busy: u64,
    /// New outbox rows go to another partition.
    pub turned: bool,
}

/// One look at everything that rotates. `at_once`: however few rows there are, and however young they are. For tools
/// and tests; [`Retention`] calls it by itself. After an error the connection must not be used any more.
pub async fn sweep(
    conn: &mut PgConnection,
    schema: &Schema,
    spec: &Spec,
    at_once: bool,
) -> Result<Swept, sqlx::Error> {
    let mut desk = Desk { conn, schema, spec };
    let at_least = if at_once { 1 } else { spec.fold_rows };
    let mut swept = Swept::default();
    for slot in 0..inbox::SLOTS {
        let folded = desk.fold_inbox(slot, at_least).await?;
        swept.add(folded);
    }
    for slot in 0..sent::SLOTS {
        let folded = desk.fold_sent(slot, at_least).await?;
        swept.add(folded);
    }
    let outbox::Turned { emptied, busy, turned } = desk.turn_outbox(at_once).await?;
    swept.emptied += emptied;
    swept.busy += busy;
    swept.turned = turned;
    Ok(swept)
}

impl Swept {
    fn add(&mut self, folded: inbox::Folded) {
        self.folded += folded.rows;
        self.emptied += u64::from(folded.emptied);
        self.busy += u64::from(folded.busy);
    }
}

/// The background. Any number of processes may run one on the same store: they take turns. Dropped, it ends.
#[derive(Debug)]
pub struct Retention {
    stop: watch::Sender<bool>,
    trouble: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Retention {
    /// Starts it on the present runtime. `connect` is the server that takes writes; that it can't be reached is no
    /// error.
    pub fn start(connect: PgConnectOptions, schema: &Schema, cx: &Context, spec: Spec) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (tell, trouble) = watch::channel(None);
        let task = tokio::spawn(run(connect, schema.clone(), cx.clone(), spec, stopped, tell));
        Self { stop, trouble, task }
    }

    /// Why the last look failed; none when it did not.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Ends it, and waits until it has ended.
    pub async fn stop(self) {
        // Nobody hears it who has ended already; one that panicked has ended too.
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

async fn run(
    connect: PgConnectOptions,
    schema: Schema,
    cx: Context,
    spec: Spec,
    mut stop: watch::Receiver<bool>,
    tell: watch::Sender<Option<String>>,
) {
    let looks_before_all =
        u64::try_from(spec.fold_after.as_millis() / spec.every.as_millis().max(1)).unwrap_or(1).max(1);
    let mut look = 0u64;
    loop {
        // A tenth by chance, so that the processes of one store don't come at once.
        let every = spec.every.max(Duration::from_millis(10));
        let tenth = u64::try_from(every.as_micros() / 10).unwrap_or(1).max(1);
        let wait = every + Duration::from_micros(cx.next_u64() % tenth);
        // Also when nobody is left to ask.
        if tokio::time::timeout(wait, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        look += 1;
        let looked = tokio::select! {
            looked = within(LOOK_MAX, once(&connect, &schema, &spec, look.is_multiple_of(looks_before_all))) => looked,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        tell.send_replace(looked.err().map(|error| error.to_string()));
    }
}

/// On a connection of its own: a look every few seconds is not worth keeping one.
async fn once(
    connect: &PgConnectOptions,
    schema: &Schema,
    spec: &Spec,
    all: bool,
) -> Result<Swept, sqlx::Error> {
    let mut conn = PgConnection::connect_with(connect).await?;
    let fewest = Spec { fold_rows: if all { 1 } else { spec.fold_rows }, ..spec.clone() };
    let swept = sweep(&mut conn, schema, &fewest, false).await?;
    conn.close().await?;
    Ok(swept)
}
