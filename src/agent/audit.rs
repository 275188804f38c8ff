//! The audit log: who asked for what, and what came of it.
//!
//! One [`AuditEvent`] when a request is over. Watches, followed logs and upgraded streams last for hours, so they have
//! one more when their response begins: the stages are named as those of the API server's own audit log. The
//! `auditID` of an event is the `Audit-ID` of the request upstream, and so stands in that log too.
//!
//! An event never holds a token, a header, a query or a body.

mod caller;
mod event;
mod log;
mod output;
mod request_info;

use std::fmt;

pub use self::{
    caller::{AuditCaller, CallerKind, UnverifiedClaims},
    event::{AuditDecision, AuditEvent, AuditOutcome, AuditStage},
    log::AuditLog,
    request_info::ObjectRef,
};

pub(super) use self::{caller::CallerSummary, request_info::RequestInfo};

/// Keeps audit events.
pub trait AuditSink: fmt::Debug + Send + Sync {
    /// Takes one event. Called where requests are served and where their futures are dropped, and so must neither
    /// block nor panic; what can not be kept is counted.
    fn record(&self, event: &AuditEvent);

    /// How many events could not be kept so far. The agent shows it as `acc_audit_lost_total`.
    fn lost(&self) -> u64 {
        0
    }
}

/// Keeps nothing: an agent without an audit log.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _: &AuditEvent) {}
}

/// The longest text in an event in bytes, the path apart. Names in Kubernetes have at most 253.
const MAX_TEXT: usize = 256;

/// `text`, cut at a character's end to what an event holds of a caller's text.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
