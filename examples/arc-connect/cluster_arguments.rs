//! [`ClusterArguments`]: which cluster, in which cloud, and how to reach anything at all.

use std::{fmt, path::PathBuf, process::Stdio};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    arm::{ArmClient, ConnectedClusterId},
    auth::Cloud,
    net::{Connector, ProxySettings},
    relay::ConnectionString,
};
use clap::Args;
use tokio::process::Command;

use crate::common;

/// Where the subscription comes from when neither the command line nor `az` has one.
const SUBSCRIPTION_VARIABLE: &str = "AZURE_SUBSCRIPTION_ID";

/// Which clusters.
#[derive(Args, Clone, Debug)]
pub struct ClusterArguments {
    /// The cluster's name in Azure, with --resource-group. `proxy` takes several: -n ONE -n TWO
    #[arg(
        short = 'n',
        long = "name",
        value_name = "NAME",
        requires = "resource_group",
        help_heading = "Cluster"
    )]
    names: Vec<String>,

    /// The resource group of the clusters that --name names
    #[arg(
        short = 'g',
        long,
        value_name = "GROUP",
        requires = "names",
        help_heading = "Cluster"
    )]
    resource_group: Option<String>,

    /// The subscription's id; without it that of `az account show`, else AZURE_SUBSCRIPTION_ID
    #[arg(long, value_name = "ID", requires = "names", help_heading = "Cluster")]
    subscription: Option<String>,

    /// The cluster's resource id: /subscriptions/…/connectedClusters/NAME. `proxy` takes several
    #[arg(long = "cluster-id", value_name = "ID", help_heading = "Cluster")]
    ids: Vec<String>,

    /// Without Azure: file with the relay's connection string
    /// (Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…);
    /// the environment variable ARC_RELAY_CONNECTION_STRING stands in for it
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["names", "ids"],
        help_heading = "Cluster"
    )]
    connection_string_file: Option<PathBuf>,

    /// The cloud's name, as in `az cloud list`; AzureCloud if not given
    #[arg(
        long = "cloud",
        value_name = "NAME",
        conflicts_with = "arm_endpoint",
        help_heading = "Cluster"
    )]
    cloud_name: Option<String>,

    /// The cloud by the address of its Azure Resource Manager, which describes the rest (Azure Local, air-gapped clouds).
    /// It decides where you sign in: give one that you trust
    #[arg(long, value_name = "URL", help_heading = "Cluster")]
    arm_endpoint: Option<String>,

    #[command(flatten)]
    network: NetworkArguments,
}

/// How everything is dialled.
#[derive(Args, Clone, Debug)]
pub struct NetworkArguments {
    /// File with a certificate authority to trust besides the platform's, for everything that is dialled
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    relay_ca: Option<PathBuf>,

    #[command(flatten)]
    proxy: common::ProxyArguments,
}

/// Where a cluster is.
#[derive(Clone)]
pub enum Place {
    /// In Azure, which says where its relay is.
    Azure(ConnectedClusterId),
    /// At a relay whose key we have.
    Relay(ConnectionString),
}

impl ClusterArguments {
    /// All clusters that were named; at least one.
    pub async fn places(&self) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        if let Some(group) = &self.resource_group {
            let subscription = self.subscription().await?;
            for name in &self.names {
                places.push(Place::Azure(ConnectedClusterId::new(
                    &subscription,
                    group,
                    name,
                )?));
            }
        }
        for id in &self.ids {
            places.push(Place::Azure(ConnectedClusterId::parse(id)?));
        }
        if places.is_empty()
            && let Some(string) = common::connection_string(self.connection_string_file.as_deref())?
        {
            places.push(Place::Relay(string));
        }
        if places.is_empty() {
            return Err(
                Error::new(ErrorKind::InvalidInput, "no cluster is named").with_help(format!(
                    "pass -n NAME -g GROUP, or --cluster-id ID; without Azure, --connection-string-file FILE or \
                     {}",
                    common::CONNECTION_STRING_VARIABLE
                )),
            );
        }
        Ok(places)
    }

    /// The one cluster that was named.
    pub async fn place(&self) -> Result<Place> {
        let mut places = self.places().await?;
        match (places.pop(), places.len()) {
            (Some(place), 0) => Ok(place),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "several clusters are named, and this command is about one",
            )
            .with_help("name one; `arc-connect proxy` serves several at once")),
        }
    }

    /// Whether a cluster is named at all.
    pub fn is_given(&self) -> bool {
        self.is_in_azure()
            || self.connection_string_file.is_some()
            || std::env::var_os(common::CONNECTION_STRING_VARIABLE).is_some()
    }

    /// Whether it is named as one in Azure.
    pub fn is_in_azure(&self) -> bool {
        !self.names.is_empty() || !self.ids.is_empty()
    }

    /// The corporate proxy that was named, if one was.
    pub fn proxy(&self) -> Result<Option<ProxySettings>> {
        self.network.proxy.settings()
    }

    /// A connector that everything is dialled with.
    pub fn connector(&self) -> Result<Connector> {
        self.network.connector()
    }

    /// The cloud. May have to ask its resource manager.
    pub async fn cloud(&self, connector: &Connector) -> Result<Cloud> {
        match (&self.cloud_name, &self.arm_endpoint) {
            (Some(name), _) => Cloud::named(name),
            (None, Some(url)) => {
                let asked = ArmClient::cloud_from_metadata(connector.clone(), url);
                common::with_patience(format_args!("asking {url} about its cloud"), asked).await
            }
            (None, None) => Ok(Cloud::public()),
        }
    }

    async fn subscription(&self) -> Result<String> {
        if let Some(id) = &self.subscription {
            return Ok(id.clone());
        }
        if let Some(id) =
            common::with_patience("asking az for the subscription", subscription_of_az()).await
        {
            common::note(format_args!(
                "subscription {id}, as `az account show` has it"
            ));
            return Ok(id);
        }
        match std::env::var(SUBSCRIPTION_VARIABLE) {
            Ok(id) if !id.is_empty() => Ok(id),
            _ => Err(
                Error::new(ErrorKind::InvalidInput, "no subscription is named").with_help(format!(
                    "pass --subscription ID, set {SUBSCRIPTION_VARIABLE}, or sign in with `az login`"
                )),
            ),
        }
    }
}

impl NetworkArguments {
    /// A connector that trusts the platform and `--relay-ca`, and dials through `--https-proxy`.
    pub fn connector(&self) -> Result<Connector> {
        let connector = common::connector(self.relay_ca.as_deref())?;
        self.proxy.check();
        Ok(match self.proxy.settings()? {
            Some(proxy) => connector.with_proxy(proxy),
            None => connector,
        })
    }
}

/// As people call it; without the key.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Azure(id) => write!(f, "{} in {}", id.name(), id.resource_group()),
            Self::Relay(connection_string) => match connection_string.hybrid_connection() {
                Ok(hybrid_connection) => hybrid_connection.fmt(f),
                Err(_) => f.write_str("the relay"),
            },
        }
    }
}

/// What `az` works with; `None` when it is not there, or nobody is signed in.
async fn subscription_of_az() -> Option<String> {
    let output = Command::new(if cfg!(windows) { "az.cmd" } else { "az" })
        .args(["account", "show", "--query", "id", "--output", "tsv"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let id = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !id.is_empty()).then_some(id)
}
