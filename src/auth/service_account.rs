//! [`ServiceAccountSource`]: a service account's token from the Kubernetes TokenRequest API, renewed by itself.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::{
    AccessToken,
    token_cache::{Failure, TokenSource},
    token_text::access_token,
};
use crate::{Error, ErrorKind, Result};

/// The shortest life that the API server grants (`expirationSeconds` in its API reference).
const MIN_LIFETIME: Duration = Duration::from_secs(600);
/// The longest that can be asked for: 2^32 seconds.
const MAX_LIFETIME: Duration = Duration::from_secs(1 << 32);
/// What `kubectl create token` asks for.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// A token request is some 2 KiB.
const MAX_ANSWER: usize = 256 * 1024;
/// Names of Kubernetes objects need no escaping; whatever else is given changes no path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.');

/// Sends one HTTP request to the API server, and reads the whole answer.
///
/// Implemented for closures. The request has a path and query as its target and no `Host` and `Authorization`: the
/// sender adds the way (a tunnel, a direct connection) and the right to ask, which is
/// `create` on `serviceaccounts/token` of the account.
///
/// ```
/// use arc_cluster_connect::{Error, ErrorKind, Result, auth::HttpSender};
/// use bytes::Bytes;
/// use http::{Request, Response};
///
/// /// Over a tunnel: `TunnelConnector` under hyper's client, for one.
/// async fn send(request: Request<Bytes>) -> Result<Response<Bytes>> {
///     Err(Error::new(ErrorKind::Network, format!("no way to send {}", request.uri())))
/// }
///
/// let sender: &dyn HttpSender = &send;
/// # let _ = sender;
/// ```
#[async_trait]
pub trait HttpSender: Send + Sync {
    /// Sends `request`. Implementations bound time and the size of the answer, and are cancel-safe.
    ///
    /// # Errors
    /// When there is no whole answer; a refusal is an answer.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>>;
}

#[async_trait]
impl<F, Answer> HttpSender for F
where
    F: Fn(Request<Bytes>) -> Answer + Send + Sync,
    Answer: Future<Output = Result<Response<Bytes>>> + Send,
{
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        self(request).await
    }
}

/// Which service account's tokens to get, and how.
///
/// ```
/// use std::{sync::Arc, time::Duration};
///
/// use arc_cluster_connect::{
///     Result,
///     auth::{BearerAuth, HttpSender, ServiceAccountSource},
/// };
///
/// fn auth(api_server: Arc<dyn HttpSender>) -> Result<BearerAuth> {
///     let source = ServiceAccountSource::new(api_server, "ci", "deployer")
///         .with_lifetime(Duration::from_secs(1800))?;
///     Ok(BearerAuth::service_account(source))
/// }
/// ```
#[derive(Clone)]
pub struct ServiceAccountSource {
    sender: Arc<dyn HttpSender>,
    namespace: String,
    name: String,
    audiences: Vec<String>,
    lifetime: Duration,
}

impl ServiceAccountSource {
    /// Tokens of the account `name` in `namespace`, for the API server itself, good for an hour.
    pub fn new(
        sender: Arc<dyn HttpSender>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            sender,
            namespace: namespace.into(),
            name: name.into(),
            audiences: Vec::new(),
            lifetime: DEFAULT_LIFETIME,
        }
    }

    /// Sets for whom the tokens are, instead of the API server.
    #[must_use]
    pub fn with_audiences(
        mut self,
        audiences: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.audiences = audiences.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how long a token is to be good for. The API server may give less.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] below ten minutes and above 2³² seconds, which no API server grants.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Result<Self> {
        if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "a token's lifetime of {lifetime:?} is not between ten minutes and 2^32 seconds"
                ),
            ));
        }
        self.lifetime = lifetime;
        Ok(self)
    }

    fn request(&self) -> Result<Request<Bytes>> {
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/{}/token",
            utf8_percent_encode(&self.namespace, SEGMENT),
            utf8_percent_encode(&self.name, SEGMENT)
        );
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": self.audiences,
                "expirationSeconds": self.lifetime.as_secs(),
            },
        });
        let json = HeaderValue::from_static("application/json");
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, json.clone())
            .header(header::ACCEPT, json)
            .body(Bytes::from(body.to_string()))
            .map_err(|error| {
                Error::new(ErrorKind::InvalidInput, "the request is malformed").with_source(error)
            })
    }

    async fn token(&self) -> Result<AccessToken> {
        let response = self.sender.send(self.request()?).await?;
        let account = format!("{}/{}", self.namespace, self.name);
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => granted(response.body()),
            status => Err(refused(status, &account)),
        }
    }
}

#[async_trait]
impl TokenSource for ServiceAccountSource {
    async fn fetch(&self) -> Result<AccessToken, Failure> {
        self.token().await.map_err(|error| Failure::of(&error))
    }
}

impl fmt::Debug for ServiceAccountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccountSource")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("audiences", &self.audiences)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

fn granted(body: &[u8]) -> Result<AccessToken> {
    #[derive(Deserialize)]
    struct TokenRequest {
        status: Status,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        token: String,
        expiration_timestamp: String,
    }

    let malformed = || {
        Error::new(
            ErrorKind::Protocol,
            "the API server's answer is not a token request with a token",
        )
    };
    if body.len() > MAX_ANSWER {
        return Err(malformed());
    }
    // Not with the parser's own words: it could quote from the body.
    let answer: TokenRequest = serde_json::from_slice(body).map_err(|_| malformed())?;
    let end = azure_core::time::parse_rfc3339(&answer.status.expiration_timestamp)
        .map_err(|_| malformed())?;
    let token = access_token(&answer.status.token)?;
    Ok(AccessToken::new(
        token.secret(),
        Some(SystemTime::from(end)),
    ))
}

fn refused(status: StatusCode, account: &str) -> Error {
    let (kind, help) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            ErrorKind::Unauthorized,
            "the caller needs the right to create serviceaccounts/token (`kubectl auth can-i create serviceaccounts --subresource=token`)",
        ),
        StatusCode::NOT_FOUND => (
            ErrorKind::InvalidInput,
            "make the account (`kubectl create serviceaccount NAME -n NAMESPACE`), or correct its name",
        ),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            (ErrorKind::Refused, "try again later")
        }
        _ => (ErrorKind::Refused, "check the audiences and the lifetime"),
    };
    Error::new(
        kind,
        format!(
            "the API server gave no token for the service account {account} (HTTP status {status})"
        ),
    )
    .with_status(status.as_u16())
    .with_help(help)
}

#[cfg(test)]
mod tests;
