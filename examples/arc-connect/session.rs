//! What `proxy` and `exec` share: from the command line to a loopback endpoint that was seen to work.

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    kubeconfig::{Kubeconfig, ProxyEndpoint},
    proxy::{Proxy, ProxyBuilder},
};
use clap::Args;
use futures_util::future::join_all;

use crate::{
    bridge_arguments::BridgeArguments, caller_arguments::CallerArguments,
    cluster_arguments::ClusterArguments, common, reach::Reached,
};

#[derive(Args)]
pub struct SessionArguments {
    #[command(flatten)]
    clusters: ClusterArguments,

    #[command(flatten)]
    bridge: BridgeArguments,

    #[command(flatten)]
    caller: CallerArguments,

    /// Name of the context in the kubeconfig; without it, the one that Azure gives, or the last part of the hybrid
    /// connection's name
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
}

/// A running loopback endpoint.
pub struct Session {
    pub proxy: Proxy,
    /// At least one.
    pub clusters: Vec<Served>,
}

/// A cluster behind the endpoint.
pub struct Served {
    pub reached: Reached,
    pub endpoint: ProxyEndpoint,
    pub context: String,
    pub kubeconfig: Kubeconfig,
}

/// How many clusters a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    One,
    Any,
}

impl Session {
    /// Opens the local port, connects, and makes one request to each cluster as the caller. The port comes first: that
    /// it is taken is better known before somebody signs in with a browser. It serves nothing until a cluster answered.
    pub async fn start(
        arguments: &SessionArguments,
        builder: ProxyBuilder,
        count: Count,
    ) -> Result<Self> {
        let proxy = builder.start().await?;
        let SessionArguments {
            clusters,
            bridge,
            caller,
            ..
        } = arguments;
        let mut reached = match count {
            Count::One => vec![Reached::one(clusters, bridge, caller).await?],
            Count::Any => Reached::all(clusters, bridge, caller).await?,
        };
        if let Some(name) = &arguments.kube_context {
            if reached.len() > 1 {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "--kube-context gives one name, and there are several clusters",
                )
                .with_help("leave it out: each context is then called as its cluster is"));
            }
            reached = reached
                .into_iter()
                .map(|cluster| cluster.with_context_name(name))
                .collect();
        }
        let mut clusters: Vec<Served> = Vec::new();
        for reached in reached {
            let context = reached.context();
            if clusters.iter().any(|other| other.context == context) {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("two of the clusters have the context {context}"),
                )
                .with_help("serve them by two programs, one with --kube-context NAME --port 0"));
            }
            let (tunnel, auth) = (reached.tunnel.clone(), reached.auth.clone());
            let endpoint = proxy.add_cluster(reached.id, tunnel, auth)?;
            clusters.push(Served {
                kubeconfig: reached.kubeconfig(&endpoint)?,
                context,
                endpoint,
                reached,
            });
        }
        Ok(Self { proxy, clusters })
    }

    /// The first cluster that was named.
    pub fn first(&self) -> &Served {
        self.clusters.first().expect("a session has a cluster")
    }

    /// One kubeconfig with a context for each cluster; the first one's is current.
    pub fn kubeconfig(&self) -> Kubeconfig {
        let mut whole = self.first().kubeconfig.clone();
        for cluster in &self.clusters[1..] {
            let kubeconfig = &cluster.kubeconfig;
            whole.clusters.extend_from_slice(&kubeconfig.clusters);
            whole.users.extend_from_slice(&kubeconfig.users);
            whole.contexts.extend_from_slice(&kubeconfig.contexts);
        }
        whole
    }

    /// Lets live requests end within the proxy's limit, then closes everything.
    pub async fn close(self) -> Result<()> {
        let tunnels = self
            .clusters
            .iter()
            .map(|one| one.reached.tunnel.shutdown());
        let closing = async {
            self.proxy.shutdown().await;
            join_all(tunnels).await.into_iter().collect()
        };
        common::with_patience("waiting for running requests to end", closing).await
    }
}
