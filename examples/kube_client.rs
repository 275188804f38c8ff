//! A `kube::Client` over a tunnel: no local port, no kubeconfig. Lists the pods of a namespace.
//!
//! ```console
//! $ cargo run --features kube --example kube_client -- send.txt token
//! ```
//!
//! Pods are `DynamicObject`s here; with `k8s-openapi` in your `Cargo.toml` they have types.

use std::{error::Error, path::Path, sync::Arc};

use arc_cluster_connect::{
    auth::BearerAuth,
    net::{Connector, TrustRoots},
    relay::{ConnectionString, RelaySender},
    tunnel::{RelayTunnel, kube_client},
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(relay), Some(token)) = (arguments.next(), arguments.next()) else {
        return Err("usage: kube_client CONNECTION_STRING_FILE TOKEN_FILE".into());
    };
    let relay = ConnectionString::read_file(Path::new(&relay))?;
    let connector = Connector::new(TrustRoots::platform())?;
    let sender = RelaySender::new(connector, relay.hybrid_connection()?, relay.credential());

    let tunnel = Arc::new(RelayTunnel::new(sender));
    let auth = Arc::new(BearerAuth::file(token)?);
    let client = kube_client(tunnel, auth, "default");

    let pods = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::default_namespaced_with(client, &pods);
    for pod in pods.list(&ListParams::default()).await? {
        println!("{}", pod.metadata.name.as_deref().unwrap_or("?"));
    }
    Ok(())
}
