//! The bodies on their way through: streamed, never gathered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

pub(super) use super::upstream::UpstreamBody;

use super::{
    metrics::Direction,
    record::{RequestRecord, Traffic},
    request_headers,
    stall::StallClock,
    upstream::{ConnectionTask, truncated},
};
use crate::Error;

/// A body on its way to the API server.
pub(super) enum RequestBody {
    Empty,
    /// Of a question of the agent's own.
    Whole(Bytes),
    /// A caller's, and what is counted of it.
    Caller(Incoming, Option<Counted>),
}

/// What is counted of an upload: bytes, and the time that they wait for the API server.
pub(super) struct Counted {
    traffic: Arc<Traffic>,
    clock: StallClock,
}

impl RequestBody {
    pub(super) fn new(body: Incoming) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Caller(body, None)
        }
    }

    pub(super) fn counted(self, traffic: &Arc<Traffic>) -> Self {
        match self {
            Self::Caller(body, _) => Self::Caller(
                body,
                Some(Counted {
                    traffic: Arc::clone(traffic),
                    clock: traffic.stall_clock(),
                }),
            ),
            other => other,
        }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Whole(bytes)
        }
    }

    pub(super) fn empty() -> Self {
        Self::Empty
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (body, counted) = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Self::Caller(body, counted) => (body, counted),
        };
        if let Some(counted) = counted {
            counted.clock.piece_wanted();
        }
        let mut frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            if let (Some(data), Some(counted)) = (frame.data_ref(), counted) {
                counted.traffic.add(Direction::ToApiServer, data.len());
                counted.clock.piece_taken();
            }
            if let Some(trailers) = frame.trailers_mut() {
                request_headers::clean_trailers(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(_) => false,
            Self::Caller(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Caller(body, _) => body.size_hint(),
        }
    }
}

/// What the caller gets: the API server's body, or a `Status` of our own.
pub(super) struct ResponseBody {
    content: Content,
    // Dropped with the body: the request is over then, and its places in the limits are free.
    record: Option<Box<RequestRecord>>,
}

enum Content {
    Whole(Option<Bytes>),
    Upstream(UpstreamBody),
    /// Of a refused upgrade, with its connection, which is not used again.
    Last(
        Incoming,
        #[expect(dead_code, reason = "held for its drop")] ConnectionTask,
    ),
}

impl ResponseBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::of(Content::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    pub(super) fn upstream(body: UpstreamBody) -> Self {
        Self::of(Content::Upstream(body))
    }

    pub(super) fn last(body: Incoming, connection: ConnectionTask) -> Self {
        Self::of(Content::Last(body, connection))
    }

    fn of(content: Content) -> Self {
        Self {
            content,
            record: None,
        }
    }

    pub(super) fn with_record(mut self, record: RequestRecord) -> Self {
        self.record = Some(Box::new(record));
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match &mut self.content {
            Content::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Content::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)),
            Content::Last(body, _) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                frame.map(|frame| frame.map_err(truncated))
            }
        };
        if let Some(record) = &mut self.record {
            match &frame {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    record.traffic().add(Direction::ToCaller, length);
                }
                Some(Err(_)) => record.set_truncated(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Upstream(body) => body.is_end_stream(),
            Content::Last(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Upstream(body) => body.size_hint(),
            Content::Last(body, _) => body.size_hint(),
        }
    }
}
