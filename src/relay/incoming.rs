//! [`IncomingConnection`]: a sender that waits to be accepted.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tracing::debug;

use super::{
    RelayStream,
    control::Accept,
    handshake::{Party, TokenPlace, Upgrade},
    rendezvous::Rendezvous,
    websocket::WebSocket,
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector, Endpoint, NetStream},
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
    /// Those that the owner makes.
    dials: Semaphore,
    background_rejections: Semaphore,
    background_line: Arc<Semaphore>,
}

impl Dialler {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            dials: Semaphore::new(MAX_DIALS),
            background_rejections: Semaphore::new(MAX_BACKGROUND_REJECTIONS),
            background_line: Arc::new(Semaphore::new(MAX_BACKGROUND_LINE)),
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
    /// [`ErrorKind::Timeout`] after 20 s; [`ErrorKind::LimitReached`] when for 20 s so many other answers were under way
    /// that this one had to wait, and the sender is turned away.
    ///
    /// # Limits
    /// A listener makes 64 answers at the same time, rejections among them; the others wait their turn.
    ///
    /// # Cancel safety
    /// A dropped future gives the sender up; before its turn, by a rejection.
    pub async fn accept(mut self) -> Result<RelayStream> {
        let dialler = Arc::clone(&self.waiting().dialler);
        // Until it is its turn, the sender is rejected when this ends.
        let _turn = turn(&dialler.dials).await?;
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
        let dialler = Arc::clone(&self.waiting().dialler);
        let _turn = turn(&dialler.dials).await?;
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

    fn reject_in_background(mut self, status: StatusCode, reason: &'static str) {
        let line = Arc::clone(&self.dialler.background_line);
        // Without a runtime, or with too many in line already, the sender waits until the relay gives up.
        let (Ok(runtime), Ok(place)) = (Handle::try_current(), line.try_acquire_owned()) else {
            debug!(id = self.accept.id, "left a sender without an answer");
            return;
        };
        // What stands in line is to be small.
        self.accept.headers = HeaderMap::new();
        runtime.spawn(async move {
            let rejection = async {
                let _turn = turn(&self.dialler.background_rejections).await?;
                self.reject(status, reason).await
            };
            if let Err(error) = rejection.await {
                debug!(
                    id = self.accept.id,
                    error = error.report(),
                    "could not reject a sender"
                );
            }
            drop(place);
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
            let socket = answer(endpoint, target, headers).perform(stream).await?;
            Ok((socket, peer))
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

/// A listener's answer to a sender. The id in the address is all that is needed, and a token would go to a host that
/// the relay chose.
pub(super) fn answer<'a>(
    endpoint: &'a Endpoint,
    target: &'a str,
    headers: &'a HeaderMap,
) -> Upgrade<'a> {
    Upgrade {
        party: Party::Accept,
        endpoint,
        target,
        token: None,
        token_place: TokenPlace::Header,
        headers,
    }
}

/// Waits for one of the `turns`, for as long as a dial may take: later the sender is all but gone.
async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>> {
    match timeout(ACCEPT_LIMIT, turns.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        // They are never closed.
        Ok(Err(_)) | Err(_) => Err(Error::new(
            ErrorKind::LimitReached,
            format!("too many senders are being answered: none was done within {ACCEPT_LIMIT:?}"),
        )
        .with_help("check that the relay's nodes can be reached, and how many senders there are")),
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

/// A flood of senders must not make a flood of sockets here. As many as may wait for the listener's owner.
pub(super) const MAX_DIALS: usize = 64;

/// Beside those of the owner, whom they must not hold up.
pub(super) const MAX_BACKGROUND_REJECTIONS: usize = 16;

/// Rejections under way and in line; an address takes up to 8 KiB. At a rejection in 100 ms the last one is made within
/// two seconds. Senders beyond these wait until the relay turns them away.
pub(super) const MAX_BACKGROUND_LINE: usize = 256;
