//! Sender, listener and the embedded relay together, over loopback sockets.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{bind, connector, hybrid_connection, rule};
use crate::{
    ErrorKind,
    net::{Alpn, Connector, TlsAcceptor, TrustRoots},
    relay::{
        ConnectionString, HybridConnection, ListenerOptions, ListenerState, RelayCredential,
        RelayListener, RelaySender, RelayStream, SasRule,
        server::{RelayServer, Rights},
    },
};

/// An embedded relay with a registered listener, and a sender for it.
struct Bed {
    relay: RelayServer,
    listener: RelayListener,
    sender: RelaySender,
}

impl Bed {
    async fn start() -> Self {
        let relay = start_relay(bind().await.0);
        let sender = sender(&relay, Rights::SEND);
        let listener = listener(&relay);
        listener.online().await.unwrap();
        Self {
            relay,
            listener,
            sender,
        }
    }

    /// A connection: the sender's end and the listener's.
    async fn connect(&mut self) -> (RelayStream, RelayStream) {
        let accept = async { self.listener.accept().await.unwrap().accept().await };
        let (sent, accepted) = tokio::join!(self.sender.connect(), accept);
        (sent.unwrap(), accepted.unwrap())
    }
}

fn rule_for(rights: Rights) -> SasRule {
    let name = if rights == Rights::SEND {
        "send"
    } else {
        "listen"
    };
    SasRule::new(name, format!("{name}-example-key")).unwrap()
}

fn start_relay(socket: TcpListener) -> RelayServer {
    RelayServer::builder()
        .hybrid_connection("hyco")
        .rule(rule_for(Rights::SEND), Rights::SEND)
        .rule(rule_for(Rights::LISTEN), Rights::LISTEN)
        .start(socket)
        .unwrap()
}

fn sender(relay: &RelayServer, rights: Rights) -> RelaySender {
    let hybrid_connection = hybrid_connection(relay.local_addr().port());
    RelaySender::new(connector(), hybrid_connection, rule_for(rights).into())
}

