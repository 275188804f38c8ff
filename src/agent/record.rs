//! [`RequestRecord`]: what is kept of a request while it lasts, and written down, counted and audited when it is over.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{Method, StatusCode};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};
use tracing::{Span, field::Empty};

use super::{
    Core,
    audit::{
        AuditCaller, AuditDecision, AuditEvent, AuditOutcome, AuditStage, CallerSummary,
        RequestInfo,
    },
    caller_places::CallerPlace,
    correlation::{AuditId, CorrelationId},
    metrics::{Direction, RequestKind},
    request_head::RequestHead,
    stall::StallClock,
    status::Refusal,
    upgrade::UpgradeProtocol,
};
use crate::telemetry;

/// The longest path that is logged, in bytes. Paths of the Kubernetes API are shorter than 400.
const MAX_LOGGED_PATH: usize = 512;

/// A request in flight: its span, and its places in the limits. Dropping it ends the request for both.
pub(super) struct RequestRecord {
    core: Arc<Core>,
    span: Span,
    started: Instant,
    request: Request,
    caller: AuditCaller,
    decision: AuditDecision,
    /// Why the agent answered with an error of its own.
    reason: Option<&'static str>,
    status: Option<StatusCode>,
    outcome: AuditOutcome,
    switched: bool,
    /// Set when everything of the tunnel is cut off.
    closing: CancellationToken,
    traffic: Arc<Traffic>,
    places: Option<Places>,
    of_caller: Option<CallerPlace>,
    /// Goes last: the request is over when all that its end brings is done.
    _in_flight: TaskTrackerToken,
}

/// What was asked for.
struct Request {
    audit: AuditId,
    correlation: CorrelationId,
    remote: Option<SocketAddr>,
    method: Method,
    path: String,
    info: RequestInfo,
    upgrade: Option<UpgradeProtocol>,
}

/// The ids and the origin under which a request is known.
pub(super) struct Origin {
    pub(super) audit: AuditId,
    pub(super) correlation: CorrelationId,
    pub(super) remote: Option<SocketAddr>,
    pub(super) closing: CancellationToken,
}

/// The places that a request takes up: among all, and among those of its tunnel connection.
pub(super) struct Places {
    pub(super) _of_agent: OwnedSemaphorePermit,
    pub(super) _of_connection: OwnedSemaphorePermit,
}

/// The bytes of one request's body and response, or of its upgraded stream.
pub(super) struct Traffic {
    core: Arc<Core>,
    to_api_server: AtomicU64,
    to_caller: AtomicU64,
}

impl RequestRecord {
    pub(super) fn new(
        core: Arc<Core>,
        span: Span,
        head: &RequestHead,
        upgrade: Option<UpgradeProtocol>,
        origin: Origin,
    ) -> Self {
        core.metrics.request_started();
        let path = head.target.path();
        Self {
            span,
            started: Instant::now(),
            request: Request {
                audit: origin.audit,
                correlation: origin.correlation,
                remote: origin.remote,
                method: head.method.clone(),
                path: logged_path(path).to_owned(),
                info: RequestInfo::of(&head.method, path, head.target.query()),
                upgrade,
            },
            caller: AuditCaller::claimed(&head.headers),
            decision: AuditDecision::None,
            reason: None,
            status: None,
            outcome: AuditOutcome::Abandoned,
            switched: false,
            closing: origin.closing,
            traffic: Arc::new(Traffic {
                core: Arc::clone(&core),
                to_api_server: AtomicU64::new(0),
                to_caller: AtomicU64::new(0),
            }),
            places: None,
            of_caller: None,
            _in_flight: core.requests.token(),
            core,
        }
    }

    /// Keeps the request's places for as long as it lasts.
    pub(super) fn hold(&mut self, places: Places) {
        self.places = Some(places);
    }

    /// Keeps the place among its caller's for as long as it lasts.
    pub(super) fn hold_of_caller(&mut self, place: CallerPlace) {
        self.of_caller = Some(place);
    }

    /// Authentication knows the caller.
    pub(super) fn set_caller(&mut self, caller: CallerSummary<'_>) {
        self.caller.set(caller);
    }

    /// The request may go to the API server.
    pub(super) fn set_admitted(&mut self) {
        self.decision = AuditDecision::Allowed;
    }

    /// The agent answers by itself: the request was turned away, or got no answer from the API server.
    pub(super) fn set_refused(&mut self, refusal: &Refusal) {
        self.reason = Some(refusal.reason());
        if self.decision != AuditDecision::Allowed {
            self.decision = AuditDecision::Denied;
            self.core.metrics.denied(refusal.reason());
        }
    }

