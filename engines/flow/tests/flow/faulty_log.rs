//! A log that fails where it is told to, and remembers how it was written to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::{ContentHash, Context, Producer};
use mainstay_messaging::memory::Memory;
use mainstay_messaging::{AppendError, Log, Message, Offset, Page, Promises, ReadError, Topic};
use tokio::sync::watch;

/// What happens to one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFault {
    None,
    Busy,
    LostBefore,
    LostAfter,
    CrashBefore,
    CrashAfter,
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyLog {
    pub(crate) inner: Memory,
    faults: Arc<Mutex<VecDeque<LogFault>>>,
    /// Reads that succeed; then none does any more.
    reads: Arc<Mutex<usize>>,
    /// How many messages each append that was made had.
    appends: Arc<Mutex<Vec<usize>>>,
    crashed: watch::Sender<bool>,
}

impl FaultyLog {
    pub(crate) fn over(inner: Memory, faults: impl IntoIterator<Item = LogFault>) -> Self {
        Self {
            inner,
            faults: Arc::new(Mutex::new(faults.into_iter().collect())),
            reads: Arc::new(Mutex::new(usize::MAX)),
            appends: Arc::default(),
            crashed: watch::Sender::new(false),
        }
    }

    /// After so many reads the log is damaged.
    pub(crate) fn damaged_after(self, reads: usize) -> Self {
        *self.reads.lock().unwrap() = reads;
        self
    }

    pub(crate) fn appends(&self) -> Vec<usize> {
        self.appends.lock().unwrap().clone()
    }

    /// Ready when the process has died.
    pub(crate) async fn crashed(&self) {
        let mut crashed = self.crashed.subscribe();
        crashed.wait_for(|crashed| *crashed).await.unwrap();
    }

    async fn die(&self) -> ! {
        self.crashed.send_replace(true);
        std::future::pending().await
    }
}

impl Log for FaultyLog {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn append(&self, cx: &Context, messages: Vec<Message>) -> Result<Vec<(u32, Offset)>, AppendError> {
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(LogFault::None);
        match fault {
            LogFault::Busy => return Err(AppendError::Busy { why: "a test".into() }),
            LogFault::LostBefore => return Err(AppendError::Unknown { why: "lost before".into() }),
            LogFault::CrashBefore => self.die().await,
            _ => {}
        }
        self.appends.lock().unwrap().push(messages.len());
        let places = self.inner.append(cx, messages).await?;
        match fault {
            LogFault::LostAfter => Err(AppendError::Unknown { why: "lost after".into() }),
            LogFault::CrashAfter => self.die().await,
            _ => Ok(places),
        }
    }

    async fn read(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> Result<Page, ReadError> {
        {
            let mut left = self.reads.lock().unwrap();
            if *left == 0 {
                return Err(ReadError::Damaged { why: "a test".into() });
            }
            *left -= 1;
        }
        self.inner.read(topic, partition, after, max).await
    }

    async fn end(&self, topic: &Topic, partition: u32) -> Result<Offset, ReadError> {
        self.inner.end(topic, partition).await
    }

    async fn wait_past(&self, topic: &Topic, partition: u32, after: Offset, at_most: Duration) {
        self.inner.wait_past(topic, partition, after, at_most).await;
    }

    async fn newest(
        &self,
        producer: &Producer,
        epoch: u32,
        partition: u32,
    ) -> Result<Option<(u64, ContentHash)>, ReadError> {
        self.inner.newest(producer, epoch, partition).await
    }
}
