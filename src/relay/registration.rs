//! The background task of a listener: one control channel with the relay, for ever.
//!
//! The relay cuts each channel after a day. So the listener replaces it before: the successor is registered first, then
//! the old channel is retired, and what the relay still announces on it is handled. No sender finds nobody. The same is
//! done when a token can not be renewed.

mod absence;
mod channel;
mod renewal;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::stream::FuturesUnordered;
use http::HeaderMap;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};
use uuid::Uuid;

use self::{
    absence::Absence,
    channel::{Ended, Replaced},
};
use super::{
    HybridConnection, IncomingConnection, ListenerOptions, ListenerState, RelayCredential,
    RelayGrant, RelayToken,
    handshake::{Party, Upgrade},
    incoming::Dialler,
    status::StateBoard,
    websocket::WebSocket,
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Backoff, Connector, NetStream, random_jitter},
    telemetry::SPAN_RELAY_CONNECT,
};

/// What tokens are made by. Passed in, so that a test's token ages with its virtual time.
pub(super) type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Keeps one control channel of a listener, for ever.
pub(super) struct Registration {
    listening: Listening,
    /// Which of the listener's channels this is.
    channel: usize,
    /// One for the life of the listener, so that its registrations are found in the relay's logs.
    id: Uuid,
}

/// What all control channels of a listener share.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) connector: Connector,
    pub(super) hybrid_connection: HybridConnection,
    pub(super) credential: RelayCredential,
    pub(super) options: ListenerOptions,
    pub(super) clock: WallClock,
    pub(super) dialler: Arc<Dialler>,
    pub(super) incoming: mpsc::Sender<IncomingConnection>,
    pub(super) states: Arc<StateBoard>,
    pub(super) stop: CancellationToken,
}

/// A control channel that stands, and the token that it stands by.
type Established = (WebSocket<NetStream>, RelayToken);

/// Channels whose successor stands.
type Retiring<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>;

impl Registration {
    pub(super) fn new(listening: Listening, channel: usize) -> Self {
        Self {
            listening,
            channel,
            id: Uuid::new_v4(),
        }
    }

    /// Runs until the listener stops it.
    pub(super) async fn run(self) {
        let span = info_span!(
            SPAN_RELAY_CONNECT,
            party = "listener",
            hybrid_connection = %self.listening.hybrid_connection,
            id = %self.id
        );
        async {
            let mut backoff = Backoff::new(random_jitter);
            let mut absence = Absence::new(self.listening.options.patience);
            let mut retiring = Retiring::new();
            while let Some(retry_in) = self
                .register_once(&mut backoff, &mut absence, &mut retiring)
                .await
            {
                if self
                    .listening
                    .stop
                    .run_until_cancelled(sleep(retry_in))
                    .await
                    .is_none()
                {
                    break;
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// One registration with its successors, from dial to loss, and how long to wait after it; `None` when the listener
    /// stops.
    async fn register_once<'a>(
        &'a self,
        backoff: &mut Backoff,
        absence: &mut Absence,
        retiring: &mut Retiring<'a>,
    ) -> Option<Duration> {
        self.set(ListenerState::Connecting);
        let mut lived = Duration::ZERO;
        let error = match self
            .listening
            .stop
            .run_until_cancelled(self.connect(absence))
            .await?
        {
            Ok(mut established) => {
                info!("registered with the relay");
                self.set(ListenerState::Online);
                loop {
                    let since = Instant::now();
                    let (socket, token) = established;
                    let ended = self.serve(socket, token, retiring).await;
                    lived = since.elapsed();
                    match ended {
                        Ok(Ended::Stopped) => return None,
                        Ok(Ended::Replaced(replaced)) => {
                            let Replaced {
                                old,
                                messages,
                                successor,
                            } = *replaced;
                            info!("replaced the registration with the relay");
                            retiring.push(Box::pin(self.retire(old, messages)));
                            established = successor;
                        }
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        // What ended a registration that stood is no reason to believe that the next can not.
        let retry_in = if lived.is_zero() && !error.is_retryable() {
            backoff.after_refusal()
        } else {
            absence.at_most(backoff.after_loss(lived), Instant::now())
        };
        warn!(
            error = error.report(),
            help = error.help(),
            ?retry_in,
            "not registered with the relay"
        );
        self.set(ListenerState::Waiting {
            retry_in,
            reason: Arc::new(error),
        });
        Some(retry_in)
    }

    fn set(&self, state: ListenerState) {
        self.listening.states.set(self.channel, state);
    }

    /// Registers once more beside the channel that stands: when it is old, or at once when `wanted` says so. Does not
    /// end before it has succeeded.
    async fn successor(&self, wanted: &Notify) -> Established {
        // A listener with several channels must not lose them all in the same hour.
        let age = REPLACE_AFTER + REPLACE_SPREAD * u32::from(random_jitter()) / u32::from(u8::MAX);
        let _ = timeout(age, wanted.notified()).await;
        let mut backoff = Backoff::new(random_jitter);
        let mut absence = Absence::new(self.listening.options.patience);
        loop {
            match self.connect(&mut absence).await {
                Ok(established) => return established,
                Err(error) => {
                    let retry_in = match error.is_retryable() {
                        true => backoff.after_failure(),
                        false => backoff.after_refusal(),
                    };
                    debug!(
                        error = error.report(),
                        ?retry_in,
                        "could not replace the registration yet"
                    );
                    sleep(retry_in).await;
                }
            }
        }
    }

    async fn connect(&self, absence: &mut Absence) -> Result<Established> {
        let Listening {
            connector,
            hybrid_connection,
            credential,
            options,
            ..
        } = &self.listening;
        let attempt = async {
            let grant = self.grant().await?;
            let endpoint = hybrid_connection.endpoint();
            let stream = connector.connect(endpoint, Alpn::Http1).await?;
            let target = hybrid_connection.request_target("listen", &self.id.to_string());
            let socket = Upgrade {
                party: Party::Listener,
                endpoint,
                target: &target,
                token: Some(grant.token()),
                token_place: options.token_place,
                headers: &HeaderMap::new(),
            }
            .perform(stream)
            .await
            .map_err(|error| {
                if error.is_unauthorized() {
                    // The next registration is to have another, if there is one.
                    let _ = credential.refused(&grant);
                }
                absence.judge(error, hybrid_connection, Instant::now())
            })?;
            absence.is_over();
            Ok((socket, grant.token().clone()))
        };
        timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the relay did not register us for {hybrid_connection} within {CONNECT_LIMIT:?}"
                ),
            ))
        })
    }

    /// The token is what counts: a listener stays where it was told to listen.
    async fn grant(&self) -> Result<RelayGrant> {
        let Listening {
            hybrid_connection,
            credential,
            clock,
            ..
        } = &self.listening;
        credential.grant(hybrid_connection, clock()).await
    }
}

/// Senders that wait for the listener's owner. Twice what a burst of kubectl commands needs (each client has one or two
/// relay connections); a sender waits 30 s at most, so more would only wait in vain.
pub(super) const INCOMING_QUEUE: usize = 64;

/// How long a listener that ends waits for its last message to leave.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// The relay cuts a control channel after 24 hours. Time is left for a relay that is out of reach for an hour or two.
const REPLACE_AFTER: Duration = Duration::from_secs(20 * 60 * 60);

/// Added by chance.
const REPLACE_SPREAD: Duration = Duration::from_secs(2 * 60 * 60);

/// As Microsoft's clients have it for a listener.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
