//! From where to where: everything that following goes by, and that does not change meanwhile.

use std::sync::Arc;

use mainstay_messaging::Topic;
use mainstay_resilience::retry::Checked;

use super::apply::Handler;
use super::followed::Followed;
use super::parking::rows::Views;

/// A topic of a log, and the service that handles it in its store.
pub(super) struct Route<S, L, R> {
    pub(super) store: S,
    pub(super) log: L,
    pub(super) topic: Topic,
    pub(super) handler: Handler<S, R>,
    pub(super) views: Views,
    /// Waits between tries of a store or a log in trouble.
    pub(super) settings: Checked,
    /// Waits between tries of a parked message, and how many there are.
    pub(super) parking: Checked,
    pub(super) parked_max: u64,
    pub(super) batch_max: usize,
    pub(super) followed: Option<Followed>,
    pub(super) on_trouble: Arc<dyn Fn(&str) + Send + Sync>,
}

impl<S: Clone, L: Clone, R> Clone for Route<S, L, R> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            log: self.log.clone(),
            topic: self.topic.clone(),
            handler: self.handler.clone(),
            views: self.views.clone(),
            followed: self.followed.clone(),
            on_trouble: Arc::clone(&self.on_trouble),
            ..*self
        }
    }
}
