//! [`HttpRequest`]: one request, and its limits.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::target::{Plain, Target};
use crate::{Error, ErrorKind, Result};

/// How long one exchange may take, from the dial to the last byte, unless the request says otherwise. A caller waits
/// for it, and `kubectl` gives up after ten seconds of silence in discovery.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// The largest body that is read unless the request says otherwise. Discovery documents and key sets have some 10 KiB.
const DEFAULT_MAX_BODY: usize = 256 * 1024;

/// What stays as it is in a form or query: the unreserved characters of RFC 3986.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One request.
#[derive(Clone)]
pub(crate) struct HttpRequest {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
    deadline: Duration,
    max_body: usize,
    plain: Plain,
}

impl HttpRequest {
    /// A request without a body to an `https` URL.
    pub(crate) fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            deadline: DEFAULT_DEADLINE,
            max_body: DEFAULT_MAX_BODY,
            plain: Plain::Refused,
        }
    }

    /// A `GET` of an `https` URL.
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A `POST` of a JSON value to an `https` URL.
    pub(crate) fn post_json(url: impl Into<String>, value: &serde_json::Value) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self::new(Method::POST, url)
            .with_header(header::CONTENT_TYPE, json)
            .with_body(value.to_string())
    }

    /// A `POST` of a form to an `https` URL.
    pub(crate) fn post_form(url: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        Self::new(Method::POST, url)
            .with_header(header::CONTENT_TYPE, form)
            .with_body(encode_fields(fields))
    }

    /// Sets a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body. Its `Content-Type` is the caller's to set.
    pub(crate) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a bearer token.
    pub(crate) fn with_bearer(self, token: &str) -> Result<Self> {
        self.with_authorization(&format!("Bearer {token}"))
    }

    /// Sets the `Authorization` header.
    pub(crate) fn with_authorization(self, authorization: &str) -> Result<Self> {
        let mut value = HeaderValue::try_from(authorization).map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                "a token does not fit into a header",
            )
        })?;
        value.set_sensitive(true);
        Ok(self.with_header(header::AUTHORIZATION, value))
    }

    /// Sets the largest body, in bytes, that is read.
    pub(crate) fn with_max_body(mut self, max_body: usize) -> Self {
        self.max_body = max_body;
        self
    }

    /// Sets how long the exchange may take, from the dial to the last byte.
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Allows an `http` URL whose host is this machine or an address of its link, as managed identities have it. The
    /// connection goes past any proxy.
    pub(crate) fn or_plain_on_this_machine(mut self) -> Self {
        self.plain = Plain::OnThisMachine;
        self
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn plain(&self) -> Plain {
        self.plain
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn max_body(&self) -> usize {
        self.max_body
    }

    pub(super) fn into_http(self, target: &Target) -> Result<Request<Full<Bytes>>> {
        let malformed = |error: http::Error| {
            Error::new(ErrorKind::InvalidInput, "the request is malformed").with_source(error)
        };
        let mut request = Request::builder()
            .method(self.method)
            .uri(target.path.clone())
            .header(header::HOST, target.endpoint.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(self.body))
            .map_err(malformed)?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }
}

/// A form or query: `name=value&…`.
pub(crate) fn encode_fields(fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, KEPT)))
        .collect();
    fields.join("&")
}
