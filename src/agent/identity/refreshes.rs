//! [`RefreshCounts`]: how often something that grows old was got anew.

use std::{
    iter::Sum,
    sync::atomic::{AtomicU64, Ordering},
};

/// How often something that grows old was got anew, such as an issuer's keys, and how often that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshCounts {
    succeeded: u64,
    failed: u64,
}

impl RefreshCounts {
    /// So many of each.
    pub fn new(succeeded: u64, failed: u64) -> Self {
        Self { succeeded, failed }
    }

    /// Times that it was got.
    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    /// Times that it could not be got.
    pub fn failed(&self) -> u64 {
        self.failed
    }
}

impl Sum for RefreshCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, one| Self {
            succeeded: sum.succeeded.saturating_add(one.succeeded),
            failed: sum.failed.saturating_add(one.failed),
        })
    }
}

/// [`RefreshCounts`] in the making.
#[derive(Debug, Default)]
pub(in crate::agent) struct Refreshes {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Refreshes {
    pub(in crate::agent) fn succeeded(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::agent) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::agent) fn counts(&self) -> RefreshCounts {
        RefreshCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
