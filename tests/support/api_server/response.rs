//! What handlers answer: a response with one boxed body type, and the few ways to make one.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::Value;

use super::{request_log::Ticket, to_json};

/// The body of every answer. An error in it breaks the connection or stream off, so that nobody takes a cut answer
/// for a whole one.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The answer to a request.
pub(super) type Response = http::Response<Body>;

pub(super) fn json(code: StatusCode, value: &Value) -> Response {
    bytes(code, "application/json", to_json(value))
}

pub(super) fn bytes(
    code: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Response {
    let body = Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    with_type(code, content_type, body)
}

/// An answer of unknown length; each item is flushed as it comes.
pub(super) fn streamed(
    content_type: &'static str,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response {
    let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
    with_type(StatusCode::OK, content_type, body)
}

pub(super) fn empty(code: StatusCode) -> Response {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}

/// The answer to HEAD: the length that GET would give, and no body. hyper sees to that in HTTP/1.1 only.
pub(super) fn head_only(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let (mut head, _) = response.into_parts();
    if let Some(length) = length {
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Response::from_parts(head, body)
}

fn with_type(code: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Keeps a request counted as live until its body is sent or dropped.
pub(super) struct CountedBody {
    body: Body,
    _ticket: Arc<Ticket>,
}

impl CountedBody {
    pub(super) fn new(body: Body, ticket: Arc<Ticket>) -> Self {
        Self {
            body,
            _ticket: ticket,
        }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
