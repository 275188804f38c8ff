//! [`RelaySender`]: the party that asks for a connection.

use std::{
    pin::{Pin, pin},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use super::{
    HybridConnection, RelayCredential, RelayGrant, RelayStream,
    credential::Renewable,
    handshake::{Party, TokenPlace, Upgrade},
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector, random_jitter},
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
    token_place: TokenPlace,
}

impl RelaySender {
    /// A sender for `hybrid_connection`.
    pub fn new(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
    ) -> Self {
        Self {
            connector: connector.for_relay(),
            hybrid_connection,
            credential,
            headers: HeaderMap::new(),
            token_place: TokenPlace::Header,
        }
    }

    /// Adds a header to the upgrade request; the listener sees it. A header that the handshake itself uses is
    /// overruled by the handshake.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Shows the token in the query of the request (`sb-hc-token`) and not in a header, for a way to the relay that
    /// lets no unknown header through. Whoever logs request lines there logs the token.
    #[must_use]
    pub fn with_token_in_query(mut self) -> Self {
        self.token_place = TokenPlace::Query;
        self
    }

    /// The hybrid connection that this sender connects to, unless its credential's source names another.
    pub fn hybrid_connection(&self) -> &HybridConnection {
        &self.hybrid_connection
    }

    /// Connects once. The relay holds its answer until a listener has accepted.
    ///
    /// One dial in some tens takes seconds inside the relay. So when there is no answer after 1 s, a second dial is made
    /// beside the first; the first answer counts, and the other dial is dropped.
    ///
    /// # Errors
    /// As [`Connector::connect`]; [`ErrorKind::Unauthorized`] when the relay does not take the credential;
    /// [`ErrorKind::NotFound`] when the hybrid connection does not exist, or nobody listens at the moment (this is
    /// [retryable](Error::is_retryable): a listener reconnects); [`ErrorKind::Timeout`] after 70 s;
    /// [`ErrorKind::Refused`] for the relay's, and the listener's, other refusals. The error carries the status and
    /// the tracking id.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the half-made connections.
    pub async fn connect(&self) -> Result<RelayStream> {
        timeout(CONNECT_LIMIT, self.hedged())
            .await
            .unwrap_or_else(|_| Err(self.late(CONNECT_LIMIT)))
    }

    /// Connects, and tries again for as long as `budget` allows: after 1, 2, 4, 5, 5, … s (and up to a quarter more, by
    /// chance) when the failure is one that passes. That nobody listens passes, too. An attempt is given 10 s.
    ///
    /// # Errors
    /// As [`connect`](Self::connect): the last attempt's. What does not pass, such as a refused credential, is returned
    /// at once.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the half-made connections.
    pub async fn connect_within(&self, budget: Duration) -> Result<RelayStream> {
        let deadline = Instant::now() + budget;
        let mut delays = RETRY_DELAYS.into_iter();
        loop {
            let limit = ATTEMPT_LIMIT.min(deadline.saturating_duration_since(Instant::now()));
            let attempt = timeout(limit, self.connect()).await;
            let error = match attempt.unwrap_or_else(|_| Err(self.late(limit))) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let delay = Duration::from_secs(delays.next().unwrap_or(LAST_RETRY_DELAY));
            let delay = delay + delay / 4 * u32::from(random_jitter()) / u32::from(u8::MAX);
            if !error.is_retryable() || Instant::now() + delay >= deadline {
                return Err(error);
            }
            debug!(error = error.report(), ?delay, "dials the relay again");
            sleep(delay).await;
        }
    }

    async fn hedged(&self) -> Result<RelayStream> {
        let mut first = pin!(self.traced_attempt());
        if let Ok(outcome) = timeout(HEDGE_AFTER, &mut first).await {
            return outcome;
        }
        debug!("no answer from the relay yet: dials once more beside");
        let mut second = pin!(self.traced_attempt());
        let (outcome, other): (_, Pin<&mut (dyn Future<Output = _> + Send)>) = tokio::select! {
            outcome = &mut first => (outcome, second),
            outcome = &mut second => (outcome, first),
        };
        match outcome {
            // No answer: the other one may get it.
            Err(error) if error.status().is_none() && error.is_retryable() => other.await,
            answered => answered,
        }
    }

    async fn traced_attempt(&self) -> Result<RelayStream> {
        let id = Uuid::new_v4();
        let span = info_span!(
            SPAN_RELAY_CONNECT,
            party = "sender",
            hybrid_connection = %self.hybrid_connection,
            %id
        );
        self.attempt(id).instrument(span).await
    }

    fn late(&self, limit: Duration) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "the relay did not connect us to {} within {limit:?}",
                self.hybrid_connection
            ),
        )
        .with_help("check that the agent runs and is connected, then try again")
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
            token_place: self.token_place,
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

/// Twice the time that a dial takes where the relay is near; those that take longer take three to seven seconds.
const HEDGE_AFTER: Duration = Duration::from_secs(1);

/// For one of several attempts. A relay that has not answered by then was seen not to answer at all.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// The waits between attempts in seconds. The fault is most often a listener that is about to come back.
const RETRY_DELAYS: [u64; 3] = [1, 2, 4];
const LAST_RETRY_DELAY: u64 = 5;
