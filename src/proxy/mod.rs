//! The loopback HTTPS endpoint that kubectl talks to.
//!
//! `https://127.0.0.1:<port>/proxies/<id>` stands for the API server of the cluster `<id>`. A request that shows the
//! secret of the run goes through that cluster's [`Tunnel`], under the token of its [`AuthProvider`]; every other
//! request is refused. [`Proxy::endpoint`] gives what a kubeconfig needs.
//!
//! ```text
//!  kubectl ──h1/h2 over TLS──► gate ──► route ──► forward ──► one tunnel stream per request ──► agent
//!                            Host, Origin,  id    token, headers      HTTP/1.1
//!                            run secret
//! ```
//!
//! * **Streams both ways.** Bodies and trailers pass as they come, nothing is gathered. A client that goes away resets
//!   its tunnel stream; a response that breaks off breaks the client's, and never looks complete.
//! * **Upgrades** (SPDY and WebSocket: exec, attach, port-forward) become raw bytes. They exist in HTTP/1.1 only;
//!   clients that speak HTTP/2 otherwise open another connection for them.
//! * **Failures** are `metav1.Status` objects that say which hop failed and what to do. Only what is not HTTP at all,
//!   or exceeds the header limits, gets the HTTP library's bare 400 or 431.
//! * **Redirects** are never followed. A `Location` that is a path of the API server becomes the path below
//!   `/proxies/<id>`; one that names another host passes as it is.

mod certificate;
mod endpoint;
mod id;
mod lifetime;
mod registry;
mod secret;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;

use self::{
    certificate::Certificate,
    endpoint::{Endpoint, Limits, Server},
    lifetime::Lifetime,
    registry::{Cluster, Registry},
    secret::RunSecret,
};
use crate::{AuthProvider, Error, ErrorKind, Result, Tunnel, kubeconfig::ProxyEndpoint};

pub use id::ProxyId;

/// How long [`Proxy::shutdown`] waits for running requests. A watch or a shell never ends by itself, and whoever
/// pressed Ctrl-C waits for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// A running local endpoint. Dropping it stops it at once.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use arc_cluster_connect::{AuthProvider, Result, Tunnel, proxy::{Proxy, ProxyId}};
/// # async fn example(tunnel: Arc<dyn Tunnel>, auth: Arc<dyn AuthProvider>) -> Result<()> {
/// let id = ProxyId::from_name("edge");
/// let proxy = Proxy::builder().cluster(id, tunnel, auth).start().await?;
/// let endpoint = proxy.endpoint(&id).expect("the cluster was added above");
/// println!("{}", endpoint.server());
/// proxy.shutdown().await;
/// # Ok(()) }
/// ```
pub struct Proxy {
    local_addr: SocketAddr,
    certificate_pem: String,
    secret: RunSecret,
    registry: Arc<Registry>,
    lifetime: Lifetime,
    drain_limit: Duration,
}

impl Proxy {
    /// A proxy to be.
    pub fn builder() -> ProxyBuilder {
        ProxyBuilder::default()
    }

    /// The address that is listened on: `127.0.0.1`, and the port that was asked for or found free.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What a kubeconfig needs to reach the cluster `id`, the secret of this run included. `None` when there is no
    /// such cluster.
    pub fn endpoint(&self, id: &ProxyId) -> Option<ProxyEndpoint> {
        self.registry.find(id)?;
        Some(ProxyEndpoint::new(
            format!("https://{}{}", self.local_addr, endpoint::base_path(id)),
            self.certificate_pem.clone(),
            self.secret.shared(),
        ))
    }

    /// Takes no new connections, waits for running requests within the drain limit, then breaks what is left.
    ///
    /// The tunnels stay as they are: they belong to whoever gave them.
    ///
    /// # Cancel safety
    /// A dropped future stops everything at once.
    pub async fn shutdown(self) {
        self.lifetime.end(self.drain_limit).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lifetime.stop();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// Makes a [`Proxy`].
#[derive(Default)]
#[must_use = "nothing listens before `start`"]
pub struct ProxyBuilder {
    port: u16,
    clusters: Vec<(ProxyId, Cluster)>,
    drain_limit: Option<Duration>,
    limits: Limits,
}

impl ProxyBuilder {
    /// The port on `127.0.0.1`. 0, the default, is any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Adds a cluster: reached through `tunnel`, with the tokens of `auth`.
    pub fn cluster(
        mut self,
        id: ProxyId,
        tunnel: Arc<dyn Tunnel>,
        auth: Arc<dyn AuthProvider>,
    ) -> Self {
        self.clusters.push((id, Cluster { tunnel, auth }));
        self
    }

    /// How long [`Proxy::shutdown`] waits for running requests: five seconds unless told otherwise.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = Some(limit);
        self
    }

    #[cfg(test)]
    fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Listens on `127.0.0.1`, with a certificate and a secret made for this run. `::1` is not listened on: the
    /// kubeconfig names `127.0.0.1`, and a second socket could fall to another program.
    ///
    /// The proxy runs as tasks of the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the port is in use or may not be used, [`ErrorKind::InvalidInput`] when two
    /// clusters have one id.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> Result<Proxy> {
        let registry = Registry::default();
        for (id, cluster) in self.clusters {
            if registry.insert(id, cluster).is_some() {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("two clusters of the local endpoint have the id {id}"),
                ));
            }
        }
        let registry = Arc::new(registry);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .map_err(|error| listen_error(self.port, error))?;
        let local_addr = listener
            .local_addr()
            .map_err(|error| listen_error(self.port, error))?;
        let certificate = Certificate::generate(time::OffsetDateTime::now_utc())?;
        let secret = RunSecret::generate();
        let lifetime = Lifetime::default();
        let endpoint = Endpoint::new(
            local_addr.port(),
            secret.clone(),
            Arc::clone(&registry),
            &self.limits,
            lifetime.clone(),
        );
        let server = Server::new(
            listener,
            certificate.acceptor().clone(),
            endpoint,
            &self.limits,
            lifetime.clone(),
        );
        lifetime.spawn(server.run());
        Ok(Proxy {
            local_addr,
            certificate_pem: certificate.pem().to_owned(),
            secret,
            registry,
            lifetime,
            drain_limit: self.drain_limit.unwrap_or(DRAIN_LIMIT),
        })
    }
}

impl fmt::Debug for ProxyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyBuilder")
            .field("port", &self.port)
            .field("clusters", &self.clusters.len())
            .finish_non_exhaustive()
    }
}

fn listen_error(port: u16, error: io::Error) -> Error {
    let (message, help) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            format!("port {port} on 127.0.0.1 is in use"),
            "another program listens there, perhaps another proxy: stop it, or choose another port with --port \
             (0 takes any free one); the Azure CLI calls this AZK8S0801 ClientProxyPortInUse",
        ),
        io::ErrorKind::PermissionDenied => (
            format!("port {port} on 127.0.0.1 may not be used"),
            "choose a port above 1023 with --port (0 takes any free one)",
        ),
        _ => (
            format!("can not listen on port {port} of 127.0.0.1"),
            "choose another port with --port (0 takes any free one)",
        ),
    };
    Error::new(ErrorKind::Network, message)
        .with_source(error)
        .with_help(help)
}
