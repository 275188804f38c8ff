//! Beside the cluster: authenticate the caller, forward to the API server.
//!
//! An [`Agent`] answers the streams that arrive through a tunnel. Each carries one HTTP/1.1 request. The agent
//! decides who is asking, takes every header away that only it may set, and sends the rest to the one
//! [`ApiServer`] it was made for. Bodies stream in both directions, `exec`, `attach` and `port-forward` become raw
//! bytes after their `101`, and a caller who leaves cancels what was asked of the API server.
//!
//! ```text
//!  stream ─► head, strictly checked ─► who asks? ─► headers cleaned ─► headers sealed ─► API server
//!              │ 400 408 414 431 505     │ 401        │ 400 403                           │ 502 503
//!              ▼                         ▼            ▼                                   ▼
//!             metav1.Status with a reason, the hop "agent", the correlation id and what to do next
//! ```
//!
//! # Limits
//! A request's head: 64 KiB, 200 headers, a target of 16 KiB, 30 seconds to arrive. A token: 32 KiB. Requests in
//! flight: [`AgentBuilder::max_requests`], [`AgentBuilder::max_requests_per_connection`] and
//! [`AgentBuilder::max_requests_per_caller`]. Tunnel connections: 256. An [`Identity`]: 2 000 groups, 160 KiB.
//! Bodies and responses have no limit, of size or of time.

mod admission;
mod api_server;
mod audit;
mod authorization;
mod body;
mod caller_places;
mod chunked;
mod connection;
mod correlation;
mod exchange;
mod front_proxy;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod identity;
mod impersonation;
mod lanes;
mod lifetime;
mod metered;
mod metrics;
mod question;
mod record;
mod redirects;
mod request_head;
mod request_headers;
mod response_headers;
mod serve;
mod stall;
mod status;
mod token;
mod uid_right;
mod upgrade;
mod upstream;

#[cfg(test)]
mod test_bed;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use api_server::ApiServer;
pub use audit::{
    AuditCaller, AuditDecision, AuditEvent, AuditLog, AuditOutcome, AuditSink, AuditStage,
    CallerKind, NoAudit, ObjectRef, UnverifiedClaims,
};
pub use authorization::{Access, PolicyRequest, RequestPolicy, ResourcePath, Verdict};
pub use identity::{
    AgentCredential, Authenticated, Authentication, AuthenticationError, Authenticator, Credential,
    Identity, IdentityBuilder, IdentityRules, RefreshCounts, RejectReason,
    ServiceAccountAuthenticator, ServiceAccountTokens, SystemGroups, TunnelId,
};
pub use lifetime::StreamLifetime;
pub use redirects::RedirectPolicy;
pub use request_headers::Impersonation;
pub use serve::Drained;
#[cfg(fuzzing)]
pub use token::fuzzing as token_fuzzing;
pub use token::{
    EntraAuthenticator, EntraAuthenticatorBuilder, EntraObjectId, EntraUsername, GroupResolver,
    OpenIdAuthenticator, OpenIdAuthenticatorBuilder, PopPolicy, Replays, SignatureAlgorithm,
};

pub use crate::auth::{Cloud, TenantId};

use authorization::Reviews;
use caller_places::CallerPlaces;
use connection::Scope;
use health::Readiness;
use identity::Callers;
use lanes::Lanes;
use metrics::Metrics;
use request_headers::HeaderPolicy;
use token::SelfReviews;
use uid_right::UidRight;
use upstream::{Dial, Upstream};

use crate::{Error, ErrorKind, Result, clock::Clock};

/// Requests in flight, over all connections. Each holds 64 KiB of what its caller sends and a window of 256 KiB of what
/// the API server answers at most: some 640 MiB if every caller stops reading in the middle of a big list.
const DEFAULT_MAX_REQUESTS: usize = 2_000;
/// Requests in flight of one tunnel connection, so that one client leaves room for others. A tunnel lets its client have
/// 1024 streams open, and who wants more waits there for one to end. A few more than that, since a stream may have ended
/// for the client a moment before its request is over here: that must not be a 429.
const DEFAULT_MAX_REQUESTS_PER_CONNECTION: usize = 1_100;

/// Requests in flight of one caller, over all tunnel connections, so that one who opens many leaves room for others.
const DEFAULT_MAX_REQUESTS_PER_CALLER: usize = 1_500;

