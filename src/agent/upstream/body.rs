//! [`UpstreamBody`]: the API server's answer, with what it holds on the way there.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{failure::truncated, http1, http2::Stream};
use crate::Error;

/// The API server's body. Dropped before its end it cancels the request: it closes the HTTP/1.1 connection, or resets
/// the HTTP/2 stream. An answer that breaks off is an error, never an end.
pub(in crate::agent) enum UpstreamBody {
    Http1(Http1Body),
    Http2(Http2Body),
}

pub(in crate::agent) struct Http1Body {
    body: Incoming,
    lease: Option<http1::Lease>,
}

pub(in crate::agent) struct Http2Body {
    receiver: RecvStream,
    /// Gone after the end.
    stream: Option<Stream>,
    /// What is still to come, where the server has said how much.
    remaining: Option<u64>,
}

impl UpstreamBody {
    pub(super) fn http1(body: Incoming, lease: http1::Lease) -> Self {
        Self::Http1(Http1Body {
            body,
            lease: Some(lease),
        })
    }

    pub(super) fn http2(receiver: RecvStream, headers: &HeaderMap, stream: Stream) -> Self {
        let ended = receiver.is_end_stream();
        Self::Http2(Http2Body {
            remaining: if ended {
                Some(0)
            } else {
                content_length(headers)
            },
            receiver,
            stream: (!ended).then_some(stream),
        })
    }
}

impl Http1Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
            }
            // A broken connection is dropped, not given back.
            Some(Err(_)) => drop(self.lease.take()),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(truncated)))
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        // A reader that knows the length does not ask for the end.
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Http2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.poll_received(cx));
        // Whatever is not data is the last of it.
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.stream = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(truncated)))
    }

    fn poll_received(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.stream.is_none() {
            return Poll::Ready(None);
        }
        match ready!(self.receiver.poll_data(cx)) {
            Some(Ok(chunk)) => {
                // The server may send as much again: it is only asked for when the caller has room.
                let released = self.receiver.flow_control().release_capacity(chunk.len());
                if let Some(remaining) = &mut self.remaining {
                    *remaining = remaining.saturating_sub(chunk.len() as u64);
                }
                Poll::Ready(Some(released.map(|()| Frame::data(chunk))))
            }
            // RST_STREAM, also with NO_ERROR or CANCEL: without the end of the stream the answer is not whole.
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(self.receiver.poll_trailers(cx));
                Poll::Ready(
                    trailers
                        .transpose()
                        .map(|trailers| trailers.map(Frame::trailers)),
                )
            }
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.body.is_end_stream(),
            Self::Http2(body) => body.stream.is_none() || body.receiver.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.body.size_hint(),
            Self::Http2(body) => body
                .remaining
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// h2 checks that the body has this length, and breaks off when it has not.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
