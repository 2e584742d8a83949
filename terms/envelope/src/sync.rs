//! Locks and atomic words of what threads share: the one place that says whose they are.
//!
//! They are the standard library's. With the feature `shuttle` each operation on one of them is also a point at which the
//! model checker of that name may go on with another thread, if it is what runs the program, and nothing else if not:
//! the feature adds to a build and changes no behaviour, so that all features can be tested together. What is modelled
//! is every order of operations; that a weaker memory order than sequential consistency may reorder them is not
//! (docs/decisions/0029-shuttle.md).

#[cfg(not(feature = "shuttle"))]
pub use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Atomic words.
#[cfg(not(feature = "shuttle"))]
pub mod atomic {
    pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

#[cfg(feature = "shuttle")]
pub use modelled::{Mutex, MutexGuard, OnceLock, PoisonError, atomic};

#[cfg(feature = "shuttle")]
mod modelled {
    use std::fmt::{self, Debug};
    use std::ops::{Deref, DerefMut};
    pub use std::sync::PoisonError;
    use std::sync::{
        LockResult, Mutex as StdMutex, MutexGuard as StdGuard, OnceLock as StdOnceLock, TryLockError,
        TryLockResult,
    };

    /// Whether it is the model checker that runs us.
    fn is_modelled() -> bool {
        shuttle::current::try_get_current_task().is_some()
    }

    /// Another thread may go on here. An operation on a word of the model's own: a yield would be taken as a wish.
    fn point() {
        if is_modelled() {
            shuttle::sync::atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
        }
    }

    /// As the standard library's. The model's own lock stands in front of it: whoever waits, waits there, and a deadlock
    /// is seen.
    #[derive(Default)]
    pub struct Mutex<T> {
        gate: shuttle::sync::Mutex<()>,
        value: StdMutex<T>,
    }

    /// As the standard library's.
    pub struct MutexGuard<'a, T> {
        // Given back in this order.
        value: StdGuard<'a, T>,
        _gate: Option<shuttle::sync::MutexGuard<'a, ()>>,
    }

    impl<T> Mutex<T> {
        /// As the standard library's.
        pub const fn new(value: T) -> Self {
            Mutex { gate: shuttle::sync::Mutex::new(()), value: StdMutex::new(value) }
        }

        /// As the standard library's.
        ///
        /// # Errors
        /// Somebody holds it, or whoever held it last panicked.
        pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            let gate = match is_modelled().then(|| self.gate.try_lock()) {
                None => None,
                Some(Ok(gate)) => Some(gate),
                Some(Err(TryLockError::Poisoned(error))) => Some(error.into_inner()),
                Some(Err(TryLockError::WouldBlock)) => return Err(TryLockError::WouldBlock),
            };
            match self.value.try_lock() {
                Ok(value) => Ok(MutexGuard { value, _gate: gate }),
                Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
                Err(TryLockError::Poisoned(error)) => {
                    let guard = MutexGuard { value: error.into_inner(), _gate: gate };
                    Err(TryLockError::Poisoned(PoisonError::new(guard)))
                }
            }
        }

        /// As the standard library's.
        ///
        /// # Errors
        /// Whoever held it last panicked.
        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let gate = is_modelled().then(|| self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            match self.value.lock() {
                Ok(value) => Ok(MutexGuard { value, _gate: gate }),
                Err(error) => Err(PoisonError::new(MutexGuard { value: error.into_inner(), _gate: gate })),
            }
        }
    }

    impl<T: Debug> Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.value.fmt(f)
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.value
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.value
        }
    }

    impl<T: Debug> Debug for MutexGuard<'_, T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.value.fmt(f)
        }
    }

    /// As the standard library's, of which nobody waits for a value that another thread is making.
    #[derive(Debug, Default)]
    pub struct OnceLock<T>(StdOnceLock<T>);

    impl<T> OnceLock<T> {
        /// As the standard library's.
        pub const fn new() -> Self {
            OnceLock(StdOnceLock::new())
        }

        /// As the standard library's.
        pub fn get(&self) -> Option<&T> {
            point();
            self.0.get()
        }

        /// As the standard library's.
        ///
        /// # Errors
        /// The value, when there is one already.
        pub fn set(&self, value: T) -> Result<(), T> {
            point();
            self.0.set(value)
        }

        /// As the standard library's.
        pub fn take(&mut self) -> Option<T> {
            self.0.take()
        }
    }

    /// Atomic words.
    pub mod atomic {
        pub use std::sync::atomic::Ordering;
        use std::sync::atomic::{
            AtomicBool as StdBool, AtomicU8 as StdU8, AtomicU32 as StdU32, AtomicU64 as StdU64,
            AtomicUsize as StdUsize,
        };

        use super::point;

        macro_rules! word {
            ($name:ident, $std:ident, $value:ident) => {
                /// As the standard library's.
                #[derive(Debug, Default)]
                pub struct $name($std);

                #[expect(missing_docs, reason = "as the standard library's")]
                impl $name {
                    pub const fn new(value: $value) -> Self {
                        $name($std::new(value))
                    }

                    pub fn load(&self, order: Ordering) -> $value {
                        point();
                        self.0.load(order)
                    }

                    pub fn store(&self, value: $value, order: Ordering) {
                        point();
                        self.0.store(value, order);
                    }

                    pub fn swap(&self, value: $value, order: Ordering) -> $value {
                        point();
                        self.0.swap(value, order)
                    }

                    pub fn compare_exchange(
                        &self,
                        current: $value,
                        new: $value,
                        success: Ordering,
                        failure: Ordering,
                    ) -> Result<$value, $value> {
                        point();
                        self.0.compare_exchange(current, new, success, failure)
                    }

                    /// Never fails for no reason: a run is to be repeatable.
                    pub fn compare_exchange_weak(
                        &self,
                        current: $value,
                        new: $value,
                        success: Ordering,
                        failure: Ordering,
                    ) -> Result<$value, $value> {
                        self.compare_exchange(current, new, success, failure)
                    }

                    /// Made of the others, so that another thread can come in between.
                    pub fn fetch_update(
                        &self,
                        set_order: Ordering,
                        fetch_order: Ordering,
                        mut next: impl FnMut($value) -> Option<$value>,
                    ) -> Result<$value, $value> {
                        let mut seen = self.load(fetch_order);
                        while let Some(new) = next(seen) {
                            match self.compare_exchange(seen, new, set_order, fetch_order) {
                                Ok(seen) => return Ok(seen),
                                Err(other) => seen = other,
                            }
                        }
                        Err(seen)
                    }
                }
            };
        }

        macro_rules! number {
            ($name:ident, $value:ident: $($does:ident)+) => {
                #[expect(missing_docs, reason = "as the standard library's")]
                impl $name {
                    $(pub fn $does(&self, value: $value, order: Ordering) -> $value {
                        point();
                        self.0.$does(value, order)
                    })+
                }
            };
            ($($name:ident, $value:ident;)+) => {
                $(number!($name, $value: fetch_add fetch_sub fetch_and fetch_min fetch_max);)+
            };
        }

        word!(AtomicBool, StdBool, bool);
        word!(AtomicU8, StdU8, u8);
        word!(AtomicU32, StdU32, u32);
        word!(AtomicU64, StdU64, u64);
        word!(AtomicUsize, StdUsize, usize);
        number!(AtomicU8, u8; AtomicU32, u32; AtomicU64, u64; AtomicUsize, usize;);
    }
}
