//! [`Renewal`]: when, and how, the token of a control channel is renewed.

use std::{
    convert::Infallible,
    future::poll_fn,
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{Registration, channel::text};
use crate::{
    Error, ErrorKind, Result,
    relay::{RelayToken, control::renew_token, credential::Renewable, websocket::WebSocket},
};

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

impl Registration {
    /// Gives the relay a newer token, if there is one.
    pub(super) async fn renew<T>(
        &self,
        socket: &mut WebSocket<T>,
        renewal: &mut Renewal,
    ) -> Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let fetched = timeout(RENEWAL_FETCH_LIMIT, self.renewed_token()).await;
        let fetched = fetched.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("no new token for the relay within {RENEWAL_FETCH_LIMIT:?}"),
            ))
        });
        let token = match fetched {
            Ok(token) => token,
            Err(error) if renewal.try_again(Instant::now()) => {
                debug!(error = error.report(), "could not renew the token yet");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if token.expires_at() <= renewal.expires_at {
            match self.listening.credential.renewable() {
                // Whoever keeps it still holds it for good enough. Nothing is lost by asking again until it ends.
                Renewable::Yes => renewal.put_off(Instant::now()),
                // A finished token can not be renewed. The relay cuts the channel when it expires.
                Renewable::No => renewal.give_up(),
            }
            return Ok(());
        }
        let is_ready = poll_fn(|cx| Poll::Ready(socket.poll_ready(cx).is_ready())).await;
        if is_ready {
            socket.start_send(text(&renew_token(token.secret())));
            debug!("renewed the token");
            *renewal = Renewal::new(&token, Instant::now(), (self.listening.clock)());
        } else if !renewal.try_again(Instant::now()) {
            return Err(Error::new(
                ErrorKind::Timeout,
                "the control channel to the relay takes nothing: the token can not be renewed",
            ));
        }
        Ok(())
    }

    /// A newer token than the one that was shown, if there is one.
    async fn renewed_token(&self) -> Result<RelayToken> {
        let now = (self.listening.clock)();
        let grant = self
            .listening
            .credential
            .renewed(&self.listening.hybrid_connection, now);
        Ok(grant.await?.token().clone())
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

/// A source that has to ask somebody holds up the channel meanwhile: senders wait. It should have fetched ahead.
const RENEWAL_FETCH_LIMIT: Duration = Duration::from_secs(5);
