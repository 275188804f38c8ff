//! [`Carrier`]: one HTTP request over a socket that its listener has dialled.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    Refusal,
    body::{Piece, RelayBody},
    control::MAX_CONTROL_MESSAGE,
    farewell,
    forward::{RESPONSE_WINDOW, no_response},
    response_message::ResponseMessage,
};
use crate::relay::websocket::{
    CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket, WebSocketError,
};

/// Passes a request to its listener, unless that has it already, and the response back, both piece by piece and
/// independently of each other: a listener may answer before it has read all, and a sender that reads slowly holds up
/// the response only.
pub(super) struct Carrier<T> {
    socket: WebSocket<T>,
    /// Something was given to the socket and may not have left it.
    is_unsent: bool,
    upload: Upload,
    /// The response's message as far as it has come.
    text: Vec<u8>,
    /// Where the response's head goes; it has gone when this is empty.
    head: Option<oneshot::Sender<Head>>,
    /// Where the response's body goes.
    pipe: Option<mpsc::Sender<Piece>>,
    /// A piece that the sender has no room for yet. Nothing is read behind it.
    held: Option<Piece>,
    /// When the next progress must have been made.
    deadline: Instant,
}

/// A request's body, as far as it was not passed on.
#[derive(Debug)]
pub(super) enum Upload {
    Nothing,
    Whole(Bytes),
    Pieces(Incoming),
}

/// What the sender is answered.
pub(super) type Head = Result<(ResponseMessage, RelayBody), Refusal>;

enum Step {
    Event(Event),
    Flushed,
    /// A piece of the request's body; `None` is its end.
    Upload(Option<Result<Bytes, hyper::Error>>),
    /// A piece of the response's body went to the sender.
    Passed(MessageEnd),
    SenderLeft,
    Late,
}

