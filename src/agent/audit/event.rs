//! [`AuditEvent`] and its one line of JSON.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::{AuditCaller, ObjectRef};

/// One entry of the audit log. The names in its JSON are those of the API server's `audit.k8s.io/v1` where it has the
/// same thing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditEvent {
    /// When the event was written, in UTC with microseconds.
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: SystemTime,
    /// What has happened.
    pub stage: AuditStage,
    /// The `Audit-ID` of the request at the API server.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// Ties the request to its client session, in the client's log too.
    #[serde(rename = "correlationID")]
    pub correlation_id: String,
    /// The address from which the tunnel came: as the relay tells it, or the socket's peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// Who asks.
    pub caller: AuditCaller,
    /// The method; missing when the request had no usable head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path without its query, of at most 512 bytes; missing as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The verb as RBAC has it, or the method in lower case for a path without a resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verb: String,
    /// What the request is about, where its path names a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    /// The protocol that the request asked to change to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<&'static str>,
    /// Whether the agent let the request on. The API server's own word is the status.
    pub decision: AuditDecision,
    /// Why the agent answered with an error of its own: the `reason` of that `Status`, or, where a token was rejected,
    /// the label of the [`RejectReason`](crate::agent::RejectReason).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The response's status; missing when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How the response ended; missing before it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AuditOutcome>,
    /// Bytes of the request's body, or of the upgraded stream, from the caller.
    pub bytes_received: u64,
    /// Bytes of the response's body, or of the upgraded stream, to the caller.
    pub bytes_sent: u64,
    /// Since the request's head was complete.
    #[serde(rename = "durationMilliseconds", serialize_with = "milliseconds")]
    pub duration: Duration,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum AuditStage {
    /// The response of a long request has begun; [`ResponseComplete`](Self::ResponseComplete) follows.
    ResponseStarted,
    /// The request is over.
    ResponseComplete,
}

/// What the agent decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditDecision {
    /// Let on to the API server.
    Allowed,
    /// Turned away.
    Denied,
    /// Nothing: the caller left first.
    None,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// With its own end, or because the caller had enough.
    Answered,
    /// There was none: the caller left first.
    Abandoned,
    /// The API server broke it off.
    Truncated,
    /// It was not over at the end of the agent's shutdown.
    Cut,
}

impl AuditDecision {
    pub(in crate::agent) fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::None => "none",
        }
    }
}

impl AuditEvent {
    /// The event as one line of JSON, without the line's end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event has nothing that JSON has not")
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*time))
}

pub(super) fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are enough, and keep the text short.
    serializer.serialize_f64(duration.as_micros() as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            timestamp: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042),
            stage: AuditStage::ResponseComplete,
            audit_id: "0f8fad5b-d9cb-469f-a165-70867728950e".to_owned(),
            correlation_id: "run.7".to_owned(),
            remote: Some(([192, 0, 2, 7], 4711).into()),
            caller: AuditCaller {
                unverified: None,
                ..AuditCaller::default()
            },
            method: Some("GET".to_owned()),
            path: Some("/api/v1/namespaces/n/pods/p/exec".to_owned()),
            verb: "get".to_owned(),
            object_ref: Some(ObjectRef {
                api_version: "v1".to_owned(),
                namespace: Some("n".to_owned()),
                resource: "pods".to_owned(),
                subresource: Some("exec".to_owned()),
                name: Some("p".to_owned()),
                ..ObjectRef::default()
            }),
            upgrade: Some("websocket"),
            decision: AuditDecision::Allowed,
            reason: None,
            status: Some(101),
            outcome: Some(AuditOutcome::Answered),
            bytes_received: 3,
            bytes_sent: 4_096,
            duration: Duration::from_micros(1_500),
        }
    }

    #[test]
    fn the_line_is_as_documented() {
        let expected = concat!(
            r#"{"timestamp":"2023-11-14T22:13:20.000042Z","stage":"ResponseComplete","#,
            r#""auditID":"0f8fad5b-d9cb-469f-a165-70867728950e","correlationID":"run.7","#,
            r#""remote":"192.0.2.7:4711","caller":{"kind":"unauthenticated"},"method":"GET","#,
            r#""path":"/api/v1/namespaces/n/pods/p/exec","verb":"get","objectRef":{"apiGroup":"","#,
            r#""apiVersion":"v1","namespace":"n","resource":"pods","subresource":"exec","name":"p"},"#,
            r#""upgrade":"websocket","decision":"allowed","status":101,"outcome":"answered","#,
            r#""bytesReceived":3,"bytesSent":4096,"durationMilliseconds":1.5}"#,
        );
        assert_eq!(event().to_json(), expected);
    }

    #[test]
    fn no_text_ends_the_line() {
        let event = AuditEvent {
            path: Some("/a\nb\r\u{0}\"}".to_owned()),
            ..event()
        };
        let json = event.to_json();
        assert!(!json.contains(['\n', '\r', '\0']), "{json}");
        let back: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(back["path"], "/a\nb\r\u{0}\"}");
    }
}
