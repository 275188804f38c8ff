//! What the endpoint tells about itself: states, status and the request log.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    fakes::{FakeAuth, FakeTunnel},
    support::{
        BOTH_VERSIONS, Bed, ClientVersion, body, channel, data, empty, next_data, ok, read_until,
        status_of, text,
    },
};
use crate::{
    Error, ErrorKind, Tunnel,
    net::Alpn,
    proxy::{ProxyEvent, ProxyId, RequestEnd, RequestRecord, events::EVENT_BACKLOG},
    tunnel::TunnelState,
};

fn waiting(reason: &'static str) -> TunnelState {
    TunnelState::Waiting {
        retry_in: Duration::from_secs(5),
        reason: Arc::new(Error::new(ErrorKind::Network, reason)),
    }
}

/// A bed whose requests are recorded.
async fn recorded(tunnel: FakeTunnel) -> (Bed, mpsc::UnboundedReceiver<RequestRecord>) {
    let (records, log) = mpsc::unbounded_channel();
    let bed = Bed::with(tunnel, FakeAuth::fixed(), |proxy| {
        proxy
            .drain_limit(Duration::from_millis(50))
            .request_log(move |record| {
                let _ = records.send(record);
            })
    })
    .await;
    (bed, log)
}

#[tokio::test]
async fn states_begin_with_what_there_is_and_follow_every_change() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let mut states = bed.proxy.states();
    let first = states.next().await.expect("an event");
    assert!(matches!(first, ProxyEvent::ClusterAdded { id } if id == bed.id));

    let second = ProxyId::from_name("second");
    let tunnel =
        FakeTunnel::raw().with_states([TunnelState::Connecting { attempt: 1 }, waiting("no way")]);
    let tunnel: Arc<dyn Tunnel> = Arc::new(tunnel);
    bed.proxy
        .add_cluster(second, Arc::clone(&tunnel), Arc::new(FakeAuth::fixed()))
        .expect("added");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match states.next().await.expect("an event") {
            ProxyEvent::ClusterAdded { id } => {
                assert_eq!(id, second);
                seen.push("added");
            }
            ProxyEvent::TunnelState { id, state } if id == second => seen.push(match state {
                TunnelState::Connecting { attempt: 1 } => "connecting",
                TunnelState::Waiting { .. } => "waiting",
                other => panic!("{other:?}"),
            }),
            _ => {}
        }
    }
    assert_eq!(seen, ["added", "connecting", "waiting"]);
    let status = bed.proxy.status();
    let status = status.clusters.iter().find(|status| status.id == second);
    let error = status.and_then(|status| status.last_error.clone());
    assert_eq!(error.expect("it is kept").message, "no way");

    bed.proxy
        .replace_cluster(second, tunnel, Arc::new(FakeAuth::fixed()))
        .expect("replaced");
    let _ = bed
        .proxy
        .remove_cluster(&second)
        .await
        .expect("it is there");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match states.next().await.expect("an event") {
            ProxyEvent::ClusterReplaced { .. } => seen.push("replaced"),
            ProxyEvent::ClusterRemoving { .. } => seen.push("removing"),
            ProxyEvent::ClusterRemoved { cut: 0, .. } => seen.push("removed"),
            _ => {}
        }
    }
    assert_eq!(seen, ["replaced", "removing", "removed"]);
    bed.proxy.shutdown().await;
    while states.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn traffic_is_told_when_it_changes_and_not_else() {
    let bed = Bed::start(|request| async move {
        let length = request.into_body().collect().await.expect("a body");
        ok("x".repeat(length.to_bytes().len() * 2))
    })
    .await;
    let mut states = bed.proxy.states();
    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed.request("POST", "/").body(body("12345"));
    let response = client.send(request.expect("a request")).await;
    text(response.expect("an answer").into_body()).await;
    drop(client);
    let mut told = 0;
    let figures = loop {
        if let ProxyEvent::Traffic {
            live_requests,
            bytes_sent,
            bytes_received,
            ..
        } = states.next().await.expect("an event")
        {
            told += 1;
            if live_requests == 0 {
                break (bytes_sent, bytes_received);
            }
        }
    };
    assert_eq!(figures, (5, 10));
    assert!(told <= 2, "{told}");
    let quiet = tokio::time::timeout(Duration::from_secs(60), states.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test]
async fn a_slow_reader_skips_and_learns_how_much() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let mut states = bed.proxy.states();
    let id = ProxyId::from_name("comes and goes");
    for _ in 0..EVENT_BACKLOG {
        let tunnel: Arc<dyn Tunnel> = Arc::new(FakeTunnel::raw());
        bed.proxy
            .replace_cluster(id, tunnel, Arc::new(FakeAuth::fixed()))
            .expect("room");
        let _ = bed.proxy.remove_cluster(&id).await.expect("it is there");
    }
    let mut kept = 0;
    let mut skipped = 0;
    bed.proxy.shutdown().await;
    while let Some(event) = states.next().await {
        match event {
            ProxyEvent::Skipped { events } => skipped += events,
            _ => kept += 1,
        }
    }
    // Added, removing and removed; the tunnel's own states may come in between.
    assert!(skipped >= 2 * EVENT_BACKLOG as u64, "{skipped}");
    assert!(kept <= EVENT_BACKLOG + 2, "{kept}");
}

