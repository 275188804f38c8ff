//! [`Registrar`]: from what `az` posts for a cluster to a served cluster and its kubeconfig.

use std::sync::Arc;

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, Result,
    arm::ConnectedClusterId,
    auth::BearerAuth,
    kubeconfig::{Cluster, Kubeconfig, ProxyEndpoint, Secret, User},
    net::Connector,
    proxy::{Proxy, ProxyId},
    relay::{HybridConnection, RelayCredential, RelaySender},
    tunnel::RelayTunnel,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{caller::PostedToken, config::Relays};

pub struct Registrar {
    proxy: Arc<Proxy>,
    connector: Connector,
    relays: Relays,
    posted: Arc<PostedToken>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    kubeconfigs: Vec<NamedKubeconfig>,
    hybrid_connection_config: HybridConnectionConfig,
}

#[derive(Deserialize)]
struct NamedKubeconfig {
    value: String,
}

/// The expiry is not looked at: the token itself has one, and `az` registers again before it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HybridConnectionConfig {
    relay: String,
    hybrid_connection_name: String,
    token: String,
}

impl Registrar {
    pub fn new(
        proxy: Arc<Proxy>,
        connector: Connector,
        relays: Relays,
        posted: Arc<PostedToken>,
    ) -> Self {
        Self {
            proxy,
            connector,
            relays,
            posted,
        }
    }

    /// Serves the cluster `id` from now on, or gives it a newer credential while its requests go on, and tells how to
    /// reach it.
    pub fn register(&self, id: &ConnectedClusterId, body: &[u8]) -> Result<Value> {
        // The parser's own message may quote the body, which is full of secrets.
        let registration: Registration = serde_json::from_slice(body).map_err(|_| {
            invalid("the body is not {kubeconfigs: [{value}], hybridConnectionConfig: {relay, hybridConnectionName, token}}")
        })?;
        let mut kubeconfig = posted_kubeconfig(&registration)?;
        let hybrid_connection = &registration.hybrid_connection_config;
        let sender = RelaySender::new(
            self.connector.clone(),
            HybridConnection::new(
                self.relays.endpoint(&hybrid_connection.relay)?,
                &hybrid_connection.hybrid_connection_name,
            )?,
            RelayCredential::sas_token(hybrid_connection.token.as_str())?,
        );
        let proxy_id: ProxyId = id.digest().parse()?;
        let endpoint = self.proxy.replace_cluster(
            proxy_id,
            Arc::new(RelayTunnel::new(sender)),
            self.caller(id, &kubeconfig)?,
        )?;
        point_at(&mut kubeconfig, &endpoint);
        Ok(json!({
            "kubeconfigs": [{
                "name": "Kubeconfig",
                "value": BASE64_STANDARD.encode(kubeconfig.to_yaml()?),
            }]
        }))
    }

    /// With `--token`, az writes the service account's token into the kubeconfig; without, it has posted the user's.
    fn caller(
        &self,
        id: &ConnectedClusterId,
        kubeconfig: &Kubeconfig,
    ) -> Result<Arc<dyn AuthProvider>> {
        let token = kubeconfig
            .users
            .first()
            .and_then(|entry| entry.user.token.as_ref())
            .filter(|token| !token.expose().is_empty());
        Ok(match token {
            Some(token) => Arc::new(BearerAuth::fixed(token.expose())?),
            None => self.posted.caller_of(id.to_string()),
        })
    }
}

/// The cluster that a path registers; `None` for any other path.
pub fn cluster_of(path: &str) -> Option<Result<ConnectedClusterId>> {
    let id = path.strip_suffix("/register")?;
    let id = percent_encoding::percent_decode_str(id).decode_utf8();
    Some(match id {
        Ok(id) => ConnectedClusterId::parse(&id),
        Err(_) => Err(invalid("the path is not UTF-8")),
    })
}

fn posted_kubeconfig(registration: &Registration) -> Result<Kubeconfig> {
    let posted = registration
        .kubeconfigs
        .first()
        .ok_or_else(|| invalid("there is no kubeconfig in the registration"))?;
    let yaml = BASE64_STANDARD
        .decode(posted.value.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| invalid("the kubeconfig of the registration is not the base64 of a text"))?;
    let kubeconfig = Kubeconfig::parse(&yaml)?;
    if kubeconfig.clusters.is_empty()
        || kubeconfig.users.is_empty()
        || kubeconfig.contexts.is_empty()
    {
        return Err(invalid(
            "the kubeconfig of the registration lacks a cluster, a user or a context",
        ));
    }
    Ok(kubeconfig)
}

/// Keeps the names, by which az merges the kubeconfig, and the context; everything else is ours. az takes the first
/// entry of each kind and leaves the rest.
fn point_at(kubeconfig: &mut Kubeconfig, endpoint: &ProxyEndpoint) {
    kubeconfig.clusters.truncate(1);
    kubeconfig.users.truncate(1);
    kubeconfig.contexts.truncate(1);
    let mut cluster = Cluster::default();
    cluster.server = endpoint.server().to_owned();
    cluster.certificate_authority_data =
        Some(BASE64_STANDARD.encode(endpoint.certificate_authority_pem()));
    let mut user = User::default();
    user.token = Some(Secret::from(endpoint.secret()));
    for entry in &mut kubeconfig.clusters {
        entry.cluster = cluster.clone();
    }
    for entry in &mut kubeconfig.users {
        entry.user = user.clone();
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/shop%20(x)/providers/\
        Microsoft.Kubernetes/connectedClusters/till-7";

    #[test]
    fn a_path_names_its_cluster() {
        let path = format!("{}/register", ID.replace("%20", ""));
        let id = cluster_of(&path).unwrap().unwrap();
        assert_eq!(id.name(), "till-7");
        assert_eq!(id.resource_group(), "shop(x)");
        assert!(cluster_of(ID).is_none());
        assert!(cluster_of("/x/register").unwrap().is_err());
        assert!(cluster_of("/%ff/register").unwrap().is_err());
    }

    #[test]
    fn only_names_and_context_of_the_kubeconfig_stay() {
        let mut kubeconfig = Kubeconfig::parse(
            "clusters: [{name: c, cluster: {server: 'https://far', insecure-skip-tls-verify: true, proxy-url: x}}, \
             {name: d, cluster: {server: e}}]\n\
             users: [{name: u, user: {token: theirs, exec: {command: evil}}}]\n\
             contexts: [{name: k, context: {cluster: c, user: u, namespace: n}}]\ncurrent-context: k\n",
        )
        .unwrap();
        let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab", "PEM", "ours".into());
        point_at(&mut kubeconfig, &endpoint);
        let yaml = kubeconfig.to_yaml().unwrap();
        for gone in ["far", "theirs", "evil", "insecure", "proxy-url", "name: d"] {
            assert!(!yaml.contains(gone), "{gone} in {yaml}");
        }
        let context = kubeconfig.resolve(None).unwrap();
        assert_eq!((context.name, context.namespace), ("k", Some("n")));
        assert_eq!(context.cluster.server, endpoint.server());
        assert_eq!(
            context.user.unwrap().token.as_ref().unwrap().expose(),
            "ours"
        );
    }
}
