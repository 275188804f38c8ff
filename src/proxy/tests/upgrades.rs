//! Exec, attach and port-forward: raw bytes after a 101.

use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{
    fakes::{FakeAuth, FakeTunnel, StreamEnd},
    support::{Bed, body, empty, ok, raw_exchange, read_until},
};
use crate::net::{Alpn, NetStream};

const ASK: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
const AGREE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

async fn raw_bed() -> Bed {
    Bed::with(FakeTunnel::raw(), FakeAuth::fixed(), |proxy| proxy).await
}

/// A client and an agent with an upgraded connection between them.
async fn upgraded(bed: &Bed) -> (NetStream, DuplexStream) {
    let mut client = bed.connect(Alpn::Http1).await;
    let ask = bed.request_text("POST", "/exec", ASK);
    client.write_all(ask.as_bytes()).await.expect("written");
    let mut agent = bed.tunnel.raw_stream().await;
    read_until(&mut agent, "\r\n\r\n").await;
    agent.write_all(AGREE.as_bytes()).await.expect("written");
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (client, agent)
}

#[tokio::test]
async fn early_bytes_and_half_closes_pass() {
    let bed = raw_bed().await;
    let mut client = bed.connect(Alpn::Http1).await;
    // The client does not wait for the 101.
    let ask = bed.request_text("POST", "/exec?command=cat", ASK) + "early input,";
    client.write_all(ask.as_bytes()).await.expect("written");

    let mut agent = bed.tunnel.raw_stream().await;
    let head = read_until(&mut agent, "\r\n\r\n").await.to_lowercase();
    assert!(
        head.starts_with("post /exec?command=cat http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "connection: upgrade\r\n",
        "upgrade: spdy/3.1\r\n",
        "x-stream-protocol-version: v4.channel.k8s.io\r\n",
        "authorization: bearer real-token-of-the-caller\r\n",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    // Nor does the agent: its first bytes come with the 101.
    agent
        .write_all(format!("{AGREE}early output,").as_bytes())
        .await
        .expect("written");

    let head = read_until(&mut client, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: spdy/3.1\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n"), "{head}");

    client.write_all(b"late input").await.expect("written");
    client.shutdown().await.expect("half-closed");
    let mut input = String::new();
    agent.read_to_string(&mut input).await.expect("a clean end");
    assert_eq!(input, "early input,late input");

    agent.write_all(b"late output").await.expect("written");
    agent.shutdown().await.expect("half-closed");
    let mut output = String::new();
    client
        .read_to_string(&mut output)
        .await
        .expect("a clean end");
    assert_eq!(output, "early output,late output");
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Closed);
}

#[tokio::test]
async fn a_keystroke_is_echoed_at_once() {
    let bed = raw_bed().await;
    let (mut client, mut agent) = upgraded(&bed).await;
    for key in b"ls\r" {
        client.write_u8(*key).await.expect("written");
        assert_eq!(agent.read_u8().await.expect("read"), *key);
        agent.write_u8(*key).await.expect("written");
        assert_eq!(client.read_u8().await.expect("read"), *key);
    }
}

#[tokio::test]
async fn a_large_transfer_arrives_whole() {
    const SIZE: usize = 4 * 1024 * 1024;
    let bed = raw_bed().await;
    let (mut client, mut agent) = upgraded(&bed).await;
    let sent: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        agent.write_all(&sent).await.expect("written");
        agent.shutdown().await.expect("half-closed");
        agent
    });
    let mut received = Vec::new();
    client
        .read_to_end(&mut received)
        .await
        .expect("a clean end");
    assert!(received == expected, "byte for byte");
    sending.await.expect("no panic");
}

#[tokio::test]
async fn a_client_that_vanishes_resets_the_stream() {
    let bed = raw_bed().await;
    let (client, mut agent) = upgraded(&bed).await;
    // Dropped without a TLS close: not an end, a break.
    drop(client);
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    assert_eq!(agent.read(&mut [0; 1]).await.expect("gone"), 0);
}

