//! The locks of a session: the standard library's, or those of loom, which tries every order in which they may be taken
//! (`tests/loom`).

#[cfg(not(loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
pub(super) use loom::sync::MutexGuard;
#[cfg(loom)]
pub(super) use under_loom::Mutex;

#[cfg(loom)]
mod under_loom {
    use std::sync::{LockResult, TryLockResult};

    use loom::sync::MutexGuard;

    /// As much of the standard library's as a session uses.
    #[derive(Debug)]
    pub(in super::super) struct Mutex<T>(loom::sync::Mutex<T>);

    #[allow(dead_code, reason = "as the standard library has it")]
    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            self.0.lock()
        }

        pub(in super::super) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            self.0.try_lock()
        }

        /// A panic ends a run of loom's: nobody comes to see a poisoned lock.
        pub(in super::super) fn clear_poison(&self) {}
    }
}
