//! [`ProxyArguments`]: the corporate proxy between this machine and everything else.

use arc_cluster_connect::{Result, net::ProxySettings};
use clap::Args;

use super::warn;

/// `--https-proxy` and `--no-proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArguments {
    /// Corporate proxy to dial through: http://HOST:PORT, https://… or socks5h://…; `env` takes HTTPS_PROXY, ALL_PROXY and
    /// NO_PROXY from the environment, which is also the place for a proxy's password
    #[arg(long, value_name = "URL", help_heading = "Network")]
    https_proxy: Option<String>,

    /// What to dial straight: names, domains and networks, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        requires = "https_proxy",
        help_heading = "Network"
    )]
    no_proxy: Option<String>,
}

impl ProxyArguments {
    /// The proxy that was named, if one was.
    pub fn settings(&self) -> Result<Option<ProxySettings>> {
        let proxy = match self.https_proxy.as_deref() {
            None => return Ok(None),
            Some("env") => ProxySettings::from_environment()?,
            Some(url) => ProxySettings::parse(url)?,
        };
        Ok(Some(match &self.no_proxy {
            Some(rules) => proxy.with_no_proxy(rules),
            None => proxy,
        }))
    }

    /// Warns of a password that others can see.
    pub fn check(&self) {
        let is_named = |url: &str| url.contains('@');
        if self.https_proxy.as_deref().is_some_and(is_named) {
            warn(
                "a proxy's password on the command line can be seen in process lists and shell history; \
                 set HTTPS_PROXY and pass --https-proxy env",
            );
        }
    }
}
