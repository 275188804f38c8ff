//! [`ClusterConnectBuilder`].

use std::{fmt, sync::Arc};

use azure_core::credentials::TokenCredential;
use uuid::Uuid;

use super::{ClusterConnect, ClusterDial, Keeper, Refresher, issuer::ArmIssuer};
use crate::{
    Error, ErrorKind, Result,
    arm::{ArmClient, AuthenticationMethod, ConnectedClusterId},
    auth::{AadAuth, AuthProvider, Cloud},
    clock::Clock,
    net::{Connector, TrustRoots, random_jitter},
    relay::{HybridConnection, RelayCredential, RelaySender},
    tunnel::{mux, supervise::Supervisor},
};

/// Whether the cluster's state is looked at before anything is dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preflight {
    /// It is: a cluster that is offline is named as such at once.
    #[default]
    Check,
    /// It is not: one request less.
    Skip,
}

/// Settings of a [`ClusterConnect`].
#[must_use = "nothing happens before `connect`"]
pub struct ClusterConnectBuilder {
    id: ConnectedClusterId,
    connector: Option<Connector>,
    cloud: Cloud,
    credential: Option<Arc<dyn TokenCredential>>,
    auth: Option<Arc<dyn AuthProvider>>,
    method: AuthenticationMethod,
    preflight: Preflight,
    mux_config: mux::Config,
    correlation_id: Option<Uuid>,
}

impl ClusterConnectBuilder {
    pub(super) fn new(id: ConnectedClusterId) -> Self {
        Self {
            id,
            connector: None,
            cloud: Cloud::public(),
            credential: None,
            auth: None,
            method: AuthenticationMethod::default(),
            preflight: Preflight::default(),
            mux_config: mux::Config::default(),
            correlation_id: None,
        }
    }

    /// Dials everything with this: Azure Resource Manager and the relay. With the platform's trust roots if not given.
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// The cloud; the public one if not given.
    pub fn cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = cloud;
        self
    }

    /// Who the caller is to Azure. Has to be given.
    pub fn credential(mut self, credential: Arc<dyn TokenCredential>) -> Self {
        self.credential = Some(credential);
        self
    }

    /// Who the caller is to the cluster; if not given, whoever they are to Azure.
    pub fn auth(mut self, auth: Arc<dyn AuthProvider>) -> Self {
        self.auth = Some(auth);
        self
    }

    /// What Azure Resource Manager is told of how the caller will show who they are, which decides what kubeconfigs it
    /// gives: [`AuthenticationMethod::Aad`] if not given.
    pub fn authentication_method(mut self, method: AuthenticationMethod) -> Self {
        self.method = method;
        self
    }

    /// Whether to look at the cluster's state before anything is dialled; it is if not given.
    pub fn preflight(mut self, preflight: Preflight) -> Self {
        self.preflight = preflight;
        self
    }

    /// Sets the limits of the multiplexer.
    pub fn mux_config(mut self, config: mux::Config) -> Self {
        self.mux_config = config;
        self
    }

    /// Gives Azure this correlation id instead of a random one.
    pub fn correlation_id(mut self, id: Uuid) -> Self {
        self.correlation_id = Some(id);
        self
    }

    /// Looks at the cluster, gets a credential for its relay, and dials.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] without a credential. Those of [`ArmClient::preflight`] and
    /// [`ArmClient::list_cluster_user_credential`]: not signed in, no right, no such cluster, no agent. Then as
    /// [`Tunnel::open`](crate::Tunnel::open) when the relay can not be dialled or nobody answers through it within 15
    /// seconds.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future leaves nothing behind.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(self) -> Result<ClusterConnect> {
        let credential = self.credential.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                "no credential was given for Azure Resource Manager",
            )
            .with_help("give one with `credential`")
        })?;
        let connector = match self.connector {
            Some(connector) => connector,
            None => Connector::new(TrustRoots::platform())?,
        };
        let mut arm = ArmClient::new(
            connector.clone(),
            self.cloud.clone(),
            Arc::clone(&credential),
        );
        if let Some(id) = self.correlation_id {
            arm = arm.with_correlation_id(id);
        }
        let correlation_id = arm.correlation_id().to_owned();
        let cluster = match self.preflight {
            Preflight::Check => arm.preflight(&self.id).await?,
            Preflight::Skip => None,
        };
        let issuer = ArmIssuer::new(arm, self.id.clone(), self.method);
        let clock = Clock::system();
        let keeper = Arc::new(Keeper::new(Box::new(issuer), clock.clone(), random_jitter));
        let first = keeper.refresh().await?;

        // A name for logs: the source says with each token what is really dialled.
        let relay = first.hybrid_connection().endpoint().clone();
        let name = HybridConnection::new(relay, &self.id.hybrid_connection_name())?;
        let source = RelayCredential::refreshing(Arc::clone(&keeper) as _);
        let supervisor = Supervisor::new(ClusterDial {
            id: self.id.clone(),
            sender: RelaySender::new(connector, name, source),
        })
        .with_config(self.mux_config);
        supervisor.connect().await?;
        let refresher = Refresher::new(
            Arc::clone(&keeper),
            supervisor.handle(),
            clock,
            random_jitter,
        );
        Ok(ClusterConnect {
            refresher: tokio::spawn(refresher.run()),
            supervisor,
            keeper,
            auth: self
                .auth
                .unwrap_or_else(|| Arc::new(AadAuth::new(credential))),
            id: self.id,
            cluster,
            correlation_id,
        })
    }
}

impl fmt::Debug for ClusterConnectBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConnectBuilder")
            .field("id", &self.id)
            .field("cloud", &self.cloud)
            .field("preflight", &self.preflight)
            .finish_non_exhaustive()
    }
}
