//! A stand-in to test, and a plain HTTP client for it.

use std::time::Duration;

use arc_cluster_connect::net::{Alpn, Connector, Endpoint, NetStream, Security, TrustRoots};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};

use super::support::api_server::{StandIn, StandInBuilder, User};

/// The token of a user who may everything.
pub const TOKEN: &str = "admin-token";

/// That user.
pub const ADMIN: &str = "system:serviceaccount:default:admin-user";

/// A list of one pod, `web`.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// A list of 500 pods.
pub const BIG: &str = "/api/v1/namespaces/big/pods";

/// Nothing here takes as long; a hang is a failure and not a wait.
pub const LIMIT: Duration = Duration::from_secs(30);

pub fn builder() -> StandInBuilder {
    StandIn::builder()
        .token(TOKEN, User::service_account("default", "admin-user"))
        .pod("default", "web")
        .big_namespace_pods(500)
}

pub async fn start() -> StandIn {
    builder().start().await.unwrap()
}

pub fn written(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Waits, bounded, until nothing is under way: an end is noticed a moment after the client's.
pub async fn none_live(stand_in: &StandIn) {
    timeout(LIMIT, async {
        while stand_in.live_requests() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("every request ends once its client is gone");
}

pub fn request(method: &str, path: &str, token: Option<&str>) -> http::request::Builder {
    let builder = Request::builder()
        .method(method)
        .uri(format!("https://stand-in{path}"))
        .header(header::HOST, "stand-in");
    match token {
        Some(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => builder,
    }
}

pub async fn get(stand_in: &StandIn, path: &str, token: Option<&str>) -> Response<Incoming> {
    let request = request("GET", path, token).body(Full::default()).unwrap();
    send(stand_in, Alpn::Http1, request).await
}

pub async fn post(stand_in: &StandIn, path: &str, object: Value) -> Value {
    let request = request("POST", path, Some(TOKEN))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(object.to_string()))
        .unwrap();
    let response = send(stand_in, Alpn::Http1, request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    body(response).await
}

pub async fn body(response: Response<Incoming>) -> Value {
    let collected = timeout(LIMIT, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    serde_json::from_slice(&collected.to_bytes()).unwrap()
}

pub async fn connect(stand_in: &StandIn, alpn: Alpn) -> NetStream {
    let roots = TrustRoots::only_pem(stand_in.ca_pem().as_bytes()).unwrap();
    let endpoint = Endpoint::new("127.0.0.1", stand_in.address().port(), Security::Tls);
    Connector::new(roots)
        .unwrap()
        .connect(&endpoint, alpn)
        .await
        .unwrap()
}

pub type Http2Client = http2::SendRequest<Full<Bytes>>;

pub async fn http2_client(
    stand_in: &StandIn,
) -> (Http2Client, tokio::task::JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(connect(stand_in, Alpn::Http2).await);
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    (client, tokio::spawn(connection.into_future()))
}

/// One request on a connection of its own.
pub async fn send(
    stand_in: &StandIn,
    alpn: Alpn,
    mut request: Request<Full<Bytes>>,
) -> Response<Incoming> {
    if alpn == Alpn::Http2 {
        let (mut client, _) = http2_client(stand_in).await;
        return timeout(LIMIT, client.send_request(request))
            .await
            .unwrap()
            .unwrap();
    }
    let path = request.uri().path_and_query().unwrap().to_string();
    *request.uri_mut() = path.parse().unwrap();
    let io = TokioIo::new(connect(stand_in, alpn).await);
    let (mut client, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    timeout(LIMIT, client.send_request(request))
        .await
        .unwrap()
        .unwrap()
}
