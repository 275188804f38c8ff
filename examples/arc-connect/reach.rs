//! [`Reached`]: a cluster that has answered the caller, whichever way leads there.

use std::sync::Arc;

use arc_cluster_connect::{
    AuthProvider, ClusterConnect, Error, ErrorKind, KubeconfigBuilder, Result, Tunnel,
    arm::{AuthenticationMethod, ConnectedClusterId},
    auth::{AadAuth, AzureCredential, Cloud, PopAuth, ProofKey},
    kubeconfig::{AadKubeconfig, Kubeconfig, ProxyEndpoint, TokenKubeconfig},
    net::Connector,
    proxy::ProxyId,
    relay::{ConnectionString, RelaySender},
};
use azure_core::credentials::TokenCredential;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::{
    azure_code,
    bridge_arguments::{BridgeArguments, FarEnd},
    caller_arguments::CallerArguments,
    cluster_arguments::{ClusterArguments, Place},
    common,
    first_request::{first_request, hopeless},
};

/// What to do about a 401 for a caller who brought a token.
const TOKEN_REFUSED: &str =
    "the token is wrong or expired: get a new one, for instance with `kubectl create token NAME`";

/// What to do about a 401 for a caller who signed in.
const SIGN_IN_REFUSED: &str = "the agent does not take this sign-in: check that it is to the cluster's own tenant \
    (--tenant ID); a cluster may also insist on proof of possession (--pop)";

/// A cluster that has answered the caller.
pub struct Reached {
    pub tunnel: Arc<dyn Tunnel>,
    pub auth: Arc<dyn AuthProvider>,
    pub id: ProxyId,
    /// What people call it.
    pub name: String,
    /// Its id in Azure, where it has one.
    pub resource: Option<ConnectedClusterId>,
    /// What to do when the caller is refused.
    pub unauthorized: &'static str,
    naming: Naming,
}

/// How the entries of a kubeconfig are called.
enum Naming {
    Context(String),
    Azure(AadKubeconfig),
}

impl Reached {
    /// Reaches the one cluster that was named.
    pub async fn one(
        clusters: &ClusterArguments,
        bridge: &BridgeArguments,
        caller: &CallerArguments,
    ) -> Result<Self> {
        let place = clusters.place().await?;
        let way = Way::new(clusters, bridge, caller, std::slice::from_ref(&place)).await?;
        way.reach(place).await
    }

