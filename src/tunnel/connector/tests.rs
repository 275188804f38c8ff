use std::convert::Infallible;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;

use super::*;
use crate::{
    ErrorKind,
    net::{Connector, Endpoint, NetStream, Security, TrustRoots},
    tunnel::{DirectTunnel, StateStream, TunnelServer, TunnelState, TunnelStatus, mux},
};

/// Serves tunnels on a loopback port, and on each of their streams HTTP that answers with its own request.
async fn http_tunnel() -> Arc<dyn Tunnel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut server = TunnelServer::start(NetStream::plain(tcp), mux::Config::default());
            tokio::spawn(async move {
                while let Some(stream) = server.accept().await {
                    let stream = stream.accept();
                    tokio::spawn(
                        http1::Builder::new().serve_connection(stream, service_fn(answer)),
                    );
                }
            });
        }
    });
    let connector = Connector::new(TrustRoots::platform()).unwrap();
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    Arc::new(DirectTunnel::new(connector, endpoint))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = [path.as_bytes(), b" ", &body].concat();
    Ok(Response::new(Full::new(Bytes::from(text))))
}

async fn post(
    client: &Client<TunnelConnector, Full<Bytes>>,
    path: &str,
    body: &'static str,
) -> Bytes {
    let request = Request::post(format!("http://kubernetes{path}"))
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    answer.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_pooled_client_runs_over_a_tunnel() {
    let tunnel = http_tunnel().await;
    let connector = TunnelConnector::new(Arc::clone(&tunnel), Target::api_server());
    let client = Client::builder(TokioExecutor::new()).build(connector);
    assert_eq!(post(&client, "/one", "first").await, "/one first");
    assert_eq!(post(&client, "/two", "second").await, "/two second");
    let many = (0..20).map(|_| post(&client, "/many", "at once"));
    for answer in futures_util::future::join_all(many).await {
        assert_eq!(answer, "/many at once");
    }
    let status = tunnel.status();
    assert!(matches!(status.state, TunnelState::Connected));
    assert!(status.live_streams >= 1 && status.live_streams <= 20);
    drop(client);
    tunnel.shutdown().await.unwrap();
}

/// Says what it was asked.
struct Recorder;

#[async_trait]
impl Tunnel for Recorder {
    async fn open(&self, target: &Target, options: OpenOptions) -> Result<TunnelStream> {
        let limit = options.wait_limit();
        Err(Error::new(
            ErrorKind::Refused,
            format!("{target} {limit:?}"),
        ))
    }

    fn status(&self) -> TunnelStatus {
        TunnelStatus::new(TunnelState::Idle, "recorder")
    }

    fn states(&self) -> StateStream {
        StateStream::new(futures_util::stream::iter([TunnelState::Idle]))
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn target_and_options_reach_the_tunnel_and_its_error_comes_back() {
    let target = Target::new("metrics").unwrap();
    let mut connector = TunnelConnector::new(Arc::new(Recorder), target)
        .with_options(OpenOptions::new().with_wait_limit(std::time::Duration::from_secs(2)));
    let error = connector
        .call(Uri::from_static("http://anything:1/"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "metrics Some(2s)");
}
