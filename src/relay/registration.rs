//! The background task of a listener: one control channel with the relay, for ever.
//!
//! The relay cuts each channel after a day. So the listener replaces it before: the successor is registered first, then
//! the old channel is retired, and what the relay still announces on it is handled. No sender finds nobody. The same is
//! done when a token can not be renewed.

mod renewal;

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};
use uuid::Uuid;

use self::renewal::Renewal;
use super::{
    HybridConnection, IncomingConnection, ListenerState, RelayCredential, RelayGrant, RelayToken,
    control::{Accept, Assembled, Assembler, ControlMessage, not_implemented, renew_token},
    credential::Renewable,
    handshake::{Party, Upgrade},
    incoming::Dialler,
    keep_alive::{KeepAlive, Output, Verdict},
    listener::is_persistent,
    rendezvous::Rendezvous,
    status::StateBoard,
    websocket::{CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket},
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
    connector: Connector,
    hybrid_connection: HybridConnection,
    credential: RelayCredential,
    clock: WallClock,
    /// One for the life of the listener, so that its registrations are found in the relay's logs.
    id: Uuid,
    dialler: Arc<Dialler>,
    incoming: mpsc::Sender<IncomingConnection>,
    states: Arc<StateBoard>,
    /// Which of the listener's channels this is.
    channel: usize,
    stop: CancellationToken,
}

/// A control channel that stands, and the token that it stands by.
type Established = (WebSocket<NetStream>, RelayToken);

/// Channels whose successor stands.
type Retiring<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>;

impl Registration {
    pub(super) fn new(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
        clock: WallClock,
        incoming: mpsc::Sender<IncomingConnection>,
        (states, channel): (Arc<StateBoard>, usize),
        stop: CancellationToken,
    ) -> Self {
        Self {
            dialler: Arc::new(Dialler::new(connector.clone())),
            connector,
            hybrid_connection,
            credential,
            clock,
            id: Uuid::new_v4(),
            incoming,
            states,
            channel,
            stop,
        }
    }

