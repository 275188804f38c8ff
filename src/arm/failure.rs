//! What Azure Resource Manager refuses with, and what to do about it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Deserialize;

use super::ConnectedClusterId;
use crate::{Error, ErrorKind, net::HttpResponse};

/// The built-in role for users of cluster connect.
pub(super) const USER_ROLE: &str = "Azure Arc Enabled Kubernetes Cluster User Role";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The longest code or message of the service's that becomes part of an error. Real ones have some 300 characters.
const MAX_TEXT: usize = 1024;

/// An answer that is no success.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) code: String,
    message: String,
    request_id: Option<String>,
    /// Which authority to sign in at, as the service tells.
    challenge: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn of(response: &HttpResponse) -> Self {
        let error = serde_json::from_slice::<ErrorResponse>(&response.body)
            .ok()
            .and_then(|response| response.error)
            .unwrap_or_default();
        let text = |name: HeaderName| {
            let value = response.headers.get(name)?.to_str().ok()?;
            Some(shown(value))
        };
        Self {
            status: response.status,
            code: shown(&error.code.unwrap_or_default()),
            message: shown(&error.message.unwrap_or_default()),
            request_id: text(REQUEST_ID),
            challenge: text(header::WWW_AUTHENTICATE),
            retry_after: retry_after(&response.headers),
        }
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// Whether the service does not know the version of its interface that was asked for. Clouds and regions get new
    /// versions months apart.
    pub(super) fn is_unknown_version(&self) -> bool {
        matches!(
            self.code.as_str(),
            "InvalidApiVersionParameter"
                | "NoRegisteredProviderFound"
                | "InvalidResourceType"
                | "UnsupportedApiVersion"
                | "InvalidApiVersion"
                | "ApiVersionNotSupported"
        )
    }

    /// Whether the caller lacks a right.
    pub(super) fn is_missing_right(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// The crate's error for a question about `cluster`.
    pub(super) fn into_error(self, doing: &str, cluster: &ConnectedClusterId) -> Error {
        let (kind, help) = self.advice(cluster);
        let mut message = format!("Azure Resource Manager did not {doing}");
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                message.push_str(": ");
                message.push_str(part);
            }
        }
        if self.code.is_empty() {
            message.push_str(&format!(": HTTP status {}", self.status.as_u16()));
        }
        let mut error = Error::new(kind, message).with_help(help);
        // For the crate a "not found" with a status is one that passes, such as an agent that is restarting.
        if kind != ErrorKind::NotFound {
            error = error.with_status(self.status.as_u16());
        }
        if let Some(id) = self.request_id {
            error = error.with_tracking_id(id);
        }
        error
    }

    fn advice(&self, cluster: &ConnectedClusterId) -> (ErrorKind, String) {
        let tenant = self.challenge.as_deref().and_then(tenant_of_challenge);
        match (self.status.as_u16(), self.code.as_str()) {
            (401, "InvalidAuthenticationTokenTenant") => (
                ErrorKind::Unauthorized,
                match tenant {
                    Some(tenant) => format!(
                        "the subscription belongs to another tenant than you are signed in to: `az login --tenant {tenant}`"
                    ),
                    None => "the subscription belongs to another tenant than you are signed in to: `az login --tenant TENANT` \
                             with the subscription's"
                        .to_owned(),
                },
            ),
            (401, _) => (
                ErrorKind::Unauthorized,
                "sign in again (`az login`), and check this machine's clock".to_owned(),
            ),
            (403, "RequestDisallowedByPolicy") => (
                ErrorKind::Unauthorized,
                "a policy of the subscription forbids it: ask its owner".to_owned(),
            ),
            (403, _) => (
                ErrorKind::Unauthorized,
                format!(
                    "ask an owner of the cluster for the role \"{USER_ROLE}\": `az role assignment create --assignee YOU \
                     --role \"{USER_ROLE}\" --scope {cluster}`. A new assignment takes up to five minutes"
                ),
            ),
            (404, "SubscriptionNotFound") => (
                ErrorKind::NotFound,
                format!(
                    "check the subscription's id ({}), and that you are signed in to its tenant and cloud: `az account list`",
                    cluster.subscription()
                ),
            ),
            (404, "ResourceGroupNotFound") => (
                ErrorKind::NotFound,
                format!(
                    "check the resource group's name ({}): `az group list --query [].name`",
                    cluster.resource_group()
                ),
            ),
            (404, _) => (
                ErrorKind::NotFound,
                format!(
                    "check the cluster's name ({}) and resource group ({}): `az connectedk8s list -o table`",
                    cluster.name(),
                    cluster.resource_group()
                ),
            ),
            (409, "MissingSubscriptionRegistration") => (
                ErrorKind::Refused,
                "`az provider register --namespace Microsoft.Kubernetes`".to_owned(),
            ),
            (429, _) => (
                ErrorKind::Refused,
                match self.retry_after {
                    Some(wait) => format!("too many requests: try again in {} seconds", wait.as_secs() + 1),
                    None => "too many requests: try again in some minutes".to_owned(),
                },
            ),
            (408 | 500.., _) => (
                ErrorKind::Refused,
                "try again later; https://status.azure.com tells of outages".to_owned(),
            ),
            _ => (
                ErrorKind::Refused,
                "look the code up, and give the request id to Azure's support".to_owned(),
            ),
        }
    }
}

