//! [`Upload`]: a request's body on its way into an HTTP/2 stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use super::replay_body::ReplayBody;
use crate::agent::body::RequestBody;

/// Resolves when there is nothing more to send. Dropped before that, it resets the stream as soon as nobody holds
/// another part of it.
pub(super) struct Upload<B = RequestBody> {
    stream: SendStream<Bytes>,
    body: ReplayBody<B>,
    /// What was taken out of the body and waits for the server's window.
    waiting: Bytes,
    end: Option<End>,
}

/// Why there is nothing more to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Sent,
    /// The server wants no more, or the connection is gone: the response says which.
    Stopped,
    /// The caller's body broke off, and so the request did.
    CallerFailed,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(stream: SendStream<Bytes>, body: ReplayBody<B>) -> Self {
        Self {
            stream,
            body,
            waiting: Bytes::new(),
            end: None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn into_body(self) -> ReplayBody<B> {
        self.body
    }

    /// The response has begun: the body will not be needed again.
    pub(super) fn answered(&mut self) {
        self.body.forget();
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            // Also registers for a reset: it may come while the caller is silent.
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(End::Stopped);
            }
            if !self.waiting.is_empty() {
                match ready!(self.poll_send_waiting(cx)) {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.finish(Frame::data(Bytes::new()))),
                Some(Ok(frame)) if frame.is_trailers() => return Poll::Ready(self.finish(frame)),
                Some(Ok(frame)) => {
                    // Reserved only with the data in hand: what is reserved in advance is missing to other streams.
                    self.waiting = frame.into_data().unwrap_or_default();
                    self.stream.reserve_capacity(self.waiting.len());
                }
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(End::CallerFailed);
                }
            }
        }
    }

    /// Sends as much as the windows allow.
    fn poll_send_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(Some(End::Stopped));
            }
        }
        let length = self.stream.capacity().min(self.waiting.len());
        let piece = self.waiting.split_to(length);
        let sent = self.stream.send_data(piece, false);
        Poll::Ready(sent.is_err().then_some(End::Stopped))
    }

    fn finish(&mut self, last: Frame<Bytes>) -> End {
        let sent = match last.into_trailers() {
            Ok(trailers) => self.stream.send_trailers(trailers),
            Err(_) => self.stream.send_data(Bytes::new(), true),
        };
        match sent {
            Ok(()) => End::Sent,
            Err(_) => End::Stopped,
        }
    }
}

impl<B> Future for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let end = match self.end {
            Some(end) => end,
            None => ready!(self.poll_upload(cx)),
        };
        self.end = Some(end);
        Poll::Ready(end)
    }
}
