//! A `Tunnel` of one's own: straight to an API server that can be reached, so that one program serves both kinds of
//! clusters with the same code.
//!
//! ```console
//! $ cargo run --example custom_tunnel -- 10.0.0.1 6443 ca.crt token
//! ```

use std::{error::Error, path::Path, sync::Arc};

use arc_cluster_connect::{
    AuthProvider, Result, Tunnel,
    auth::{BearerAuth, TokenRequest},
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
    tunnel::{
        OpenOptions, StateStream, Target, TunnelConnector, TunnelState, TunnelStatus, TunnelStream,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// A TLS connection for each stream. Nothing stands between, so there is nothing to supervise.
struct Straight {
    connector: Connector,
    api_server: Endpoint,
}

#[async_trait]
impl Tunnel for Straight {
    async fn open(&self, _: &Target, _: OpenOptions) -> Result<TunnelStream> {
        // What runs in a stream is HTTP/1.1: say so, or the server may choose HTTP/2.
        let stream = self
            .connector
            .connect(&self.api_server, Alpn::Http1)
            .await?;
        Ok(TunnelStream::from_io(stream))
    }

    fn status(&self) -> TunnelStatus {
        TunnelStatus::new(TunnelState::Connected, self.api_server.to_string())
    }

    fn states(&self) -> StateStream {
        StateStream::new(stream::iter([TunnelState::Connected]))
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, ca, token] = arguments.as_slice() else {
        return Err("usage: custom_tunnel HOST PORT CA_FILE TOKEN_FILE".into());
    };
    let roots = TrustRoots::only_pem(&std::fs::read(Path::new(ca))?)?;
    // From here on nobody can tell it from a tunnel through a relay.
    let tunnel: Arc<dyn Tunnel> = Arc::new(Straight {
        connector: Connector::new(roots)?,
        api_server: Endpoint::new(host, port.parse()?, Security::Tls),
    });
    println!("through {}", tunnel.status().peer);

    let token = BearerAuth::file(token)?.token(&TokenRequest::new()).await?;
    let connector = TunnelConnector::new(tunnel, Target::api_server());
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = http::Request::get("http://kubernetes/version")
        .header("authorization", format!("Bearer {}", token.secret()))
        .body(Empty::new())?;
    let version = client.request(request).await?.collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&version));
    Ok(())
}
