//! [`ControlChannel`]: the long-lived WebSocket of one listener.

use std::{
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    Rights, dispatch::Dispatch, entity::Registration, farewell, liveness::Pulse,
    response_message::ResponseMessage, service::Relay, token::Claim,
};
use crate::relay::websocket::{
    CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket, WebSocketError,
};

/// A listener's control channel: tells it of senders, takes its renewed tokens, and ends with its token.
///
/// The listener is offered to senders as long as this lives.
pub(super) struct ControlChannel<T> {
    pub(super) relay: Arc<Relay>,
    pub(super) registration: Registration,
    pub(super) socket: WebSocket<T>,
    pub(super) dispatches: mpsc::Receiver<Dispatch>,
    /// The host that the listener's tokens must name.
    pub(super) host: String,
    pub(super) token_expires_at: SystemTime,
    /// A response whose body comes next.
    pub(super) begun: Option<ResponseMessage>,
}

/// The longest message of a listener, in each of its kinds: a renewed token, the head of a response, and a response's
/// body, which has another way when it is longer. Microsoft's own buffers for control messages have this size.
pub(super) const MAX_CONTROL_MESSAGE: usize = 64 * 1024;

/// The wall clock may jump, so it is looked at at least this often.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(600);

/// Why a control channel ends.
enum Ending {
    /// The listener closed it, or was told to go by this reason.
    Close(Option<CloseReason>),
    Lost,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ControlChannel<T> {
    /// Serves the channel to its end.
    pub(super) async fn run(mut self) {
        let ending = self.serve().await;
        // No sender must be sent here any more, whatever the farewell takes.
        self.break_off();
        drop(self.registration);
        match ending {
            Ok(Ending::Close(reason)) => {
                farewell::close(&mut self.socket, reason.as_ref()).await;
            }
            Ok(Ending::Lost) => {}
            Err(error) => {
                if let Some(code) = error.close_code() {
                    let reason = CloseReason::new(code, error.to_string());
                    farewell::close(&mut self.socket, Some(&reason)).await;
                }
            }
        }
    }

    async fn serve(&mut self) -> Result<Ending, WebSocketError> {
        let relay = Arc::clone(&self.relay);
        let mut liveness = relay.emulation.control_liveness();
        let period = liveness.period();
        let mut tick = interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expiry = pin!(sleep(self.until_expiry()));
        let recycle = self.registration.listener().recycle.clone();
        let mut old_age = pin!(async {
            match relay.recycle_after {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        });
        let mut message = Vec::new();
        let mut outgoing = Flush::Done;
        loop {
            // Not biased: a listener that talks without end must not keep senders from it.
            tokio::select! {
                reason = self.registration.entity().end(&relay.shutdown) => {
                    return Ok(Ending::Close(Some(reason)));
                }
                () = recycle.cancelled() => return Ok(recycled()),
                () = &mut old_age => return Ok(recycled()),
                step = step(&mut self.socket, &outgoing) => match step? {
                    Step::Flushed => outgoing.done(),
                    Step::Event(event) => {
                        liveness.heard();
                        match event {
                            Event::Data { kind, payload, end } => {
                                if message.len() + payload.len() > MAX_CONTROL_MESSAGE {
                                    return Ok(close(1009, "The control message is too long"));
                                }
                                message.extend_from_slice(&payload);
                                if end == MessageEnd::Last {
                                    let message = std::mem::take(&mut message);
                                    if let Some(ending) = self.handle(kind, message) {
                                        return Ok(ending);
                                    }
                                    expiry.as_mut().reset(Instant::now() + self.until_expiry());
                                }
                            }
                            Event::Close(reason) => return Ok(Ending::Close(reason)),
                            Event::Ping | Event::Pong => {}
                            Event::Ended => return Ok(Ending::Lost),
                        }
                    }
                },
                // One at a time: what waits here can still be withdrawn and given to another listener.
                Some(dispatch) = self.dispatches.recv(), if matches!(outgoing, Flush::Done) => {
                    liveness.said();
                    self.socket.start_send(Outgoing::Data {
                        kind: MessageKind::Text,
                        payload: dispatch.message.as_bytes(),
                        end: MessageEnd::Last,
                    });
                    if let Some(body) = dispatch.body {
                        self.socket.start_send(Outgoing::Data {
                            kind: MessageKind::Binary,
                            payload: &body,
                            end: MessageEnd::Last,
                        });
                    }
                    outgoing = Flush::Needed(Some(dispatch.written));
                }
                _ = tick.tick() => match liveness.tick() {
                    Pulse::Fine => {}
                    Pulse::Ping => {
                        self.socket.start_ping(b"");
                        outgoing.needed();
                    }
                    Pulse::Dead => return Ok(Ending::Lost),
                    // Without a Close, as on Azure.
                    Pulse::Idle => return Ok(Ending::Lost),
                },
                () = &mut expiry => {
                    if self.until_expiry().is_zero() {
                        return Ok(close(CloseReason::POLICY, "ExpiredToken: The token is expired"));
                    }
                    expiry.as_mut().reset(Instant::now() + self.until_expiry());
                }
            }
        }
    }

    /// Handles a message. What is not understood is ignored: the protocol grows by new members.
    fn handle(&mut self, kind: MessageKind, message: Vec<u8>) -> Option<Ending> {
        match kind {
            MessageKind::Binary => {
                // Microsoft's client sends an empty one behind a response that has none.
                if let Some(response) = self.begun.take() {
                    let exchanges = self.registration.entity().exchanges();
                    exchanges.complete(response, message.into());
                }
                None
            }
            MessageKind::Text => {
                self.break_off();
                if let Some(response) = ResponseMessage::parse(&message) {
                    if response.has_body() {
                        self.begun = Some(response);
                    } else {
                        let exchanges = self.registration.entity().exchanges();
                        exchanges.complete(response, Bytes::new());
                    }
                    return None;
                }
                self.renew(&message)
            }
        }
    }

    /// The body that was announced does not come.
    fn break_off(&mut self) {
        if let Some(response) = self.begun.take() {
            self.registration.entity().exchanges().fail(&response);
        }
    }

    fn renew(&mut self, message: &[u8]) -> Option<Ending> {
        let parsed = serde_json::from_slice::<ListenerMessage>(message).ok();
        let entity = self.registration.entity().path();
        let listener = &self.registration.listener().id;
        let Some(renewal) = parsed.and_then(|message| message.renew_token) else {
            tracing::debug!(entity, listener, "ignored a control message");
            return None;
        };
        let claim = Claim {
            host: &self.host,
            path: entity,
            rights: Rights::LISTEN,
            now: self.relay.now(),
        };
        match self.relay.rules.check(Some(&renewal.token), &claim) {
            Ok(expires_at) => {
                tracing::debug!(entity, listener, "a listener renewed its token");
                self.token_expires_at = expires_at;
                None
            }
            Err(refusal) => {
                tracing::info!(entity, listener, "a listener's renewed token is refused");
                Some(close(CloseReason::POLICY, refusal.text()))
            }
        }
    }

    fn until_expiry(&self) -> Duration {
        let end = self.token_expires_at.checked_add(self.relay.expiry_grace);
        end.map_or(LOOK_AT_CLOCK, |end| {
            end.duration_since(self.relay.now())
                .unwrap_or_default()
                .min(LOOK_AT_CLOCK)
        })
    }
}

/// What the live service says when it moves an endpoint.
fn recycled() -> Ending {
    close(
        CloseReason::SERVICE_ERROR,
        "InternalServerError: NameRenewalFailed",
    )
}

fn close(code: u16, reason: impl Into<String>) -> Ending {
    Ending::Close(Some(CloseReason::new(code, reason)))
}

/// What a listener may send, beside responses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListenerMessage {
    renew_token: Option<RenewToken>,
}

#[derive(Deserialize)]
struct RenewToken {
    token: String,
}

/// Whether something is unsent, and who waits for it.
enum Flush {
    Done,
    Needed(Option<oneshot::Sender<()>>),
}

impl Flush {
    fn needed(&mut self) {
        if matches!(self, Self::Done) {
            *self = Self::Needed(None);
        }
    }

    fn done(&mut self) {
        if let Self::Needed(Some(written)) = std::mem::replace(self, Self::Done) {
            // The sender may have given up.
            let _ = written.send(());
        }
    }
}

enum Step {
    Event(Event),
    Flushed,
}

/// The socket's next progress, in either direction. Cancel safe.
async fn step<T: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocket<T>,
    outgoing: &Flush,
) -> Result<Step, WebSocketError> {
    std::future::poll_fn(|cx| {
        if matches!(outgoing, Flush::Needed(_)) && socket.poll_flush(cx)?.is_ready() {
            return Poll::Ready(Ok(Step::Flushed));
        }
        socket.poll_event(cx).map_ok(Step::Event)
    })
    .await
}
