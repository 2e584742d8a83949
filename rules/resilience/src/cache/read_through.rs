//! Read-through: the cache knows where its values come from, so its users don't have to.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use mainstay_envelope::Context;

use super::entry::Cached;
use super::handle::Cache;
use super::load::Loader;
use crate::Failed;

/// A [`Cache`] with its [`Loader`]. A clone is another handle.
pub struct ReadThrough<K, V, L: Loader<K, V>> {
    cache: Cache<K, V, L::Error>,
    loader: Arc<L>,
}

impl<K, V, L: Loader<K, V>> Clone for ReadThrough<K, V, L> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), loader: Arc::clone(&self.loader) }
    }
}

impl<K, V, L: Loader<K, V>> fmt::Debug for ReadThrough<K, V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThrough").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// **Read-through**: this cache, loading what is not there by itself.
    pub fn read_through<L: Loader<K, V, Error = E>>(self, loader: L) -> ReadThrough<K, V, L> {
        ReadThrough { cache: self, loader: Arc::new(loader) }
    }
}

impl<K, V, L> ReadThrough<K, V, L>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    L: Loader<K, V>,
{
    /// The value of a key; none: there is none.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get<Q>(&self, cx: &Context, key: &Q) -> Result<Option<Cached<V>>, Failed<Arc<L::Error>>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + Sync + ?Sized,
    {
        let loader = Arc::clone(&self.loader);
        self.cache.ask(cx, key, move |load, key| async move { loader.load(&load, &key).await }).await
    }

    /// The cache itself, to invalidate, to look at, to put into.
    pub fn cache(&self) -> &Cache<K, V, L::Error> {
        &self.cache
    }
}