/// Serves the streams of tunnels against one API server. Cheap to clone; clones share connections and limits.
#[derive(Clone)]
pub struct Agent {
    core: Arc<Core>,
}

/// What every connection of an agent shares.
struct Core {
    lanes: Lanes,
    callers: Callers,
    agent_credential: Option<AgentCredential>,
    uid_right: UidRight,
    header_policy: HeaderPolicy,
    caller_places: CallerPlaces,
    reviews: Reviews,
    /// Where callers' own tokens are reviewed before they are passed through.
    self_reviews: Option<SelfReviews>,
    policy: Option<Arc<dyn RequestPolicy>>,
    stream_lifetime: StreamLifetime,
    redirects: RedirectPolicy,
    /// The API server's `host:port`, for people.
    authority: String,
    host: HeaderValue,
    path_prefix: String,
    places: Arc<Semaphore>,
    /// The places for tunnel connections.
    connections: Arc<Semaphore>,
    max_requests_per_connection: usize,
    audit: Arc<dyn AuditSink>,
    metrics: Metrics,
    readiness: Arc<Readiness>,
    drain_limit: Duration,
    /// One token for each request that is not over.
    requests: TaskTracker,
}

impl Agent {
    /// An agent for `api_server`.
    ///
    /// ```
    /// use arc_cluster_connect::{
    ///     agent::{Agent, ApiServer, ServiceAccountTokens},
    ///     net::{Endpoint, Security, TrustRoots},
    /// };
    ///
    /// # fn main() -> arc_cluster_connect::Result<()> {
    /// let endpoint = Endpoint::new("127.0.0.1", 6443, Security::Plain);
    /// let agent = Agent::builder(ApiServer::new(endpoint, TrustRoots::platform()))
    ///     .service_account_tokens(ServiceAccountTokens::PassThrough)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(api_server: ApiServer) -> AgentBuilder {
        AgentBuilder {
            api_server,
            authenticators: Vec::new(),
            service_accounts: None,
            agent_credential: None,
            impersonation: Impersonation::default(),
            policy: None,
            stream_lifetime: StreamLifetime::default(),
            redirects: RedirectPolicy::default(),
            max_requests: DEFAULT_MAX_REQUESTS,
            max_requests_per_connection: DEFAULT_MAX_REQUESTS_PER_CONNECTION,
            max_requests_per_caller: DEFAULT_MAX_REQUESTS_PER_CALLER,
            stripped_headers: Vec::new(),
            audit: Arc::new(NoAudit),
            drain_limit: serve::DRAIN_LIMIT,
        }
    }

    /// Connects to the API server once, so that a program can say at its start what would else fail each caller.
    ///
    /// # Errors
    /// What kept the connection from being made; the text names the API server.
    ///
    /// # Cancel safety
    /// A dropped future closes the connection.
    pub async fn check_api_server(&self) -> Result<()> {
        self.core.lanes.check().await.map_err(|error| {
            Error::new(
                error.kind(),
                format!("the API server at {} can not be used", self.core.authority),
            )
            .with_source(error)
        })
    }

    /// Waits until no request is in flight: then the last one stands in the audit log.
    ///
    /// For whoever drops a future that serves, to end at once; one that has returned has waited by itself.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn idle(&self) {
        self.core.requests.wait().await;
    }

    /// Serves one request on `stream`, HTTP/1.1 with nothing around it, and whatever it is upgraded to.
    ///
    /// For carriers that already separate requests; [`serve_connection`](Self::serve_connection) serves a whole
    /// tunnel. Each stream counts as a tunnel connection of its own ([`TunnelId`]).
    ///
    /// # Cancel safety
    /// A dropped future drops the stream, and cancels what was asked of the API server.
    pub async fn serve_stream<T>(&self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let scope = self.core.scope(None);
        // What a stream of any kind can tell it tells by reading.
        let left = std::future::pending();
        connection::serve(Arc::clone(&self.core), scope, stream, left).await;
    }
}