    /// Runs until the listener stops it.
    pub(super) async fn run(self) {
        let span = info_span!(
            SPAN_RELAY_CONNECT,
            party = "listener",
            hybrid_connection = %self.hybrid_connection,
            id = %self.id
        );
        async {
            let mut backoff = Backoff::new(random_jitter);
            let mut retiring = Retiring::new();
            while let Some(retry_in) = self.register_once(&mut backoff, &mut retiring).await {
                if self
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
        retiring: &mut Retiring<'a>,
    ) -> Option<Duration> {
        self.set(ListenerState::Connecting);
        let mut lived = Duration::ZERO;
        let error = match self.stop.run_until_cancelled(self.connect()).await? {
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
        let retry_in = if lived.is_zero() && is_persistent(&error) {
            backoff.after_refusal()
        } else {
            backoff.after_loss(lived)
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
        self.states.set(self.channel, state);
    }

    /// Registers once more beside the channel that stands: when it is old, or at once when `wanted` says so. Does not
    /// end before it has succeeded.
    async fn successor(&self, wanted: &Notify) -> Established {
        // A listener with several channels must not lose them all in the same hour.
        let age = REPLACE_AFTER + REPLACE_SPREAD * u32::from(random_jitter()) / u32::from(u8::MAX);
        let _ = timeout(age, wanted.notified()).await;
        let mut backoff = Backoff::new(random_jitter);
        loop {
            match self.connect().await {
                Ok(established) => return established,
                Err(error) => {
                    let retry_in = match is_persistent(&error) {
                        true => backoff.after_refusal(),
                        false => backoff.after_failure(),
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

    /// Signs a replaced channel off, and handles what the relay announced before it took notice.
    async fn retire<T>(&self, mut socket: WebSocket<T>, mut messages: Assembler)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let reason = CloseReason::new(CloseReason::NORMAL, "");
        let farewell = async {
            socket.send(Outgoing::Close(Some(&reason))).await.ok()?;
            loop {
                let event = socket.next_event().await.ok()?;
                self.handle_event(&mut socket, &mut messages, event).ok()?;
            }
        };
        let _: Result<Option<Infallible>, _> = timeout(RETIRE_LIMIT, farewell).await;
    }

    async fn connect(&self) -> Result<Established> {
        let attempt = async {
            let grant = self.grant().await?;
            let endpoint = self.hybrid_connection.endpoint();
            let stream = self.connector.connect(endpoint, Alpn::Http1).await?;
            let target = self
                .hybrid_connection
                .request_target("listen", &self.id.to_string());
            let socket = Upgrade {
                party: Party::Listener,
                endpoint,
                target: &target,
                token: Some(grant.token()),
                headers: &HeaderMap::new(),
            }
            .perform(stream)
            .await
            .inspect_err(|error| {
                if error.is_unauthorized() {
                    // The next registration is to have another, if there is one.
                    let _ = self.credential.refused(&grant);
                }
            })?;
            Ok((socket, grant.token().clone()))
        };
        timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the relay did not register us for {} within {CONNECT_LIMIT:?}",
                    self.hybrid_connection
                ),
            ))
        })
    }

    /// The token is what counts: a listener stays where it was told to listen.
    async fn grant(&self) -> Result<RelayGrant> {
        let now = (self.clock)();
        self.credential.grant(&self.hybrid_connection, now).await
    }

    /// A newer token than the one that was shown, if there is one.
    async fn renewed_token(&self) -> Result<RelayToken> {
        let now = (self.clock)();
        let grant = self.credential.renewed(&self.hybrid_connection, now);
        Ok(grant.await?.token().clone())
    }

    /// Serves the control channel until it is lost (an error), its successor stands, or the listener stops.
    ///
    /// Nothing here waits but for the channel itself: a sender is handed on, or turned away in the background.
    async fn serve<T>(
        &self,
        mut socket: WebSocket<T>,
        token: RelayToken,
        retiring: &mut Retiring<'_>,
    ) -> Result<Ended<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let replacement_wanted = Notify::new();
        let mut successor = pin!(self.successor(&replacement_wanted));
        let mut keep_alive = KeepAlive::new(Instant::now());
        let mut renewal = Renewal::new(&token, Instant::now(), (self.clock)());
        let mut messages = Assembler::default();
        loop {
            tokio::select! {
                // Input before the keep-alive, which judges only what was not heard; the rest before input, so that
                // a flood of it delays nothing.
                biased;
                () = self.stop.cancelled() => {
                    let reason = CloseReason::new(CloseReason::NORMAL, "");
                    let close = socket.send(Outgoing::Close(Some(&reason)));
                    // Whether it arrives or not, the end of the socket says the same.
                    let _ = timeout(CLOSE_LIMIT / 2, close).await;
                    return Ok(Ended::Stopped);
                }
                successor = &mut successor => {
                    let replaced = Replaced { old: socket, messages, successor };
                    return Ok(Ended::Replaced(Box::new(replaced)));
                }
                Some(()) = retiring.next(), if !retiring.is_empty() => {}
                () = renewal.due() => {
                    if let Err(error) = self.renew(&mut socket, &mut renewal).await {
                        // The relay takes the channel away a while after the token's end, not now.
                        warn!(error = error.report(), "could not renew the token");
                        renewal.give_up();
                        replacement_wanted.notify_one();
                    }
                }
                event = socket.next_event() => {
                    keep_alive.handle_input(Instant::now());
                    self.handle_event(&mut socket, &mut messages, event?)?;
                }
                () = sleep_until(keep_alive.deadline()) => {
                    match keep_alive.poll_verdict(Instant::now(), Output::of(&socket)) {
                        Verdict::Wait => {}
                        Verdict::Ask => socket.start_ping(b""),
                        Verdict::Dead => return Err(Error::new(
                            ErrorKind::Timeout,
                            "the control channel to the relay is dead: it gave no sign of life",
                        )),
                    }
                }
            }
        }
    }

    fn handle_event<T>(
        &self,
        socket: &mut WebSocket<T>,
        messages: &mut Assembler,
        event: Event,
    ) -> Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        match event {
            Event::Data {
                kind: MessageKind::Text,
                payload,
                end,
            } => match messages.push(&payload, end) {
                Assembled::Partial => {}
                Assembled::Message(message) => self.handle_message(socket, &message),
                Assembled::TooLong => warn!("ignored an announcement of more than 64 KiB"),
            },
            // The body of an HTTP request, which is not served.
            Event::Data { .. } | Event::Ping | Event::Pong => {}
            Event::Close(reason) => return Err(closed(reason)),
            Event::Ended => {
                return Err(Error::new(
                    ErrorKind::Network,
                    "the control channel to the relay was lost",
                ));
            }
        }
        Ok(())
    }

    fn handle_message<T>(&self, socket: &mut WebSocket<T>, message: &[u8])
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        match ControlMessage::parse(message) {
            Ok(ControlMessage::Accept(accept)) => self.handle_accept(accept),
            Ok(ControlMessage::Request { id }) => {
                debug!(id, "refused an HTTP request");
                // While the channel takes nothing, a flood of requests must not fill memory with answers.
                if socket.is_drained() {
                    socket.start_send(text(&not_implemented(&id)));
                }
            }
            Ok(ControlMessage::Other) => debug!("ignored an unknown message from the relay"),
            // The parser's text may repeat a part of the message, which holds rendezvous ids.
            Err(error) => warn!(
                line = error.line(),
                column = error.column(),
                "ignored a malformed message from the relay"
            ),
        }
    }

