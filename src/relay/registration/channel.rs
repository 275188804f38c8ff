//! One control channel of a listener, from its registration to its end.

use std::{convert::Infallible, pin::pin, sync::Arc};

use futures_util::StreamExt;
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
    time::{Duration, Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{CLOSE_LIMIT, Established, Registration, Retiring, renewal::Renewal};
use crate::{
    Error, ErrorKind, Result,
    relay::{
        IncomingConnection, RelayToken,
        control::{Accept, Assembled, Assembler, ControlMessage, not_implemented},
        keep_alive::{KeepAlive, Output, Verdict},
        rendezvous::Rendezvous,
        websocket::{CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket},
    },
};

/// How a control channel ends that was not lost.
pub(super) enum Ended<T> {
    /// The listener ends the registration by its own will.
    Stopped,
    /// Another one stands.
    Replaced(Box<Replaced<T>>),
}

pub(super) struct Replaced<T> {
    pub(super) old: WebSocket<T>,
    /// What of a message has arrived on the old one.
    pub(super) messages: Assembler,
    pub(super) successor: Established,
}

impl Registration {
    /// Serves the control channel until it is lost (an error), its successor stands, or the listener stops.
    ///
    /// Nothing here waits but for the channel itself: a sender is handed on, or turned away in the background.
    pub(super) async fn serve<T>(
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
        let mut renewal = Renewal::new(&token, Instant::now(), (self.listening.clock)());
        let mut messages = Assembler::default();
        loop {
            tokio::select! {
                // Input before the keep-alive, which judges only what was not heard; the rest before input, so that
                // a flood of it delays nothing.
                biased;
                () = self.listening.stop.cancelled() => {
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
        let relay = self.listening.hybrid_connection.endpoint();
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
        let incoming =
            IncomingConnection::new(Arc::clone(&self.listening.dialler), rendezvous, accept);
        if let Err(mpsc::error::TrySendError::Full(incoming)) =
            self.listening.incoming.try_send(incoming)
        {
            warn!(id = incoming.id(), "rejected a sender: too many wait");
            incoming.reject_in_background(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many senders wait for the listener",
            );
        }
    }

    /// Signs a replaced channel off, and handles what the relay announced before it took notice.
    pub(super) async fn retire<T>(&self, mut socket: WebSocket<T>, mut messages: Assembler)
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

pub(super) fn text(message: &str) -> Outgoing<'_> {
    Outgoing::Data {
        kind: MessageKind::Text,
        payload: message.as_bytes(),
        end: MessageEnd::Last,
    }
}

/// How long a replaced channel is listened to. The relay takes notice within a round trip, and hands over what it has
/// begun to write within seconds.
const RETIRE_LIMIT: Duration = Duration::from_secs(10);
