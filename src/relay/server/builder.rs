//! [`RelayServerBuilder`].

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Emulation, EntityOptions, RelayServer, Rights,
    attempts::Attempts,
    emulation::Emulator,
    entity::Entities,
    forward::MAX_REQUEST_BODIES,
    metrics::Metrics,
    newcomers::Newcomers,
    service::{Relay, Scheme},
    token::{EntraIssuer, Rules},
};
use crate::{
    Error, ErrorKind, Result,
    clock::Clock,
    net::{Endpoint, Security, TlsAcceptor},
    relay::{HybridConnection, SasRule},
};

/// Settings of a [`RelayServer`].
#[must_use = "nothing runs before `start`"]
pub struct RelayServerBuilder {
    hybrid_connections: Vec<(String, EntityOptions)>,
    rules: Rules,
    tls: Option<TlsAcceptor>,
    clock: Clock,
    expiry_grace: Duration,
    recycle_after: Option<Duration>,
    emulation: Emulation,
    max_connections: usize,
    host: Option<String>,
}

/// Azure's limit for a namespace.
const DEFAULT_MAX_CONNECTIONS: usize = 5000;

/// A one-hour token is seen to last an hour and five minutes on the live service.
const DEFAULT_EXPIRY_GRACE: Duration = Duration::from_secs(300);

impl RelayServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            hybrid_connections: Vec::new(),
            rules: Rules::default(),
            tls: None,
            clock: Clock::system(),
            expiry_grace: DEFAULT_EXPIRY_GRACE,
            recycle_after: None,
            emulation: Emulation::new(),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            host: None,
        }
    }

    /// Adds a hybrid connection. Its path may have several segments; case does not count.
    pub fn hybrid_connection(self, path: impl Into<String>) -> Self {
        self.hybrid_connection_with(path, EntityOptions::new())
    }

    /// Adds a hybrid connection that takes something else than the others do. Added twice, it is what it was the first
    /// time.
    pub fn hybrid_connection_with(
        mut self,
        path: impl Into<String>,
        options: EntityOptions,
    ) -> Self {
        self.hybrid_connections.push((path.into(), options));
        self
    }

    /// Adds a shared access rule for all hybrid connections. A rule with two keys is two rules of the same name.
    pub fn rule(mut self, rule: SasRule, rights: Rights) -> Self {
        self.rules.add(rule, rights);
        self
    }

    /// Takes Microsoft Entra tokens of this issuer too, for all hybrid connections.
    pub fn entra_issuer(mut self, issuer: EntraIssuer) -> Self {
        self.rules.trust(issuer);
        self
    }

    /// Speaks TLS. Without this the relay is plain text, which is for loopback only.
    pub fn tls(mut self, acceptor: TlsAcceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }

    /// The host name in [`RelayServer::connection_string`]; the address of the socket if not given.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The clock that tokens are judged by; the system's if not given.
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(clock);
        self
    }

    /// How long a listener stays connected after its token has expired; 300 s if not given, as on Azure. New
    /// connections have no grace.
    pub fn expiry_grace(mut self, grace: Duration) -> Self {
        self.expiry_grace = grace;
        self
    }

    /// Cuts each listener's control channel at this age with 1011 `NameRenewalFailed`, as Azure does every 24 hours.
    /// Never, if neither this nor [`Emulation::azure`] is given. Relayed connections go on.
    pub fn recycle_after(mut self, age: Duration) -> Self {
        self.recycle_after = Some(age);
        self
    }

    /// Makes the relay as slow and as forgetful as another one, such as Azure's. If not given, it is as fast as it can be
    /// and cuts nobody.
    pub fn emulate(mut self, emulation: Emulation) -> Self {
        self.emulation = emulation;
        self
    }

    /// How many connections there may be, of all kinds together; 5,000 if not given, as on Azure. A relayed connection
    /// is two of them.
    ///
    /// Half of them, and 1,024 at most, may be connections that have not sent a whole request: when there is one more,
    /// the oldest of those is closed. A tenth, and 512 at most, may be refused requests that wait for their answers, 64
    /// of them from one address.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = limit;
        self
    }

    /// Starts serving on `listener`, on the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no hybrid connection or its path is not usable, or there is neither a rule nor an
    /// issuer; [`ErrorKind::Network`] when the socket has no address.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self, listener: TcpListener) -> Result<RelayServer> {
        let local_addr = listener.local_addr().map_err(|error| {
            Error::new(ErrorKind::Network, "the relay's socket has no address").with_source(error)
        })?;
        let security = if self.tls.is_some() {
            Security::Tls
        } else {
            Security::Plain
        };
        let host = self.host.unwrap_or_else(|| local_addr.ip().to_string());
        let endpoint = Endpoint::new(host, local_addr.port(), security);

        let mut entities = Entities::default();
        for (path, options) in &self.hybrid_connections {
            let hybrid_connection = HybridConnection::new(endpoint.clone(), path)?;
            entities.add(hybrid_connection.path().to_owned(), *options);
        }
        if self.hybrid_connections.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the relay has no hybrid connection",
            )
            .with_help("name at least one, such as 'clusters/east'"));
        }
        if self.rules.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the relay has no shared access rule",
            )
            .with_help("add one with the rights listen and send"));
        }

        let emulation = Emulator::new(self.emulation);
        let max_connections = self.max_connections.min(Semaphore::MAX_PERMITS);
        let connections = Arc::new(Semaphore::new(max_connections));
        let relay = Arc::new(Relay {
            entities,
            rules: self.rules,
            rendezvous: Arc::default(),
            request_rendezvous: Arc::default(),
            request_bodies: Semaphore::new(MAX_REQUEST_BODIES),
            clock: self.clock,
            expiry_grace: self.expiry_grace,
            recycle_after: self.recycle_after.or(emulation.recycle_after()),
            emulation,
            scheme: match security {
                Security::Plain => Scheme::Ws,
                Security::Tls => Scheme::Wss,
            },
            local_addr,
            max_connections,
            newcomers: Arc::new(Newcomers::new(Arc::clone(&connections))),
            connections,
            metrics: Metrics::default(),
            attempts: Arc::new(Attempts::new(max_connections)),
            shutdown: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        Ok(RelayServer::spawn(relay, listener, self.tls, endpoint))
    }
}

impl fmt::Debug for RelayServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayServerBuilder")
            .field("hybrid_connections", &self.hybrid_connections)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