fn listener(relay: &RelayServer) -> RelayListener {
    let text = relay.connection_string("listen", "hyco").unwrap();
    let parsed = ConnectionString::parse(&text).unwrap();
    RelayListener::start(
        connector(),
        parsed.hybrid_connection().unwrap(),
        parsed.credential(),
    )
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|index| (index * 31 + index / 251) as u8)
        .collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_end_cleanly() {
    let mut bed = Bed::start().await;
    let (sent, accepted) = bed.connect().await;
    let data = pattern(4 * 1024 * 1024);
    let echo = async {
        let (mut reader, mut writer) = tokio::io::split(accepted);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let check = async {
        let (mut reader, mut writer) = tokio::io::split(sent);
        let write = async {
            writer.write_all(&data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
        read.unwrap();
        assert!(received == data);
    };
    tokio::join!(echo, check);
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let mut bed = Bed::start().await;
    let (mut sent, mut accepted) = bed.connect().await;
    sent.write_all(b"question").await.unwrap();
    sent.shutdown().await.unwrap();
    let mut question = String::new();
    accepted.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");

    accepted.write_all(b"answer").await.unwrap();
    accepted.shutdown().await.unwrap();
    let mut answer = String::new();
    sent.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn an_abort_is_never_a_clean_end() {
    let mut bed = Bed::start().await;
    for drop_sender in [true, false] {
        let (sent, accepted) = bed.connect().await;
        let (mut dropped, mut left) = if drop_sender {
            (sent, accepted)
        } else {
            (accepted, sent)
        };
        dropped.write_all(b"part").await.unwrap();
        left.read_exact(&mut [0; 4]).await.unwrap();
        drop(dropped);
        left.read(&mut [0; 8]).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_the_sender_says_reaches_the_listener_without_its_token() {
    let mut bed = Bed::start().await;
    let name = HeaderName::from_static("x-correlation");
    let sender = bed
        .sender
        .clone()
        .with_header(name.clone(), HeaderValue::from_static("42"));
    let connect = tokio::spawn(async move { sender.connect().await });
    let incoming = bed.listener.accept().await.unwrap();
    assert_eq!(incoming.headers()[&name], "42");
    assert!(!incoming.headers().contains_key("servicebusauthorization"));
    assert_eq!(incoming.path_and_query(), "/hyco");
    assert!(incoming.remote_address().unwrap().ip().is_loopback());
    assert!(!incoming.id().is_empty());
    incoming.accept().await.unwrap();
    connect.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_rejection_reaches_the_sender() {
    let mut bed = Bed::start().await;
    let reject = async {
        let incoming = bed.listener.accept().await.unwrap();
        incoming
            .reject(StatusCode::IM_A_TEAPOT, "Not for you")
            .await
    };
    let (connected, rejected) = tokio::join!(bed.sender.connect(), reject);
    rejected.unwrap();
    let error = connected.unwrap_err();
    assert_eq!(error.status(), Some(418));
    assert!(error.to_string().contains("418 Not for you"), "{error}");
    assert!(!error.is_retryable());

    let ignore = async { drop(bed.listener.accept().await.unwrap()) };
    let (connected, ()) = tokio::join!(bed.sender.connect(), ignore);
    let error = connected.unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn nobody_listens() {
    let relay = start_relay(bind().await.0);
    let error = sender(&relay, Rights::SEND).connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::NotFound, Some(404))
    );
    assert!(error.is_retryable());
    assert!(error.help().unwrap().contains("no agent is connected"));
    assert!(error.tracking_id().is_some());
}

#[tokio::test]
async fn a_hybrid_connection_that_does_not_exist() {
    let relay = start_relay(bind().await.0);
    let endpoint = relay.endpoint().clone();
    let elsewhere = HybridConnection::new(endpoint, "elsewhere").unwrap();
    let listener = RelayListener::start_with(
        connector(),
        elsewhere,
        rule_for(Rights::LISTEN).into(),
        ListenerOptions::new().patience(Duration::ZERO),
    );
    let error = listener.online().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.help().unwrap().contains("EntityPath"), "{error:?}");
}

#[tokio::test]
async fn a_credential_that_the_relay_does_not_take() {
    let relay = start_relay(bind().await.0);
    let hybrid_connection = hybrid_connection(relay.local_addr().port());
    let wrong_key = SasRule::new("send", "another-key").unwrap();
    let old = SystemTime::now() - Duration::from_secs(1);
    let expired = rule_for(Rights::SEND).sign(&hybrid_connection, old);
    for (credential, help) in [
        (wrong_key.into(), "key does not match"),
        (rule_for(Rights::LISTEN).into(), "'Send'"),
    ] {
        let sender = RelaySender::new(connector(), hybrid_connection.clone(), credential);
        let error = sender.connect().await.unwrap_err();
        assert!(error.is_unauthorized() && !error.is_retryable());
        assert!(error.help().unwrap().contains(help), "{error:?}");
    }
    let finished = RelayCredential::sas_token(expired.secret()).unwrap();
    let sender = RelaySender::new(connector(), hybrid_connection, finished);
    assert!(sender.connect().await.unwrap_err().is_unauthorized());
}

#[tokio::test]
async fn a_token_that_the_relay_finds_expired_names_the_clock() {
    let tomorrow = Duration::from_secs(24 * 60 * 60);
    let relay = RelayServer::builder()
        .hybrid_connection("hyco")
        .rule(rule(), Rights::SEND)
        .clock(move || SystemTime::now() + tomorrow)
        .start(bind().await.0)
        .unwrap();
    let hybrid_connection = hybrid_connection(relay.local_addr().port());
    let sender = RelaySender::new(connector(), hybrid_connection, rule().into());
    let error = sender.connect().await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(error.help().unwrap().contains("clock"), "{error:?}");
}

#[tokio::test]
async fn a_restarted_relay_is_found_again() {
    let mut bed = Bed::start().await;
    let address = bed.relay.local_addr();
    let mut states = bed.listener.states();
    assert!(matches!(states.next().await, Some(ListenerState::Online)));

    bed.relay.shutdown().await;
    while !matches!(states.next().await, Some(ListenerState::Waiting { .. })) {}
    bed.relay = start_relay(TcpListener::bind(address).await.unwrap());
    while !matches!(states.next().await, Some(ListenerState::Online)) {}

    let (mut sent, mut accepted) = bed.connect().await;
    sent.write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn connections_outlive_their_listener() {
    let mut bed = Bed::start().await;
    let (mut sent, mut accepted) = bed.connect().await;
    bed.listener.shutdown().await;
    sent.write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
    let error = bed.sender.connect().await.unwrap_err();
    assert_eq!(error.status(), Some(404));
}

#[tokio::test]
async fn a_dropped_listener_is_signed_off() {
    let bed = Bed::start().await;
    drop(bed.listener);
    // The relay learns it from the socket, a moment later.
    let mut error = None;
    for _ in 0..100 {
        match tokio::time::timeout(Duration::from_millis(50), bed.sender.connect()).await {
            Ok(result) => {
                error = Some(result.unwrap_err());
                break;
            }
            Err(_) => continue,
        }
    }
    assert_eq!(error.unwrap().status(), Some(404));
}

#[tokio::test]
async fn twenty_senders_at_once() {
    let mut bed = Bed::start().await;
    let senders: Vec<_> = (0..20_u8)
        .map(|index| {
            let sender = bed.sender.clone();
            tokio::spawn(async move {
                let mut stream = sender.connect().await.unwrap();
                stream.write_all(&[index]).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), index);
            })
        })
        .collect();
    for _ in 0..20 {
        let incoming = bed.listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut stream = incoming.accept().await.unwrap();
            let byte = stream.read_u8().await.unwrap();
            stream.write_all(&[byte]).await.unwrap();
            stream.flush().await.unwrap();
            // Until the sender is done with it.
            let _ = stream.read_u8().await;
        });
    }
    for sender in senders {
        sender.await.unwrap();
    }
}

/// A relay under TLS at `socket`, and what trusts it.
fn start_tls_relay(socket: TcpListener, name: &str) -> (RelayServer, Connector) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.into()])
        .unwrap()
        .self_signed(&key)
        .unwrap()
        .pem();
    let acceptor = TlsAcceptor::from_pem(
        certificate.as_bytes(),
        key.serialize_pem().as_bytes(),
        Alpn::Http1,
    );
    let relay = RelayServer::builder()
        .hybrid_connection("hyco")
        .rule(rule(), Rights::LISTEN | Rights::SEND)
        .tls(acceptor.unwrap())
        .host(name)
        .start(socket)
        .unwrap();
    let trusting = Connector::new(TrustRoots::only_pem(certificate.as_bytes()).unwrap()).unwrap();
    (relay, trusting)
}

