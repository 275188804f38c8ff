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
//! * **Many clusters on one port**, added and removed while it runs: [`Proxy::add_cluster`],
//!   [`Proxy::replace_cluster`], [`Proxy::remove_cluster`].
//! * **Streams both ways.** Bodies and trailers pass as they come, nothing is gathered. A client that goes away resets
//!   its tunnel stream; a response that breaks off breaks the client's, and never looks complete.
//! * **Upgrades** (SPDY and WebSocket: exec, attach, port-forward) become raw bytes. They exist in HTTP/1.1 only;
//!   clients that speak HTTP/2 otherwise open another connection for them.
//! * **Failures** are `metav1.Status` objects that say which hop failed and what to do. Only what is not HTTP at all,
//!   or exceeds the header limits, gets the HTTP library's bare 400 or 431.
//! * **Redirects** are never followed. A `Location` that is a path of the API server becomes the path below
//!   `/proxies/<id>`; one that names another host passes as it is.
//!
//! # The status of a running proxy
//! [`Proxy::status`] is a snapshot, [`Proxy::states`] a stream of changes. Other processes send
//! `GET /-/status` with the secret of the run as bearer token and get JSON, where members may be added:
//!
//! ```json
//! {
//!   "version": "0.1.0", "address": "127.0.0.1:47011", "unixSocket": null, "draining": false,
//!   "clusters": [{
//!     "id": "9f86d0…", "server": "https://127.0.0.1:47011/proxies/9f86d0…",
//!     "tunnel": {
//!       "state": "connected", "peer": "relay.example:443/edge", "roundTripMilliseconds": 23.1,
//!       "streams": 2, "bytesSent": 1200, "bytesReceived": 98000
//!     },
//!     "liveRequests": 2, "requests": 31, "bytesSent": 310, "bytesReceived": 97000,
//!     "lastError": { "message": "the connection was lost", "at": "2026-01-01T00:00:00Z" }
//!   }]
//! }
//! ```
//!
//! `state` is one of `idle`, `connecting` (with `attempt`), `connected`, `waiting` (with `retryInMilliseconds` and
//! `reason`), `draining` and `closed`. A tunnel that gets a new credential from time to time has a `credential` beside
//! it, with `expiresAt`, `issued` (how many so far) and `failure` (`null`, or why the last attempt to get one failed). No
//! secret is in it.
//!
//! # The Unix socket
//! [`ProxyBuilder::unix_socket`] serves the same paths as plain HTTP/1.1 at a socket file (mode 0600 in a directory of
//! mode 0700), for programs that can use one: `curl --unix-socket FILE http://localhost/proxies/<id>/version`. There
//! is no TLS, since nobody can listen in on it, and the secret is not asked for: only processes of the same user get
//! in, which the kernel tells, and they could read the secret in the kubeconfig as well. What hands the socket on to
//! somebody else (a bind mount into a container, a forwarder) hands the caller's rights on. kubectl can not use it.

mod builder;
mod certificate;
mod cluster;
mod endpoint;
mod events;
mod id;
mod lifetime;
mod local_service;
mod registry;
mod request_log;
mod secret;
mod status;
mod streams;
#[cfg(test)]
mod tests;
#[cfg(unix)]
mod unix_socket;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use self::{
    cluster::Link, endpoint::Endpoint, events::ProxyEvent as Event, lifetime::Lifetime,
    registry::Registry, request_log::RequestLog, secret::RunSecret,
};
use crate::{AuthProvider, Error, ErrorKind, Result, Tunnel, kubeconfig::ProxyEndpoint};

pub use builder::ProxyBuilder;
pub use events::{ProxyEvent, ProxyStates};
pub use id::ProxyId;
pub use local_service::{LocalRequest, LocalService};
pub use request_log::{RequestEnd, RequestRecord};
pub use status::{ClusterStatus, LastError, ProxyStatus};

