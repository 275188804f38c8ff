//! The shortest way to an Arc-enabled cluster: sign in to Azure however this machine can, and ask for the version.
//!
//! ```console
//! $ cargo run --example connect -- \
//!     /subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Kubernetes/connectedClusters/NAME
//! ```

use std::{error::Error, sync::Arc};

use arc_cluster_connect::{
    ClusterConnect,
    arm::ConnectedClusterId,
    auth::{AzureCredential, CredentialSettings, TokenRequest},
    net::{Connector, TrustRoots},
    tunnel::{Target, TunnelConnector},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let id = std::env::args()
        .nth(1)
        .ok_or("usage: connect CLUSTER_RESOURCE_ID")?;
    let id = ConnectedClusterId::parse(&id)?;

    let settings = CredentialSettings::new(Connector::new(TrustRoots::platform())?);
    let credential = Arc::new(AzureCredential::detect(&settings).await?);
    let cluster = ClusterConnect::builder(id)
        .credential(credential)
        .connect()
        .await?;

    let token = cluster.auth().token(&TokenRequest::new()).await?;
    let request = http::Request::get("http://kubernetes/version")
        .header("authorization", format!("Bearer {}", token.secret()))
        .body(Empty::<Bytes>::new())?;
    let connector = TunnelConnector::new(Arc::new(cluster), Target::api_server());
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let version = client.request(request).await?.collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&version));
    Ok(())
}