/// A byte passes from a sender to a listener, both of which find the relay by `text`.
async fn one_byte_passes(text: &str, connector: Connector) {
    let parsed = ConnectionString::parse(text).unwrap();
    let hybrid_connection = parsed.hybrid_connection().unwrap();
    let mut listener = RelayListener::start(
        connector.clone(),
        hybrid_connection.clone(),
        parsed.credential(),
    );
    listener.online().await.unwrap();
    let sender = RelaySender::new(connector, hybrid_connection, parsed.credential());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (sent, mut accepted) = tokio::join!(sender.connect(), accept);
    sent.unwrap().write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn an_ipv6_address_is_a_relays_host_too() {
    let Ok(socket) = TcpListener::bind("[::1]:0").await else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let (relay, trusting) = start_tls_relay(socket, "::1");
    let text = relay.connection_string("test", "hyco").unwrap();
    let port = relay.local_addr().port();
    let start = format!("Endpoint=sb://[::1]:{port}/;");
    assert!(text.starts_with(&start), "{}", text.len());
    one_byte_passes(&text, trusting).await;

    // In clear, and with the host that the relay finds out by itself.
    let relay = RelayServer::builder()
        .hybrid_connection("hyco")
        .rule(rule(), Rights::LISTEN | Rights::SEND)
        .start(TcpListener::bind("[::1]:0").await.unwrap())
        .unwrap();
    let text = relay.connection_string("test", "hyco").unwrap();
    assert!(text.starts_with("Endpoint=ws://[::1]:"), "{}", text.len());
    one_byte_passes(&text, connector()).await;
}

#[tokio::test]
async fn both_parties_may_show_their_token_in_the_query() {
    let relay = start_relay(bind().await.0);
    let hybrid_connection = hybrid_connection(relay.local_addr().port());
    let mut listener = RelayListener::start_with(
        connector(),
        hybrid_connection,
        rule_for(Rights::LISTEN).into(),
        ListenerOptions::new().token_in_query(),
    );
    listener.online().await.unwrap();
    let sender = sender(&relay, Rights::SEND).with_token_in_query();
    let accept = async {
        let incoming = listener.accept().await.unwrap();
        // The relay keeps it to itself.
        assert_eq!(incoming.path_and_query(), "/hyco");
        incoming.accept().await.unwrap()
    };
    let (sent, mut accepted) = tokio::join!(sender.connect(), accept);
    sent.unwrap().write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn everything_works_under_tls() {
    let (relay, trusting) = start_tls_relay(bind().await.0, "localhost");
    let text = relay.connection_string("test", "hyco").unwrap();
    let parsed = ConnectionString::parse(&text).unwrap();
    let hybrid_connection = parsed.hybrid_connection().unwrap();

    let mut listener = RelayListener::start(
        trusting.clone(),
        hybrid_connection.clone(),
        parsed.credential(),
    );
    listener.online().await.unwrap();
    let sender = RelaySender::new(trusting, hybrid_connection.clone(), parsed.credential());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (sent, mut accepted) = tokio::join!(sender.connect(), accept);
    sent.unwrap().write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');

    let distrusting = RelaySender::new(connector(), hybrid_connection, parsed.credential());
    let error = distrusting.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
}
