//! The twenty lines to start from: list the pods of a cluster that accepts no inbound connection.
//!
//! ```console
//! $ cargo run --example embed -- send.txt token
//! ```

use std::{error::Error, path::Path, sync::Arc};

use arc_cluster_connect::{
    AuthProvider,
    auth::{BearerAuth, TokenRequest},
    net::{Connector, TrustRoots},
    relay::{ConnectionString, RelaySender},
    tunnel::{RelayTunnel, Target, TunnelConnector},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(relay), Some(token)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed CONNECTION_STRING_FILE TOKEN_FILE".into());
    };

    // Where the cluster's agent listens, and how to get there.
    let relay = ConnectionString::read_file(Path::new(&relay))?;
    let connector = Connector::new(TrustRoots::platform())?;
    let sender = RelaySender::new(connector, relay.hybrid_connection()?, relay.credential());
    let tunnel = Arc::new(RelayTunnel::new(sender));

    // Who we are.
    let token = BearerAuth::file(token)?.token(&TokenRequest::new()).await?;

    // Any hyper client now speaks to the API server through the tunnel: no port, no kubeconfig.
    let connector = TunnelConnector::new(tunnel, Target::api_server());
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = http::Request::get("http://kubernetes/api/v1/namespaces/default/pods")
        .header("authorization", format!("Bearer {}", token.secret()))
        .body(Empty::new())?;
    let response = client.request(request).await?;
    println!("{}", response.status());
    let pods: serde_json::Value = serde_json::from_slice(&response.collect().await?.to_bytes())?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        println!("{}", pod["metadata"]["name"].as_str().unwrap_or("?"));
    }
    Ok(())
}