/// Microsoft's common error (`ErrorResponse` of the common types).
#[derive(Deserialize)]
struct ErrorResponse {
    error: Option<ErrorDetail>,
}

#[derive(Default, Deserialize)]
struct ErrorDetail {
    code: Option<String>,
    message: Option<String>,
}

/// A text of the service's, in one line and of bounded length.
fn shown(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect()
}

/// The forms of the header that Azure uses: whole seconds, or milliseconds under another name. A date is not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: HeaderName| {
        let text = headers.get(name)?.to_str().ok()?;
        text.trim().parse::<u64>().ok()
    };
    number(RETRY_AFTER_MS)
        .map(Duration::from_millis)
        .or_else(|| number(header::RETRY_AFTER).map(Duration::from_secs))
}

/// The last segment of `authorization_uri="https://login.windows.net/<tenant>"`, if it is a UUID.
fn tenant_of_challenge(challenge: &str) -> Option<&str> {
    let (_, rest) = challenge.split_once("authorization_uri=\"")?;
    let (uri, _) = rest.split_once('"')?;
    let tenant = uri.rsplit('/').next()?;
    uuid::Uuid::try_parse(tenant).is_ok().then_some(tenant)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn cluster() -> ConnectedClusterId {
        ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7").unwrap()
    }

    fn failure(status: u16, code: &str, headers: &[(&'static str, &str)]) -> Failure {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let body = json!({ "error": { "code": code, "message": "what the service says.", "details": [] } });
        Failure::of(&HttpResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::from(body.to_string()),
        })
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (status, code, kind, help, retryable) in [
            (
                401,
                "ExpiredAuthenticationToken",
                ErrorKind::Unauthorized,
                "az login",
                false,
            ),
            (
                401,
                "InvalidAuthenticationTokenTenant",
                ErrorKind::Unauthorized,
                "another tenant",
                false,
            ),
            (
                403,
                "AuthorizationFailed",
                ErrorKind::Unauthorized,
                USER_ROLE,
                false,
            ),
            (
                403,
                "RequestDisallowedByPolicy",
                ErrorKind::Unauthorized,
                "policy",
                false,
            ),
            (
                404,
                "ResourceNotFound",
                ErrorKind::NotFound,
                "cluster's name (till-7)",
                false,
            ),
            (
                404,
                "ResourceGroupNotFound",
                ErrorKind::NotFound,
                "group's name (shop)",
                false,
            ),
            (
                404,
                "SubscriptionNotFound",
                ErrorKind::NotFound,
                "subscription's id (0000",
                false,
            ),
            (
                409,
                "MissingSubscriptionRegistration",
                ErrorKind::Refused,
                "az provider register",
                false,
            ),
            (
                429,
                "TooManyRequests",
                ErrorKind::Refused,
                "too many requests",
                true,
            ),
            (
                503,
                "ServerBusy",
                ErrorKind::Refused,
                "status.azure.com",
                true,
            ),
            (400, "BadRequest", ErrorKind::Refused, "request id", false),
        ] {
            let error = failure(status, code, &[("x-ms-request-id", "R-1")])
                .into_error("give a credential", &cluster());
            assert_eq!(error.kind(), kind, "{code}");
            assert!(
                error.help().unwrap().contains(help),
                "{code}: {:?}",
                error.help()
            );
            assert_eq!(error.is_retryable(), retryable, "{code}");
            assert_eq!(error.tracking_id(), Some("R-1"));
            assert_eq!(
                error.to_string(),
                format!(
                    "Azure Resource Manager did not give a credential: {code}: what the service says"
                )
            );
        }
    }

    #[test]
    fn the_right_tenant_is_named() {
        let challenge = format!(
            "Bearer authorization_uri=\"https://login.windows.net/{TENANT}\", error=\"invalid_token\""
        );
        let failure = failure(
            401,
            "InvalidAuthenticationTokenTenant",
            &[("www-authenticate", &challenge)],
        );
        let error = failure.into_error("describe the cluster", &cluster());
        assert!(
            error
                .help()
                .unwrap()
                .contains(&format!("--tenant {TENANT}"))
        );
    }

    #[test]
    fn an_answer_without_a_reason_has_its_status() {
        let failure = Failure::of(&HttpResponse {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"<html>"),
        });
        assert!(failure.is_transient());
        let error = failure.into_error("describe the cluster", &cluster());
        assert!(error.to_string().ends_with("HTTP status 502"), "{error}");
    }

    #[test]
    fn both_forms_of_the_wait_are_read() {
        let wait = |headers: &[(&'static str, &str)]| failure(429, "x", headers).retry_after;
        assert_eq!(
            wait(&[("retry-after", "17")]),
            Some(Duration::from_secs(17))
        );
        assert_eq!(
            wait(&[("retry-after", "17"), ("retry-after-ms", "1500")]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            wait(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]),
            None
        );
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn long_texts_are_cut_and_kept_in_one_line() {
        let long = format!("a\nb{}", "x".repeat(2 * MAX_TEXT));
        let text = shown(&long);
        assert!(text.starts_with("a bx"));
        assert_eq!(text.chars().count(), MAX_TEXT);
    }
}
