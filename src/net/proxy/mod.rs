//! [`ProxySettings`]: the corporate proxy between this machine and everything else.

mod address;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod http_connect;
mod no_proxy;
mod problem;
mod socks5;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use self::{
    address::{Protocol, ProxyAddress, is_host_name},
    no_proxy::NoProxy,
    problem::Problem,
};
use super::{
    Alpn, Endpoint, Security, TrustRoots, dial,
    hop::Hop,
    is_on_this_link,
    tls::TlsConnector,
    transport::{Transport, Wire},
};
use crate::{Error, ErrorKind, Result};

/// Whether, and through which proxy, a [`Connector`](super::Connector) dials.
///
/// | URL | the proxy is |
/// |---|---|
/// | `http://host:3128` | asked with `CONNECT`; without a port: 80. `host:3128` means the same |
/// | `https://host:8443` | asked with `CONNECT`, over TLS; without a port: 443 |
/// | `socks5h://host:1080` | asked over SOCKS 5 and resolves the names; without a port: 1080 |
/// | `socks5://host:1080` | asked over SOCKS 5; names are resolved on this machine |
///
/// A user and password stand before the host, percent-encoded: `http://user:p%40ss@host:3128`. They are sent as `Basic`
/// authentication, or as SOCKS has it (RFC 1929), and never shown. Other kinds of authentication (NTLM, Kerberos) are not
/// supported.
///
/// A target that is `localhost`, a loopback address or a link-local one, such as that of a machine's managed identity, is
/// never asked of a proxy. Cheap to clone.
///
/// # Limits
/// A proxy has 15 s to open the way, once it is connected to; 16 KiB for the head of its answer. The body of a refusal is
/// not read.
///
/// ```
/// use arc_cluster_connect::net::{Connector, ProxySettings, TrustRoots};
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let proxy = ProxySettings::parse("http://jane:secret@proxy.corp:3128")?
///     .with_no_proxy("login.corp,10.0.0.0/8");
/// assert!(!format!("{proxy:?}").contains("secret"));
/// # let roots = TrustRoots::platform();
/// let connector = Connector::new(roots)?.with_proxy(proxy);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ProxySettings {
    proxy: Option<Arc<ProxyAddress>>,
    exempt: Arc<NoProxy>,
    /// For a proxy that is spoken to over TLS; else the connector's own.
    tls: Option<TlsConnector>,
}

impl ProxySettings {
    /// No proxy at all, whatever the environment says.
    pub fn direct() -> Self {
        Self::default()
    }

