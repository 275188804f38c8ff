//! Sender and listener against scripted peers; against the embedded relay in [`embedded`].

mod captured;
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

/// A listener for which a hybrid connection exists at once or not at all.
fn impatient(hybrid_connection: HybridConnection) -> RelayListener {
    let options = ListenerOptions::new().patience(Duration::ZERO);
    RelayListener::start_with(connector(), hybrid_connection, rule().into(), options)
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
        let listener = impatient(hybrid_connection(port));
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

/// A relay in memory that answers everybody in the same way; `Err` hangs up.
fn relay_of(answer: impl Fn() -> Result<String, ()> + Send + Sync + 'static) -> Connector {
    let answer = std::sync::Arc::new(answer);
    connector().in_memory(move |_| {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let answer = std::sync::Arc::clone(&answer);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            if let Ok(text) = answer() {
                let _ = far.write_all(text.as_bytes()).await;
            }
        });
        near
    })
}

fn refusal(status: &str) -> String {
    format!("HTTP/1.1 {status}. TrackingId:id_G1\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_listener_is_patient_with_a_hybrid_connection_that_is_not_there_yet() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&asked);
    let relay = relay_of(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(refusal("404 Endpoint does not exist"))
    });
    let start = tokio::time::Instant::now();
    let listener = RelayListener::start(relay, hybrid_connection(9), rule().into());
    let error = listener.online().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 120);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!error.is_retryable());
    assert_eq!(error.tracking_id(), Some("id_G1"));
    assert!(
        error
            .to_string()
            .contains("127.0.0.1:9/hyco, and had none for 120 s"),
        "{error}"
    );
    assert!(error.report().contains("404 Endpoint does not exist"));
    assert!(error.help().unwrap().contains("EntityPath"));
    // After 0, 1, 2, 5, 10, 30, 30, 30 s and a last time.
    let dials = || asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!((7..=10).contains(&dials()), "{}", dials());
    // It goes on, slowly: an operator may make it.
    let before = dials();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!((2..=3).contains(&(dials() - before)), "{}", dials());
}

/// What Azure answers, and what a sender makes of it (section 7.1 of the project's notes on the protocol).
#[tokio::test(start_paused = true)]
async fn a_patient_sender_tries_again_what_passes_and_nothing_else() {
    const BUDGET: Duration = Duration::from_secs(20);
    for (status, kind, is_tried_again) in [
        ("400 Rejected by user code", ErrorKind::Refused, false),
        ("401 MissingToken: no", ErrorKind::Unauthorized, false),
        ("403 Unauthorized access", ErrorKind::Unauthorized, false),
        ("404 There are no listeners", ErrorKind::NotFound, true),
        ("404 Endpoint does not exist", ErrorKind::NotFound, true),
        ("408 Late", ErrorKind::Timeout, true),
        ("418 Not for you", ErrorKind::Refused, false),
        ("429 Slow down", ErrorKind::Refused, true),
        ("500 Oops", ErrorKind::Refused, true),
        ("502 Bad gateway", ErrorKind::Refused, true),
        ("503 Busy", ErrorKind::Refused, true),
        ("504 Late", ErrorKind::Timeout, true),
        ("302 Found", ErrorKind::Protocol, false),
        ("", ErrorKind::Network, true),
    ] {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = std::sync::Arc::clone(&asked);
        let relay = relay_of(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match status {
                "" => Err(()),
                _ => Ok(refusal(status)),
            }
        });
        let start = tokio::time::Instant::now();
        let sender = RelaySender::new(relay, hybrid_connection(9), rule().into());
        let error = sender.connect_within(BUDGET).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert_eq!(error.is_retryable(), is_tried_again, "{status}");
        let dials = asked.load(std::sync::atomic::Ordering::Relaxed);
        if is_tried_again {
            // After 1, 2, 4, 5, 5 s, and a quarter of each at most.
            assert!((5..=6).contains(&dials), "{status}: {dials}");
            assert!(start.elapsed() < BUDGET);
        } else {
            assert_eq!(dials, 1, "{status}");
            assert_eq!(start.elapsed(), Duration::ZERO, "{status}");
        }
    }
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