#[tokio::test]
async fn the_status_needs_the_secret_and_holds_none() {
    let tunnel = FakeTunnel::serving(|_| async { ok("pods") })
        .with_states([waiting("line\nbreak"), TunnelState::Connected]);
    let bed = Bed::with(tunnel, FakeAuth::fixed(), |proxy| proxy).await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/api").body(empty()).expect("a request");
        text(client.send(request).await.expect("an answer").into_body()).await;

        let request = bed.request_to("GET", "/-/status", Some(bed.endpoint().secret()));
        let response = client.send(request).await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let json = text(response.into_body()).await;
        assert!(!json.contains(bed.endpoint().secret()));
        assert!(!json.contains(super::fakes::TOKEN));
        let status: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["address"], bed.proxy.local_addr().to_string());
        assert_eq!(status["draining"], false);
        let cluster = &status["clusters"][0];
        assert_eq!(cluster["id"], bed.id.to_string());
        assert_eq!(cluster["server"], bed.endpoint().server());
        assert_eq!(cluster["tunnel"]["state"], "connected");
        assert_eq!(cluster["lastError"]["message"], "line break");
        assert!(cluster["requests"].as_u64() >= Some(1));
        assert!(cluster["bytesReceived"].as_u64() >= Some(4));

        for (method, path, secret, code) in [
            ("GET", "/-/status", None, StatusCode::UNAUTHORIZED),
            ("GET", "/-/status", Some("wrong"), StatusCode::UNAUTHORIZED),
            (
                "POST",
                "/-/status",
                Some(bed.endpoint().secret()),
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            (
                "GET",
                "/-/other",
                Some(bed.endpoint().secret()),
                StatusCode::NOT_FOUND,
            ),
        ] {
            let response = client.send(bed.request_to(method, path, secret)).await;
            let (answered, _, _) = status_of(response.expect("an answer")).await;
            assert_eq!(answered, code, "{method} {path} {secret:?}");
        }
    }
}

#[tokio::test]
async fn each_request_leaves_one_record() {
    let tunnel = FakeTunnel::serving(|request| async move {
        let length = request.into_body().collect().await.expect("a body");
        ok("x".repeat(length.to_bytes().len() * 2))
    });
    let (bed, mut log) = recorded(tunnel).await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed
            .request("POST", "/api/v1/pods?token=hush")
            .header("x-ms-correlation-request-id", "my-id")
            .body(body("12345"))
            .expect("a request");
        let response = client.send(request).await.expect("an answer");
        text(response.into_body()).await;
        let record = log.recv().await.expect("a record");
        assert_eq!(record.method, Method::POST.as_str());
        assert_eq!(record.path, "/api/v1/pods");
        assert_eq!(record.cluster, Some(bed.id));
        assert_eq!(record.status, Some(200));
        assert_eq!(record.correlation_id, "my-id");
        assert_eq!((record.bytes_sent, record.bytes_received), (5, 10));
        assert_eq!(record.end, RequestEnd::Complete, "{version:?}");
        assert!(!record.to_json().contains("hush"));

        let response = client.send(bed.request_to("GET", "/nothing", None)).await;
        status_of(response.expect("an answer")).await;
        let record = log.recv().await.expect("a record");
        assert_eq!((record.status, record.cluster), (Some(401), None));
        assert_eq!(record.path, "/nothing");
        assert_eq!(record.end, RequestEnd::Refused);
    }
}

