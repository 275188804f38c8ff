//! [`RelayTunnel`]: a tunnel through an Azure Relay hybrid connection.

use async_trait::async_trait;

use super::{
    OpenOptions, StateStream, Target, Tunnel, TunnelStatus, TunnelStream, mux,
    stream::BytePipe,
    supervise::{Dial, Supervisor},
};
use crate::{Result, relay::RelaySender};

/// A tunnel to an agent that listens on a hybrid connection.
///
/// It dials when the first stream is opened, and again by itself when the connection is lost: see [`Tunnel::open`]
/// for the waits and limits that all tunnels of this crate share. Dropping it takes no stream away: live streams go
/// on to their end.
///
/// ```no_run
/// use arc_cluster_connect::{
///     Tunnel,
///     net::{Connector, TrustRoots},
///     relay::{ConnectionString, RelaySender},
///     tunnel::{OpenOptions, RelayTunnel, Target},
/// };
///
/// # async fn example(text: &str) -> arc_cluster_connect::Result<()> {
/// let connection_string = ConnectionString::parse(text)?;
/// let sender = RelaySender::new(
///     Connector::new(TrustRoots::platform())?,
///     connection_string.hybrid_connection()?,
///     connection_string.credential(),
/// );
/// let tunnel = RelayTunnel::new(sender);
/// let stream = tunnel.open(&Target::api_server(), OpenOptions::new()).await?;
/// # drop(stream);
/// tunnel.shutdown().await
/// # }
/// ```
pub struct RelayTunnel(Supervisor);

impl RelayTunnel {
    /// A tunnel whose connections `sender` makes. Dials nothing yet.
    pub fn new(sender: RelaySender) -> Self {
        Self(Supervisor::new(RelayDial(sender)))
    }

    /// Sets the limits of the multiplexer.
    #[must_use]
    pub fn with_mux_config(self, config: mux::Config) -> Self {
        Self(self.0.with_config(config))
    }
}

#[async_trait]
impl Tunnel for RelayTunnel {
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

pub(super) struct RelayDial(pub(super) RelaySender);

#[async_trait]
impl Dial for RelayDial {
    fn peer(&self) -> String {
        self.0.hybrid_connection().to_string()
    }

    async fn dial(&self) -> Result<Box<dyn BytePipe>> {
        Ok(Box::new(self.0.connect().await?))
    }
}

#[cfg(all(test, feature = "relay-server"))]
mod tests;
