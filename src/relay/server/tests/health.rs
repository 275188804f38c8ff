//! The health port.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::bed::*;

async fn ask(address: std::net::SocketAddr, line: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn probes_and_metrics() {
    let bed = Bed::of(builder().max_connections(3), Transport::Tcp).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let health = bed.server.serve_health(socket, std::future::pending());
    let health = tokio::spawn(health);
    assert!(
        ask(address, "GET /livez")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(
        ask(address, "GET /readyz")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(
        ask(address, "POST /livez")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(
        ask(address, "GET /other")
            .await
            .starts_with("HTTP/1.1 404 ")
    );

    let mut listener = bed.listen().await;
    let _pair = bed.pair(&mut listener).await;
    let full = ask(address, "GET /readyz").await;
    assert!(full.starts_with("HTTP/1.1 503 "), "{full}");
    assert!(full.contains("limit of connections"), "{full}");
    // The bridge begins a moment after both ends have their answers.
    let mut metrics = ask(address, "GET /metrics").await;
    for _ in 0..100 {
        if metrics.contains("\nacc_relay_server_bridges 1\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        metrics = ask(address, "GET /metrics").await;
    }
    for line in [
        r#"acc_relay_server_listeners{hybrid_connection="clusters/east"} 1"#,
        r#"acc_relay_server_listeners{hybrid_connection="other"} 0"#,
        r#"acc_relay_server_waiting{hybrid_connection="clusters/east"} 0"#,
        r#"acc_relay_server_requests_total{action="listen",outcome="served"} 1"#,
        r#"acc_relay_server_requests_total{action="connect",outcome="served"} 1"#,
        r#"acc_relay_server_requests_total{action="http",outcome="unauthorized"} 0"#,
        "acc_relay_server_bridges 1",
        "acc_relay_server_connections 3",
        "acc_relay_server_connections_max 3",
    ] {
        assert!(
            metrics.lines().any(|seen| seen == line),
            "{line}\n{metrics}"
        );
    }

    bed.server.shutdown().await;
    let ending = ask(address, "GET /readyz").await;
    assert!(ending.contains("shutting down"), "{ending}");
    health.abort();
}

#[tokio::test]
async fn each_refusal_is_counted_by_its_kind() {
    let bed = Bed::start(Transport::Tcp).await;
    bed.request(&format!("/$hc/{PATH}"), &[])
        .await
        .err()
        .unwrap();
    bed.connect().await.err().unwrap();
    let dial = format!("/$hc/{PATH}?sb-hc-action=accept&sb-hc-id=1");
    bed.request(&dial, &[]).await.err().unwrap();
    let relay = &bed.server.relay;
    let text = relay.metrics.exposition(relay);
    for line in [
        r#"acc_relay_server_requests_total{action="connect",outcome="unauthorized"} 1"#,
        r#"acc_relay_server_requests_total{action="connect",outcome="not_found"} 1"#,
        r#"acc_relay_server_requests_total{action="accept",outcome="forbidden"} 1"#,
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line}\n{text}");
    }
}
