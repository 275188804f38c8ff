//! [`HttpClient`]: small HTTPS exchanges with an authority: bounded in time and size, never redirected.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;

use super::{Alpn, Connector, Endpoint, Security};
use crate::{Error, ErrorKind, Result};

/// How long one exchange may take, from the dial to the last byte, unless the request says otherwise. A caller waits
/// for it, and `kubectl` gives up after ten seconds of silence in discovery.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// The largest body that is read unless the request says otherwise. Discovery documents and key sets have some 10 KiB.
const DEFAULT_MAX_BODY: usize = 256 * 1024;

/// Sends single requests, each on a connection of its own: they are minutes apart.
///
/// `https` only. Redirects are answers like any other: whoever can redirect would choose whom we trust. The body of
/// an answer is for the caller of this type to judge; errors name the URL without its query, and never a body.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    connector: Connector,
}

/// One request.
#[derive(Clone)]
pub(crate) struct HttpRequest {
    method: Method,
    url: String,
    authorization: Option<HeaderValue>,
    body: Bytes,
    deadline: Duration,
    max_body: usize,
}

/// A whole answer.
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl HttpClient {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector }
    }

    /// Sends `request` and reads the whole answer, whatever its status.
    ///
    /// Cancel-safe: a dropped future closes the connection.
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let (endpoint, uri) = target(&request.url)?;
        let name = without_query(&request.url).to_owned();
        let deadline = request.deadline;
        match tokio::time::timeout(deadline, self.exchange(&endpoint, uri, request)).await {
            Ok(outcome) => outcome.map_err(|error| {
                Error::new(error.kind(), format!("no answer from {name}")).with_source(error)
            }),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer from {name} within {deadline:?}"),
            )
            .with_help("check that a firewall does not hold this connection back")),
        }
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        uri: Uri,
        request: HttpRequest,
    ) -> Result<HttpResponse> {
        let max_body = request.max_body;
        let stream = self.connector.connect(endpoint, Alpn::Http1).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http_error)?;
        let answer = async {
            let response = sender
                .send_request(request.into_http(endpoint, uri)?)
                .await
                .map_err(http_error)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), max_body)
                .collect()
                .await
                .map_err(|error| body_error(error, max_body))?
                .to_bytes();
            Ok(HttpResponse { status, body })
        };
        // The connection is driven here, not in a task of its own, so that it ends with this future.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            _ = &mut connection => answer.await,
        }
    }
}

impl HttpRequest {
    /// A `GET` of an `https` URL.
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            authorization: None,
            body: Bytes::new(),
            deadline: DEFAULT_DEADLINE,
            max_body: DEFAULT_MAX_BODY,
        }
    }

    /// A `POST` of a JSON value to an `https` URL.
    pub(crate) fn post_json(url: impl Into<String>, value: &serde_json::Value) -> Self {
        Self {
            method: Method::POST,
            body: Bytes::from(value.to_string()),
            ..Self::get(url)
        }
    }

    /// Adds a bearer token.
    pub(crate) fn with_bearer(mut self, token: &str) -> Result<Self> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                "a token does not fit into a header",
            )
        })?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Sets the largest body, in bytes, that is read.
    pub(crate) fn with_max_body(mut self, max_body: usize) -> Self {
        self.max_body = max_body;
        self
    }

    fn into_http(self, endpoint: &Endpoint, uri: Uri) -> Result<Request<Full<Bytes>>> {
        let mut builder = Request::builder()
            .method(self.method)
            .uri(uri)
            .header(header::HOST, endpoint.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close");
        if !self.body.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = self.authorization {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        builder.body(Full::new(self.body)).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the request is malformed").with_source(error)
        })
    }
}

/// The endpoint of an `https` URL, and the target that stands in its request line.
fn target(url: &str) -> Result<(Endpoint, Uri)> {
    let invalid = |why: &'static str| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("the URL {} {why}", without_query(url)),
        )
    };
    let parsed: Uri = url.parse().map_err(|_| invalid("is malformed"))?;
    if parsed.scheme_str() != Some("https") {
        return Err(invalid("is not an https URL"));
    }
    let authority = parsed.authority().ok_or_else(|| invalid("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("has a user name in it"));
    }
    // A port that is no number is not reported by the parser, only left out.
    if authority.port_u16().is_none() && authority.as_str() != authority.host() {
        return Err(invalid("has a malformed port"));
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    if host.is_empty() {
        return Err(invalid("has no host"));
    }
    let endpoint = Endpoint::new(host, authority.port_u16().unwrap_or(443), Security::Tls);
    let path = parsed.path_and_query().map_or("/", |path| path.as_str());
    let target = path.parse().map_err(|_| invalid("has a malformed path"))?;
    Ok((endpoint, target))
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn http_error(error: hyper::Error) -> Error {
    Error::new(ErrorKind::Network, "the HTTP exchange failed").with_source(error)
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>, max_body: usize) -> Error {
    if error.is::<LengthLimitError>() {
        Error::new(
            ErrorKind::LimitReached,
            format!("the answer is larger than {max_body} bytes"),
        )
    } else {
        Error::new(ErrorKind::Network, "the answer broke off").with_source(error)
    }
}

#[cfg(test)]
mod tests;
