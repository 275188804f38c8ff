//! [`IncomingConnection`]: a sender that waits to be accepted.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tracing::debug;

use super::{
    RelayStream,
    control::Accept,
    handshake::{Party, Upgrade},
    rendezvous::Rendezvous,
    websocket::WebSocket,
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector, NetStream},
};

/// A sender that waits. The relay lets it wait for 30 s at most.
///
/// Dropped without an answer, it is rejected in the background with status 503.
pub struct IncomingConnection {
    waiting: Option<Waiting>,
}

struct Waiting {
    dialler: Arc<Dialler>,
    rendezvous: Rendezvous,
    accept: Accept,
}

/// What all connections of one listener share.
#[derive(Debug)]
pub(super) struct Dialler {
    connector: Connector,
    background_rejections: Arc<Semaphore>,
}

impl Dialler {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            background_rejections: Arc::new(Semaphore::new(MAX_BACKGROUND_REJECTIONS)),
        }
    }
}

impl IncomingConnection {
    pub(super) fn new(dialler: Arc<Dialler>, rendezvous: Rendezvous, accept: Accept) -> Self {
        Self {
            waiting: Some(Waiting {
                dialler,
                rendezvous,
                accept,
            }),
        }
    }

    /// The relay's id of the connection: opaque, the prefix of its tracking ids.
    pub fn id(&self) -> &str {
        &self.waiting().accept.id
    }

    /// The sender's address, as the relay reports it. For logs: nothing may be decided by it.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        let remote = self.waiting().accept.remote?;
        Some(SocketAddr::new(remote.ip, remote.port))
    }

    /// The headers of the sender's upgrade request, without its credential.
    pub fn headers(&self) -> &HeaderMap {
        &self.waiting().accept.headers
    }

    /// Path and query as the sender asked for them: the hybrid connection's path, what the sender put behind it, and
    /// the sender's own parameters.
    pub fn path_and_query(&self) -> String {
        self.waiting().rendezvous.sender_target()
    }

    /// Meets the sender. Of the sub-protocols that it offers the first is taken, as Microsoft's clients do.
    ///
    /// # Errors
    /// As [`Connector::connect`]; [`ErrorKind::Unauthorized`] or [`ErrorKind::NotFound`] when the sender has gone;
    /// [`ErrorKind::Timeout`] after 20 s.
    ///
    /// # Cancel safety
    /// A dropped future gives the sender up.
    pub async fn accept(mut self) -> Result<RelayStream> {
        let waiting = self.take();
        let mut headers = HeaderMap::new();
        if let Some(protocol) = first_protocol(&waiting.accept.headers) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let target = waiting.rendezvous.target().to_owned();
        let (socket, peer) = waiting.dial(&target, &headers).await?;
        debug!(id = waiting.accept.id, "accepted a sender");
        Ok(RelayStream::new(socket, peer))
    }

    /// Turns the sender away with an HTTP status and a reason of at most 256 characters, both of which it gets to see.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    ///
    /// # Cancel safety
    /// A dropped future leaves the sender waiting until the relay gives up.
    pub async fn reject(mut self, status: StatusCode, reason: &str) -> Result<()> {
        self.take().reject(status, reason).await
    }

    pub(super) fn reject_in_background(mut self, status: StatusCode, reason: &'static str) {
        self.take().reject_in_background(status, reason);
    }

    fn waiting(&self) -> &Waiting {
        self.waiting.as_ref().expect(ANSWERED_ONCE)
    }

    fn take(&mut self) -> Waiting {
        self.waiting.take().expect(ANSWERED_ONCE)
    }
}

impl Drop for IncomingConnection {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.reject_in_background(
                StatusCode::SERVICE_UNAVAILABLE,
                "The listener gave no answer",
            );
        }
    }
}

impl fmt::Debug for IncomingConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header values may be credentials for what is behind the listener.
        let accept = &self.waiting().accept;
        let header_names: Vec<_> = accept.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("IncomingConnection")
            .field("id", &accept.id)
            .field("remote_address", &self.remote_address())
            .field("header_names", &header_names)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    async fn reject(&self, status: StatusCode, reason: &str) -> Result<()> {
        let target = self.rendezvous.reject_target(status.as_u16(), reason);
        match self.dial(&target, &HeaderMap::new()).await {
            // This is how the relay says that it has passed the rejection on.
            Err(error) if error.status() == Some(StatusCode::GONE.as_u16()) => {
                debug!(id = self.accept.id, %status, "rejected a sender");
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(
                ErrorKind::Protocol,
                "the relay connected a sender that was rejected",
            )),
        }
    }

    fn reject_in_background(self, status: StatusCode, reason: &'static str) {
        let permits = Arc::clone(&self.dialler.background_rejections);
        // Without a runtime, or with too much to do already, the sender waits until the relay gives up.
        let (Ok(runtime), Ok(permit)) = (Handle::try_current(), permits.try_acquire_owned()) else {
            debug!(id = self.accept.id, "left a sender without an answer");
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = self.reject(status, reason).await {
                debug!(
                    id = self.accept.id,
                    error = error.report(),
                    "could not reject a sender"
                );
            }
            drop(permit);
        });
    }

    async fn dial(
        &self,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<(WebSocket<NetStream>, Option<SocketAddr>)> {
        let endpoint = self.rendezvous.endpoint();
        let attempt = async {
            let stream = self
                .dialler
                .connector
                .connect(endpoint, Alpn::Http1)
                .await?;
            let peer = stream.peer_addr().ok();
            let upgrade = Upgrade {
                party: Party::Accept,
                endpoint,
                target,
                // The id in the address is all that is needed, and a token would go to a host that the relay chose.
                token: None,
                headers,
            };
            Ok((upgrade.perform(stream).await?, peer))
        };
        timeout(ACCEPT_LIMIT, attempt).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("{endpoint} did not connect us to a sender within {ACCEPT_LIMIT:?}"),
            )
            .with_help("check that a firewall lets connections to the relay's nodes through"))
        })
    }
}

fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').next()?.trim();
    (!first.is_empty())
        .then(|| HeaderValue::from_str(first).ok())
        .flatten()
}

const ANSWERED_ONCE: &str =
    "only the methods that consume a connection, and its drop, take its inside";

/// As Microsoft's clients have it: within the relay's 30 s, with time left for the announcement to arrive.
const ACCEPT_LIMIT: Duration = Duration::from_secs(20);

/// A flood of senders must not make a flood of sockets here; those beyond wait until the relay turns them away.
pub(super) const MAX_BACKGROUND_REJECTIONS: usize = 16;
