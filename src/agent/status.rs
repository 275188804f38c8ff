//! [`Refusal`]: every failure of the agent's own, as the `metav1.Status` that Kubernetes clients understand.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::{correlation::CorrelationId, identity::RejectReason, response_headers};
use crate::{Error, ErrorKind, telemetry};

/// How long a refused caller is asked to wait, in seconds. Short: requests usually end within a second.
const RETRY_AFTER_SECONDS: u32 = 1;
/// The longest message in a header, in characters: a person reads it on a terminal.
const MAX_WARNING: usize = 1_000;

/// The agent's own "no".
///
/// Never holds anything of the caller's credential: texts are fixed, or name a header or the API server.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    reason: &'static str,
    message: Cow<'static, str>,
    help: Cow<'static, str>,
    retry_after: Option<u32>,
    rejected: Option<RejectReason>,
}

impl Refusal {
    fn new(
        code: StatusCode,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            help: help.into(),
            retry_after: None,
            rejected: None,
        }
    }

    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            message,
            "send a request as RFC 9112 describes it; a proxy between the client and the tunnel may have broken it",
        )
    }

    /// The caller's token is not accepted.
    pub(super) fn rejected(
        reason: RejectReason,
        message: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (code, name) = if reason.is_forbidden() {
            (StatusCode::FORBIDDEN, "Forbidden")
        } else {
            (StatusCode::UNAUTHORIZED, "Unauthorized")
        };
        Self {
            rejected: Some(reason),
            ..Self::new(code, name, message, help)
        }
    }

    /// Whether the caller's token is accepted can not be told.
    pub(super) fn authentication_unavailable() -> Self {
        Self::unavailable(
            "the agent can not check the token at the moment",
            "try again; if it happens again, ask the agent's operator whether it reaches the token's issuer",
        )
    }

    /// The agent can not use its own credential.
    pub(super) fn no_agent_credential() -> Self {
        Self::unavailable(
            "the agent has no usable credential of its own with which to act for callers",
            "ask the agent's operator to look at its service account and its log",
        )
    }

    fn unavailable(message: &'static str, help: &'static str) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_SECONDS),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                message,
                help,
            )
        }
    }

    pub(super) fn forbidden(
        message: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message, help)
    }

    pub(super) fn method_not_allowed(message: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            "ask for a path of the API server; use `kubectl port-forward` to reach something else in the cluster",
        )
    }

    pub(super) fn header_time_out() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeout",
            "the request's headers did not arrive in time",
            "try again; if it happens again, look at the connection between the client and the relay",
        )
    }

    pub(super) fn target_too_long(limit: usize) -> Self {
        Self::new(
            StatusCode::URI_TOO_LONG,
            "RequestURITooLong",
            format!("the request's path and query are longer than {limit} bytes"),
            "shorten the label or field selector",
        )
    }

    pub(super) fn headers_too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "RequestHeaderFieldsTooLarge",
            message,
            "send fewer or shorter headers; a token with very many groups is the usual cause",
        )
    }

    pub(super) fn version_not_supported() -> Self {
        Self::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "HTTPVersionNotSupported",
            "only HTTP/1.1 is spoken inside a tunnel stream",
            "use a client that speaks HTTP/1.1",
        )
    }

    pub(super) fn too_many_requests(message: &'static str) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_SECONDS),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                message,
                "try again in a moment; watches and open exec sessions count as requests",
            )
        }
    }

    /// The API server could not be asked, or broke off before it answered.
    pub(super) fn upstream_failed(api_server: &str, error: &Error) -> Self {
        let message = format!(
            "the agent got no answer from the API server at {api_server}: {}",
            error.report()
        );
        match error.kind() {
            ErrorKind::Tls => Self::new(
                StatusCode::BAD_GATEWAY,
                "BadGateway",
                message,
                "check that the agent was given the API server's certificate authority and server name",
            ),
            ErrorKind::Protocol | ErrorKind::Closed => Self::new(
                StatusCode::BAD_GATEWAY,
                "BadGateway",
                message,
                "check the API server's health; whether the request took effect is not known, so look before \
                 repeating a change",
            ),
            _ => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                message,
                "check that the API server runs and that the agent's pod or host can reach it",
            ),
        }
    }

    /// The API server answered something that can not be passed on.
    pub(super) fn upstream_misbehaved(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "BadGateway",
            message,
            "ask the cluster's operator what stands between the agent and the API server",
        )
    }

    pub(super) fn code(&self) -> StatusCode {
        self.code
    }

    pub(super) fn into_response(self, correlation: &CorrelationId) -> Response<Bytes> {
        let message = self.full_message(correlation);
        let body = self.body(correlation, &message);
        let mut response = Response::new(body);
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(warning) = warning(&message) {
            headers.insert(header::WARNING, warning);
        }
        headers.insert(telemetry::HEADER_CORRELATION_ID, correlation.to_header());
        if self.code == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"arc-cluster-connect\""),
            );
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Why, in one word of a closed set: why the token was rejected, or the `reason` of the `Status`.
    pub(super) fn reason(&self) -> &'static str {
        self.rejected.map_or(self.reason, RejectReason::label)
    }

    /// The whole response as bytes, for the time before hyper has taken the connection over.
    pub(super) fn into_wire(self, correlation: &CorrelationId) -> Vec<u8> {
        let mut response = self.into_response(correlation);
        let length = HeaderValue::from(response.body().len());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut wire = response_headers::wire(&response);
        wire.extend_from_slice(response.body());
        wire
    }

    /// kubectl prints the message alone, so everything that a person needs is in it.
    fn full_message(&self, correlation: &CorrelationId) -> String {
        let Self { message, help, .. } = self;
        format!(
            "{message}; {help} (arc-cluster-connect agent, correlation id {})",
            correlation.as_str()
        )
    }

    fn body(&self, correlation: &CorrelationId, message: &str) -> Bytes {
        let help = &self.help;
        let mut details = json!({
            "causes": [
                { "reason": "Hop", "message": "agent" },
                { "reason": "CorrelationId", "message": correlation.as_str() },
                { "reason": "Help", "message": help },
            ],
        });
        if let Some(seconds) = self.retry_after {
            details["retryAfterSeconds"] = seconds.into();
        }
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": self.reason,
            "details": details,
            "code": self.code.as_u16(),
        });
        Bytes::from(status.to_string())
    }
}

