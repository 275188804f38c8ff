//! [`RelayBody`]: what the relay answers with.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::mpsc;

use crate::relay::websocket::MessageEnd;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum RelayBody {
    /// Is in memory.
    Whole(Full<Bytes>),
    /// Comes from a listener, piece by piece.
    Piped(Pipe),
}

/// The reading end of a listener's long reply.
#[derive(Debug)]
pub(super) struct Pipe {
    pieces: mpsc::Receiver<Piece>,
    end: MessageEnd,
}

/// A part of a listener's long reply.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) payload: Bytes,
    pub(super) end: MessageEnd,
}

/// Pieces on their way to a sender; each is a block of a WebSocket's input at most. More would only be memory: TCP has
/// buffers of its own on both sides.
const PIECES: usize = 2;

impl RelayBody {
    pub(super) fn empty() -> Self {
        Self::Whole(Full::default())
    }

    /// A body, and the end where it is filled. A dropped end before [`MessageEnd::Last`] breaks the body off, so that
    /// a truncated body is never taken for a complete one.
    pub(super) fn piped() -> (mpsc::Sender<Piece>, Self) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let pipe = Pipe {
            pieces,
            end: MessageEnd::More,
        };
        (sender, Self::Piped(pipe))
    }
}

impl From<Bytes> for RelayBody {
    fn from(whole: Bytes) -> Self {
        Self::Whole(Full::new(whole))
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Piped(pipe) => pipe.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Piped(pipe) => pipe.end == MessageEnd::Last,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Piped(_) => SizeHint::default(),
        }
    }
}

impl Pipe {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.end == MessageEnd::Last {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => {
                self.end = piece.end;
                Ok(Frame::data(piece.payload))
            }
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the listener's reply broke off",
            )),
        }))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn only_the_last_piece_makes_a_body_complete() {
        let (sender, body) = RelayBody::piped();
        for end in [MessageEnd::More, MessageEnd::Last] {
            let payload = Bytes::from_static(b"ab");
            sender.send(Piece { payload, end }).await.unwrap();
        }
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abab");

        let (sender, body) = RelayBody::piped();
        let payload = Bytes::from_static(b"ab");
        let end = MessageEnd::More;
        sender.send(Piece { payload, end }).await.unwrap();
        drop(sender);
        let error = body.collect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
