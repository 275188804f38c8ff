//! Sender and listener against scripted peers; against the embedded relay in [`embedded`].

#[cfg(feature = "relay-server")]
mod embedded;

use std::{net::Ipv4Addr, time::Duration};

use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    ErrorKind,
    net::{Connector, Endpoint, Security, TrustRoots},
};

/// A connector for loopback. It trusts nothing that exists.
pub(super) fn connector() -> Connector {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["test.invalid".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    Connector::new(TrustRoots::only_pem(certificate.pem().as_bytes()).unwrap()).unwrap()
}

fn rule() -> SasRule {
    SasRule::new("test", "an-example-key").unwrap()
}

fn hybrid_connection(port: u16) -> HybridConnection {
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    HybridConnection::new(endpoint, "hyco").unwrap()
}

async fn bind() -> (TcpListener, u16) {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    (server, port)
}

/// Reads a request's head and answers with `answer`.
async fn answer(server: &TcpListener, answer: &str) -> TcpStream {
    let (mut socket, _) = server.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn a_listener_that_is_refused_says_so_and_goes_on_slowly() {
    for (refusal, kind) in [
        (
            "401 InvalidSignature: The token has an invalid signature",
            ErrorKind::Unauthorized,
        ),
        ("404 Endpoint does not exist", ErrorKind::NotFound),
        ("200 OK", ErrorKind::Protocol),
    ] {
        let (server, port) = bind().await;
        let listener = RelayListener::start(connector(), hybrid_connection(port), rule().into());
        let refuse = format!("HTTP/1.1 {refusal}. TrackingId:id_G1\r\nContent-Length: 0\r\n\r\n");
        let (_socket, online) = tokio::join!(answer(&server, &refuse), listener.online());
        let error = online.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.tracking_id(), Some("id_G1"));
        assert!(error.help().is_some());
        let ListenerState::Waiting { retry_in, reason } = listener.state() else {
            panic!("{:?}", listener.state());
        };
        assert!(retry_in >= Duration::from_secs(30));
        assert_eq!(reason.to_string(), error.to_string());
        assert_eq!(error.report(), reason.report());
    }
}

#[tokio::test]
async fn a_listener_waits_through_what_passes() {
    let (server, port) = bind().await;
    let listener = RelayListener::start(connector(), hybrid_connection(port), rule().into());
    let relay = async {
        answer(&server, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
        answer(&server, "HTTP/1.1 401 Enough\r\nContent-Length: 0\r\n\r\n").await
    };
    let (_socket, online) = tokio::join!(relay, listener.online());
    assert_eq!(online.unwrap_err().status(), Some(401));
}

#[tokio::test]
async fn an_expired_token_is_an_error_before_any_dial() {
    let token = rule().sign(&hybrid_connection(9), std::time::SystemTime::UNIX_EPOCH);
    let credential = RelayCredential::sas_token(token.secret()).unwrap();
    let sender = RelaySender::new(connector(), hybrid_connection(9), credential.clone());
    let error = sender.connect().await.unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().contains("expired"));

    let listener = RelayListener::start(connector(), hybrid_connection(9), credential);
    assert!(listener.online().await.unwrap_err().is_unauthorized());
}

#[tokio::test]
async fn a_relay_out_of_reach_is_a_network_error() {
    let (server, port) = bind().await;
    drop(server);
    let sender = RelaySender::new(connector(), hybrid_connection(port), rule().into());
    let error = sender.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_shut_down_listener_is_closed() {
    let (server, port) = bind().await;
    let listener = RelayListener::start(connector(), hybrid_connection(port), rule().into());
    let states = listener.states();
    // The relay took the connection and never answers.
    let _socket = server.accept().await.unwrap();
    listener.shutdown().await;
    let seen: Vec<_> = states.collect().await;
    assert!(matches!(seen[..], [ListenerState::Connecting]), "{seen:?}");
}

/// Lets a peer take a request and never answer, and virtual time pass from then on.
async fn swallow(server: &TcpListener) -> TcpStream {
    let socket = answer(server, "").await;
    tokio::time::pause();
    socket
}

#[tokio::test]
async fn a_relay_that_never_answers_a_sender_is_given_up() {
    let (server, port) = bind().await;
    let sender = RelaySender::new(connector(), hybrid_connection(port), rule().into());
    let start = tokio::time::Instant::now();
    let (_socket, result) = tokio::join!(swallow(&server), sender.connect());
    let error = result.unwrap_err();
    assert!(error.is_timeout() && error.is_retryable());
    assert_eq!(start.elapsed().as_secs(), 70);
}

#[tokio::test]
async fn a_relay_that_never_answers_a_listener_is_given_up() {
    let (server, port) = bind().await;
    let listener = RelayListener::start(connector(), hybrid_connection(port), rule().into());
    let mut states = listener.states();
    let start = tokio::time::Instant::now();
    let _socket = swallow(&server).await;
    loop {
        if let ListenerState::Waiting { reason, .. } = states.next().await.unwrap() {
            assert!(reason.is_timeout());
            break;
        }
    }
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn a_node_that_never_answers_an_accept_is_given_up() {
    let (server, port) = bind().await;
    let accept = br#"{"accept":{"address":"ws://127.0.0.1:PORT/$hc/hyco?sb-hc-id=1","id":"1"}}"#;
    let text = String::from_utf8_lossy(accept).replace("PORT", &port.to_string());
    let control::ControlMessage::Accept(accept) =
        control::ControlMessage::parse(text.as_bytes()).unwrap()
    else {
        panic!("no announcement");
    };
    let relay = hybrid_connection(port);
    let rendezvous = rendezvous::Rendezvous::check(&accept.address, relay.endpoint()).unwrap();
    let dialler = std::sync::Arc::new(incoming::Dialler::new(connector()));
    let incoming = IncomingConnection::new(dialler, rendezvous, accept);
    let start = tokio::time::Instant::now();
    let (_socket, result) = tokio::join!(swallow(&server), incoming.accept());
    assert!(result.unwrap_err().is_timeout());
    assert_eq!(start.elapsed().as_secs(), 20);
}