    /// Reaches all clusters that were named. One of several that can not be reached keeps nobody from the others: it is
    /// told, and left out.
    pub async fn all(
        clusters: &ClusterArguments,
        bridge: &BridgeArguments,
        caller: &CallerArguments,
    ) -> Result<Vec<Self>> {
        let places = clusters.places().await?;
        let several = places.len() > 1;
        let way = Way::new(clusters, bridge, caller, &places).await?;
        let attempts = places.into_iter().map(|place| async {
            let name = place.to_string();
            (name, way.reach(place).await)
        });
        let mut reached = Vec::new();
        let mut failure = None;
        for (name, attempt) in join_all(attempts).await {
            match attempt {
                Ok(cluster) => reached.push(cluster),
                Err(error) => {
                    if several {
                        common::warn(format_args!("{name} is left out"));
                        common::failure(&error);
                    }
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if !several => Err(error),
            Some(_) if reached.is_empty() => Err(Error::new(
                ErrorKind::NotFound,
                "none of the clusters can be reached",
            )),
            _ => Ok(reached),
        }
    }

    /// Calls the context `name`.
    #[must_use]
    pub fn with_context_name(mut self, name: &str) -> Self {
        self.naming = match self.naming {
            Naming::Context(_) => Naming::Context(name.to_owned()),
            Naming::Azure(kubeconfig) => Naming::Azure(kubeconfig.with_context_name(name)),
        };
        self
    }

    /// The name of the context in its kubeconfig.
    pub fn context(&self) -> String {
        match &self.naming {
            Naming::Context(name) => name.clone(),
            Naming::Azure(kubeconfig) => kubeconfig.context_name(),
        }
    }

    /// The kubeconfig that leads to `endpoint`.
    pub fn kubeconfig(&self, endpoint: &ProxyEndpoint) -> Result<Kubeconfig> {
        match &self.naming {
            Naming::Context(name) => TokenKubeconfig::new(name).build(endpoint),
            Naming::Azure(kubeconfig) => kubeconfig.build(endpoint),
        }
    }
}

/// What all clusters of one run are reached with.
struct Way {
    connector: Connector,
    /// What waits at a relay whose key we have.
    far_end: FarEnd,
    /// The token that was given for the clusters.
    bearer: Option<Arc<dyn AuthProvider>>,
    azure: Option<SignedIn>,
    /// One id leads through everything that Azure logs of this run.
    correlation_id: Uuid,
}

/// A caller who signed in to Azure.
struct SignedIn {
    cloud: Cloud,
    credential: AzureCredential,
    /// What the caller's tokens are bound to, if they are.
    key: Option<ProofKey>,
    /// One for all clusters, so that they share its cached token.
    bearer: Arc<dyn AuthProvider>,
}

impl Way {
    async fn new(
        clusters: &ClusterArguments,
        bridge: &BridgeArguments,
        caller: &CallerArguments,
        places: &[Place],
    ) -> Result<Self> {
        let far_end = bridge.far_end(places)?;
        let bearer = caller.bearer()?;
        let is_in_azure = places.iter().any(|place| matches!(place, Place::Azure(_)));
        if !is_in_azure && bearer.is_none() && !caller.signs_in() {
            return Err(
                Error::new(ErrorKind::InvalidInput, "there is no token to call with").with_help(
                    "pass --token-file FILE (- for standard input); \
                     `kubectl create token NAME` prints one for a service account. \
                     Or sign in to Azure: --auth METHOD",
                ),
            );
        }
        let connector = clusters.connector()?;
        let correlation_id = Uuid::new_v4();
        let azure = if is_in_azure || bearer.is_none() {
            tracing::info!("the correlation id in Azure's logs is {correlation_id}");
            let key = caller.proof_key()?;
            let cloud = clusters.cloud(&connector).await?;
            let settings = caller.settings(
                connector.clone(),
                cloud.clone(),
                &correlation_id.to_string(),
            )?;
            let credential = caller
                .credential(&settings)
                .await
                .map_err(|error| correlated(error, correlation_id))?;
            let shared: Arc<dyn TokenCredential> = credential.clone().into();
            Some(SignedIn {
                cloud,
                credential,
                key,
                bearer: Arc::new(AadAuth::new(shared)),
            })
        } else {
            None
        };
        Ok(Self {
            connector,
            far_end,
            bearer: bearer.map(|bearer| Arc::new(bearer) as Arc<dyn AuthProvider>),
            azure,
            correlation_id,
        })
    }

    async fn reach(&self, place: Place) -> Result<Reached> {
        common::progress(format_args!("connecting to {place}"));
        match place {
            Place::Azure(id) => self
                .through_azure(id)
                .await
                .map_err(|error| correlated(error, self.correlation_id)),
            Place::Relay(connection_string) => self.through_relay(&connection_string).await,
        }
    }

    async fn through_azure(&self, id: ConnectedClusterId) -> Result<Reached> {
        let azure = self
            .azure
            .as_ref()
            .expect("whoever names a cluster in Azure is signed in");
        let (auth, method) = match &self.bearer {
            Some(bearer) => (Arc::clone(bearer), AuthenticationMethod::Token),
            None => (azure.caller(Some(&id))?, AuthenticationMethod::Aad),
        };
        let connecting = ClusterConnect::builder(id.clone())
            .connector(self.connector.clone())
            .cloud(azure.cloud.clone())
            .credential(azure.credential.clone().into())
            .auth(Arc::clone(&auth))
            .authentication_method(method)
            .correlation_id(self.correlation_id)
            .connect();
        let waiting = format!("asking Azure for the way to {}", id.name());
        let cluster = common::with_patience(waiting, connecting)
            .await
            .map_err(azure_code::of_connecting)?;
        let naming = match (&self.bearer, cluster.kubeconfigs().first()) {
            (None, Some(kubeconfig)) => Naming::Azure(
                kubeconfig
                    .parse()
                    .and_then(|kubeconfig| AadKubeconfig::new(&kubeconfig))
                    .map_err(azure_code::of_kubeconfig)?,
            ),
            _ => Naming::Context(id.name().to_owned()),
        };
        let tunnel: Arc<dyn Tunnel> = Arc::new(cluster);
        let unauthorized = self.unauthorized();
        first_request(&tunnel, &auth, unauthorized).await?;
        Ok(Reached {
            tunnel,
            auth,
            id: ProxyId::from_name(&id.to_string()),
            name: id.name().to_owned(),
            resource: Some(id),
            unauthorized,
            naming,
        })
    }

    async fn through_relay(&self, connection_string: &ConnectionString) -> Result<Reached> {
        let auth = match (&self.bearer, &self.azure) {
            (Some(bearer), _) => Arc::clone(bearer),
            (None, Some(azure)) => azure.caller(None)?,
            (None, None) => unreachable!("without a token somebody is signed in"),
        };
        let hybrid_connection = connection_string.hybrid_connection()?;
        let identity = hybrid_connection.to_string();
        let name = last_segment(hybrid_connection.path()).to_owned();
        let sender = RelaySender::new(
            self.connector.clone(),
            hybrid_connection,
            connection_string.credential(),
        );
        let tunnel = self.far_end.tunnel(sender);
        let unauthorized = self.unauthorized();
        tokio::select! {
            answered = first_request(&tunnel, &auth, unauthorized) => answered?,
            error = hopeless(tunnel.states()) => return Err(error),
        }
        Ok(Reached {
            tunnel,
            auth,
            id: ProxyId::from_name(&identity),
            naming: Naming::Context(name.clone()),
            name,
            resource: None,
            unauthorized,
        })
    }

    fn unauthorized(&self) -> &'static str {
        if self.bearer.is_some() {
            TOKEN_REFUSED
        } else {
            SIGN_IN_REFUSED
        }
    }
}

impl SignedIn {
    /// Whoever signed in, as the caller of a cluster.
    fn caller(&self, cluster: Option<&ConnectedClusterId>) -> Result<Arc<dyn AuthProvider>> {
        match (&self.key, cluster) {
            (None, _) => Ok(Arc::clone(&self.bearer)),
            (Some(key), Some(id)) => {
                let proof = PopAuth::new(&self.credential, key.clone(), id.to_string());
                Ok(Arc::new(proof?))
            }
            (Some(_), None) => Err(Error::new(
                ErrorKind::InvalidInput,
                "a proof of possession is for a cluster in Azure, and a connection string names none",
            )
            .with_help("name the cluster with -n NAME -g GROUP, or leave out --pop")),
        }
    }
}

/// Adds the id by which Azure's operators find what happened.
fn correlated(error: Error, id: Uuid) -> Error {
    // Nobody was asked for anything.
    if error.kind() == ErrorKind::InvalidInput {
        return error;
    }
    let text = match error.tracking_id() {
        Some(tracking_id) => format!("{tracking_id}, correlation id {id}"),
        None => format!("correlation id {id}"),
    };
    error.with_tracking_id(text)
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
