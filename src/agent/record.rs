//! [`RequestRecord`]: what is kept of a request while it lasts, and written down when it is over.

use http::StatusCode;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::{Span, field::Empty};

use super::{
    correlation::{AuditId, CorrelationId},
    request_head::RequestHead,
};
use crate::telemetry;

/// The longest path that is logged, in bytes. Paths of the Kubernetes API are shorter than 400.
const MAX_LOGGED_PATH: usize = 512;

/// A request in flight: its span, and its places in the limits. Dropping it ends the request for both.
pub(super) struct RequestRecord {
    span: Span,
    started: Instant,
    outcome: Outcome,
    _places: Places,
}

/// The places that a request takes up: among all, and among those of its tunnel connection.
pub(super) struct Places {
    pub(super) _of_agent: OwnedSemaphorePermit,
    pub(super) _of_connection: OwnedSemaphorePermit,
}

/// How a request's response ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No response: the caller left first.
    Abandoned,
    Answered,
    /// The API server's connection broke inside the body.
    Truncated,
}

impl RequestRecord {
    pub(super) fn new(span: Span, places: Places) -> Self {
        Self {
            span,
            started: Instant::now(),
            outcome: Outcome::Abandoned,
            _places: places,
        }
    }

    pub(super) fn set_answered(&mut self, status: StatusCode) {
        self.span.record("status", status.as_u16());
        self.outcome = Outcome::Answered;
    }

    pub(super) fn set_truncated(&mut self) {
        self.outcome = Outcome::Truncated;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.span.record("duration_ms", duration_ms);
        let _entered = self.span.enter();
        match self.outcome {
            // A watch that its caller ends is how watches end.
            Outcome::Abandoned => tracing::info!("the caller left before the response"),
            Outcome::Answered => tracing::info!("request finished"),
            Outcome::Truncated => tracing::warn!(
                "the API server's response broke off; the caller's stream is aborted"
            ),
        }
    }
}

/// The span of one request. It holds no header but the ids, and no query: both can carry secrets.
pub(super) fn span(head: &RequestHead, correlation: &CorrelationId, audit: AuditId) -> Span {
    tracing::info_span!(
        telemetry::SPAN_AGENT_REQUEST,
        method = %head.method,
        path = logged_path(head.target.path()),
        correlation_id = correlation.as_str(),
        audit_id = %audit,
        status = Empty,
        duration_ms = Empty,
    )
}

fn logged_path(path: &str) -> &str {
    let mut end = path.len().min(MAX_LOGGED_PATH);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_path_is_bounded_and_stays_text() {
        assert_eq!(logged_path("/api/v1/pods"), "/api/v1/pods");
        let long = "/é".repeat(MAX_LOGGED_PATH);
        let logged = logged_path(&long);
        assert!(logged.len() <= MAX_LOGGED_PATH && logged.len() > MAX_LOGGED_PATH - 4);
    }
}
