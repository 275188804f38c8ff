//! A byte stream to host:port: TCP, then TLS where it is asked for. The only module that names `rustls`. Also when to
//! dial again.

mod backoff;
mod http;
mod stream;
mod tls;

use std::{fmt, io, time::Duration};

use tokio::net::TcpStream;

pub use stream::NetStream;
pub use tls::{Alpn, TlsAcceptor, TrustRoots};

pub(crate) use self::backoff::{Backoff, Jitter, random_jitter};
pub(crate) use self::http::{HttpClient, HttpRequest, HttpResponse, encode_fields};

use crate::{Error, ErrorKind, Result};

/// How long one TCP connect, over all addresses of a name, may take. Longer than three lost SYN packets (1, 2, 4 s).
const TCP_CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Whether a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Plain TCP. For loopback and tests.
    Plain,
    /// TLS 1.2 or 1.3.
    Tls,
}

/// Where to connect: a host name or address, a port, and whether TLS is spoken there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
    security: Security,
}

impl Endpoint {
    /// An endpoint. `host` is a DNS name, an IPv4 address, or an IPv6 address without brackets.
    pub fn new(host: impl Into<String>, port: u16, security: Security) -> Self {
        Self {
            host: host.into(),
            port,
            security,
        }
    }

    /// The DNS name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken.
    pub fn security(&self) -> Security {
        self.security
    }

    /// `host:port` as it stands in a `Host` header or a URL: IPv6 in brackets, the port always present.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the host is a loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// Dials [`Endpoint`]s: TCP with `TCP_NODELAY`, then TLS with the platform's trust roots or those given.
///
/// Cheap to clone; clones share the TLS configuration and its session cache.
///
/// ```no_run
/// use std::path::Path;
///
/// use arc_cluster_connect::net::{Alpn, Connector, Endpoint, Security, TrustRoots};
///
/// # async fn example() -> arc_cluster_connect::Result<()> {
/// let roots = TrustRoots::platform().and_file(Path::new("corporate-ca.pem"))?;
/// let endpoint = Endpoint::new("relay.example", 443, Security::Tls);
/// let stream = Connector::new(roots)?.connect(&endpoint, Alpn::Http1).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    tls: tls::TlsConnector,
}

impl Connector {
    /// A connector that trusts `roots`.
    ///
    /// # Errors
    /// When the platform's roots can not be loaded or a certificate does not parse.
    pub fn new(roots: TrustRoots) -> Result<Self> {
        Ok(Self {
            tls: tls::TlsConnector::new(roots)?,
        })
    }

    /// Expects a certificate for `name` whatever host is dialled, and asks for it by SNI.
    ///
    /// For a server that is reached under another name than its certificate has, as a kubeconfig's
    /// `tls-server-name` says.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `name` is neither a DNS name nor an IP address.
    pub fn with_server_name(mut self, name: &str) -> Result<Self> {
        self.tls.expect_server_name(name)?;
        Ok(self)
    }

    /// Connects, and completes the TLS handshake where the endpoint speaks TLS, offering `alpn`.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the name does not resolve or nobody answers, [`ErrorKind::Tls`] when the
    /// certificate or handshake is not acceptable, [`ErrorKind::Timeout`] after the limits of this module. The text
    /// names the endpoint.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the half-made connection.
    pub async fn connect(&self, endpoint: &Endpoint, alpn: Alpn) -> Result<NetStream> {
        let tcp = tcp_connect(endpoint).await?;
        match endpoint.security {
            Security::Plain => Ok(NetStream::plain(tcp)),
            Security::Tls => self.tls.connect(endpoint, tcp, alpn).await,
        }
    }
}

async fn tcp_connect(endpoint: &Endpoint) -> Result<TcpStream> {
    let dial = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let tcp = within_limit(endpoint, dial).await?;
    // A tunnel carries keystrokes: Nagle's algorithm would hold them for up to 40 ms.
    tcp.set_nodelay(true)
        .map_err(|error| connect_error(endpoint, error))?;
    Ok(tcp)
}

async fn within_limit<T>(
    endpoint: &Endpoint,
    dial: impl Future<Output = io::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(TCP_CONNECT_LIMIT, dial).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) => Err(connect_error(endpoint, error)),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("no answer from {endpoint} within {TCP_CONNECT_LIMIT:?}"),
        )
        .with_help("check that a firewall does not drop packets to this host and port")),
    }
}

fn connect_error(endpoint: &Endpoint, error: io::Error) -> Error {
    let help = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: check the host and port, and that the server runs"
        }
        _ => "check the host name, DNS and the network",
    };
    Error::new(ErrorKind::Network, format!("can not connect to {endpoint}"))
        .with_source(error)
        .with_help(help)
}

#[cfg(test)]
mod tests;
