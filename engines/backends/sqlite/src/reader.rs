//! The readers: a few threads, each with a connection, that never block the writer.
//!
//! Every read is one short transaction: a reader that holds one open keeps the write-ahead log from being
//! reused. So pages are bounded in rows and in time, and a page's end says where to go on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_event_store::ReadError;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Kind, kind, read_error};
use crate::open;
use crate::options::Options;
use crate::select::{Budget, Names};

/// No read transaction outlives this.
const READ_MAX: Duration = Duration::from_millis(100);

/// Reads waiting or under way at once; more wait outside, where they cost a future each.
const READS_MAX: usize = 256;

type Job = Box<dyn FnOnce(&mut Reader) + Send>;

/// A reader thread's connection and what it has learnt.
pub(crate) struct Reader {
    options: Arc<Options>,
    conn: Option<Connection>,
    names: Names,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    places: Arc<Semaphore>,
}

/// The pool. Its threads end when the last handle of the store is gone.
pub(crate) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readers")
    }
}

impl Readers {
    pub(crate) fn start(options: &Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            places: Arc::new(Semaphore::new(READS_MAX)),
        });
        let mut readers = Self { shared: Arc::clone(&shared), threads: Vec::with_capacity(options.readers) };
        let options = Arc::new(options.clone());
        for i in 0..options.readers {
            let (shared, options) = (Arc::clone(&shared), Arc::clone(&options));
            let thread = std::thread::Builder::new()
                .name(format!("mainstay-read-{i}"))
                .spawn(move || serve(&shared, Reader { options, conn: None, names: Names::default() }))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs a read on some reader thread. Cancelling the future does not stop a read that has begun.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection, &mut Names, Budget) -> rusqlite::Result<Result<T, ReadError>>
        + Send
        + 'static,
    ) -> Result<T, ReadError> {
        let gone = || ReadError::Unavailable { why: "the store is closed".into(), passing: false };
        let place = Arc::clone(&self.shared.places).acquire_owned().await.map_err(|_| gone())?;
        let (reply, answer) = oneshot::channel();
        let run: Job = Box::new(move |reader| {
            // Held by the job, not by the future: a cancelled read keeps its place until it is taken out.
            let _place = place;
            if !reply.is_closed() {
                // Who does not wait any more does not want to know.
                let _ = reply.send(reader.run(job));
            }
        });
        {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.jobs.push_back(run);
        }
        self.shared.ready.notify_one();
        answer.await.map_err(|_| gone())?
    }
}

impl Readers {
    /// Ends the threads and waits until each has let go of its connection: for as long as a read under way may
    /// take. Blocks.
    pub(crate) fn close(&mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            // One that panicked has let go of its connection too.
            let _ = thread.join();
        }
    }

    fn end(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.ready.notify_all();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(shared: &Shared, mut reader: Reader) {
    loop {
        let job = {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                queue = shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        job(&mut reader);
    }
}

impl Reader {
    fn run<T>(
        &mut self,
        job: impl FnOnce(&Connection, &mut Names, Budget) -> rusqlite::Result<Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => open::reader(&self.options).map_err(|error| read_error(&error))?,
        };
        let result = (|| {
            conn.prepare_cached("begin")?.execute([])?;
            let result = job(&conn, &mut self.names, Budget::new(READ_MAX));
            conn.prepare_cached("commit")?.execute([])?;
            result
        })();
        match result {
            Ok(result) => {
                self.conn = Some(conn);
                result
            }
            Err(error) => {
                // A connection that met a failure of the disk is not used again; any other one is, once its
                // transaction is over.
                if !matches!(kind(&error), Kind::Io | Kind::Damaged)
                    && (conn.is_autocommit() || conn.execute_batch("rollback").is_ok())
                {
                    self.conn = Some(conn);
                }
                Err(read_error(&error))
            }
        }
    }
}
