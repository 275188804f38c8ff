//! The same question to many clusters: a few at a time, each within a limit, and one that fails stops no other.
//!
//! ```console
//! $ cargo run --example fan_out -- token clusters/*.txt
//! ```

use std::{error::Error, path::Path, process::ExitCode, sync::Arc, time::Duration};

use arc_cluster_connect::{
    AuthProvider, Tunnel,
    auth::{BearerAuth, TokenRequest},
    net::{Connector, TrustRoots},
    relay::{ConnectionString, RelaySender},
    tunnel::{RelayTunnel, Target, TunnelConnector},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::timeout;

/// How many clusters are asked at once. Each costs a connection and a TLS handshake, not much memory.
const AT_ONCE: usize = 16;
/// How long one cluster may take, dialling included.
const LIMIT: Duration = Duration::from_secs(20);
/// More than any answer to this question has.
const MAX_ANSWER: usize = 64 * 1024;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let mut arguments = std::env::args().skip(1);
    let token = arguments
        .next()
        .ok_or("usage: fan_out TOKEN_FILE CONNECTION_STRING_FILE...")?;
    let auth: Arc<dyn AuthProvider> = Arc::new(BearerAuth::file(token)?);
    // One connector for all: clones share the trust roots and the cache of TLS sessions.
    let connector = Connector::new(TrustRoots::platform())?;

    let mut answers = stream::iter(arguments)
        .map(|file| {
            let (connector, auth) = (connector.clone(), Arc::clone(&auth));
            async move {
                let answer = timeout(LIMIT, version(connector, &file, &*auth)).await;
                (
                    file,
                    answer.unwrap_or_else(|_| Err("no answer in time".into())),
                )
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut failed = 0;
    while let Some((file, answer)) = answers.next().await {
        match answer {
            Ok(version) => println!("{file}: {version}"),
            Err(error) => {
                failed += 1;
                eprintln!("{file}: {error}");
            }
        }
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn version(
    connector: Connector,
    file: &str,
    auth: &dyn AuthProvider,
) -> Result<String, Failure> {
    let relay = ConnectionString::read_file(Path::new(file))?;
    let sender = RelaySender::new(connector, relay.hybrid_connection()?, relay.credential());
    let tunnel: Arc<dyn Tunnel> = Arc::new(RelayTunnel::new(sender));
    let token = auth.token(&TokenRequest::new()).await?;
    let request = http::Request::get("http://kubernetes/version")
        .header("authorization", format!("Bearer {}", token.secret()))
        .body(Empty::<Bytes>::new())?;
    let connector = TunnelConnector::new(tunnel, Target::api_server());
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.request(request).await?;
    if !response.status().is_success() {
        return Err(format!("the cluster answered {}", response.status()).into());
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await?;
    let version: serde_json::Value = serde_json::from_slice(&body.to_bytes())?;
    Ok(version["gitVersion"].as_str().unwrap_or("?").to_owned())
}