/// A running local endpoint. Dropping it stops it at once.
///
/// All its methods take `&self`: `Arc<Proxy>` is how several parts of a program share one.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use arc_cluster_connect::{AuthProvider, Result, Tunnel, proxy::{Proxy, ProxyId}};
/// # async fn example(tunnel: Arc<dyn Tunnel>, auth: Arc<dyn AuthProvider>) -> Result<()> {
/// let proxy = Proxy::builder().start().await?;
/// let id = ProxyId::from_name("edge");
/// let endpoint = proxy.add_cluster(id, tunnel, auth)?;
/// println!("{}", endpoint.server());
///
/// let removed = proxy.remove_cluster(&id).await?;
/// println!("{} requests had to be cut", removed.cut());
/// proxy.shutdown().await;
/// # Ok(()) }
/// ```
pub struct Proxy {
    certificate_pem: String,
    secret: RunSecret,
    registry: Arc<Registry>,
    endpoint: Arc<Endpoint>,
    lifetime: Lifetime,
    log: RequestLog,
    local_addr: SocketAddr,
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
        self.registry.contains(id).then(|| self.endpoint_of(id))
    }

    /// Serves one more cluster: reached through `tunnel`, with the tokens of `auth`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is one with this id already, [`ErrorKind::LimitReached`] when there are
    /// 256, [`ErrorKind::Closed`] after [`shutdown`](Self::shutdown).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn add_cluster(
        &self,
        id: ProxyId,
        tunnel: Arc<dyn Tunnel>,
        auth: Arc<dyn AuthProvider>,
    ) -> Result<ProxyEndpoint> {
        self.registry.add(id, Link { tunnel, auth })?;
        Ok(self.endpoint_of(&id))
    }

    /// Gives the cluster `id` another tunnel and credential, or adds it. Requests that run go on over the earlier
    /// tunnel to their end; new ones take the new. The earlier tunnel is dropped when the last of them is over, which
    /// closes the tunnels of this crate; it is not shut down, because that would have a limit.
    ///
    /// # Errors
    /// As [`add_cluster`](Self::add_cluster), but for the id that is taken.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn replace_cluster(
        &self,
        id: ProxyId,
        tunnel: Arc<dyn Tunnel>,
        auth: Arc<dyn AuthProvider>,
    ) -> Result<ProxyEndpoint> {
        self.registry.replace(id, Link { tunnel, auth })?;
        Ok(self.endpoint_of(&id))
    }

    /// Stops serving the cluster `id`: new requests get a 404 that says so, running ones have the drain limit to end
    /// and are then broken. Other clusters notice nothing.
    ///
    /// The tunnel stays as it is, and is part of what is returned: shut it down if nobody else uses it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such cluster.
    ///
    /// # Cancel safety
    /// The cluster leaves when this is first polled. A dropped future breaks its running requests at once.
    pub async fn remove_cluster(&self, id: &ProxyId) -> Result<RemovedCluster> {
        let id = *id;
        let cluster = self.registry.remove(&id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the local endpoint serves no cluster with the id {id}"),
            )
        })?;
        let tunnel = Arc::clone(&cluster.link().tunnel);
        let cut = cluster.drain(self.drain_limit).await;
        self.registry
            .events()
            .send(Event::ClusterRemoved { id, cut });
        Ok(RemovedCluster { tunnel, cut })
    }

    /// The ids of the clusters that are served, in their order.
    pub fn clusters(&self) -> Vec<ProxyId> {
        let clusters = self.registry.clusters();
        clusters.iter().map(|cluster| cluster.id()).collect()
    }

    /// What the proxy and each of its clusters are doing right now.
    pub fn status(&self) -> ProxyStatus {
        self.endpoint.status()
    }

    /// What there is now and every change from now on, for a user interface. Nothing waits for a reader that is slow.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub fn states(&self) -> ProxyStates {
        ProxyStates::new(Arc::clone(&self.registry), self.lifetime.clone())
    }

    /// Takes no new connections, waits for running requests within the drain limit, then breaks what is left.
    ///
    /// The tunnels stay as they are: they belong to whoever gave them.
    ///
    /// # Cancel safety
    /// A dropped future leaves the proxy without new connections, and running requests without a limit. Calling it
    /// again gives them the limit once more; dropping the proxy stops everything at once.
    pub async fn shutdown(&self) {
        self.registry.close();
        self.lifetime.end(self.drain_limit).await;
        self.log.flush().await;
    }

    fn endpoint_of(&self, id: &ProxyId) -> ProxyEndpoint {
        ProxyEndpoint::new(
            format!("https://{}{}", self.local_addr, endpoint::base_path(id)),
            self.certificate_pem.clone(),
            self.secret.shared(),
        )
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.registry.close();
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

/// A cluster that is not served any more.
#[must_use = "its tunnel is still open"]
pub struct RemovedCluster {
    tunnel: Arc<dyn Tunnel>,
    cut: usize,
}

impl RemovedCluster {
    /// How many requests had not ended within the drain limit and were broken.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The tunnel that it had last.
    pub fn tunnel(&self) -> &Arc<dyn Tunnel> {
        &self.tunnel
    }
}

impl fmt::Debug for RemovedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemovedCluster")
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}
