//! What a loader is given ([`Load`]), and the trait of those that a cache calls by itself ([`Loader`]).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_envelope::{Context, Deadline, Envelope, Monotonic, Priority};

use super::entry::Loaded;
use super::single_flight::Terms;
use super::spec::Audience;
use crate::record::nanos;

/// A load as its leader sees it: in whose name it is made, how urgent it is and how long it may take, all of which
/// may grow while more callers come to wait for it.
pub struct Load {
    cx: Context,
    audience: Audience,
    lead: Lead,
}

/// The same without a context, for layers.
#[derive(Clone)]
pub(super) struct Lead {
    terms: Arc<dyn Terms>,
    /// The latest deadline that the loader was told, in nanoseconds of the clock; 0: none.
    shown: Arc<AtomicU64>,
}

impl Lead {
    pub(super) fn new(terms: Arc<dyn Terms>) -> Self {
        Self { terms, shown: Arc::default() }
    }

    /// The highest priority and the latest deadline of those who wait; none when nobody is to wait any more.
    pub(super) fn terms(&self) -> Option<(Priority, Monotonic)> {
        let terms = self.terms.terms();
        if let Some((_, deadline)) = terms {
            self.shown.fetch_max(nanos(deadline), Ordering::Relaxed);
        }
        terms
    }

    /// Whether the loader worked under a deadline that is over, while others wait for longer: an error that it
    /// reports then says nothing about the source.
    pub(super) fn ran_out(&self, now: Monotonic) -> bool {
        let shown = self.shown.load(Ordering::Relaxed);
        let later = self.terms.terms().is_some_and(|(_, deadline)| nanos(deadline) > shown);
        shown != 0 && nanos(now) >= shown && later
    }
}

impl Load {
    pub(super) fn new(cx: Context, audience: Audience, lead: Lead) -> Self {
        Self { cx, audience, lead }
    }

    /// The context of a call that this load makes, as of now: ask for it anew before each call, since a caller with
    /// more time or a higher priority may have joined.
    ///
    /// Its priority is the highest and its deadline the latest of all who wait. It is of the trace, the correlation
    /// and the retry tokens of whoever began it. Of caller and tenant it carries what the cache's [`Audience`] is
    /// about and nothing more, so that what is kept for many can't depend on one of them; it has no idempotency key.
    pub fn cx(&self) -> Context {
        let from = self.cx.envelope();
        // When it is over nobody waits: the lowest priority, no time left.
        let (priority, deadline) = self.lead.terms().unwrap_or((Priority::Background, self.cx.now()));
        let trace = from.trace().child(&**self.cx.chance());
        let mut envelope = Envelope::of(trace, from.correlation(), priority)
            .with_tokens(from.tokens().clone())
            .lower_deadline(Deadline::at(deadline));
        if let Some(causation) = from.causation() {
            envelope = envelope.with_causation(causation);
        }
        if matches!(self.audience, Audience::Tenant | Audience::Caller)
            && let Some(tenant) = from.tenant()
        {
            envelope = envelope.with_tenant(tenant.clone());
        }
        if self.audience == Audience::Caller {
            if let Some(caller) = from.caller() {
                envelope = envelope.with_caller(caller.clone());
            }
            if let Some(actor) = from.actor() {
                envelope = envelope.with_actor(actor.clone());
            }
        }
        self.cx.with_envelope(envelope)
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("terms", &self.lead.terms.terms()).finish_non_exhaustive()
    }
}

/// Where a cache's values come from.
///
/// It is called by one task at a time for each key, which is cancelled (dropped at an `.await`) when its time is over.
/// It need not bound its own time, and a panic of it harms nobody else.
pub trait Loader<K: ?Sized, V>: Send + Sync + 'static {
    /// What can go wrong. Shared by all who wait, so it need not be cloned.
    type Error: Send + Sync + 'static;

    /// Loads the value of a key; `Ok` of [`Loaded::absent`] where there is none.
    fn load(&self, load: &Load, key: &K) -> impl Future<Output = Result<Loaded<V>, Self::Error>> + Send;
}