impl Core {
    fn scope(&self, remote: Option<SocketAddr>) -> Scope {
        Scope {
            tunnel: TunnelId::generate(),
            remote,
            closing: CancellationToken::new(),
            places: Arc::new(Semaphore::new(self.max_requests_per_connection)),
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("api_server", &self.core.authority)
            .field("callers", &self.core.callers)
            .finish_non_exhaustive()
    }
}

/// Makes an [`Agent`].
#[derive(Clone)]
pub struct AgentBuilder {
    api_server: ApiServer,
    authenticators: Vec<Arc<dyn Authenticator>>,
    service_accounts: Option<ServiceAccountAuthenticator>,
    agent_credential: Option<AgentCredential>,
    impersonation: Impersonation,
    policy: Option<Arc<dyn RequestPolicy>>,
    stream_lifetime: StreamLifetime,
    redirects: RedirectPolicy,
    max_requests: usize,
    max_requests_per_connection: usize,
    max_requests_per_caller: usize,
    stripped_headers: Vec<String>,
    audit: Arc<dyn AuditSink>,
    drain_limit: Duration,
}

impl AgentBuilder {
    /// Adds somebody who says who callers are. They are asked in the order in which they are added.
    ///
    /// The agent acts for such callers under its own [credential](Self::agent_credential).
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticators.push(Arc::new(authenticator));
        self
    }

    /// Sets what becomes of service account tokens, which is every token that no authenticator has taken. They are
    /// refused unless this is called.
    #[must_use]
    pub fn service_account_tokens(mut self, service_account_tokens: ServiceAccountTokens) -> Self {
        self.service_accounts = match service_account_tokens {
            ServiceAccountTokens::PassThrough => Some(ServiceAccountAuthenticator::new()),
            ServiceAccountTokens::Review => Some(ServiceAccountAuthenticator::new().reviewed()),
            ServiceAccountTokens::Refuse => None,
        };
        self
    }

    /// Passes through the tokens that `authenticator` takes; it is asked after all others.
    #[must_use]
    pub fn service_accounts(mut self, authenticator: ServiceAccountAuthenticator) -> Self {
        self.service_accounts = Some(authenticator);
        self
    }

    /// Sets under which credential the agent acts for callers that it has authenticated itself.
    #[must_use]
    pub fn agent_credential(mut self, credential: AgentCredential) -> Self {
        self.agent_credential = Some(credential);
        self
    }

    /// Sets what becomes of a caller's wish to act as somebody else. It is refused unless this is called.
    #[must_use]
    pub fn impersonation(mut self, impersonation: Impersonation) -> Self {
        self.impersonation = impersonation;
        self
    }

    /// Adds a say in what passes, before the API server's own.
    #[must_use]
    pub fn policy(mut self, policy: impl RequestPolicy + 'static) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Sets whether streams may outlive the token that opened them. They may, unless this is called.
    #[must_use]
    pub fn stream_lifetime(mut self, lifetime: StreamLifetime) -> Self {
        self.stream_lifetime = lifetime;
        self
    }

    /// Sets what becomes of redirects. They are passed on, unless this is called.
    ///
    /// ```
    /// use arc_cluster_connect::{
    ///     agent::{Agent, ApiServer, RedirectPolicy},
    ///     net::{Endpoint, Security, TrustRoots},
    /// };
    ///
    /// let endpoint = Endpoint::new("127.0.0.1", 6443, Security::Plain);
    /// let builder = Agent::builder(ApiServer::new(endpoint, TrustRoots::platform()))
    ///     .redirects(RedirectPolicy::Refuse);
    /// ```
    #[must_use]
    pub fn redirects(mut self, policy: RedirectPolicy) -> Self {
        self.redirects = policy;
        self
    }

    /// Sets how many requests may be in flight at once; 2000 unless this is called. Watches and upgraded streams
    /// count for as long as they last. A request beyond it is answered with 429.
    #[must_use]
    pub fn max_requests(mut self, max_requests: usize) -> Self {
        self.max_requests = max_requests;
        self
    }

    /// Sets how many of them one tunnel connection may have; 1100 unless this is called. That is
    /// more than the 1024 streams that a tunnel connection takes, so a client waits for a stream before it meets a 429.
    #[must_use]
    pub fn max_requests_per_connection(mut self, max_requests: usize) -> Self {
        self.max_requests_per_connection = max_requests;
        self
    }

    /// Sets how many of them one caller may have, over all tunnel connections; 1500 unless this is called. Callers
    /// that the agent does not know by name are told apart by their tokens.
    #[must_use]
    pub fn max_requests_per_caller(mut self, max_requests: usize) -> Self {
        self.max_requests_per_caller = max_requests;
        self
    }

    /// Drops also those of a caller's headers whose names start with `prefix`.
    ///
    /// `X-Remote-*` always goes. So does what the cluster itself names as its front-proxy headers, as long as the agent
    /// serves a relay or a socket, has a [credential](Self::agent_credential) and may read them: in the name of the user
    /// `arc-cluster-connect:front-proxy-headers` it reads the ConfigMap `extension-apiserver-authentication` of
    /// `kube-system` every ten minutes. Where that user has no right to it, name those headers here.
    #[must_use]
    pub fn strip_headers(mut self, prefix: impl Into<String>) -> Self {
        self.stripped_headers.push(prefix.into());
        self
    }

    /// Sets what keeps the audit events; nothing does unless this is called.
    #[must_use]
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = sink;
        self
    }