    fn handle_accept(&self, accept: Accept) {
        let relay = self.hybrid_connection.endpoint();
        let rendezvous = match Rendezvous::check(&accept.address, relay) {
            Ok(rendezvous) => rendezvous,
            Err(reason) => {
                warn!(
                    id = accept.id,
                    reason, "ignored a sender at an unusable address"
                );
                return;
            }
        };
        let incoming = IncomingConnection::new(Arc::clone(&self.dialler), rendezvous, accept);
        if let Err(mpsc::error::TrySendError::Full(incoming)) = self.incoming.try_send(incoming) {
            warn!(id = incoming.id(), "rejected a sender: too many wait");
            incoming.reject_in_background(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many senders wait for the listener",
            );
        }
    }

    /// Gives the relay a newer token, if there is one.
    async fn renew<T>(&self, socket: &mut WebSocket<T>, renewal: &mut Renewal) -> Result<()>
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
            match self.credential.renewable() {
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
            *renewal = Renewal::new(&token, Instant::now(), (self.clock)());
        } else if !renewal.try_again(Instant::now()) {
            return Err(Error::new(
                ErrorKind::Timeout,
                "the control channel to the relay takes nothing: the token can not be renewed",
            ));
        }
        Ok(())
    }
}

/// How a control channel ends that was not lost.
enum Ended<T> {
    /// The listener ends the registration by its own will.
    Stopped,
    /// Another one stands.
    Replaced(Box<Replaced<T>>),
}

struct Replaced<T> {
    old: WebSocket<T>,
    /// What of a message has arrived on the old one.
    messages: Assembler,
    successor: Established,
}

fn closed(reason: Option<CloseReason>) -> Error {
    let text = match &reason {
        Some(CloseReason { code, reason }) => {
            let shown: String = reason.chars().filter(|c| !c.is_control()).collect();
            format!("{code} {shown}")
        }
        None => "no reason given".to_owned(),
    };
    let error = Error::new(
        ErrorKind::Closed,
        format!("the relay closed the control channel: {text}"),
    );
    match reason.map(|reason| reason.code) {
        Some(CloseReason::POLICY) => error.with_help("the token has expired or was refused"),
        _ => error,
    }
}

fn text(message: &str) -> Outgoing<'_> {
    Outgoing::Data {
        kind: MessageKind::Text,
        payload: message.as_bytes(),
        end: MessageEnd::Last,
    }
}

/// Senders that wait for the listener's owner. Twice what a burst of kubectl commands needs (each client has one or two
/// relay connections); a sender waits 30 s at most, so more would only wait in vain.
pub(super) const INCOMING_QUEUE: usize = 64;

/// How long a listener that ends waits for its last message to leave.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long a replaced channel is listened to. The relay takes notice within a round trip, and hands over what it has
/// begun to write within seconds.
const RETIRE_LIMIT: Duration = Duration::from_secs(10);

/// The relay cuts a control channel after 24 hours. Time is left for a relay that is out of reach for an hour or two.
const REPLACE_AFTER: Duration = Duration::from_secs(20 * 60 * 60);

/// Added by chance.
const REPLACE_SPREAD: Duration = Duration::from_secs(2 * 60 * 60);

/// A source that has to ask somebody holds up the channel meanwhile: senders wait. It should have fetched ahead.
const RENEWAL_FETCH_LIMIT: Duration = Duration::from_secs(5);

/// As Microsoft's clients have it for a listener.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
