//! [`HttpClient`]: small HTTP exchanges with an authority: bounded in time and size, never redirected.

mod request;
mod target;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(crate) use request::{HttpRequest, encode_fields};

use super::{Alpn, Connector, NetStream, Security};
use crate::{Error, ErrorKind, Result};
use target::Target;

/// Sends single requests, each on a connection of its own: they are minutes apart.
///
/// `https`, or `http` where the request allows it and the host is this machine or its link. Redirects are answers like
/// any other: whoever can redirect would choose whom we trust. The body of an answer is for the caller of this type to
/// judge; errors name the URL without its query, and never a body.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    connector: Connector,
}

/// A whole answer.
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
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
        let target = Target::of(request.url(), request.plain())?;
        let name = target::without_query(request.url()).to_owned();
        let deadline = request.deadline();
        match tokio::time::timeout(deadline, self.exchange(&target, request)).await {
            Ok(outcome) => outcome.map_err(|error| {
                let named = Error::new(error.kind(), format!("no answer from {name}"));
                match error.help() {
                    Some(help) => named.with_help(help.to_owned()),
                    None => named,
                }
                .with_source(error)
            }),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer from {name} within {deadline:?}"),
            )
            .with_help("check that a firewall does not hold this connection back")),
        }
    }

    async fn exchange(&self, target: &Target, request: HttpRequest) -> Result<HttpResponse> {
        let max_body = request.max_body();
        let stream = self.connect(target).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http_error)?;
        let answer = async {
            let response = sender
                .send_request(request.into_http(target)?)
                .await
                .map_err(http_error)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, max_body)
                .collect()
                .await
                .map_err(|error| body_error(error, max_body))?
                .to_bytes();
            Ok(HttpResponse {
                status: head.status,
                headers: head.headers,
                body,
            })
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

    async fn connect(&self, target: &Target) -> Result<NetStream> {
        let endpoint = &target.endpoint;
        match endpoint.security() {
            Security::Tls => self.connector.connect(endpoint, Alpn::Http1).await,
            // Straight: what is on this machine or its link is not to be asked through a corporate proxy, which would
            // answer for its own machine.
            Security::Plain => TcpStream::connect((endpoint.host(), endpoint.port()))
                .await
                .map(NetStream::plain)
                .map_err(|error| {
                    Error::new(ErrorKind::Network, format!("can not connect to {endpoint}"))
                        .with_source(error)
                }),
        }
    }
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
