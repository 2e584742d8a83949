//! A request handler's way into a work: [`transact`].

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_envelope::Context;
use mainstay_event_store::{Abort, AppendError, Committed, Retry, Store, TransactError};
use mainstay_resilience::retry::Checked;

use super::publisher::Publisher;
use super::seed::Seed;
use super::unit::Work;
use crate::pace::Pace;

/// Runs a closure as one work of a participant: the closure's value, and the receipt to answer with.
///
/// ```
/// # use mainstay_envelope::Context;
/// # use mainstay_event_store::{Abort, Refusal, Row, Tx, ViewName, memory::Memory};
/// # use mainstay_flow::saga::Participant;
/// use mainstay_flow::unit_of_work::{Publisher, transact};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (cx, store) = (Context::system(), Memory::new());
/// let publisher = Publisher::new(&Participant::new("greeter"))?;
/// let done = transact(&store, &cx, &publisher, |work| {
///     let view = ViewName::new("greeted").map_err(Refusal::from)?;
///     work.tx().view_put(&view, &Row::new("ada", *b"hello"))?;
///     Ok::<_, Abort<std::convert::Infallible>>(work.new_id())
/// })
/// .await?;
/// println!("{} {}", done.value, done.receipt);
/// # Ok(())
/// # }
/// ```
///
/// A refusal that may pass is tried again until the context's deadline. An unknown outcome is tried again only if
/// the work is known by a key ([`inbox::once`](crate::inbox::once)): then a second run finds what the first one
/// recorded. Without one it is handed to the caller as [`AppendError::Unknown`].
pub fn transact<'a, S, T, E, F>(
    store: &'a S,
    cx: &'a Context,
    publisher: &Publisher,
    closure: F,
) -> Transacting<'a, S, F>
where
    S: Store,
    F: Fn(&Work<'_, S>) -> Result<T, Abort<E>> + Send + Sync + 'static,
{
    Transacting { store, cx, publisher: publisher.clone(), closure, settings: Checked::default() }
}

/// A work on its way; `.await` runs it.
#[must_use = "a work does nothing until it is awaited"]
pub struct Transacting<'a, S, F> {
    store: &'a S,
    cx: &'a Context,
    publisher: Publisher,
    closure: F,
    settings: Checked,
}

impl<S, F> std::fmt::Debug for Transacting<'_, S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transacting").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}

impl<S, F> Transacting<'_, S, F> {
    /// How often, and after which waits, a refusal that may pass is tried again.
    /// Default: [`Spec::default`](mainstay_resilience::retry::Spec).
    pub fn retry(mut self, settings: Checked) -> Self {
        self.settings = settings;
        self
    }
}

impl<'a, S, T, E, F> IntoFuture for Transacting<'a, S, F>
where
    S: Store,
    T: Send + 'static,
    E: Send + 'static,
    F: Fn(&Work<'_, S>) -> Result<T, Abort<E>> + Send + Sync + 'static,
{
    type Output = Result<Committed<T>, TransactError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run(self))
    }
}

/// What is known of one run of a closure.
#[derive(Default)]
struct Ran {
    begun: AtomicBool,
    keyed: AtomicBool,
}

async fn run<S, T, E, F>(asked: Transacting<'_, S, F>) -> Result<Committed<T>, TransactError<E>>
where
    S: Store,
    T: Send + 'static,
    E: Send + 'static,
    F: Fn(&Work<'_, S>) -> Result<T, Abort<E>> + Send + Sync + 'static,
{
    let Transacting { store, cx, publisher, closure, settings } = asked;
    let closure = Arc::new(closure);
    let seed = Seed::draw(cx);
    let fact = Arc::new(cx.fact());
    let mut pace = Pace::new(cx, settings);
    // Once a run ended unknown, a later refusal can't say any more that nothing was written.
    let mut unknown = None;
    loop {
        let ran = Arc::new(Ran::default());
        let (closure, ran_now) = (Arc::clone(&closure), Arc::clone(&ran));
        let (publisher, fact) = (publisher.clone(), Arc::clone(&fact));
        let ended = store
            .transact(cx, move |tx| {
                let work = Work::new(tx, &publisher, &fact, seed);
                ran_now.begun.store(true, Ordering::Release);
                let ended = closure(&work);
                ran_now.keyed.store(work.keyed(), Ordering::Release);
                ended
            })
            .await;
        let error = match ended {
            Err(TransactError::Store(error)) => error,
            // A keyed work that finds no record of itself knows that no earlier run committed.
            ended => return ended,
        };
        let again = match &error {
            AppendError::Refused(refusal) => refusal.retry() != Retry::Never,
            // What has not begun has written nothing.
            AppendError::Unknown { .. } if !ran.begun.load(Ordering::Acquire) => true,
            AppendError::Unknown { why } => {
                unknown = Some(why.clone());
                ran.keyed.load(Ordering::Acquire)
            }
        };
        if !again || pace.again(cx).await.is_err() {
            return Err(unknown.map_or(error, |why| AppendError::Unknown { why }).into());
        }
    }
}
