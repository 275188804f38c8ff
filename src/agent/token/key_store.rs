//! [`KeyStore`]: an issuer's keys, read once for everybody, renewed before they are old, kept when that fails.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::{
    allowance::Allowance,
    jwt::SignatureAlgorithm,
    keys::KeySet,
    rejection::{Failure, Outage, Rejection},
};
use crate::{
    ErrorKind, Result,
    agent::identity::{RefreshCounts, Refreshes, RejectReason},
    crypto,
};

/// When keys are read again, at the latest: a key that the issuer withdrew is not trusted for longer. Microsoft asks
/// for once a day at least.
const REFRESH_AFTER: Duration = Duration::from_secs(60 * 60);
/// By how much of it, at most, that is earlier: so that many agents do not ask at the same time.
const REFRESH_JITTER: Duration = Duration::from_secs(15 * 60);
/// When a failed renewal is tried again while the keys that are held still do.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// After that long without an answer from the issuer its keys are not trusted any more: three days, a long weekend.
const MAX_AGE: Duration = Duration::from_secs(72 * 60 * 60);
/// How many reads for the sake of unknown keys may follow each other at once, so that a new key is seen as soon as it is
/// used, also right after another reading: one for a rotation that the first reading just missed, one for the next.
const UNKNOWN_KEY_BURST: u32 = 3;
/// From then on, the time between two of them: anybody can make up a key's name.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// The least time between two reads when the last one failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Where the keys come from.
#[async_trait]
pub(super) trait KeySource: Send + Sync {
    async fn fetch(&self) -> Result<KeySet>;
}

/// Keeps the keys of one [`KeySource`].
pub(super) struct KeyStore {
    shared: Arc<Shared>,
}

struct Shared {
    source: Box<dyn KeySource>,
    state: Mutex<State>,
    refreshes: Refreshes,
    /// Held during a fetch.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    held: Option<Held>,
    /// The last fetch that ended: when, and why it failed if it did.
    last: Option<(Instant, Option<Outage>)>,
    /// How many fetches have begun. Tells who waited whether one began, and so saw what there was, after they came.
    begun: u64,
    /// The fetches for the sake of unknown keys.
    unknown: Allowance,
}

struct Held {
    keys: Arc<KeySet>,
    fetched_at: Instant,
    refresh_at: Instant,
}

impl KeyStore {
    pub(super) fn new(source: Box<dyn KeySource>) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                state: Mutex::new(State {
                    held: None,
                    last: None,
                    begun: 0,
                    unknown: Allowance::new(UNKNOWN_KEY_BURST, UNKNOWN_KEY_PAUSE),
                }),
                refreshes: Refreshes::default(),
                fetching: Arc::default(),
            }),
        }
    }

    /// Reads the keys, unless they are held.
    pub(super) async fn preload(&self) -> Result<()> {
        let guard = Arc::clone(&self.shared.fetching).lock_owned().await;
        if self.shared.state().usable(Instant::now()).is_some() {
            return Ok(());
        }
        self.shared.fetch(guard).await
    }

    /// A set with at least one key that has this id and fits this algorithm.
    ///
    /// An unknown id makes the store read the keys again: once for all who ask at the same time, at most
    /// [`UNKNOWN_KEY_BURST`] times in a row, and then every [`UNKNOWN_KEY_PAUSE`].
    ///
    /// Cancel-safe: a fetch goes on when the caller that began it goes away.
    pub(super) async fn keys_for(
        &self,
        id: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<KeySet>, Failure> {
        let has_key = |held: &&Held| !held.keys.candidates(id, algorithm).is_empty();
        let begun = {
            let state = self.shared.state();
            let now = Instant::now();
            if let Some(held) = state.usable(now).filter(has_key) {
                if now >= held.refresh_at {
                    self.renew_in_background();
                }
                return Ok(Arc::clone(&held.keys));
            }
            state.begun
        };
        let guard = Arc::clone(&self.shared.fetching).lock_owned().await;
        let must_fetch = {
            let mut state = self.shared.state();
            let now = Instant::now();
            // Somebody else's fetch may have brought the key. If it did not, and began before this caller came, then it
            // may have missed a key that is newer than its answer.
            state.usable(now).filter(has_key).is_none()
                && state.begun == begun
                && state.may_fetch(now)
        };
        if must_fetch {
            let shared = Arc::clone(&self.shared);
            // In a task of its own: a caller who leaves must not cost the others the answer and the next attempt.
            let task = tokio::spawn(async move { shared.fetch(guard).await });
            // A failure is in the state; a task that was cancelled means that the runtime ends.
            let _ = task.await;
        } else {
            drop(guard);
        }
        let state = self.shared.state();
        match state.usable(Instant::now()).filter(has_key) {
            Some(held) => Ok(Arc::clone(&held.keys)),
            None => Err(state.verdict()),
        }
    }

    /// How often the keys were read.
    pub(super) fn refreshes(&self) -> RefreshCounts {
        self.shared.refreshes.counts()
    }

    fn renew_in_background(&self) {
        if let Ok(guard) = Arc::clone(&self.shared.fetching).try_lock_owned() {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                // Logged by the fetch; the keys that are held stay in use.
                let _ = shared.fetch(guard).await;
            });
        }
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}

impl Shared {
    async fn fetch(&self, _guard: OwnedMutexGuard<()>) -> Result<()> {
        {
            let mut state = self.state();
            state.begun = state.begun.wrapping_add(1);
        }
        let outcome = self.source.fetch().await;
        let now = Instant::now();
        let mut state = self.state();
        match outcome {
            Ok(keys) => {
                self.refreshes.succeeded();
                state.held = Some(Held {
                    keys: Arc::new(keys),
                    fetched_at: now,
                    refresh_at: now + REFRESH_AFTER - jitter(),
                });
                state.last = Some((now, None));
                Ok(())
            }
            Err(error) => {
                self.refreshes.failed();
                tracing::warn!(
                    error = error.report(),
                    "can not read an issuer's keys; those that are held stay in use"
                );
                if let Some(held) = &mut state.held {
                    held.refresh_at = now + RETRY_AFTER;
                }
                let outage = Outage::new(
                    error.kind(),
                    error.report(),
                    "check that the agent can reach the issuer, and its trust roots",
                );
                state.last = Some((now, Some(outage)));
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usable(&self, now: Instant) -> Option<&Held> {
        self.held
            .as_ref()
            .filter(|held| now.duration_since(held.fetched_at) < MAX_AGE)
    }

    /// Whether the keys may be read now for somebody whose key is not there. Takes a permit where one is needed.
    fn may_fetch(&mut self, now: Instant) -> bool {
        if let Some((at, Some(_))) = &self.last
            && now.duration_since(*at) < FAILURE_PAUSE
        {
            return false;
        }
        // Without any keys every caller needs them, and nobody has made the need up.
        self.usable(now).is_none() || self.unknown.take(now)
    }

    /// What becomes of a token whose key is not there.
    fn verdict(&self) -> Failure {
        match &self.last {
            Some((_, None)) => Rejection::new(
                RejectReason::Signature,
                "the issuer has no key of this `kid` and algorithm",
            )
            .into(),
            // The key may exist: the issuer could not be asked.
            Some((_, Some(outage))) => outage.clone().into(),
            None => Outage::new(
                ErrorKind::Other,
                "the issuer's keys were not read",
                "restart the agent",
            )
            .into(),
        }
    }
}

fn jitter() -> Duration {
    let random = u32::from_be_bytes(crypto::random());
    REFRESH_JITTER.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
