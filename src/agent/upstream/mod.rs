//! The way to the API server: HTTP/2 where it speaks it, else HTTP/1.1; upgrades always over HTTP/1.1.
//!
//! An [`Upstream`] owns no credential and no client certificate. Whatever a request proves, its headers prove.
//!
//! ```text
//!  send ─► Pool ── a free place on an HTTP/2 connection ──► http2 ─┐
//!           │  └── a kept HTTP/1.1 connection ─────────────► http1 ─┼─► response
//!           └───── nothing free: one connection is opened, ────────┘
//!                  however many requests wait for it
//!  send_upgrade ─► a new HTTP/1.1 connection, which serves nothing else
//! ```
//!
//! Both protocols are driven by code of our own, for what pools and clients at large get wrong in front of an API
//! server: more connections are opened before one is full, as a watch holds its stream for an hour; a stream reset in
//! the middle of a list is never a clean end; who drops a response cancels it, also while a watch is silent.

mod body;
mod dial;
mod early_answer;
mod failure;
mod http1;
mod http2;
mod places;
mod pool;
mod replay_body;
mod request_head;
mod trust;
mod upload;

#[cfg(test)]
mod tests;

use http::{Method, Request, Response, Uri, uri::PathAndQuery};

use super::{body::RequestBody, request_headers::SealedHeaders};
use crate::Result;

pub(super) use body::UpstreamBody;
#[cfg(test)]
pub(super) use dial::UpstreamIo;
pub(super) use dial::{CountingDial, Dial, NetDial};
pub(super) use failure::truncated;
pub(super) use http1::{ConnectionTask, UpgradeResponse};
pub(super) use trust::Trust;

use pool::{Attempt, Connection, Pool};
use replay_body::ReplayBody;

/// How often one request is sent in the worst case. A server that tells each of so many connections to go away before
/// it has looked at one request is not going to answer.
const MAX_ATTEMPTS: usize = 5;

/// Connections to the one API server. Two of them share nothing.
pub(super) struct Upstream {
    pool: Pool,
}

impl Upstream {
    pub(super) fn new(dial: Box<dyn Dial>) -> Self {
        Self {
            pool: Pool::new(dial),
        }
    }

    /// Connects once, for nothing but to see that it can be done.
    pub(super) async fn check(&self) -> Result<()> {
        self.pool.dial().dial().await.map(drop)
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// A request that the server certainly did not look at (GOAWAY, `REFUSED_STREAM`, a connection that was gone
    /// before) is sent again on another connection, if its body can start again; so is a GET or HEAD without a body
    /// whose connection broke. Nothing else is sent twice.
    ///
    /// # Cancel safety
    /// A dropped future cancels the request: it resets the stream, or closes the HTTP/1.1 connection.
    pub(super) async fn send(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: SealedHeaders,
        body: RequestBody,
    ) -> Result<Response<UpstreamBody>> {
        self.send_request(build(method, target, headers, body))
            .await
    }

    async fn send_request(&self, request: Request<RequestBody>) -> Result<Response<UpstreamBody>> {
        let mut request = request.map(ReplayBody::new);
        let mut attempt = Attempt::First;
        for _ in 1..MAX_ATTEMPTS {
            let failure = match self.attempt(request, attempt).await? {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let Some(again) = failure.again else {
                return Err(failure.error);
            };
            tracing::debug!(
                error = failure.error.report(),
                "the API server did not take a request; it is sent again"
            );
            request = again;
            attempt = Attempt::Again;
        }
        self.attempt(request, attempt)
            .await?
            .map_err(|failure| failure.error)
    }

    async fn attempt(
        &self,
        request: Request<ReplayBody>,
        attempt: Attempt,
    ) -> Result<Result<Response<UpstreamBody>, Box<failure::SendFailure>>> {
        Ok(match self.pool.connection(attempt).await? {
            Connection::Http1(lease) => lease.send(request).await,
            Connection::Http2(lease) => lease.send(request).await,
        })
    }

    /// Sends a request for a change of protocol, on a connection of its own that serves nothing else (one request's
    /// rights must never serve a second one).
    ///
    /// # Cancel safety
    /// A dropped future closes the connection.
    pub(super) async fn send_upgrade(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: SealedHeaders,
    ) -> Result<UpgradeResponse> {
        let io = self.pool.dial().dial().await?;
        let request = build(method, target, headers, RequestBody::empty());
        http1::send_upgrade(io, request.map(ReplayBody::new)).await
    }
}

fn build(
    method: Method,
    target: PathAndQuery,
    headers: SealedHeaders,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers.into_map();
    request
}
