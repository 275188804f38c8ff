//! WebSocket framing (RFC 6455) for a relay: half-close, no gathering of messages, bounded memory.
//!
//! A general WebSocket library answers a Close by itself, after which the other direction is gone, and collects a
//! message before it hands it out. A relay needs the reverse of both: a Close is one direction's end only, and a
//! 32 MiB frame must pass through a few kilobytes of buffer.
//!
//! [`Decoder`](decoder::Decoder) and [`Encoder`](encoder::Encoder) do no I/O; [`WebSocket`] is a thin poll layer that
//! joins them to a byte stream. No extension is ever negotiated, so reserved bits are always an error.

mod close;
mod decoder;
mod encoder;
mod error;
mod frame;
pub(crate) mod handshake;
mod mask;
mod outbox;
mod stream;

#[cfg(test)]
mod tests;

pub(crate) use close::CloseReason;
pub(crate) use error::WebSocketError;
pub(crate) use stream::WebSocket;

use bytes::Bytes;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Dialled: masks what it sends and refuses masked input.
    Client,
    /// Was dialled: sends in the clear and refuses unmasked input.
    #[cfg_attr(
        not(any(test, feature = "relay-server")),
        expect(dead_code, reason = "only the embedded relay is dialled")
    )]
    Server,
}

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// Declared to be UTF-8; not checked here, see [`Event::Data`].
    Text,
    /// Any bytes.
    Binary,
}

/// Whether a piece ends its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageEnd {
    /// More of the same message follows.
    More,
    /// The message is complete with this piece.
    Last,
}

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of a message, as it came from the socket: the pieces of one message arrive in order, with nothing of
    /// another message between them, and only the last has [`MessageEnd::Last`] (it may be empty).
    ///
    /// Text is *not* validated as UTF-8: a piece may end inside a character, and a relay passes messages on
    /// "without interpretation"; whoever reads a text message as text checks it then.
    Data {
        /// The type of the whole message.
        kind: MessageKind,
        /// The unmasked bytes.
        payload: Bytes,
        /// Whether the message is complete.
        end: MessageEnd,
    },
    /// The peer will send no more data. Nothing is answered by itself, and sending goes on.
    Close(Option<CloseReason>),
    /// The peer asked for a sign of life, and the answer is on its way.
    Ping,
    /// A sign of life from the peer.
    Pong,
    /// The socket's read side ended. With no [`Event::Close`] before it the connection was lost.
    Ended,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outgoing<'a> {
    /// A piece of a message. Each becomes one frame.
    Data {
        /// The type of the whole message; read from the first piece only.
        kind: MessageKind,
        /// The bytes.
        payload: &'a [u8],
        /// Whether the message is complete.
        end: MessageEnd,
    },
    /// The end of this direction.
    Close(Option<&'a CloseReason>),
    /// A request for a sign of life; at most [`frame::MAX_CONTROL_PAYLOAD`] bytes are used.
    Ping(&'a [u8]),
    /// An unasked sign of life; at most [`frame::MAX_CONTROL_PAYLOAD`] bytes are used.
    Pong(&'a [u8]),
}
