//! [`Cache`]: bounded, each value with an end, each computed once for all who ask; and [`Verdicts`] upon it.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use super::rejection::{Failure, Rejection};
use crate::{clock::Clock, crypto};

/// Computations of which nobody waits for the outcome any more are cleared away once there are so many.
const FLIGHTS_BEFORE_CLEARING: usize = 256;

type Outcome<V> = Result<(V, SystemTime), Failure>;

/// Keeps the values of at most `capacity` keys; the one that was not asked for the longest makes room.
pub(super) struct Cache<K, V> {
    shared: Arc<State<K, V>>,
    clock: Clock,
}

struct State<K, V> {
    entries: Mutex<Entries<K, V>>,
    flights: Mutex<HashMap<K, WeakShared<BoxFuture<'static, Outcome<V>>>>>,
}

struct Entries<K, V> {
    capacity: usize,
    by_key: HashMap<K, Entry<V>>,
    /// Keys by their last use.
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

struct Entry<V> {
    value: V,
    from: SystemTime,
    until: SystemTime,
    used: u64,
}

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(capacity: usize, clock: Clock) -> Self {
        Self {
            shared: Arc::new(State {
                entries: Mutex::new(Entries {
                    capacity,
                    by_key: HashMap::new(),
                    by_use: BTreeMap::new(),
                    uses: 0,
                }),
                flights: Mutex::default(),
            }),
            clock,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        lock(&self.shared.entries).get(key, self.clock.now())
    }

    pub(super) fn insert(&self, key: K, value: V, until: SystemTime) {
        lock(&self.shared.entries).insert(key, value, self.clock.now(), until);
    }

    /// The value of `key`, or what `compute` makes: it gives the value and its end. Failures are shared by all who
    /// wait, and not kept.
    ///
    /// Cancel-safe: the computation goes on for as long as somebody waits for it.
    pub(super) async fn get_or_compute<F>(&self, key: K, compute: F) -> Result<V, Failure>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        if let Some(value) = self.get(&key) {
            return Ok(value);
        }
        let flight = self.join_or_start(key, compute);
        flight.await.map(|(value, _)| value)
    }

