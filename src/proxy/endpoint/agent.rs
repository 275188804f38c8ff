//! [`AgentConnection`]: one tunnel stream as one HTTP/1.1 connection to the agent.

use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::{
    body::RequestBody,
    limits::{MAX_HEADER_BYTES, MAX_HEADERS},
    status::{Failure, Reason},
};
use crate::{
    Error, ErrorKind, Tunnel,
    tunnel::{OpenOptions, Target},
};

/// How long opening a stream may take. It costs no round trip on a standing tunnel; on the first use the relay is
/// dialled: TCP, TLS and the agent's rendezvous, with a retry or two.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// How long a finished exchange may take to close its stream in good order before it is reset.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Keeps a tunnel stream alive. Dropping it resets the stream at once, whatever its state; that is how a client that
/// goes away cancels its request at the API server.
///
/// One request per connection: streams cost nothing to open, and a reset then stops exactly one request.
pub(super) struct AgentConnection {
    finish: oneshot::Sender<Finish>,
}

/// The exchange came to its regular end.
struct Finish;

impl AgentConnection {
    pub(super) async fn open(
        tunnel: &dyn Tunnel,
    ) -> Result<(SendRequest<RequestBody>, Self), Failure> {
        let target = Target::api_server();
        let open = tunnel.open(&target, OpenOptions::new());
        let stream = tokio::time::timeout(OPEN_LIMIT, open)
            .await
            .map_err(|_| {
                Failure::new(
                    Reason::Timeout,
                    format!(
                        "the tunnel to the cluster did not open within {} seconds; check the network, then that the \
                         agent beside the cluster runs",
                        OPEN_LIMIT.as_secs()
                    ),
                )
            })?
            .map_err(|error| Failure::tunnel(&error))?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(no_answer)?;

        let (finish, finished) = oneshot::channel();
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection.with_upgrades());
            tokio::select! {
                // Errors reach whoever waits for the response or reads its body.
                _ = &mut connection => {}
                end = finished => {
                    if let Ok(Finish) = end {
                        let _ = tokio::time::timeout(CLOSE_LIMIT, connection).await;
                    }
                }
            }
        });
        Ok((sender, Self { finish }))
    }

    /// Closes the stream in good order.
    pub(super) fn finish(self) {
        // The connection may have ended by itself.
        let _ = self.finish.send(Finish);
    }
}

/// The stream broke before there was a response head.
pub(super) fn no_answer(error: hyper::Error) -> Failure {
    let error = Error::new(
        ErrorKind::Network,
        "the agent beside the cluster gave no answer",
    )
    .with_source(error);
    Failure::new(
        Reason::BadGateway,
        format!(
            "{}; the request may or may not have been carried out: look at the cluster before you try again",
            error.report()
        ),
    )
}
