//! The agent's connections to an API server that speaks HTTP/2, with the server's real limits.

mod support;
#[path = "upstream/whole_path.rs"]
mod whole_path;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_cluster_connect::{
    agent::{Agent, ApiServer, ServiceAccountTokens},
    kubeconfig::Kubeconfig,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinSet, time::timeout};

use support::api_server::{StandIn, User};

const TOKEN: &str = "the-callers-token";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What the API server allows on one connection.
const MAX_STREAMS: usize = 100;
/// A bound on what should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(60);

async fn start() -> (StandIn, Agent) {
    let user = User::service_account("default", "robot");
    let stand_in = StandIn::builder().token(TOKEN, user).start().await;
    let stand_in = stand_in.expect("a stand-in");
    let kubeconfig = Kubeconfig::parse(&stand_in.kubeconfig(None)).expect("a kubeconfig");
    let api_server = ApiServer::from_kubeconfig(&kubeconfig, None, Path::new("")).expect("usable");
    let agent = Agent::builder(api_server)
        .service_account_tokens(ServiceAccountTokens::PassThrough)
        .build()
        .expect("an agent");
    (stand_in, agent)
}

/// One request on a stream of its own, as it comes out of a tunnel.
async fn ask(agent: &Agent, method: Method, path: &str, body: &str) -> Response<Incoming> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let agent = agent.clone();
    tokio::spawn(async move { agent.serve_stream(far).await });
    let (mut sender, connection) = http1::handshake(TokioIo::new(near))
        .await
        .expect("a duplex stream is open");
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "tunnel")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("well-formed");
    timeout(AT_ONCE, sender.send_request(request))
        .await
        .expect("in time")
        .expect("an answer")
}

/// The path of a watch for whatever happens from now on.
async fn watch_path(agent: &Agent) -> String {
    let list = ask(agent, Method::GET, MAPS, "").await.into_body();
    let list = list.collect().await.expect("whole").to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str();
    format!(
        "{MAPS}?watch=true&resourceVersion={}",
        version.expect("a version")
    )
}

#[tokio::test]
async fn a_thousand_watches_stay_open_at_once() {
    const WATCHES: usize = 1_000;
    let (stand_in, agent) = start().await;
    let path = watch_path(&agent).await;
    let mut asking = JoinSet::new();
    for _ in 0..WATCHES {
        let (agent, path) = (agent.clone(), path.clone());
        asking.spawn(async move { ask(&agent, Method::GET, &path, "").await });
    }
    let mut watches = Vec::new();
    while let Some(response) = asking.join_next().await {
        let response = response.expect("no panic");
        assert_eq!(response.status(), StatusCode::OK);
        watches.push(response);
    }
    assert_eq!(stand_in.live_requests(), WATCHES);
    let mut per_connection: HashMap<u64, usize> = HashMap::new();
    for request in stand_in.requests() {
        assert_eq!(request.version, Version::HTTP_2);
        *per_connection.entry(request.connection).or_default() += 1;
    }
    assert!(per_connection.len() >= WATCHES / MAX_STREAMS);
    assert!(
        per_connection
            .values()
            .all(|watches| *watches < MAX_STREAMS),
        "{per_connection:?}"
    );

    // Something happens, and each of them hears of it.
    let map = r#"{"metadata": {"name": "seen"}}"#;
    let created = ask(&agent, Method::POST, MAPS, map).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    for watch in &mut watches {
        let event = timeout(AT_ONCE, watch.body_mut().frame()).await;
        let event = event.expect("in time").expect("an event").expect("whole");
        let text = String::from_utf8_lossy(event.data_ref().expect("data")).into_owned();
        assert!(text.contains("ADDED") && text.contains("seen"), "{text}");
    }

    // Who leaves is gone at the API server too, though nothing happens there.
    drop(watches);
    timeout(AT_ONCE, async {
        while stand_in.live_requests() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("every watch is cancelled");
}

#[tokio::test]
async fn no_request_fails_while_the_api_server_sends_its_clients_away() {
    const WORKERS: usize = 8;
    const REQUESTS: usize = 60;
    const GO_AWAY_EVERY: usize = 30;
    let (stand_in, agent) = start().await;
    let stand_in = Arc::new(stand_in);
    let path = watch_path(&agent).await;
    let mut watch = ask(&agent, Method::GET, &path, "").await;

    let asked = Arc::<AtomicUsize>::default();
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (stand_in, agent, asked) = (Arc::clone(&stand_in), agent.clone(), Arc::clone(&asked));
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
                let response = ask(&agent, method, MAPS, &body).await;
                assert_eq!(response.status(), expected);
                response.into_body().collect().await.expect("whole");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no request failed");
    }
    let connections = stand_in
        .requests()
        .iter()
        .map(|request| request.connection)
        .max();
    assert!(connections.expect("some") > 1, "they were sent away");

    // The watch of the first connection has missed nothing.
    let mut seen = 0;
    while seen < WORKERS * REQUESTS / 2 {
        let event = timeout(AT_ONCE, watch.body_mut().frame()).await;
        let event = event.expect("in time").expect("an event").expect("whole");
        let data = event.into_data().expect("data");
        seen += data.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(seen, WORKERS * REQUESTS / 2, "no object was made twice");
}
