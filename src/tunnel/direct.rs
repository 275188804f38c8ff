//! [`DirectTunnel`]: a tunnel over plain TCP or TLS, without a relay.

use async_trait::async_trait;

use super::{
    OpenOptions, StateStream, Target, Tunnel, TunnelStatus, TunnelStream, mux,
    stream::BytePipe,
    supervise::{Dial, Supervisor},
};
use crate::{
    Result,
    net::{Alpn, Connector, Endpoint},
};

/// A tunnel to an agent that can be reached by TCP, in the same wire format as through a relay.
///
/// It dials when the first stream is opened, and again by itself when the connection is lost: see [`Tunnel::open`]
/// for the waits and limits that all tunnels of this crate share. Dropping it takes no stream away: live streams go
/// on to their end.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{
///     Tunnel,
///     net::{Connector, Endpoint, Security, TrustRoots},
///     tunnel::{DirectTunnel, OpenOptions, Target},
/// };
///
/// # async fn example() -> arc_cluster_connect::Result<()> {
/// let endpoint = Endpoint::new("agent.example", 8443, Security::Tls);
/// let connector = Connector::new(TrustRoots::platform())?;
/// let tunnel: Arc<dyn Tunnel> = Arc::new(DirectTunnel::new(connector, endpoint));
/// let stream = tunnel.open(&Target::api_server(), OpenOptions::new()).await?;
/// # drop(stream);
/// tunnel.shutdown().await
/// # }
/// ```
pub struct DirectTunnel(Supervisor);

impl DirectTunnel {
    /// A tunnel to `endpoint`. Dials nothing yet.
    pub fn new(connector: Connector, endpoint: Endpoint) -> Self {
        Self(Supervisor::new(DirectDial {
            connector,
            endpoint,
        }))
    }

    /// Sets the limits of the multiplexer.
    #[must_use]
    pub fn with_mux_config(self, config: mux::Config) -> Self {
        Self(self.0.with_config(config))
    }
}

#[async_trait]
impl Tunnel for DirectTunnel {
    async fn open(&self, target: &Target, options: OpenOptions) -> Result<TunnelStream> {
        self.0.open(target, &options).await
    }

    fn status(&self) -> TunnelStatus {
        self.0.status()
    }

    fn states(&self) -> StateStream {
        self.0.states()
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shutdown().await
    }
}

struct DirectDial {
    connector: Connector,
    endpoint: Endpoint,
}

#[async_trait]
impl Dial for DirectDial {
    fn peer(&self) -> String {
        self.endpoint.to_string()
    }

    async fn dial(&self) -> Result<Box<dyn BytePipe>> {
        let stream = self.connector.connect(&self.endpoint, Alpn::None).await?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests;