    /// A response begins.
    pub(super) fn set_answered(&mut self, status: StatusCode) {
        self.span.record("status", status.as_u16());
        self.status = Some(status);
        self.outcome = AuditOutcome::Answered;
        if self.decision == AuditDecision::Allowed && self.reason.is_none() {
            self.core.metrics.first_byte(self.started.elapsed());
        }
        if status.is_success() && self.kind() == RequestKind::Watch {
            self.audit(AuditStage::ResponseStarted);
        }
    }

    /// The API server agreed to a change of protocol.
    pub(super) fn set_switched(&mut self) {
        self.set_answered(StatusCode::SWITCHING_PROTOCOLS);
        self.switched = true;
        self.core.metrics.upgraded_started();
        self.audit(AuditStage::ResponseStarted);
    }

    pub(super) fn set_truncated(&mut self) {
        if self.outcome != AuditOutcome::Truncated {
            self.core.metrics.truncated();
        }
        self.outcome = AuditOutcome::Truncated;
    }

    /// Counts the request's bytes.
    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    fn kind(&self) -> RequestKind {
        if self.switched {
            RequestKind::Upgrade
        } else {
            self.request.info.kind()
        }
    }

    fn audit(&self, stage: AuditStage) {
        let request = &self.request;
        self.core.audit.record(&AuditEvent {
            timestamp: SystemTime::now(),
            stage,
            audit_id: request.audit.to_string(),
            correlation_id: request.correlation.as_str().to_owned(),
            remote: request.remote,
            caller: self.caller.clone(),
            method: Some(logged_path(request.method.as_str()).to_owned()),
            path: Some(request.path.clone()),
            verb: request.info.verb.clone(),
            object_ref: request.info.object.clone(),
            upgrade: request.upgrade.map(UpgradeProtocol::name),
            decision: self.decision,
            reason: self.reason,
            status: self.status.map(|status| status.as_u16()),
            outcome: (stage == AuditStage::ResponseComplete).then_some(self.outcome),
            bytes_received: self.traffic.to_api_server.load(Ordering::Relaxed),
            bytes_sent: self.traffic.to_caller.load(Ordering::Relaxed),
            duration: self.started.elapsed(),
        });
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        if self.closing.is_cancelled() {
            self.outcome = AuditOutcome::Cut;
        }
        if self.switched {
            self.core.metrics.upgraded_ended();
        }
        self.core.metrics.request_ended(
            self.kind(),
            &self.request.method,
            self.status,
            self.decision.label(),
            duration,
        );
        self.audit(AuditStage::ResponseComplete);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.span.record("duration_ms", duration_ms);
        let _entered = self.span.enter();
        match self.outcome {
            // A watch that its caller ends is how watches end.
            AuditOutcome::Abandoned => tracing::info!("the caller left before the response"),
            AuditOutcome::Answered => tracing::info!("request finished"),
            AuditOutcome::Cut => tracing::warn!("cut off: it outlasted the agent's shutdown"),
            AuditOutcome::Truncated => tracing::warn!(
                "the API server's response broke off; the caller's stream is aborted"
            ),
        }
    }
}

impl Traffic {
    /// A clock for the way of the request's body to the API server.
    pub(super) fn stall_clock(&self) -> StallClock {
        StallClock::new(Arc::clone(&self.core), Direction::ToApiServer)
    }

    pub(super) fn add(&self, direction: Direction, count: usize) {
        let count = count as u64;
        match direction {
            Direction::ToApiServer => &self.to_api_server,
            Direction::ToCaller => &self.to_caller,
        }
        .fetch_add(count, Ordering::Relaxed);
        self.core.metrics.bytes(direction, count);
    }
}

/// Counts and audits a request that has no usable head.
pub(super) fn malformed(
    core: &Core,
    refusal: &Refusal,
    correlation: &CorrelationId,
    remote: Option<SocketAddr>,
) {
    core.metrics.malformed(refusal.code(), refusal.reason());
    core.audit.record(&AuditEvent {
        timestamp: SystemTime::now(),
        stage: AuditStage::ResponseComplete,
        audit_id: AuditId::generate().to_string(),
        correlation_id: correlation.as_str().to_owned(),
        remote,
        caller: AuditCaller::default(),
        method: None,
        path: None,
        verb: String::new(),
        object_ref: None,
        upgrade: None,
        decision: AuditDecision::Denied,
        reason: Some(refusal.reason()),
        status: Some(refusal.code().as_u16()),
        outcome: Some(AuditOutcome::Answered),
        bytes_received: 0,
        bytes_sent: 0,
        duration: std::time::Duration::ZERO,
    });
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
mod tests;
