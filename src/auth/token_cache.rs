//! [`TokenCache`]: one token, fetched once for everybody, renewed before it ends.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use super::{AccessToken, Freshness};
use crate::{Error, ErrorKind, Result, clock::Clock};

/// A token with less than this left is not handed out: the request that carries it has a way to go.
const MIN_LEFT: Duration = Duration::from_secs(10);

/// How long before its end a token is renewed, in the background. For short-lived tokens a fifth of their life.
const MAX_REFRESH_AHEAD: Duration = Duration::from_secs(300);

/// How long after one background renewal the next may begin. Each can mean a process or a call to Entra ID, and a
/// source that caches may give the same token again for a while.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);

/// A token younger than this is not fetched again because a peer refused it: a peer that refuses everything must not
/// make us call the authority for each request.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// How long one fetch may take. `az` needs seconds to start, and a slow authority is tried again by its client.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Where the tokens come from.
#[async_trait]
pub(super) trait TokenSource: Send + Sync {
    async fn fetch(&self) -> Result<AccessToken, Failure>;
}

/// Why there is no token; given to everybody who waited for the same fetch.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) help: Cow<'static, str>,
    pub(super) status: Option<u16>,
}

/// Keeps one token of a [`TokenSource`].
///
/// Concurrent callers share one fetch and its outcome. A token that is valid is served while its renewal runs, and
/// goes on being served when the renewal fails.
pub(super) struct TokenCache {
    shared: Arc<Shared>,
}

struct Shared {
    source: Box<dyn TokenSource>,
    clock: Clock,
    state: Mutex<State>,
    /// How long before its end a token is renewed at most.
    max_refresh_ahead: Duration,
    /// Held during a fetch.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// How many fetches have ended. Tells a caller that waited whether one ended meanwhile.
    fetches: u64,
    /// Why the last fetch failed, if it did.
    failure: Option<Failure>,
    /// No background renewal before this time.
    pause_until: Option<SystemTime>,
}

struct Held {
    token: AccessToken,
    fetched_at: SystemTime,
}

impl TokenCache {
    pub(super) fn new(source: Box<dyn TokenSource>, clock: Clock) -> Self {
        Self::with_ahead(source, clock, MAX_REFRESH_AHEAD)
    }

    /// Renews at four fifths of a token's life however long that is, as kubelet does.
    pub(super) fn renewing_at_four_fifths(source: Box<dyn TokenSource>, clock: Clock) -> Self {
        Self::with_ahead(source, clock, Duration::MAX)
    }

    fn with_ahead(source: Box<dyn TokenSource>, clock: Clock, max_refresh_ahead: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                clock,
                max_refresh_ahead,
                state: Mutex::default(),
                fetching: Arc::default(),
            }),
        }
    }

    /// A valid token.
    ///
    /// Cancel-safe: when the caller that fetches goes away, the next one that waits fetches.
    pub(super) async fn token(&self, freshness: Freshness) -> Result<AccessToken> {
        let now = self.shared.clock.now();
        let fetches = {
            let state = self.shared.state();
            match &state.held {
                Some(held) if held.is_valid(now) && held.satisfies(freshness, now) => {
                    if held.should_be_renewed(now, self.shared.max_refresh_ahead)
                        && !state.is_pausing(now)
                    {
                        self.renew_in_background();
                    }
                    return Ok(held.token.clone());
                }
                _ => state.fetches,
            }
        };
        let guard = Arc::clone(&self.shared.fetching).lock_owned().await;
        if let Some(outcome) = self.shared.state().outcome_since(fetches) {
            return outcome;
        }
        self.shared.fetch(guard).await
    }

    fn renew_in_background(&self) {
        if let Ok(guard) = Arc::clone(&self.shared.fetching).try_lock_owned() {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                if let Err(error) = shared.fetch(guard).await {
                    tracing::warn!(
                        error = error.report(),
                        "can not renew the token; the present one stays in use until it ends"
                    );
                }
            });
        }
    }
}

impl Shared {
    async fn fetch(&self, _guard: OwnedMutexGuard<()>) -> Result<AccessToken> {
        let outcome = match tokio::time::timeout(FETCH_LIMIT, self.source.fetch()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure {
                kind: ErrorKind::Timeout,
                message: format!("no token within {FETCH_LIMIT:?}"),
                help: "check that login.microsoftonline.com can be reached, or log in again".into(),
                status: None,
            }),
        };
        let now = self.clock.now();
        let mut state = self.state();
        state.fetches = state.fetches.wrapping_add(1);
        state.pause_until = now.checked_add(REFRESH_PAUSE);
        match outcome {
            Ok(token) => {
                state.failure = None;
                state.held = Some(Held {
                    token: token.clone(),
                    fetched_at: now,
                });
                Ok(token)
            }
            Err(failure) => {
                let error = failure.to_error();
                state.failure = Some(failure);
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
    fn outcome_since(&self, fetches: u64) -> Option<Result<AccessToken>> {
        if self.fetches == fetches {
            return None;
        }
        match (&self.failure, &self.held) {
            (Some(failure), _) => Some(Err(failure.to_error())),
            (None, Some(held)) => Some(Ok(held.token.clone())),
            (None, None) => None,
        }
    }

    fn is_pausing(&self, now: SystemTime) -> bool {
        // The second condition: a clock that was set back must not pause for longer.
        self.pause_until
            .and_then(|end| end.duration_since(now).ok())
            .is_some_and(|left| !left.is_zero() && left <= REFRESH_PAUSE)
    }
}

impl Held {
    fn is_valid(&self, now: SystemTime) -> bool {
        match self.token.expires_at() {
            Some(end) => end.duration_since(now).is_ok_and(|left| left > MIN_LEFT),
            None => true,
        }
    }

    fn satisfies(&self, freshness: Freshness, now: SystemTime) -> bool {
        match freshness {
            Freshness::Cached => true,
            Freshness::Fresh => now
                .duration_since(self.fetched_at)
                .is_ok_and(|age| age < FRESH_FOR),
        }
    }

    fn should_be_renewed(&self, now: SystemTime, max_ahead: Duration) -> bool {
        let Some(end) = self.token.expires_at() else {
            return false;
        };
        let life = end.duration_since(self.fetched_at).unwrap_or_default();
        let ahead = (life / 5).min(max_ahead);
        end.duration_since(now).is_ok_and(|left| left <= ahead)
    }
}

impl Failure {
    /// What `error` and its causes say.
    pub(super) fn of(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.report(),
            help: error.help().unwrap_or_default().to_owned().into(),
            status: error.status(),
        }
    }

    fn to_error(&self) -> Error {
        let mut error = Error::new(self.kind, self.message.clone());
        if !self.help.is_empty() {
            error = error.with_help(self.help.clone());
        }
        match self.status {
            Some(status) => error.with_status(status),
            None => error,
        }
    }
}