    /// Sets how long requests and upgraded streams may go on after the agent was told to stop; 25 seconds unless this
    /// is called. A pod's `terminationGracePeriodSeconds` must be some 5 seconds more: signing off at the relay and
    /// writing the last audit events take their time too.
    #[must_use]
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// Makes the agent. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when no kind of caller is accepted, an authenticator has been added and no
    /// credential to act under, a limit is zero or a header name is malformed; [`ErrorKind::Tls`] when the trust roots can not be used.
    pub fn build(self) -> Result<Agent> {
        let (pass_through, impersonation) = (self.api_server.dial()?, self.api_server.dial()?);
        self.build_on(pass_through, impersonation)
    }

    fn build_on(self, pass_through: Box<dyn Dial>, impersonation: Box<dyn Dial>) -> Result<Agent> {
        if self.authenticators.is_empty() && self.service_accounts.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the agent would refuse every caller",
            )
            .with_help("add an authenticator, or let service account tokens be passed through"));
        }
        if !self.authenticators.is_empty() && self.agent_credential.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the agent has no credential under which to act for the callers that it authenticates",
            )
            .with_help("give it the token of a service account that may impersonate"));
        }
        if [
            self.max_requests,
            self.max_requests_per_connection,
            self.max_requests_per_caller,
        ]
        .contains(&0)
        {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the agent's limit of requests in flight is zero",
            ));
        }
        let mut header_policy = HeaderPolicy::default();
        for prefix in &self.stripped_headers {
            header_policy.strip(prefix)?;
        }
        header_policy.set_impersonation(self.impersonation);
        let mut authenticators = self.authenticators;
        let mut self_reviews = None;
        if let Some(service_accounts) = self.service_accounts {
            self_reviews = service_accounts
                .is_reviewed()
                .then(|| SelfReviews::new(Clock::system()));
            authenticators.push(Arc::new(service_accounts));
        }
        let authority = self.api_server.endpoint().authority();
        let host = HeaderValue::try_from(&authority).map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                "the API server's host name is malformed",
            )
            .with_source(error)
        })?;
        let metrics = Metrics::default();
        let requests = TaskTracker::new();
        // An open one would never be waited for to its end.
        requests.close();
        Ok(Agent {
            core: Arc::new(Core {
                requests,
                lanes: Lanes::new(
                    Upstream::new(metrics.counting(pass_through)),
                    Upstream::new(metrics.counting(impersonation)),
                ),
                callers: Callers::new(authenticators),
                agent_credential: self.agent_credential,
                uid_right: UidRight::default(),
                header_policy,
                caller_places: CallerPlaces::new(self.max_requests_per_caller),
                reviews: Reviews::new(),
                self_reviews,
                policy: self.policy,
                stream_lifetime: self.stream_lifetime,
                redirects: self.redirects,
                authority,
                host,
                path_prefix: self.api_server.path_prefix().to_owned(),
                places: Arc::new(Semaphore::new(
                    self.max_requests.min(Semaphore::MAX_PERMITS),
                )),
                connections: Arc::new(Semaphore::new(serve::MAX_CONNECTIONS)),
                max_requests_per_connection: self
                    .max_requests_per_connection
                    .min(Semaphore::MAX_PERMITS),
                audit: self.audit,
                metrics,
                readiness: Arc::default(),
                drain_limit: self.drain_limit,
            }),
        })
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .authenticators
            .iter()
            .map(|authenticator| authenticator.name())
            .collect();
        f.debug_struct("AgentBuilder")
            .field("api_server", &self.api_server)
            .field("authenticators", &names)
            .field("service_accounts", &self.service_accounts)
            .finish_non_exhaustive()
    }
}
