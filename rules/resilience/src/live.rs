//! A value that is replaced while others use it, without a lock.
//!
//! ```text
//!   value 1 ──next──► value 2 ──next──► value 3        each handle holds one; a value knows its successor
//!      ▲                                   ▲
//!   an old handle, or a call under way     a handle made or refreshed lately
//! ```
//! Whoever looks follows the links to the end: one atomic load while nothing was replaced. Nobody sees half a value,
//! and a call under way keeps the value it began with.

use std::sync::Arc;

use mainstay_envelope::sync::OnceLock;

/// One value and, once it was replaced, the next.
#[derive(Debug)]
pub struct Link<T> {
    value: T,
    next: OnceLock<Arc<Link<T>>>,
}

impl<T> Link<T> {
    /// The value of this link, replaced or not.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Whether it is still the present one.
    pub fn is_latest(&self) -> bool {
        self.next.get().is_none()
    }
}

impl<T> Drop for Link<T> {
    fn drop(&mut self) {
        // One after the other: a long chain must not be dropped by recursion.
        let mut next = self.next.take();
        while let Some(mut link) = next.and_then(Arc::into_inner) {
            next = link.next.take();
        }
    }
}

/// A handle on a value that may be replaced. A clone is another handle on the same; one reference count.
#[derive(Debug)]
pub struct Live<T>(Arc<Link<T>>);

impl<T> Live<T> {
    /// Begins with `value`.
    pub fn new(value: T) -> Self {
        Live(Arc::new(Link { value, next: OnceLock::new() }))
    }

    /// The present value. A handle that was never [`refresh`](Self::refresh)ed passes every replaced one.
    pub fn get(&self) -> &T {
        &self.latest().value
    }

    /// The present link, to be kept with a call under way.
    pub fn latest(&self) -> &Arc<Link<T>> {
        let mut link = &self.0;
        while let Some(next) = link.next.get() {
            link = next;
        }
        link
    }

    /// Makes this handle let go of what was replaced.
    pub fn refresh(&mut self) -> &Arc<Link<T>> {
        if !self.0.is_latest() {
            self.0 = Arc::clone(self.latest());
        }
        &self.0
    }

    /// Replaces the value by what `make` makes of it, as one step for all who look. When another replacement comes
    /// first, `make` is asked again with that one's value.
    ///
    /// # Errors
    /// Whatever `make` says; then nothing was replaced.
    pub fn replace<E>(&self, mut make: impl FnMut(&T) -> Result<T, E>) -> Result<(), E> {
        loop {
            let latest = self.latest();
            let link = Arc::new(Link { value: make(&latest.value)?, next: OnceLock::new() });
            if latest.next.set(link).is_ok() {
                return Ok(());
            }
        }
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        // The latest, so that handles cloned from an old one don't keep what was replaced.
        Live(Arc::clone(self.latest()))
    }
}

impl<T> From<Arc<Link<T>>> for Live<T> {
    fn from(link: Arc<Link<T>>) -> Self {
        Live(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_handle_sees_what_was_put_in_and_a_failed_change_changes_nothing() {
        let live = Live::new(1);
        let mut other = live.clone();
        let began = Arc::clone(live.latest());
        assert_eq!(live.replace(|_| Err("no")), Err("no"));
        assert_eq!(*live.get(), 1);
        live.replace(|old| Ok::<_, ()>(old + 1)).unwrap();
        assert_eq!((*live.get(), *other.get(), *began.value()), (2, 2, 1));
        assert!(!began.is_latest() && other.refresh().is_latest());
    }

    #[test]
    fn racing_replacements_are_all_made() {
        let live = Live::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| live.replace(|old| Ok::<_, ()>(old + 1)).unwrap()));
            }
        });
        assert_eq!(*live.get(), 400);
    }

    #[test]
    fn a_handle_that_slept_through_a_hundred_thousand_changes_is_dropped_without_recursion() {
        let live = Live::new(0);
        let mut fresh = live.clone();
        for _ in 0..100_000 {
            fresh.replace(|old| Ok::<_, ()>(old + 1)).unwrap();
            fresh.refresh();
        }
        assert_eq!(*live.get(), 100_000);
        drop(fresh);
        drop(live);
    }
}
