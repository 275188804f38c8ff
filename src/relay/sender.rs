//! [`RelaySender`]: the party that asks for a connection.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use super::{
    HybridConnection, RelayCredential, RelayGrant, RelayStream,
    credential::Renewable,
    handshake::{Party, Upgrade},
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector},
    telemetry::SPAN_RELAY_CONNECT,
};

/// Connects to whoever listens on a hybrid connection. Cheap to clone.
///
/// ```no_run
/// use arc_cluster_connect::{
///     net::{Connector, TrustRoots},
///     relay::{ConnectionString, RelaySender},
/// };
///
/// # async fn example(text: &str) -> arc_cluster_connect::Result<()> {
/// let connection = ConnectionString::parse(text)?;
/// let sender = RelaySender::new(
///     Connector::new(TrustRoots::platform())?,
///     connection.hybrid_connection()?,
///     connection.credential(),
/// );
/// let stream = sender.connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RelaySender {
    connector: Connector,
    hybrid_connection: HybridConnection,
    credential: RelayCredential,
    headers: HeaderMap,
}

impl RelaySender {
    /// A sender for `hybrid_connection`.
    pub fn new(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
    ) -> Self {
        Self {
            connector,
            hybrid_connection,
            credential,
            headers: HeaderMap::new(),
        }
    }

    /// Adds a header to the upgrade request; the listener sees it. A header that the handshake itself uses is
    /// overruled by the handshake.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The hybrid connection that this sender connects to, unless its credential's source names another.
    pub fn hybrid_connection(&self) -> &HybridConnection {
        &self.hybrid_connection
    }

    /// Makes one attempt to connect. The relay holds its answer until a listener has accepted.
    ///
    /// # Errors
    /// As [`Connector::connect`]; [`ErrorKind::Unauthorized`] when the relay does not take the credential;
    /// [`ErrorKind::NotFound`] when the hybrid connection does not exist, or nobody listens at the moment (this is
    /// [retryable](Error::is_retryable): a listener reconnects); [`ErrorKind::Timeout`] after 70 s;
    /// [`ErrorKind::Refused`] for the relay's, and the listener's, other refusals. The error carries the status and
    /// the tracking id.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the half-made connection.
    pub async fn connect(&self) -> Result<RelayStream> {
        let id = Uuid::new_v4();
        let span = info_span!(
            SPAN_RELAY_CONNECT,
            party = "sender",
            hybrid_connection = %self.hybrid_connection,
            %id
        );
        timeout(CONNECT_LIMIT, self.attempt(id))
            .instrument(span)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "the relay did not connect us to {} within {CONNECT_LIMIT:?}",
                        self.hybrid_connection
                    ),
                )
                .with_help("check that the agent runs and is connected, then try again"))
            })
    }

    async fn attempt(&self, id: Uuid) -> Result<RelayStream> {
        let grant = self.grant().await?;
        match self.attempt_with(id, &grant).await {
            // The key may have been changed since the token was made: a source is asked for another, once.
            Err(error)
                if error.is_unauthorized() && self.credential.refused(&grant) == Renewable::Yes =>
            {
                let another = self.grant().await?;
                if another.token().secret() == grant.token().secret() {
                    return Err(error);
                }
                debug!(error = error.report(), "trying a new token");
                self.attempt_with(id, &another).await
            }
            outcome => outcome,
        }
    }

    async fn grant(&self) -> Result<RelayGrant> {
        self.credential
            .grant(&self.hybrid_connection, SystemTime::now())
            .await
    }

    async fn attempt_with(&self, id: Uuid, grant: &RelayGrant) -> Result<RelayStream> {
        let endpoint = grant.hybrid_connection().endpoint();
        let stream = self.connector.connect(endpoint, Alpn::Http1).await?;
        let peer = stream.peer_addr().ok();
        let target = grant
            .hybrid_connection()
            .request_target("connect", &id.to_string());
        let socket = Upgrade {
            party: Party::Sender,
            endpoint,
            target: &target,
            token: Some(grant.token()),
            headers: &self.headers,
        }
        .perform(stream)
        .await?;
        debug!("connected through the relay");
        Ok(RelayStream::new(socket, peer))
    }
}

/// For a whole attempt, as Microsoft's clients have it: the relay may hold its answer for 30 s while a listener dials,
/// and was seen to take seven more.
const CONNECT_LIMIT: Duration = Duration::from_secs(70);