#[tokio::test]
async fn a_refused_upgrade_keeps_its_answer_and_ends_the_connection() {
    let bed = Bed::start(|request| async move {
        assert_ne!(request.uri().path(), "/second", "it must not come through");
        let mut response = ok("{\"kind\":\"Status\",\"reason\":\"Forbidden\"}");
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    })
    .await;
    let mut client = bed.connect(Alpn::Http1).await;
    let both = bed.request_text("POST", "/exec", ASK) + &bed.request_text("GET", "/second", "");
    let answer = raw_exchange(&mut client, &both).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("\"reason\":\"Forbidden\""), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert_eq!(bed.tunnel.opened(), 1);
}

#[tokio::test]
async fn anything_between_agreement_and_refusal_is_a_bad_gateway() {
    for status in [200, 204, 300, 302, 307] {
        let bed = Bed::start(move |_| async move {
            Response::builder()
                .status(status)
                .header("location", "https://evil.example/")
                .body(body(if status == 204 { "" } else { "page" }))
                .expect("a response")
        })
        .await;
        let mut client = bed.connect(Alpn::Http1).await;
        let ask = bed.request_text("POST", "/exec", ASK);
        client.write_all(ask.as_bytes()).await.expect("written");
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{status}: {head}");
        assert!(!head.contains("evil"), "{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    }
}

#[tokio::test]
async fn another_protocol_than_asked_for_is_a_bad_gateway() {
    for agreed in ["websocket", "h2c"] {
        let bed = raw_bed().await;
        let mut client = bed.connect(Alpn::Http1).await;
        let ask = bed.request_text("POST", "/exec", ASK);
        client.write_all(ask.as_bytes()).await.expect("written");
        let mut agent = bed.tunnel.raw_stream().await;
        let answer = AGREE.replace("SPDY/3.1", agreed);
        agent.write_all(answer.as_bytes()).await.expect("written");
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{agreed}: {head}");
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_a_bad_gateway() {
    let bed = raw_bed().await;
    let mut client = bed.connect(Alpn::Http1).await;
    let ask = bed.request_text("GET", "/pods", "");
    client.write_all(ask.as_bytes()).await.expect("written");
    let mut agent = bed.tunnel.raw_stream().await;
    agent.write_all(AGREE.as_bytes()).await.expect("written");
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_websocket_keeps_its_sub_protocol() {
    let bed = raw_bed().await;
    let mut client = bed.connect(Alpn::Http1).await;
    let ask = bed.request_text(
        "GET",
        "/portforward",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
         dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n",
    );
    client.write_all(ask.as_bytes()).await.expect("written");
    let mut agent = bed.tunnel.raw_stream().await;
    let head = read_until(&mut agent, "\r\n\r\n").await;
    assert!(
        head.contains("sec-websocket-protocol: SPDY/3.1+portforward.k8s.io\r\n"),
        "{head}"
    );
    assert!(
        head.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        "{head}"
    );
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: \
                  SPDY/3.1+portforward.k8s.io\r\n\r\n";
    agent.write_all(answer.as_bytes()).await.expect("written");
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(
        head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(
        head.contains("sec-websocket-protocol: SPDY/3.1+portforward.k8s.io\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn an_upgrade_works_through_a_library_client_too() {
    let bed = raw_bed().await;
    let mut client = bed.client(super::support::ClientVersion::Http1).await;
    let request = bed
        .request("GET", "/exec")
        .header("connection", "upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(empty())
        .expect("a request");
    let agent = async {
        let mut agent = bed.tunnel.raw_stream().await;
        read_until(&mut agent, "\r\n\r\n").await;
        agent.write_all(AGREE.as_bytes()).await.expect("written");
        agent
    };
    let (response, mut agent) = tokio::join!(client.send(request), agent);
    let upgraded = hyper::upgrade::on(response.expect("an answer"))
        .await
        .expect("an upgrade");
    let mut upgraded = hyper_util::rt::TokioIo::new(upgraded);
    upgraded.write_all(b"ping").await.expect("written");
    let mut ping = [0; 4];
    agent.read_exact(&mut ping).await.expect("read");
    assert_eq!(&ping, b"ping");
}