enum Ending {
    /// The sender has all of the response.
    Complete,
    SenderLeft,
    /// The sender's body broke off. The listener must not take it for a whole one.
    UploadBroken,
    /// The listener's fault, and what the sender is told if it waits for the head.
    ListenerFailed(Refusal),
    Told(CloseReason),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier<T> {
    /// With the `request` message and its body, if the listener has come for them.
    pub(super) fn new(
        mut socket: WebSocket<T>,
        request: Option<(String, Upload)>,
        head: oneshot::Sender<Head>,
        deadline: Instant,
    ) -> Self {
        let is_unsent = request.is_some();
        let upload = request.map_or(Upload::Nothing, |(text, upload)| {
            socket.start_send(Outgoing::Data {
                kind: MessageKind::Text,
                payload: text.as_bytes(),
                end: MessageEnd::Last,
            });
            upload
        });
        Self {
            socket,
            is_unsent,
            upload,
            text: Vec::new(),
            head: Some(head),
            pipe: None,
            held: None,
            deadline,
        }
    }

    /// Serves it to its end, or to `end` with that reason.
    pub(super) async fn run(mut self, end: impl Future<Output = CloseReason>) {
        let ending = tokio::select! {
            ending = self.carry() => ending,
            reason = end => Ending::Told(reason),
        };
        // What is not complete is seen to be broken off by the dropped end.
        self.pipe = None;
        let (code, reason) = match ending {
            Ending::Complete => (1000, "NormalClosure"),
            Ending::SenderLeft => (CloseReason::GOING_AWAY, "The sender is gone"),
            Ending::Told(reason) => return farewell::close(&mut self.socket, Some(&reason)).await,
            Ending::UploadBroken => return,
            Ending::ListenerFailed(refusal) => {
                let text = refusal.text().to_owned();
                if let Some(head) = self.head.take() {
                    // The sender may have left meanwhile.
                    let _ = head.send(Err(refusal));
                }
                let reason = CloseReason::new(CloseReason::POLICY, text);
                return farewell::close(&mut self.socket, Some(&reason)).await;
            }
        };
        self.head = None;
        let reason = CloseReason::new(code, reason);
        farewell::close(&mut self.socket, Some(&reason)).await;
    }

    async fn carry(&mut self) -> Ending {
        loop {
            let Ok(step) = self.step().await else {
                return lost();
            };
            match step {
                Step::Event(event) => {
                    if let Some(ending) = self.handle(event) {
                        return ending;
                    }
                }
                Step::Flushed => {
                    self.is_unsent = false;
                    self.progressed();
                }
                Step::Upload(Some(Ok(payload))) => self.send(&payload, MessageEnd::More),
                Step::Upload(Some(Err(_))) => return Ending::UploadBroken,
                Step::Upload(None) => {
                    self.upload = Upload::Nothing;
                    self.send(b"", MessageEnd::Last);
                }
                Step::Passed(MessageEnd::More) => self.progressed(),
                Step::Passed(MessageEnd::Last) => return Ending::Complete,
                Step::SenderLeft => return Ending::SenderLeft,
                Step::Late => return Ending::ListenerFailed(self.who_is_late()),
            }
        }
    }

    /// Not biased: neither direction must keep the other waiting.
    async fn step(&mut self) -> Result<Step, WebSocketError> {
        let is_reading = self.held.is_none();
        let is_sending = self.is_unsent;
        let Self {
            socket,
            upload,
            held,
            head,
            pipe,
            deadline,
            ..
        } = self;
        let pipe = pipe.as_ref();
        let step = tokio::select! {
            step = socket_step(socket, is_sending, is_reading) => step?,
            piece = upload.next(), if !is_sending => Step::Upload(piece),
            room = room(pipe), if !is_reading => match (room, held.take()) {
                (Some(room), Some(piece)) => {
                    let end = piece.end;
                    room.send(piece);
                    Step::Passed(end)
                }
                _ => Step::SenderLeft,
            },
            () = sender_left(head, pipe) => Step::SenderLeft,
            () = sleep_until(*deadline), if is_reading => Step::Late,
        };
        Ok(step)
    }

    fn handle(&mut self, event: Event) -> Option<Ending> {
        let (kind, payload, end) = match event {
            Event::Data { kind, payload, end } => (kind, payload, end),
            Event::Ping | Event::Pong => return None,
            Event::Close(_) | Event::Ended => return Some(lost()),
        };
        self.progressed();
        match (kind, self.head.is_some()) {
            (MessageKind::Text, true) => {
                if self.text.len() + payload.len() > MAX_CONTROL_MESSAGE {
                    return Some(failed(
                        "The listener's response has a head that is too long",
                    ));
                }
                self.text.extend_from_slice(&payload);
                match end {
                    MessageEnd::More => None,
                    MessageEnd::Last => self.answer(),
                }
            }
            (MessageKind::Binary, false) => {
                if !payload.is_empty() || end == MessageEnd::Last {
                    self.held = Some(Piece { payload, end });
                }
                None
            }
            // An empty message that ends nothing is what Microsoft's client leaves behind replies without a body.
            (MessageKind::Binary, true) if payload.is_empty() => None,
            _ => Some(failed("The listener's response is not one")),
        }
    }

    /// The response's head is there.
    fn answer(&mut self) -> Option<Ending> {
        let text = std::mem::take(&mut self.text);
        // Something else, newer than we are.
        let message = ResponseMessage::parse(&text)?;
        let head = self.head.take()?;
        if !message.has_body() {
            // The sender may have left meanwhile; then this is the end as well.
            let _ = head.send(Ok((message, RelayBody::empty())));
            return Some(Ending::Complete);
        }
        let (pipe, body) = RelayBody::piped();
        if head.send(Ok((message, body))).is_err() {
            return Some(Ending::SenderLeft);
        }
        self.pipe = Some(pipe);
        None
    }

    fn send(&mut self, payload: &[u8], end: MessageEnd) {
        self.socket.start_send(Outgoing::Data {
            kind: MessageKind::Binary,
            payload,
            end,
        });
        self.is_unsent = true;
    }

    fn progressed(&mut self) {
        self.deadline = Instant::now() + RESPONSE_WINDOW;
    }

    fn who_is_late(&self) -> Refusal {
        match self.upload {
            Upload::Pieces(_) if !self.is_unsent => Refusal::late_body(),
            _ => no_response(),
        }
    }
}

impl Upload {
    /// The next piece; never, when there is nothing (any longer). Cancel safe.
    async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Whole(body) if body.is_empty() => None,
            Self::Whole(body) => Some(Ok(std::mem::take(body))),
            Self::Pieces(body) => loop {
                match body.frame().await? {
                    // Trailers have no place in the protocol.
                    Ok(frame) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Some(Ok(data)),
                        _ => {}
                    },
                    Err(error) => return Some(Err(error)),
                }
            },
        }
    }
}

fn failed(text: &'static str) -> Ending {
    Ending::ListenerFailed(Refusal::new(StatusCode::BAD_GATEWAY, text))
}

fn lost() -> Ending {
    failed("The listener closed its connection before it answered")
}

/// The socket's next progress, in the directions that are wanted. Cancel safe.
async fn socket_step<T: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocket<T>,
    is_sending: bool,
    is_reading: bool,
) -> Result<Step, WebSocketError> {
    poll_fn(|cx| {
        if is_sending && socket.poll_flush(cx)?.is_ready() {
            return Poll::Ready(Ok(Step::Flushed));
        }
        if is_reading {
            return socket.poll_event(cx).map_ok(Step::Event);
        }
        Poll::Pending
    })
    .await
}

/// Room for one piece; `None` when the sender has left.
async fn room(pipe: Option<&mpsc::Sender<Piece>>) -> Option<mpsc::Permit<'_, Piece>> {
    pipe?.reserve().await.ok()
}

async fn sender_left(head: &mut Option<oneshot::Sender<Head>>, pipe: Option<&mpsc::Sender<Piece>>) {
    match (head, pipe) {
        (Some(head), _) => head.closed().await,
        (None, Some(pipe)) => pipe.closed().await,
        (None, None) => {}
    }
}
