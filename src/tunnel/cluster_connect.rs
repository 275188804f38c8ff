//! [`ClusterConnect`]: a tunnel to an Arc-enabled cluster, from its id and somebody's rights in Azure.

mod builder;
mod issuer;
mod keeper;
mod refresher;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::task::JoinHandle;

pub use builder::{ClusterConnectBuilder, Preflight};

use self::{keeper::Keeper, refresher::Refresher};
use super::{
    OpenOptions, StateStream, Target, Tunnel, TunnelStatus, TunnelStream,
    stream::BytePipe,
    supervise::{Dial, Supervisor},
};
use crate::{
    Result,
    arm::{ClusterKubeconfig, ConnectedCluster, ConnectedClusterId},
    auth::AuthProvider,
    relay::RelaySender,
};

/// A tunnel to an Arc-enabled cluster, as `az connectedk8s proxy` makes one: Azure Resource Manager tells which relay
/// the cluster's agent listens at and hands out a token for it.
///
/// The token is good for about three hours. Another is fetched five minutes before it ends, and tried again until it
/// is there; the present one stays in use as long as the relay takes it. With each new one the tunnel is dialled anew,
/// while the streams that are open live on where they are. When the machine was suspended, what ended meanwhile is
/// fetched at once, and a connection that gives no sign of life within ten seconds is replaced.
///
/// For everything else it is a [`Tunnel`] like the others. [`auth`](Self::auth) goes with it: who the caller is to the
/// cluster, by default whoever they are to Azure.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{
///     ClusterConnect, Tunnel,
///     arm::ConnectedClusterId,
///     auth::Cloud,
///     net::{Connector, TrustRoots},
///     tunnel::{OpenOptions, Target},
/// };
/// use azure_core::credentials::TokenCredential;
///
/// # async fn example(credential: Arc<dyn TokenCredential>) -> arc_cluster_connect::Result<()> {
/// let id = ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7")?;
/// let cluster = ClusterConnect::builder(id)
///     .connector(Connector::new(TrustRoots::platform())?)
///     .cloud(Cloud::public())
///     .credential(credential)
///     .connect()
///     .await?;
/// let stream = cluster.open(&Target::api_server(), OpenOptions::new()).await?;
/// # drop(stream);
/// cluster.shutdown().await
/// # }
/// ```
pub struct ClusterConnect {
    supervisor: Supervisor,
    keeper: Arc<Keeper>,
    refresher: JoinHandle<()>,
    auth: Arc<dyn AuthProvider>,
    id: ConnectedClusterId,
    cluster: Option<ConnectedCluster>,
    correlation_id: String,
}

impl ClusterConnect {
    /// A tunnel to this cluster, still to be given the caller's credential.
    pub fn builder(id: ConnectedClusterId) -> ClusterConnectBuilder {
        ClusterConnectBuilder::new(id)
    }

    /// The cluster.
    pub fn id(&self) -> &ConnectedClusterId {
        &self.id
    }

    /// What Azure knew of the cluster when the tunnel was made; `None` when nobody looked or the caller may not.
    pub fn cluster(&self) -> Option<&ConnectedCluster> {
        self.cluster.as_ref()
    }

    /// Who the caller is to the cluster: what a proxy or an HTTP client over this tunnel needs beside it.
    pub fn auth(&self) -> Arc<dyn AuthProvider> {
        Arc::clone(&self.auth)
    }

    /// The kubeconfigs that came with the present credential.
    pub fn kubeconfigs(&self) -> Vec<ClusterKubeconfig> {
        self.keeper.kubeconfigs()
    }

    /// The id under which Azure logged everything that was asked for this tunnel.
    pub fn correlation_id(&self) -> &str {
        &self.correlation_id
    }
}

#[async_trait]
impl Tunnel for ClusterConnect {
    async fn open(&self, target: &Target, options: OpenOptions) -> Result<TunnelStream> {
        self.supervisor.open(target, &options).await
    }

    fn status(&self) -> TunnelStatus {
        let mut status = self.supervisor.status();
        status.credential = self.keeper.status();
        status
    }

    fn states(&self) -> StateStream {
        self.supervisor.states()
    }

    async fn shutdown(&self) -> Result<()> {
        self.refresher.abort();
        self.supervisor.shutdown().await
    }
}

impl Drop for ClusterConnect {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl fmt::Debug for ClusterConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConnect")
            .field("id", &self.id)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

struct ClusterDial {
    id: ConnectedClusterId,
    sender: RelaySender,
}

#[async_trait]
impl Dial for ClusterDial {
    /// The relay's path changes from credential to credential; the cluster stays.
    fn peer(&self) -> String {
        self.id.to_string()
    }

    async fn dial(&self) -> Result<Box<dyn BytePipe>> {
        Ok(Box::new(self.sender.connect().await?))
    }
}

#[cfg(test)]
mod tests;
