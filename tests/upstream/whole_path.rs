//! The same from the far end: loopback endpoint, tunnel and relay are on the way, each with connections of its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_cluster_connect::{
    kubeconfig::ProxyEndpoint,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};

use super::{
    AT_ONCE, MAPS, TOKEN,
    support::{
        api_server::{StandIn, User},
        embedded::Embedded,
    },
};

/// A client of the loopback endpoint: one HTTP/2 connection, as client-go keeps it.
#[derive(Clone)]
struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    base: String,
    secret: String,
}

impl Client {
    async fn connect(endpoint: &ProxyEndpoint) -> Self {
        let server: Uri = endpoint.server().parse().expect("a URL");
        let port = server.port_u16().expect("a port");
        let roots = TrustRoots::only_pem(endpoint.certificate_authority_pem().as_bytes());
        let stream = Connector::new(roots.expect("a certificate"))
            .expect("usable roots")
            .connect(
                &Endpoint::new("127.0.0.1", port, Security::Tls),
                Alpn::Http2,
            )
            .await
            .expect("the endpoint is there");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Self {
            sender,
            base: endpoint.server().trim_end_matches('/').to_owned(),
            secret: endpoint.secret().to_owned(),
        }
    }

    async fn ask(&mut self, method: Method, path: &str, body: String) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.secret))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("well-formed");
        timeout(AT_ONCE, self.sender.send_request(request))
            .await
            .expect("in time")
            .expect("an answer")
    }
}

#[tokio::test]
async fn nobody_at_the_far_end_notices_that_the_api_server_sends_its_clients_away() {
    const WORKERS: usize = 8;
    const REQUESTS: usize = 40;
    const GO_AWAY_EVERY: usize = 20;
    let user = User::service_account("default", "robot");
    let stand_in = StandIn::builder().token(TOKEN, user).start().await;
    let stand_in = Arc::new(stand_in.expect("a stand-in"));
    let path = Embedded::start(&stand_in, TOKEN).await;
    let mut client = Client::connect(path.endpoint()).await;

    let list = client.ask(Method::GET, MAPS, String::new()).await;
    let list = list.into_body().collect().await.expect("whole").to_bytes();
    let list: Value = serde_json::from_slice(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str();
    let watch = format!(
        "{MAPS}?watch=true&resourceVersion={}",
        version.expect("a version")
    );
    let mut watch = client.ask(Method::GET, &watch, String::new()).await;
    assert_eq!(watch.status(), StatusCode::OK);

    let asked = Arc::<AtomicUsize>::default();
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (stand_in, asked, mut client) =
            (Arc::clone(&stand_in), Arc::clone(&asked), client.clone());
        workers.spawn(async move {
            for index in 0..REQUESTS {
                if asked.fetch_add(1, Ordering::SeqCst) % GO_AWAY_EVERY == 0 {
                    stand_in.faults().go_away();
                }
                let (method, body, expected) = if index % 2 == 0 {
                    (Method::GET, String::new(), StatusCode::OK)
                } else {
                    let map = format!(r#"{{"metadata": {{"name": "m-{worker}-{index}"}}}}"#);
                    (Method::POST, map, StatusCode::CREATED)
                };
                let response = client.ask(method, MAPS, body).await;
                assert_eq!(response.status(), expected);
                response.into_body().collect().await.expect("whole");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no request failed");
    }
    let requests = stand_in.requests();
    let connections = requests.iter().map(|request| request.connection).max();
    assert!(connections.expect("some") > 1, "they were sent away");

    // Each object once, in the watch that was open from the beginning to the end.
    let mut events = Vec::new();
    let mut names = Vec::new();
    while names.len() < WORKERS * REQUESTS / 2 {
        let piece = timeout(AT_ONCE, watch.body_mut().frame()).await;
        let piece = piece.expect("in time").expect("an event").expect("whole");
        events.extend_from_slice(&piece.into_data().expect("data"));
        while let Some(end) = events.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = events.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event is JSON");
            assert_eq!(event["type"], "ADDED");
            names.push(event["object"]["metadata"]["name"].to_string());
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), WORKERS * REQUESTS / 2);
}