#[tokio::test]
async fn a_record_tells_how_a_request_ended() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let frames = Arc::clone(&bodies);
    let tunnel = FakeTunnel::serving(move |_| {
        let (sender, body) = channel();
        sender.send(data("event")).expect("room");
        frames.lock().expect("not poisoned").push(sender);
        async move { Response::new(body) }
    });
    let (bed, mut log) = recorded(tunnel).await;
    for version in BOTH_VERSIONS {
        // The client leaves.
        let mut client = bed.client(version).await;
        let request = bed
            .request("GET", "/watch")
            .body(empty())
            .expect("a request");
        let mut events = client.send(request).await.expect("a head").into_body();
        assert_eq!(next_data(&mut events).await, "event");
        drop((events, client));
        let record = log.recv().await.expect("a record");
        assert_eq!(
            (record.end, record.status),
            (RequestEnd::ClientLeft, Some(200))
        );
        assert_eq!(record.bytes_received, 5);

        // The tunnel breaks.
        let mut client = bed.client(version).await;
        let request = bed
            .request("GET", "/list")
            .body(empty())
            .expect("a request");
        let mut list = client.send(request).await.expect("a head").into_body();
        assert_eq!(next_data(&mut list).await, "event");
        let sender = bodies.lock().expect("not poisoned").pop().expect("one");
        sender
            .send(Err(std::io::Error::other("killed")))
            .expect("it runs");
        assert!(list.frame().await.is_some_and(|end| end.is_err()));
        assert_eq!(log.recv().await.expect("a record").end, RequestEnd::Broken);
    }
    // The cluster leaves.
    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed
        .request("GET", "/watch")
        .body(empty())
        .expect("a request");
    let mut events = client.send(request).await.expect("a head").into_body();
    assert_eq!(next_data(&mut events).await, "event");
    let removed = bed
        .proxy
        .remove_cluster(&bed.id)
        .await
        .expect("it is there");
    assert_eq!(removed.cut(), 1);
    assert_eq!(log.recv().await.expect("a record").end, RequestEnd::Cut);
}

#[tokio::test]
async fn a_shell_is_one_record_with_its_bytes() {
    let (bed, mut log) = recorded(FakeTunnel::raw()).await;
    let mut shell = bed.connect(Alpn::Http1).await;
    let ask = bed.request_text(
        "POST",
        "/exec",
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
    );
    shell.write_all(ask.as_bytes()).await.expect("written");
    let mut agent = bed.tunnel.raw_stream().await;
    read_until(&mut agent, "\r\n\r\n").await;
    let agreement =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
    agent
        .write_all(agreement.as_bytes())
        .await
        .expect("written");
    read_until(&mut shell, "\r\n\r\n").await;
    shell.write_all(b"in").await.expect("written");
    agent.write_all(b"output").await.expect("written");
    agent.read_exact(&mut [0; 2]).await.expect("read");
    assert!(log.try_recv().is_err(), "it runs");
    assert_eq!(bed.proxy.status().clusters[0].live_requests, 1);
    agent.shutdown().await.expect("closed");
    shell
        .read_to_end(&mut Vec::new())
        .await
        .expect("a clean end");
    shell.shutdown().await.expect("closed");
    let record = log.recv().await.expect("a record");
    assert_eq!(
        (record.status, record.end),
        (Some(101), RequestEnd::Complete)
    );
    assert_eq!((record.bytes_sent, record.bytes_received), (2, 6));
}
