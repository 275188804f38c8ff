//! [`Newcomers`]: connections that have not sent a whole request yet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Who may be anybody, and costs a file descriptor and some memory all the same.
///
/// ```text
///  accept ──► newcomer ──whole request──► settled: its place among the relay's connections is its own
///                 │
///                 └──oldest of too many──► evicted: its place is the next newcomer's
/// ```
///
/// The oldest goes first: who has a request sends it within moments, so that it is those who send nothing that go, however
/// many they are.
#[derive(Debug)]
pub(super) struct Newcomers {
    max: usize,
    connections: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    permit: OwnedSemaphorePermit,
    eviction: CancellationToken,
}

/// A connection's place. It is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    newcomers: Arc<Newcomers>,
    number: u64,
    eviction: CancellationToken,
    /// From when it is settled.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

/// How a connection got in.
#[derive(Debug)]
pub(super) enum Admission {
    Free(Arc<Place>),
    /// Another one had to go.
    Evicting(Arc<Place>),
}

/// A request needs less than a second on any network, TLS and all: this is room for a thousand new connections a second,
/// and each costs a file descriptor and up to [`MAX_HEAD`](super::connection::MAX_HEAD).
pub(super) const MAX_NEWCOMERS: usize = 1024;

impl Newcomers {
    /// At most half of all connections may be newcomers.
    pub(super) fn new(connections: Arc<Semaphore>) -> Self {
        Self {
            max: (connections.available_permits() / 2).clamp(1, MAX_NEWCOMERS),
            connections,
            waiting: Mutex::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// A place for a new connection; `None` when all connections are there for a reason.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok();
        let mut waiting = self.waiting();
        let evicted = (permit.is_none() || waiting.by_age.len() >= self.max)
            .then(|| waiting.by_age.pop_first())
            .flatten()
            .map(|(_, oldest)| {
                oldest.eviction.cancel();
                self.evicted.fetch_add(1, Ordering::Relaxed);
                oldest.permit
            });
        let is_evicting = evicted.is_some();
        let permit = permit.or(evicted)?;
        let number = waiting.next;
        waiting.next += 1;
        let eviction = CancellationToken::new();
        let entry = Entry {
            permit,
            eviction: eviction.clone(),
        };
        waiting.by_age.insert(number, entry);
        drop(waiting);
        let place = Arc::new(Place {
            newcomers: Arc::clone(self),
            number,
            eviction,
            permit: Mutex::default(),
        });
        Some(if is_evicting {
            Admission::Evicting(place)
        } else {
            Admission::Free(place)
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.waiting().by_age.len()
    }

    /// How many had to go so far.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // The map is whole between any two statements, so a panic elsewhere can not have broken it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A whole request is there: from now on nobody takes the place away.
    pub(super) fn settle(&self) {
        let entry = self.newcomers.waiting().by_age.remove(&self.number);
        if let Some(entry) = entry {
            *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.permit);
        }
    }

    /// Ready when the place was given to another connection. Cancel safe.
    pub(super) async fn evicted(&self) {
        self.eviction.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let entry = self.newcomers.waiting().by_age.remove(&self.number);
        drop(entry);
    }
}

impl Admission {
    pub(super) fn into_place(self) -> Arc<Place> {
        match self {
            Self::Free(place) | Self::Evicting(place) => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomers(connections: usize) -> Arc<Newcomers> {
        Arc::new(Newcomers::new(Arc::new(Semaphore::new(connections))))
    }

    fn admit(newcomers: &Arc<Newcomers>) -> Arc<Place> {
        newcomers.admit().unwrap().into_place()
    }

    fn is_evicted(place: &Place) -> bool {
        place.eviction.is_cancelled()
    }

    #[test]
    fn the_oldest_of_too_many_goes() {
        let newcomers = newcomers(10_000);
        let places: Vec<_> = (0..MAX_NEWCOMERS).map(|_| admit(&newcomers)).collect();
        assert!(!places.iter().any(|place| is_evicted(place)));
        let another = newcomers.admit().unwrap();
        assert!(matches!(another, Admission::Evicting(_)));
        assert!(is_evicted(&places[0]) && !is_evicted(&places[1]));
        assert_eq!(newcomers.count(), MAX_NEWCOMERS);
        assert_eq!(newcomers.evicted(), 1);
        // The evicted one's place is free already.
        assert_eq!(
            newcomers.connections.available_permits(),
            10_000 - MAX_NEWCOMERS
        );
        drop((places, another));
        assert_eq!(newcomers.count(), 0);
        assert_eq!(newcomers.connections.available_permits(), 10_000);
    }

    #[test]
    fn who_has_sent_a_request_stays() {
        let newcomers = newcomers(2);
        let settled = admit(&newcomers);
        settled.settle();
        // Once is enough.
        settled.settle();
        let newcomer = admit(&newcomers);
        let next = admit(&newcomers);
        assert!(is_evicted(&newcomer) && !is_evicted(&settled));
        // Too late: its place is another's.
        newcomer.settle();
        next.settle();
        assert!(newcomers.admit().is_none());
        drop(settled);
        assert!(matches!(newcomers.admit(), Some(Admission::Free(_))));
    }
}
