//! [`ProxyBuilder`]: how a [`Proxy`] is set up and started.

#[cfg(unix)]
use std::path::PathBuf;
use std::{fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

#[cfg(unix)]
use super::unix_socket::UnixSocket;
use super::{
    LocalService, Proxy, ProxyId, RequestRecord,
    certificate::Certificate,
    cluster::Link,
    endpoint::{Endpoint, Limits, Place, Server},
    lifetime::Lifetime,
    registry::Registry,
    request_log::RequestLog,
    secret::RunSecret,
};
use crate::{AuthProvider, Error, ErrorKind, Result, Tunnel};

/// How long [`Proxy::shutdown`] and [`Proxy::remove_cluster`] wait for running requests. A watch or a shell never ends
/// by itself, and whoever pressed Ctrl-C waits for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Makes a [`Proxy`].
#[derive(Default)]
#[must_use = "nothing listens before `start`"]
pub struct ProxyBuilder {
    port: u16,
    clusters: Vec<(ProxyId, Link)>,
    drain_limit: Option<Duration>,
    limits: Limits,
    #[cfg(unix)]
    unix_socket: Option<PathBuf>,
    request_sink: Option<Box<dyn FnMut(RequestRecord) + Send>>,
    local_service: Option<Arc<dyn LocalService>>,
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
        self.clusters.push((id, Link { tunnel, auth }));
        self
    }

    /// How long [`Proxy::shutdown`] and [`Proxy::remove_cluster`] wait for running requests: five seconds unless told
    /// otherwise.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = Some(limit);
        self
    }

    /// Listens on a Unix socket too: see [the module](super#the-unix-socket) for who may use it.
    ///
    /// The directory is made if it is not there, and must be closed to others. A socket that a killed proxy of the same
    /// user has left is replaced, a live one is not. The file is removed at the end.
    #[cfg(unix)]
    pub fn unix_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix_socket = Some(path.into());
        self
    }

    /// Gives a record of each request, when it is over, to `sink`, which may block: it runs on a thread of its own.
    ///
    /// No request waits for it. Up to 1024 records are kept for a sink that is slow; further ones are lost, and
    /// [`RequestRecord::lost`] of the next tells how many. Without a sink the same is still a `tracing` event of the
    /// target [`TARGET_PROXY_REQUESTS`](crate::telemetry::TARGET_PROXY_REQUESTS).
    ///
    /// ```
    /// # use arc_cluster_connect::proxy::Proxy;
    /// use std::io::Write;
    ///
    /// let mut file = tempfile::tempfile()?;
    /// let proxy = Proxy::builder().request_log(move |record| {
    ///     let _ = writeln!(file, "{}", record.to_json());
    /// });
    /// # drop(proxy);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn request_log(mut self, sink: impl FnMut(RequestRecord) + Send + 'static) -> Self {
        self.request_sink = Some(Box::new(sink));
        self
    }

    /// Lets `service` answer paths that are no cluster's. **It is asked without the secret of the run**: read
    /// [`LocalService`] first.
    pub fn local_service(mut self, service: Arc<dyn LocalService>) -> Self {
        self.local_service = Some(service);
        self
    }

    #[cfg(test)]
    pub(super) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Listens on `127.0.0.1`, with a certificate and a secret made for this run. `::1` is not listened on: the
    /// kubeconfig names `127.0.0.1`, and a second socket could fall to another program.
    ///
    /// The proxy runs as tasks of the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the port is in use or may not be used, [`ErrorKind::File`] when the Unix socket can
    /// not be had, [`ErrorKind::InvalidInput`] when two clusters have one id, [`ErrorKind::LimitReached`] when there
    /// are more than 256.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> Result<Proxy> {
        let registry = Arc::new(Registry::default());
        for (id, link) in self.clusters {
            registry.add(id, link)?;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .map_err(|error| listen_error(self.port, error))?;
        let local_addr = listener
            .local_addr()
            .map_err(|error| listen_error(self.port, error))?;
        #[cfg(unix)]
        let socket = match &self.unix_socket {
            Some(path) => Some(UnixSocket::bind(path).await?),
            None => None,
        };
        let place = Place {
            local_addr,
            #[cfg(unix)]
            unix_socket: self.unix_socket,
            #[cfg(not(unix))]
            unix_socket: None,
        };
        let certificate = Certificate::generate(time::OffsetDateTime::now_utc())?;
        let secret = RunSecret::generate();
        let lifetime = Lifetime::default();
        let log = match self.request_sink {
            Some(sink) => RequestLog::start(sink)?,
            None => RequestLog::default(),
        };
        let endpoint = Endpoint::new(
            place,
            secret.clone(),
            Arc::clone(&registry),
            &self.limits,
            lifetime.clone(),
        )
        .with_log(log.clone())
        .with_local_service(self.local_service);
        let endpoint = Arc::new(endpoint);
        let server = Server::new(
            listener,
            certificate.acceptor().clone(),
            Arc::clone(&endpoint),
            &self.limits,
            lifetime.clone(),
        );
        #[cfg(unix)]
        if let Some(socket) = socket {
            lifetime.spawn(server.beside(socket).run());
        }
        lifetime.spawn(server.run());
        Ok(Proxy {
            certificate_pem: certificate.pem().to_owned(),
            secret,
            registry,
            endpoint,
            lifetime,
            log,
            local_addr,
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
