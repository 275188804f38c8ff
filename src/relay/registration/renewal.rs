//! [`Renewal`]: when the token of a control channel is renewed.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep_until};

use crate::relay::RelayToken;

/// When the token of a control channel is renewed.
pub(super) struct Renewal {
    pub(super) expires_at: Option<SystemTime>,
    pub(super) due_at: Option<Instant>,
    tries_left: u32,
}

impl Renewal {
    pub(super) fn new(token: &RelayToken, now: Instant, wall_clock: SystemTime) -> Self {
        let expires_at = token.expires_at();
        Self {
            expires_at,
            due_at: expires_at
                .map(|at| now + renewal_delay(at.duration_since(wall_clock).unwrap_or_default())),
            tries_left: RENEWAL_TRIES - 1,
        }
    }

    pub(super) async fn due(&self) {
        match self.due_at {
            Some(at) => sleep_until(at).await,
            None => {
                let never: Infallible = std::future::pending().await;
                match never {}
            }
        }
    }

    /// Puts the renewal off; `false` when it was put off often enough.
    pub(super) fn try_again(&mut self, now: Instant) -> bool {
        let may = self.tries_left > 0;
        self.tries_left = self.tries_left.saturating_sub(1);
        self.due_at = Some(now + RENEWAL_RETRY);
        may
    }

    /// Puts the renewal off, which does not count as a try.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.due_at = Some(now + RENEWAL_RETRY);
    }

    pub(super) fn give_up(&mut self) {
        self.due_at = None;
    }
}

/// After three quarters of the life that is left, and five minutes before its end at the latest.
pub(super) fn renewal_delay(life: Duration) -> Duration {
    let life = life.min(LONGEST_LIFE);
    let early = life * 3 / 4;
    match life.checked_sub(RENEWAL_MARGIN) {
        Some(latest) if !latest.is_zero() => early.min(latest),
        _ => early,
    }
    .max(RENEWAL_MIN_DELAY)
}

/// For clocks that differ: the relay goes by its own.
pub(super) const RENEWAL_MARGIN: Duration = Duration::from_secs(5 * 60);

/// A token without a real end has some number for one, with which no clock can be reckoned.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A token that is all but expired must not make a busy loop.
const RENEWAL_MIN_DELAY: Duration = Duration::from_secs(1);

/// Then the channel is replaced: a new one begins with a new token.
pub(super) const RENEWAL_TRIES: u32 = 3;

/// Three tries fit into [`RENEWAL_MARGIN`].
pub(super) const RENEWAL_RETRY: Duration = Duration::from_secs(30);