    fn join_or_start<F>(&self, key: K, compute: F) -> Shared<BoxFuture<'static, Outcome<V>>>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut flights = lock(&self.shared.flights);
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        if flights.len() >= FLIGHTS_BEFORE_CLEARING {
            flights.retain(|_, flight| flight.upgrade().is_some());
        }
        let (state, clock, own_key) = (Arc::clone(&self.shared), self.clock.clone(), key.clone());
        let flight = async move {
            let outcome = compute.await;
            // First the entry, then the end of the flight: who comes between finds one of the two.
            if let Ok((value, until)) = &outcome {
                lock(&state.entries).insert(own_key.clone(), value.clone(), clock.now(), *until);
            }
            lock(&state.flights).remove(&own_key);
            outcome
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Entries<K, V> {
    fn get(&mut self, key: &K, now: SystemTime) -> Option<V> {
        let entry = self.by_key.get_mut(key)?;
        // The first condition: a clock that was set back must not make an entry live longer.
        if now < entry.from || now >= entry.until {
            let used = entry.used;
            self.by_use.remove(&used);
            self.by_key.remove(key);
            return None;
        }
        self.uses += 1;
        let before = std::mem::replace(&mut entry.used, self.uses);
        let value = entry.value.clone();
        if let Some(key) = self.by_use.remove(&before) {
            self.by_use.insert(self.uses, key);
        }
        Some(value)
    }

    fn insert(&mut self, key: K, value: V, from: SystemTime, until: SystemTime) {
        self.uses += 1;
        let used = self.uses;
        let entry = Entry {
            value,
            from,
            until,
            used,
        };
        if let Some(before) = self.by_key.insert(key.clone(), entry) {
            self.by_use.remove(&before.used);
        }
        self.by_use.insert(used, key);
        while self.by_key.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.by_key.remove(&oldest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepted tokens at a time: one for each user, some 4 KiB with 100 groups.
const MAX_ACCEPTED: usize = 4_096;
/// Refused ones, in a place of their own: anybody can make them up, and they must not push out the others.
const MAX_REFUSED: usize = 1_024;
/// How long an accepted token is not checked again, unless its own end comes first: the time for which a key that was
/// withdrawn, or a group that was left, still counts.
const ACCEPTED_FOR: Duration = Duration::from_secs(60);
/// How long a refusal stands. Just enough for a client that tries again and again.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What became of tokens, by their HMAC: neither a dump of the memory nor a log shows them, and nobody can make two
/// tokens meet.
pub(super) struct Verdicts<V> {
    secret: [u8; 32],
    accepted: Cache<Digest, V>,
    refused: Cache<Digest, Rejection>,
    clock: Clock,
}

type Digest = [u8; 32];

impl<V: Clone + Send + Sync + 'static> Verdicts<V> {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            secret: crypto::random(),
            accepted: Cache::new(MAX_ACCEPTED, clock.clone()),
            refused: Cache::new(MAX_REFUSED, clock.clone()),
            clock,
        }
    }

    /// The verdict on `token`; `check` makes it, and says when the token ends.
    pub(super) async fn of<F>(&self, token: &str, check: F) -> Result<V, Failure>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let digest = crypto::hmac_sha256(&self.secret, token.as_bytes());
        if let Some(value) = self.accepted.get(&digest) {
            return Ok(value);
        }
        if let Some(rejection) = self.refused.get(&digest) {
            return Err(rejection.into());
        }
        let clock = self.clock.clone();
        let bounded = async move {
            let (value, ends_at) = check.await?;
            Ok((value, ends_at.min(clock.now() + ACCEPTED_FOR)))
        };
        let verdict = self.accepted.get_or_compute(digest, bounded).await;
        if let Err(Failure::Rejected(rejection)) = &verdict {
            let until = self.clock.now() + REFUSED_FOR;
            self.refused.insert(digest, rejection.clone(), until);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{agent::identity::RejectReason, clock::ManualClock};

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_entry_that_was_not_used_the_longest_makes_room() {
        let time = ManualClock::starting_at(1000);
        let cache = Cache::new(2, time.clock());
        let until = time.clock().now() + seconds(10);
        cache.insert("a", 1, until);
        cache.insert("b", 2, until);
        assert_eq!(cache.get(&"a"), Some(1));
        cache.insert("c", 3, until);
        assert_eq!(
            [cache.get(&"a"), cache.get(&"b"), cache.get(&"c")],
            [Some(1), None, Some(3)]
        );
        for index in 0..10_000 {
            cache.insert(["x", "y", "z"][index % 3], 0, until);
            cache.get(&"x");
        }
        let entries = lock(&cache.shared.entries);
        assert_eq!((entries.by_key.len(), entries.by_use.len()), (2, 2));
    }

    #[test]
    fn an_entry_ends_at_its_time_and_when_the_clock_is_set_back() {
        let time = ManualClock::starting_at(1000);
        let cache = Cache::new(2, time.clock());
        cache.insert("a", 1, time.clock().now() + seconds(10));
        time.advance(seconds(9));
        assert_eq!(cache.get(&"a"), Some(1));
        time.advance(seconds(1));
        assert_eq!(cache.get(&"a"), None);

        let cache = Cache::new(2, ManualClock::starting_at(500).clock());
        lock(&cache.shared.entries).insert(
            "a",
            1,
            time.clock().now(),
            time.clock().now() + seconds(10),
        );
        assert_eq!(cache.get(&"a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_share_one_computation_and_its_failure() {
        let time = ManualClock::starting_at(1000);
        let cache = Arc::new(Cache::<&str, usize>::new(4, time.clock()));
        let computed = Arc::new(AtomicUsize::new(0));
        let until = time.clock().now() + seconds(10);
        for (fails, expected) in [(true, 1), (false, 2)] {
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let (cache, computed) = (Arc::clone(&cache), Arc::clone(&computed));
                    tokio::spawn(async move {
                        cache
                            .get_or_compute("a", async move {
                                tokio::time::sleep(seconds(1)).await;
                                let count = computed.fetch_add(1, Ordering::SeqCst);
                                if fails {
                                    return Err(Rejection::new(RejectReason::Claims, "no").into());
                                }
                                Ok((count, until))
                            })
                            .await
                            .is_err()
                    })
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap(), fails);
            }
            assert_eq!(computed.load(Ordering::SeqCst), expected);
        }
        assert!(lock(&cache.shared.flights).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_computations_do_not_pile_up() {
        let cache = Cache::<usize, usize>::new(4, ManualClock::starting_at(1000).clock());
        for key in 0..FLIGHTS_BEFORE_CLEARING * 4 {
            let forever = cache.get_or_compute(key, std::future::pending());
            assert!(tokio::time::timeout(seconds(1), forever).await.is_err());
        }
        assert!(lock(&cache.shared.flights).len() <= FLIGHTS_BEFORE_CLEARING);
    }

    #[tokio::test]
    async fn r28_a_verdict_is_kept_for_a_minute_a_refusal_for_seconds() {
        let time = ManualClock::starting_at(1000);
        let verdicts = Verdicts::<u32>::new(time.clock());
        let end = time.clock().now() + seconds(3600);
        let good = |value: u32, end| async move { Ok((value, end)) };
        let bad = || async { Err(Rejection::new(RejectReason::Claims, "no").into()) };
        assert_eq!(verdicts.of("t", good(1, end)).await.unwrap(), 1);
        time.advance(ACCEPTED_FOR - seconds(1));
        assert_eq!(verdicts.of("t", good(2, end)).await.unwrap(), 1);
        time.advance(seconds(1));
        assert_eq!(verdicts.of("t", good(3, end)).await.unwrap(), 3);

        assert!(verdicts.of("u", bad()).await.is_err());
        assert!(verdicts.of("u", good(1, end)).await.is_err());
        time.advance(REFUSED_FOR);
        assert!(verdicts.of("u", good(1, end)).await.is_ok());

        // A token that ends sooner is forgotten then.
        let soon = time.clock().now() + seconds(3);
        assert_eq!(verdicts.of("v", good(1, soon)).await.unwrap(), 1);
        time.advance(seconds(3));
        assert!(verdicts.of("v", bad()).await.is_err());
    }
}
