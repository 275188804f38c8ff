//! [`Failure`]: a refusal, as the `metav1.Status` object that Kubernetes clients print.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{body::ResponseBody, correlation::CorrelationId};
use crate::{Error, ErrorKind, telemetry};

/// When a client that met [`Reason::TooManyRequests`] may come again. A running request usually ends within it.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Room for any message; a text longer than this does not help on a terminal.
const MAX_MESSAGE: usize = 1024;

/// The machine-readable part of a refusal. The names are those of `metav1.StatusReason`, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestEntityTooLarge,
    TooManyRequests,
    InternalError,
    BadGateway,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            // Not among Kubernetes' own; clients treat what they do not know as unknown and print it.
            Self::BadGateway => "BadGateway",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// Why a request was not forwarded, or got no answer. The message names the hop, what failed there, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    reason: Reason,
    message: String,
    tracking_id: Option<String>,
}

impl Failure {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: printable(&message.into()),
            tracking_id: None,
        }
    }

    /// The tunnel gave no stream.
    pub(super) fn tunnel(error: &Error) -> Self {
        let (reason, lead) = match error.kind() {
            ErrorKind::NotFound => (
                Reason::ServiceUnavailable,
                "no agent is connected to the relay for this cluster",
            ),
            ErrorKind::Unauthorized => (
                Reason::BadGateway,
                "the relay refused the credential of the tunnel",
            ),
            ErrorKind::Timeout => (Reason::Timeout, "the tunnel to the cluster did not open"),
            ErrorKind::Tls | ErrorKind::Protocol | ErrorKind::Refused => {
                (Reason::BadGateway, "the tunnel to the cluster failed")
            }
            ErrorKind::InvalidInput | ErrorKind::File => {
                (Reason::InternalError, "the tunnel is not set up correctly")
            }
            _ => (
                Reason::ServiceUnavailable,
                "there is no tunnel to the cluster",
            ),
        };
        let help = match error.kind() {
            ErrorKind::NotFound => "check that the agent beside the cluster runs and is online",
            _ => "check the network, then that the agent beside the cluster runs",
        };
        Self::from_error(reason, lead, error, help)
    }

    /// There is no token of the caller to send along.
    pub(super) fn token(error: &Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::Timeout => Reason::Timeout,
            _ if error.is_retryable() => Reason::ServiceUnavailable,
            _ => Reason::Unauthorized,
        };
        let help = "log in again, or renew the token that the proxy was started with";
        Self::from_error(
            reason,
            "the proxy has no token for you to send to the cluster",
            error,
            help,
        )
    }

    fn from_error(reason: Reason, lead: &str, error: &Error, default_help: &str) -> Self {
        let help = error.help().unwrap_or(default_help);
        Self {
            tracking_id: error.tracking_id().map(str::to_owned),
            ..Self::new(reason, format!("{lead}: {}; {help}", error.report()))
        }
    }

    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn into_response(self, correlation_id: &CorrelationId) -> Response<ResponseBody> {
        let status = self.reason.status();
        let retry_after = (self.reason == Reason::TooManyRequests).then_some(RETRY_AFTER_SECONDS);
        let mut causes = vec![Cause {
            reason: telemetry::HEADER_CORRELATION_ID,
            message: correlation_id.as_str(),
        }];
        if let Some(tracking_id) = &self.tracking_id {
            causes.push(Cause {
                reason: "TrackingId",
                message: tracking_id,
            });
        }
        let body = serde_json::to_vec(&Status {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata {},
            status: "Failure",
            message: &self.message,
            reason: self.reason.name(),
            details: Details {
                causes,
                retry_after_seconds: retry_after,
            },
            code: status.as_u16(),
        })
        .expect("a Status has string keys and plain values");

        let mut response = Response::new(ResponseBody::whole(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(warning) = warning(&self.message) {
            headers.insert(header::WARNING, warning);
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.reason == Reason::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Peers' words are part of messages, and end on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(MAX_MESSAGE)
        .collect()
}

/// The message once more, as a `Warning` header: kubectl shows those of every response, but of a failed discovery,
/// its first request, it shows nothing of the `Status` body and only says that the server is unavailable.
fn warning(message: &str) -> Option<HeaderValue> {
    let escaped = message.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("299 - \"{escaped}\"")).ok()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    details: Details<'a>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    causes: Vec<Cause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'static str,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_failure_becomes_a_status_object() {
        let error = Error::new(ErrorKind::NotFound, "relay.example answered 404")
            .with_status(404)
            .with_tracking_id("G12");
        let correlation_id = CorrelationId::from_static_text("session-request");
        let response = Failure::tunnel(&error).into_response(&correlation_id);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            status,
            serde_json::json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": "no agent is connected to the relay for this cluster: relay.example answered 404; \
                            check that the agent beside the cluster runs and is online",
                "reason": "ServiceUnavailable",
                "details": { "causes": [
                    { "reason": "x-ms-correlation-request-id", "message": "session-request" },
                    { "reason": "TrackingId", "message": "G12" },
                ] },
                "code": 503,
            })
        );
    }

    #[test]
    fn every_tunnel_error_has_its_reason() {
        for (kind, reason) in [
            (ErrorKind::NotFound, Reason::ServiceUnavailable),
            (ErrorKind::Network, Reason::ServiceUnavailable),
            (ErrorKind::Closed, Reason::ServiceUnavailable),
            (ErrorKind::LimitReached, Reason::ServiceUnavailable),
            (ErrorKind::Timeout, Reason::Timeout),
            (ErrorKind::Tls, Reason::BadGateway),
            (ErrorKind::Protocol, Reason::BadGateway),
            (ErrorKind::Refused, Reason::BadGateway),
            // Not 401: kubectl would tell the user to log in, which does not help.
            (ErrorKind::Unauthorized, Reason::BadGateway),
            (ErrorKind::InvalidInput, Reason::InternalError),
        ] {
            assert_eq!(Failure::tunnel(&Error::new(kind, "x")).reason(), reason);
        }
    }

    #[test]
    fn a_missing_token_is_the_callers_business_unless_it_may_pass() {
        for (kind, reason) in [
            (ErrorKind::Unauthorized, Reason::Unauthorized),
            (ErrorKind::File, Reason::Unauthorized),
            (ErrorKind::Network, Reason::ServiceUnavailable),
            (ErrorKind::Timeout, Reason::Timeout),
        ] {
            assert_eq!(Failure::token(&Error::new(kind, "x")).reason(), reason);
        }
    }

    #[test]
    fn the_help_of_the_error_wins() {
        let error = Error::new(ErrorKind::Unauthorized, "the token has expired")
            .with_help("run `az login`");
        assert!(
            Failure::token(&error)
                .message()
                .ends_with("; run `az login`")
        );
    }

    #[test]
    fn the_message_is_a_warning_too() {
        let failure = Failure::new(Reason::BadGateway, "it said \"C:\\\u{1b}[31m\r\nü\"");
        assert_eq!(failure.message(), "it said \"C:\\ [31m  ü\"");
        let response = failure.into_response(&CorrelationId::from_static_text("id"));
        assert_eq!(
            response.headers()["warning"].as_bytes(),
            "299 - \"it said \\\"C:\\\\ [31m  ü\\\"\"".as_bytes()
        );
    }

    #[test]
    fn a_message_has_a_length() {
        let failure = Failure::new(Reason::BadGateway, "ü".repeat(MAX_MESSAGE * 2));
        assert_eq!(failure.message(), "ü".repeat(MAX_MESSAGE));
    }

    #[test]
    fn a_refusal_for_load_says_when_to_come_again() {
        let response = Failure::new(Reason::TooManyRequests, "busy")
            .into_response(&CorrelationId::from_static_text("id"));
        assert_eq!(response.headers()["retry-after"], "1");
    }
}
