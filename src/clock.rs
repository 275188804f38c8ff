//! The wall clock, passed in so that tests decide what time it is.

use std::{fmt, sync::Arc, time::SystemTime};

#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn system() -> Self {
        Self::new(SystemTime::now)
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A clock that a test sets.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct ManualClock(Arc<std::sync::Mutex<SystemTime>>);

#[cfg(test)]
impl ManualClock {
    pub(crate) fn starting_at(unix_seconds: u64) -> Self {
        let start = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(unix_seconds);
        Self(Arc::new(std::sync::Mutex::new(start)))
    }

    pub(crate) fn advance(&self, by: std::time::Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = Arc::clone(&self.0);
        Clock(Arc::new(move || *time.lock().unwrap()))
    }
}
