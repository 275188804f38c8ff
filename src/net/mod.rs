//! A byte stream to host:port: TCP, by way of a corporate proxy where there is one, then TLS where it is asked for. The
//! only module that names `rustls`. Also when to dial again.

mod backoff;
mod dial;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hop;
mod http;
mod proxy;
mod sessions;
mod socket;
mod stream;
mod tls;
mod transport;

use std::{fmt, net::IpAddr};

use tokio::io::{AsyncRead, AsyncWrite};

pub use proxy::ProxySettings;
pub use stream::NetStream;
pub use tls::{Alpn, TlsAcceptor, TrustRoots};

pub(crate) use self::backoff::{Backoff, Jitter, random_jitter};
pub(crate) use self::http::{HttpClient, HttpRequest, HttpResponse, encode_fields};
#[cfg(any(feature = "agent", feature = "relay-server"))]
pub(crate) use self::socket::set_up_accepted;

use self::{hop::Hop, transport::Transport};
use crate::Result;

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
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

/// Loopback, or a link-local address (RFC 3927, RFC 4291): nothing that a router forwards. No name but `localhost`,
/// which RFC 6761 keeps from the DNS.
fn is_on_this_link(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// Dials [`Endpoint`]s: TCP, then TLS with the platform's trust roots or those given.
///
/// All addresses of a name are tried, IPv6 and IPv4 in turn, each a quarter of a second after the one before; the first
/// that answers wins. Sockets have `TCP_NODELAY`, because a tunnel carries keystrokes, keep-alive, and
/// short queues on the way out where the system allows it (`TCP_NOTSENT_LOWAT`; on loopback also `SO_SNDBUF`).
///
/// Goes through no proxy unless told to by [`with_proxy`](Self::with_proxy).
///
/// Cheap to clone; clones share the TLS configuration and its session cache.
///
/// ```no_run
/// use std::path::Path;
///
/// use arc_cluster_connect::net::{Alpn, Connector, Endpoint, ProxySettings, Security, TrustRoots};
///
/// # async fn example() -> arc_cluster_connect::Result<()> {
/// let roots = TrustRoots::platform().and_file(Path::new("corporate-ca.pem"))?;
/// let connector = Connector::new(roots)?.with_proxy(ProxySettings::from_environment()?);
/// let endpoint = Endpoint::new("relay.example", 443, Security::Tls);
/// let stream = connector.connect(&endpoint, Alpn::Http1).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    tls: tls::TlsConnector,
    proxy: ProxySettings,
    #[cfg(test)]
    memory: Option<MemoryNetwork>,
}

impl Connector {
    /// A connector that trusts `roots`.
    ///
    /// # Errors
    /// When the platform's roots can not be loaded or a certificate does not parse.
    pub fn new(roots: TrustRoots) -> Result<Self> {
        Ok(Self {
            tls: tls::TlsConnector::new(roots)?,
            proxy: ProxySettings::direct(),
            #[cfg(test)]
            memory: None,
        })
    }

    /// Dials as `proxy` says.
    #[must_use]
    pub fn with_proxy(mut self, proxy: ProxySettings) -> Self {
        self.proxy = proxy;
        self
    }

    /// Expects a certificate for `name` whatever host is dialled, and asks for it by SNI. A proxy on the way is still
    /// expected to have a certificate for its own name.
    ///
    /// For a server that is reached under another name than its certificate has, as a kubeconfig's
    /// `tls-server-name` says.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when `name` is neither a DNS name nor an IP address.
    pub fn with_server_name(mut self, name: &str) -> Result<Self> {
        self.tls.expect_server_name(name)?;
        Ok(self)
    }

    /// For connections to a relay: TLS begins as Azure's relays like it, which saves a round trip of the first handshake.
    /// Sessions are remembered apart from those of `self`, and shared by the clones.
    #[must_use]
    pub(crate) fn for_relay(mut self) -> Self {
        self.tls.expect_relay();
        self
    }

    /// Connects, and completes the TLS handshake where the endpoint speaks TLS, offering `alpn`.
    ///
    /// # Errors
    /// [`Network`](crate::ErrorKind::Network) when the name does not resolve or nobody answers,
    /// [`Tls`](crate::ErrorKind::Tls) when the certificate or handshake is not acceptable,
    /// [`Timeout`](crate::ErrorKind::Timeout) after 10 s for TCP, 10 s for TLS and 15 s for a proxy's answer;
    /// [`Unauthorized`](crate::ErrorKind::Unauthorized) when a proxy wants a (different) password,
    /// [`Refused`](crate::ErrorKind::Refused) when it does not allow the connection. The text names the endpoint, or the
    /// proxy if it is the proxy that failed.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the half-made connection.
    pub async fn connect(&self, endpoint: &Endpoint, alpn: Alpn) -> Result<NetStream> {
        #[cfg(test)]
        if let Some(memory) = &self.memory {
            let wire = transport::Wire::Memory((memory.0)(endpoint));
            return Ok(NetStream::over(Transport::new(wire, bytes::Bytes::new())));
        }
        let (transport, hop) = match self.proxy.proxy_for(endpoint) {
            None => {
                let hop = Hop::Target(endpoint);
                let tcp = dial::tcp_connect(endpoint, hop).await?;
                (Transport::tcp(tcp), hop)
            }
            Some(proxy) => {
                let transport = self.proxy.open(endpoint, &self.tls).await?;
                let target = endpoint;
                (transport, Hop::Through { target, proxy })
            }
        };
        match endpoint.security {
            Security::Plain => Ok(NetStream::over(transport)),
            Security::Tls => {
                let stream = self.tls.handshake(endpoint, transport, alpn, hop).await?;
                Ok(NetStream::tls(stream))
            }
        }
    }

    /// Completes the TLS handshake with `endpoint` over `io`, which leads there by a way that is none of ours.
    pub(crate) async fn secure<T>(
        &self,
        io: T,
        endpoint: &Endpoint,
        alpn: Alpn,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let hop = Hop::Target(endpoint);
        self.tls.handshake(endpoint, io, alpn, hop).await
    }
}

/// Connections that are made in memory, so that a test's time may be virtual: a socket's delay would count as idleness.
#[cfg(test)]
#[derive(Clone)]
struct MemoryNetwork(std::sync::Arc<dyn Fn(&Endpoint) -> tokio::io::DuplexStream + Send + Sync>);

#[cfg(test)]
impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

#[cfg(test)]
impl Connector {
    /// Every connection is what `dial` makes of its endpoint.
    pub(crate) fn in_memory(
        mut self,
        dial: impl Fn(&Endpoint) -> tokio::io::DuplexStream + Send + Sync + 'static,
    ) -> Self {
        self.memory = Some(MemoryNetwork(std::sync::Arc::new(dial)));
        self
    }
}

#[cfg(test)]
mod tests;
