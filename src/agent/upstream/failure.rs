//! How sending a request failed, and whether it may be sent again.

use http::{Method, Request};

use super::replay_body::ReplayBody;
use crate::{Error, ErrorKind};

pub(super) struct SendFailure {
    pub(super) error: Error,
    /// The request as it was, where sending it again can not make it count twice.
    pub(super) again: Option<Request<ReplayBody>>,
}

impl SendFailure {
    pub(super) fn last(error: Error) -> Box<Self> {
        Box::new(Self { error, again: None })
    }

    pub(super) fn repeatable(error: Error, again: Option<Request<ReplayBody>>) -> Box<Self> {
        Box::new(Self { error, again })
    }
}

/// Whether sending a request twice is as good as once.
pub(super) fn is_idempotent(request: &Request<ReplayBody>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_empty()
}

pub(super) fn http1_failed(error: hyper::Error) -> Error {
    let (kind, message) = if error.is_parse() {
        (ErrorKind::Protocol, "its answer is not HTTP/1.1")
    } else {
        (ErrorKind::Closed, "the connection ended before an answer")
    };
    Error::new(kind, message).with_source(error)
}

pub(super) fn http2_failed(error: h2::Error) -> Error {
    let (kind, message) = if error.is_library() {
        (ErrorKind::Protocol, "its answer is not HTTP/2")
    } else if error.is_reset() {
        (ErrorKind::Closed, "it ended the request without an answer")
    } else {
        (ErrorKind::Closed, "the connection ended before an answer")
    };
    Error::new(kind, message).with_source(error)
}

/// An answer that began and did not come to its end.
pub(in crate::agent) fn truncated(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(
        ErrorKind::Closed,
        "the API server's answer broke off before its end",
    )
    .with_source(error)
}
