//! Writers and a follower on a real store.

use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_event_store::{Direction, Query, ReadError, Store, StreamName, Subscribe, Verifier, Version};
use mainstay_sqlite::Sqlite;

use super::acts::{Outcome, Plan};
use super::{Failure, ledger};

/// Where the lines go, and when to stop.
pub(crate) trait Log: Send + Sync + 'static {
    /// Written down before this returns.
    fn line(&self, line: String);
    /// Is there no point in going on?
    fn stopped(&self) -> bool;
}

/// What the writers do.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) seed: u64,
    pub(crate) writers: u64,
    /// No act below this number is tried.
    pub(crate) from: u64,
    /// So many acts by each writer, if nothing stops it before.
    pub(crate) acts: u64,
}

/// Runs all writers beside a follower, until they are done or stopped. Needs a runtime.
pub(crate) async fn run(store: &Sqlite, cx: &Context, job: Job, log: &Arc<impl Log>) -> Result<(), Failure> {
    let follower = tokio::spawn(follow(store.clone(), Arc::clone(log)));
    let mut writers = Vec::new();
    for writer in 0..job.writers {
        writers.push(tokio::spawn(write(store.clone(), cx.clone(), job, writer, Arc::clone(log))));
    }
    for writer in writers {
        writer.await??;
    }
    follower.abort();
    match follower.await {
        Ok(ended) => ended,
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn write(store: Sqlite, cx: Context, job: Job, writer: u64, log: Arc<impl Log>) -> Result<(), Failure> {
    let own = StreamName::new(format!("own-{writer}"))?;
    let mut version = last_version(&store, &own).await;
    let first = job.from.next_multiple_of(job.writers) + writer;
    for i in 0..job.acts {
        if log.stopped() {
            break;
        }
        let number = first + i * job.writers;
        let plan = Plan::new(job.seed, job.writers, number)?;
        let Ok(basis) = version else {
            // Only what stops the whole run keeps a stream from being read.
            return if log.stopped() {
                Ok(())
            } else {
                Err(format!("{own} can't be read: {version:?}").into())
            };
        };
        log.line(ledger::tried(number, basis.0));
        let outcome = plan.submit(&store, &cx, basis.0).await;
        log.line(ledger::ended(number, &outcome));
        match outcome {
            Outcome::Acknowledged { versions, .. } => {
                version = Ok(versions.iter().find(|(stream, _)| *stream == own).map_or(basis, |(_, v)| *v));
            }
            Outcome::Refused(_) | Outcome::Failed(_) => {}
            // The one case in which the writer can't know its own stream any more.
            Outcome::Unknown(_) => version = last_version(&store, &own).await,
        }
    }
    Ok(())
}

async fn last_version(store: &Sqlite, stream: &StreamName) -> Result<Version, ReadError> {
    Ok(store.read_stream(stream, Version(u64::MAX), Direction::Backwards, 1).await?.version)
}

/// Follows the feed from where it ends now, proves it, and writes down how far it has come.
async fn follow(store: Sqlite, log: Arc<impl Log>) -> Result<(), Failure> {
    let Ok(head) = store.head().await else { return Ok(()) };
    let (mut verifier, mut feed) = (Verifier::from_head(head), store.subscribe(Query::all(), head.position));
    // What ends the run ends its reads too; the writers say why.
    while let Ok(page) = feed.next_page().await {
        for event in &page.events {
            if let Err(broken) = verifier.check(event) {
                log.line(ledger::broken(&broken.to_string()));
                return Ok(());
            }
        }
        log.line(ledger::seen(verifier.head()));
    }
    Ok(())
}