/// The message once more, as a `Warning` header: kubectl shows those of every response, but nothing of the `Status`
/// when its first request, discovery, fails.
fn warning(message: &str) -> Option<HeaderValue> {
    let harmless: String = message
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MAX_WARNING)
        .collect();
    let escaped = harmless.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("299 - \"{escaped}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_a_warning_too() {
        let correlation = CorrelationId::generate();
        let refusal = Refusal::forbidden("no \"x\"\nfor\\you", "ask");
        let response = refusal.into_response(&correlation);
        let warning = response.headers()[header::WARNING].to_str().expect("ASCII");
        assert!(
            warning.starts_with(r#"299 - "no \"x\" for\\you; ask (arc-cluster-connect agent"#),
            "{warning}"
        );
        let long =
            Refusal::forbidden("é".repeat(2 * MAX_WARNING), "ask").into_response(&correlation);
        assert!(long.headers()[header::WARNING].len() < 2 * MAX_WARNING + 10);
    }

    #[test]
    fn a_refusal_is_a_complete_status() {
        let correlation = CorrelationId::generate();
        let response = Refusal::too_many_requests("too busy").into_response(&correlation);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let status: serde_json::Value =
            serde_json::from_slice(response.body()).expect("the body is JSON");
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["apiVersion"], "v1");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "TooManyRequests");
        assert_eq!(status["code"], 429);
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
        let message = status["message"].as_str().expect("a message");
        for part in ["too busy", "try again", "agent", correlation.as_str()] {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }

    #[test]
    fn a_401_says_which_scheme_is_wanted() {
        let response = Refusal::rejected(RejectReason::Expired, "no", "log in")
            .into_response(&CorrelationId::generate());
        assert!(
            response.headers()[header::WWW_AUTHENTICATE]
                .as_bytes()
                .starts_with(b"Bearer")
        );
    }

    #[test]
    fn the_wire_form_ends_its_connection_and_states_its_length() {
        let wire = Refusal::malformed("bad").into_wire(&CorrelationId::generate());
        let text = String::from_utf8(wire).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(head.contains("\r\nconnection: close"));
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())));
    }

    #[test]
    fn the_kind_of_an_upstream_failure_decides_the_code() {
        let code = |kind| Refusal::upstream_failed("api:443", &Error::new(kind, "x")).code();
        assert_eq!(code(ErrorKind::Network), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(code(ErrorKind::Timeout), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(code(ErrorKind::Tls), StatusCode::BAD_GATEWAY);
        assert_eq!(code(ErrorKind::Closed), StatusCode::BAD_GATEWAY);
    }
}
