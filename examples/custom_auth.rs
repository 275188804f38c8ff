//! An `AuthProvider` of one's own: tokens from any program that prints one.
//!
//! ```console
//! $ cargo run --example custom_auth -- send.txt kubectl create token admin-user
//! ```

use std::{
    error::Error as StdError,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, Result,
    auth::{AccessToken, Freshness, TokenRequest},
    net::{Connector, TrustRoots},
    relay::{ConnectionString, RelaySender},
    tunnel::{RelayTunnel, Target, TunnelConnector},
};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{process::Command, sync::Mutex};

/// How long a token is used before the program is asked again. Kubernetes gives none for less than ten minutes.
const LIFE: Duration = Duration::from_secs(300);

/// Runs a program for each token, and keeps the token for a while: providers are asked once per request.
struct ProgramAuth {
    command: Vec<String>,
    cached: Mutex<Option<AccessToken>>,
}

#[async_trait]
impl AuthProvider for ProgramAuth {
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        // Whoever comes while the program runs waits for it here, instead of starting another one.
        let mut cached = self.cached.lock().await;
        if let Some(token) = &*cached
            && request.freshness() == Freshness::Cached
            && token.expires_at() > Some(SystemTime::now())
        {
            return Ok(token.clone());
        }
        let output = Command::new(&self.command[0])
            .args(&self.command[1..])
            // A caller that goes away drops this future, and the program with it.
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| self.failed().with_source(error))?;
        if !output.status.success() {
            return Err(self.failed());
        }
        let text = String::from_utf8(output.stdout).map_err(|_| self.failed())?;
        let token = AccessToken::new(text.trim(), Some(SystemTime::now() + LIFE));
        *cached = Some(token.clone());
        Ok(token)
    }
}

impl ProgramAuth {
    fn failed(&self) -> Error {
        let program = &self.command[0];
        Error::new(
            ErrorKind::Unauthorized,
            format!("`{program}` gives no token"),
        )
        .with_help(format!("run `{program}` by hand to see why"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1);
    let relay = arguments.next();
    let command: Vec<String> = arguments.collect();
    let (Some(relay), false) = (relay, command.is_empty()) else {
        return Err("usage: custom_auth CONNECTION_STRING_FILE PROGRAM [ARGUMENT...]".into());
    };
    // Everything that wants to know who is calling takes it like this.
    let auth: Arc<dyn AuthProvider> = Arc::new(ProgramAuth {
        command,
        cached: Mutex::new(None),
    });

    let relay = ConnectionString::read_file(Path::new(&relay))?;
    let connector = Connector::new(TrustRoots::platform())?;
    let sender = RelaySender::new(connector, relay.hybrid_connection()?, relay.credential());
    let tunnel = Arc::new(RelayTunnel::new(sender));
    let connector = TunnelConnector::new(tunnel, Target::api_server());
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    for path in ["/version", "/api/v1/namespaces/default/pods"] {
        let token = auth.token(&TokenRequest::new()).await?;
        let request = http::Request::get(format!("http://kubernetes{path}"))
            .header("authorization", format!("Bearer {}", token.secret()))
            .body(Empty::new())?;
        let response = client.request(request).await?;
        println!("{} {path}", response.status());
        response.collect().await?;
    }
    Ok(())
}