    /// The proxy at `url`, for every target. Reads no environment variable.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `url` is not of a form above. The text does not repeat it.
    pub fn parse(url: &str) -> Result<Self> {
        let proxy = ProxyAddress::parse(url).map_err(|reason| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the proxy's URL is not usable: {reason}"),
            )
            .with_help(URL_HELP)
        })?;
        Ok(Self {
            proxy: Some(Arc::new(proxy)),
            ..Self::default()
        })
    }

    /// What the environment says: the proxy of `HTTPS_PROXY` or else `ALL_PROXY`, except for the targets of `NO_PROXY`.
    ///
    /// The same names in lower case are looked at where the ones in upper case are not set or empty. `HTTP_PROXY` is
    /// not: this crate speaks TLS to everything beyond this machine.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a proxy's URL is not usable. The text names the variable and does not repeat
    /// its value.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| {
            let value = std::env::var_os(name)?;
            Some(value.to_string_lossy().into_owned())
        })
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = variable(name)?.trim().to_owned();
                (!value.is_empty()).then_some((*name, value))
            })
        };
        let Some((name, url)) = first(&PROXY_VARIABLES) else {
            return Ok(Self::direct());
        };
        let settings = Self::parse(&url).map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the environment variable {name} is not usable"),
            )
            .with_source(error)
            .with_help(URL_HELP)
        })?;
        Ok(match first(&NO_PROXY_VARIABLES) {
            Some((_, rules)) => settings.with_no_proxy(&rules),
            None => settings,
        })
    }

    /// Exempts the targets that `rules` name, as `NO_PROXY` does. Replaces earlier rules.
    ///
    /// Rules are separated by commas or white space:
    ///
    /// | rule | covers |
    /// |---|---|
    /// | `*` | everything |
    /// | `corp.example` | the host, and all names below it |
    /// | `.corp.example`, `*.corp.example` | the names below it only |
    /// | `10.1.2.3`, `2001:db8::1` | the address |
    /// | `10.0.0.0/8`, `2001:db8::/32` | the addresses of the network. Names are not resolved for this |
    /// | `host:6443`, `[2001:db8::1]:6443` | as above, on this port only |
    ///
    /// A rule that can not be read covers nothing; a warning is logged.
    #[must_use]
    pub fn with_no_proxy(mut self, rules: &str) -> Self {
        self.exempt = Arc::new(NoProxy::parse(rules));
        self
    }

    /// Which certificates are trusted of an `https://` proxy. Without this: those of the
    /// [`Connector`](super::Connector).
    ///
    /// # Errors
    /// As [`Connector::new`](super::Connector::new).
    pub fn with_trust_roots(mut self, roots: TrustRoots) -> Result<Self> {
        self.tls = Some(TlsConnector::new(roots)?);
        Ok(self)
    }

    /// The proxy through which `target` is dialled; `None` when it is dialled straight.
    pub fn proxy_for(&self, target: &Endpoint) -> Option<&Endpoint> {
        self.address_for(target).map(|proxy| &proxy.endpoint)
    }

    fn address_for(&self, target: &Endpoint) -> Option<&ProxyAddress> {
        let proxy = self.proxy.as_deref()?;
        (!is_on_this_link(&target.host) && !self.exempt.covers(target)).then_some(proxy)
    }

    /// Has the proxy of `target`, which must have one, open a way to it. `tls` is the connector's.
    ///
    /// Cancel-safe: a dropped future closes the connection to the proxy.
    pub(super) async fn open(&self, target: &Endpoint, tls: &TlsConnector) -> Result<Transport> {
        let proxy = self
            .proxy
            .as_deref()
            .ok_or_else(|| Error::new(ErrorKind::Other, "there is no proxy"))?;
        match proxy.protocol {
            Protocol::Http => {
                self.attempt(proxy, target, tls, async |wire| {
                    http_connect::open(wire, target, proxy.credentials.as_ref()).await
                })
                .await?
            }
            Protocol::Socks5Names => {
                self.attempt(proxy, target, tls, async |wire| {
                    socks5_open(wire, target.host(), target, proxy).await
                })
                .await?
            }
            Protocol::Socks5 => return self.open_resolved(proxy, target, tls).await,
        }
        .map_err(|problem| problem.into_error(&proxy.endpoint, target))
    }

    /// SOCKS with names that are resolved here: one address after the other, each on a connection of its own.
    async fn open_resolved(
        &self,
        proxy: &ProxyAddress,
        target: &Endpoint,
        tls: &TlsConnector,
    ) -> Result<Transport> {
        let hop = Hop::Target(target);
        let addresses = dial::within_limit(hop, dial::resolve(target)).await?;
        let mut last = Problem::Target("its name has no address");
        for address in addresses.into_iter().take(MAX_SOCKS_ADDRESSES) {
            let host = address.ip().to_string();
            let outcome = self
                .attempt(proxy, target, tls, async |wire| {
                    socks5_open(wire, &host, target, proxy).await
                })
                .await?;
            match outcome {
                Err(Problem::SocksReply(code)) if socks5::is_of_this_address(code) => {
                    last = Problem::SocksReply(code);
                }
                outcome => {
                    return outcome.map_err(|problem| problem.into_error(&proxy.endpoint, target));
                }
            }
        }
        Err(last.into_error(&proxy.endpoint, target))
    }

    /// One connection to the proxy, and the conversation `ask` on it.
    async fn attempt(
        &self,
        proxy: &ProxyAddress,
        target: &Endpoint,
        tls: &TlsConnector,
        ask: impl AsyncFnOnce(&mut Wire) -> Result<Bytes, Problem>,
    ) -> Result<Result<Transport, Problem>> {
        let host = target.host();
        if host.parse::<std::net::IpAddr>().is_err() && !is_host_name(host) {
            return Ok(Err(Problem::Target("it is not a host name")));
        }
        let hop = Hop::Proxy(&proxy.endpoint);
        let tcp = dial::tcp_connect(&proxy.endpoint, hop).await?;
        let mut wire = match proxy.endpoint.security() {
            Security::Plain => Wire::Tcp(tcp),
            Security::Tls => {
                let tls = self.tls.as_ref().unwrap_or(tls);
                let stream = tls
                    .handshake_as_named(&proxy.endpoint, tcp, Alpn::Http1, hop)
                    .await?;
                Wire::Tls(Box::new(stream))
            }
        };
        match tokio::time::timeout(ANSWER_LIMIT, ask(&mut wire)).await {
            Ok(Ok(early)) => Ok(Ok(Transport::new(wire, early))),
            Ok(Err(problem)) => Ok(Err(problem)),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the proxy {} did not connect us to {target} within {ANSWER_LIMIT:?}",
                    proxy.endpoint
                ),
            )
            .with_help("check the proxy's scheme, host and port, and that it can reach this host")),
        }
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = match &self.proxy {
            Some(proxy) => proxy.to_string(),
            None => "direct".to_owned(),
        };
        f.debug_struct("ProxySettings")
            .field("proxy", &proxy)
            .field("no_proxy", &self.exempt)
            .finish_non_exhaustive()
    }
}

async fn socks5_open(
    wire: &mut Wire,
    host: &str,
    target: &Endpoint,
    proxy: &ProxyAddress,
) -> Result<Bytes, Problem> {
    socks5::open(wire, host, target.port(), proxy.credentials.as_ref()).await?;
    Ok(Bytes::new())
}

const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

const URL_HELP: &str = "give http://host:port, https://host:port, socks5h://host:port or socks5://host:port; user and \
                        password before the host as user:password@, special characters percent-encoded";

/// For the conversation with a proxy, which dials the target in the middle of it. A little more than we would give a
/// dial of our own, so that the proxy's reason for its failure arrives.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Each costs a connection to the proxy and a wait.
const MAX_SOCKS_ADDRESSES: usize = 4;

#[cfg(test)]
mod tests;
