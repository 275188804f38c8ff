//! [`ConnectorTransport`]: the requests of `azure_identity`, over our own connections.

use std::time::Duration;

use async_trait::async_trait;
use azure_core::{
    error::ErrorKind as AzureErrorKind,
    http::{
        AsyncRawResponse, Body, HttpClient as AzureHttpClient, Method as AzureMethod, Request,
        StatusCode, headers::Headers,
    },
};
use http::{HeaderName, HeaderValue, Method};

use super::{CredentialSettings, refusal::on_the_way};
use crate::{
    Error, ErrorKind, Result,
    net::{HttpClient, HttpRequest, HttpResponse},
};

/// How long one request may take. The library repeats it, within the limit of whoever waits for the token.
const DEADLINE: Duration = Duration::from_secs(15);

/// Sends what the library wants to send.
#[derive(Debug)]
pub(super) struct ConnectorTransport {
    http: HttpClient,
    settings: CredentialSettings,
}

impl ConnectorTransport {
    pub(super) fn new(settings: &CredentialSettings) -> Self {
        Self {
            http: HttpClient::new(settings.connector.clone()),
            settings: settings.clone(),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<HttpResponse> {
        let malformed = || Error::new(ErrorKind::InvalidInput, "the request is malformed");
        let method = match request.method() {
            AzureMethod::Get => Method::GET,
            AzureMethod::Post => Method::POST,
            _ => return Err(malformed()),
        };
        let Body::Bytes(body) = request.body() else {
            return Err(malformed());
        };
        let mut own = HttpRequest::new(method, request.url().as_str())
            .with_body(body.clone())
            .with_deadline(DEADLINE)
            .or_plain_on_this_machine();
        for (name, value) in request.headers().iter() {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| malformed())?;
            if name == http::header::CONTENT_LENGTH {
                // Set by the connection, from the body.
                continue;
            }
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| malformed())?;
            value.set_sensitive(name == http::header::AUTHORIZATION);
            own = own.with_header(name, value);
        }
        let place = request.url().host_str().unwrap_or_default();
        let outcome = self.http.send(self.settings.correlated(own)).await;
        outcome.map_err(|error| on_the_way(&error, place))
    }
}

#[async_trait]
impl AzureHttpClient for ConnectorTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.exchange(request).await.map_err(|error| {
            // The library repeats what failed on the way, and nothing else.
            let kind = if error.is_retryable() {
                AzureErrorKind::Io
            } else {
                AzureErrorKind::Other
            };
            let text = error.report();
            azure_core::Error::with_error(kind, error, text)
        })?;
        let mut headers = Headers::new();
        for (name, value) in &answer.headers {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        let status = StatusCode::from(answer.status.as_u16());
        Ok(AsyncRawResponse::from_bytes(status, headers, answer.body))
    }
}
