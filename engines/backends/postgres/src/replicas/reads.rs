//! The contract over a leader and its replicas: writes go to the leader, reads to whoever meets what they ask for.

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::outbox::Epoch;
use mainstay_event_store::{
    Abort, Act, AppendError, Appended, Archived, Committed, Consistency, ConsumerName, Direction, Head,
    IfCutOff, Lease, Located, OutboxRecord, OutboxStatus, Page, Position, Query, ReadError, Receipt, Rows,
    Scan, Store, StoreId, StreamName, StreamPage, TransactError, Version, ViewName,
};

use super::Replicated;
use crate::store::Postgres;
use crate::tx::{Sql, Transaction};

/// Reads from the node that is picked. One that turns out to be gone while it is read is cut off, also when it says
/// nothing: a network that swallows everything would else be waited for as long as the kernel does.
macro_rules! reading {
    ($self:ident, $feed:expr, |$store:ident| $call:expr) => {{
        let (node, picked) = $self.chosen().await?;
        let $store = &picked.store;
        let read = async {
            if $feed && $self.asked == Consistency::Strong && picked.met {
                $store.settled($self.inner.at_most).await?;
            }
            $call.await
        };
        let ended = tokio::select! {
            ended = read => ended,
            () = node.lost() => Err(super::lost(&node.name)),
        };
        match ended {
            Err(ReadError::Unavailable { passing: true, .. })
                if picked.met && $self.if_cut_off == IfCutOff::ServeStale =>
            {
                let other = $self.at(Consistency::Eventual, IfCutOff::ServeStale).pick().await?;
                let $store = &other.store;
                $call.await
            }
            ended => ended,
        }
    }};
}

impl Store for Replicated {
    type Tx = Transaction;
    type Native<'tx> = Sql<'tx>;

    fn id(&self) -> StoreId {
        self.inner.leader.id()
    }

    async fn append(&self, cx: &Context, act: Act) -> Result<Appended, AppendError> {
        self.inner.leader.append(cx, act).await
    }

    async fn transact<T, E, F>(&self, cx: &Context, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Transaction) -> Result<T, Abort<E>> + Send + 'static,
    {
        self.inner.leader.transact(cx, closure).await
    }

    fn native(tx: &Transaction) -> Sql<'_> {
        Postgres::native(tx)
    }

    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> Result<StreamPage, ReadError> {
        reading!(self, false, |store| store.read_stream(stream, from, direction, max))
    }

    async fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        reading!(self, true, |store| store.read(query, after, max))
    }

    async fn head(&self) -> Result<Head, ReadError> {
        reading!(self, true, |store| store.head())
    }

    async fn head_at(&self, position: Position) -> Result<Option<Head>, ReadError> {
        reading!(self, true, |store| store.head_at(position))
    }

    async fn archives(&self) -> Result<Vec<Archived>, ReadError> {
        reading!(self, false, |store| store.archives())
    }

    async fn position(&self, receipt: &Receipt) -> Result<Located, ReadError> {
        reading!(self, false, |store| store.position(receipt))
    }

    async fn wait_past(&self, after: Position, at_most: Duration) {
        match self.pick().await {
            Ok(picked) => picked.store.wait_past(after, at_most).await,
            // Whoever waits reads next, and is told why it can't.
            Err(_) => tokio::time::sleep(at_most.min(super::LOOK_EVERY)).await,
        }
    }

    async fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        reading!(self, false, |store| store.view_get(view, key))
    }

    async fn view_scan(&self, scan: &Scan) -> Result<Rows, ReadError> {
        reading!(self, false, |store| store.view_scan(scan))
    }

    async fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, ReadError> {
        reading!(self, false, |store| store.checkpoint(consumer))
    }

    async fn outbox_after(&self, seq: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        self.inner.leader.outbox_after(seq, max).await
    }

    async fn outbox_unsent(&self, after: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        self.inner.leader.outbox_unsent(after, max).await
    }

    fn outbox_recent(&self, after: u64, max: usize) -> Option<Vec<OutboxRecord>> {
        self.inner.leader.outbox_recent(after, max)
    }

    async fn outbox_status(&self) -> Result<OutboxStatus, ReadError> {
        self.inner.leader.outbox_status().await
    }

    async fn outbox_epochs(&self) -> Result<Vec<Epoch>, ReadError> {
        self.inner.leader.outbox_epochs().await
    }

    async fn wait_outbox(&self, after: u64, at_most: Duration) {
        self.inner.leader.wait_outbox(after, at_most).await;
    }

    async fn lease(&self, name: &ConsumerName) -> Result<Option<Lease>, ReadError> {
        self.inner.leader.lease(name).await
    }
}
