//! Where the agent listens, and what it shows there: a connection string, or its own identity.

use std::{sync::Arc, time::Duration};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    auth::AzureCredential,
    net::{Connector, Endpoint, ProxySettings, Security},
    relay::{HybridConnection, ListenerOptions, RelayCredential},
};
use clap::Args;
use http::Uri;

use super::common;

#[derive(Args)]
pub struct RelayPlace {
    #[command(flatten)]
    connection: common::RelayArguments,

    /// Relay at which to listen under the agent's own identity (--identity), which needs the role Azure Relay Listener:
    /// NAMESPACE.servicebus.windows.net
    #[arg(
        long,
        value_name = "HOST",
        requires_all = ["hybrid_connection", "identity"],
        conflicts_with = "connection_string_file"
    )]
    relay: Option<String>,

    /// Hybrid connection at that relay
    #[arg(long, value_name = "NAME", requires = "relay")]
    hybrid_connection: Option<String>,

    /// How long the hybrid connection may not exist, at the start or later, before the agent takes that for an answer: one
    /// that was made a moment ago is there after 30 to 90 seconds. An agent that is about to start ends then
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(..=MAX_PATIENCE)
    )]
    patience: u64,
}

/// In seconds: a day, after which nobody believes that it is about to appear.
const MAX_PATIENCE: u64 = 24 * 60 * 60;

impl RelayPlace {
    /// The hybrid connection, and the credential for it.
    pub fn place(
        &self,
        identity: Option<&AzureCredential>,
    ) -> Result<(HybridConnection, RelayCredential)> {
        if let (Some(relay), Some(name), Some(identity)) =
            (&self.relay, &self.hybrid_connection, identity)
        {
            let credential = RelayCredential::entra(Arc::new(identity.clone()));
            return Ok((HybridConnection::new(endpoint(relay)?, name)?, credential));
        }
        let connection_string = self.connection.connection_string()?;
        Ok((
            connection_string.hybrid_connection()?,
            connection_string.credential(),
        ))
    }

    /// A connector that trusts the platform and `--relay-ca`, and dials through `proxy`.
    pub fn connector(&self, proxy: &ProxySettings) -> Result<Connector> {
        Ok(self.connection.connector()?.with_proxy(proxy.clone()))
    }

    /// How the agent listens there.
    pub fn options(&self) -> ListenerOptions {
        ListenerOptions::new().patience(Duration::from_secs(self.patience))
    }
}

/// `HOST[:PORT]`, also as a URL. Without TLS on loopback only: the token would be there for all to read.
fn endpoint(relay: &str) -> Result<Endpoint> {
    let invalid = || {
        Error::new(
            ErrorKind::InvalidInput,
            "--relay is not the name of a relay",
        )
        .with_help(
            "give HOST[:PORT] such as contoso.servicebus.windows.net, or ws://127.0.0.1:PORT",
        )
    };
    let url = match relay.contains("://") {
        true => relay.to_owned(),
        false => format!("sb://{relay}"),
    };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let security = match uri.scheme_str() {
        Some("sb" | "wss" | "https") => Security::Tls,
        Some("ws") => Security::Plain,
        _ => return Err(invalid()),
    };
    let has_more = uri
        .path_and_query()
        .is_some_and(|rest| !matches!(rest.as_str(), "" | "/"));
    let authority = uri.authority().ok_or_else(invalid)?;
    if has_more || authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(invalid());
    }
    let port = match (uri.port_u16(), security) {
        (Some(port), _) => port,
        (None, Security::Tls) => 443,
        (None, _) => 80,
    };
    let endpoint = Endpoint::new(authority.host().trim_matches(['[', ']']), port, security);
    if matches!(security, Security::Plain) && !endpoint.is_loopback() {
        return Err(invalid());
    }
    Ok(endpoint)
}
