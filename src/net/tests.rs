//! Every way in which a connection can fail to come about, and what the user is told. All on loopback.

use std::{future::pending, net::Ipv6Addr};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    dial::{TCP_CONNECT_LIMIT, within_limit},
    *,
};
use crate::{Error, ErrorKind};

/// A certificate authority that issues server certificates.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn trusted(&self) -> Connector {
        Connector::new(TrustRoots::only_pem(self.0.pem().as_bytes()).unwrap()).unwrap()
    }

    /// An acceptor with a certificate for `name`, issued after `change`.
    fn acceptor_with(
        &self,
        name: &str,
        alpn: Alpn,
        change: impl FnOnce(&mut CertificateParams),
    ) -> TlsAcceptor {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        TlsAcceptor::from_pem(
            certificate.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
            alpn,
        )
        .unwrap()
    }

    pub(super) fn acceptor(&self, name: &str, alpn: Alpn) -> TlsAcceptor {
        self.acceptor_with(name, alpn, |_| {})
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn tls_on(port: u16) -> Endpoint {
    Endpoint::new("localhost", port, Security::Tls)
}

/// Serves one connection: echoes what comes, until its end.
fn serve(listener: TcpListener, acceptor: TlsAcceptor) -> JoinHandle<Result<Option<Alpn>>> {
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await?;
        let alpn = stream.alpn();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        stream.write_all(&text).await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(alpn)
    })
}

/// A TLS connection that must not come about: the client's error, and the server's result.
async fn refused(
    connector: &Connector,
    acceptor: TlsAcceptor,
    alpn: Alpn,
) -> (Error, Result<Option<Alpn>>) {
    let (listener, port) = listen().await;
    let server = serve(listener, acceptor);
    let error = connector
        .connect(&tls_on(port), alpn)
        .await
        .expect_err("the handshake must fail");
    let expected = format!("the TLS handshake with localhost:{port} failed");
    assert_eq!(error.to_string(), expected);
    (error, server.await.unwrap())
}

#[test]
fn authorities() {
    let endpoint = |host| Endpoint::new(host, 443, Security::Tls);
    assert_eq!(endpoint("example.com").authority(), "example.com:443");
    assert_eq!(endpoint("::1").authority(), "[::1]:443");
    assert_eq!(endpoint("::1").to_string(), "[::1]:443");
    for host in ["::1", "127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST"] {
        assert!(endpoint(host).is_loopback(), "{host}");
    }
    for host in [
        "::2",
        "10.0.0.1",
        "localhost.example.com",
        "127.0.0.1.example.com",
    ] {
        assert!(!endpoint(host).is_loopback(), "{host}");
    }
}

#[tokio::test]
async fn plain_bytes_over_ipv4_and_ipv6() {
    for address in ["127.0.0.1", "::1"] {
        let listener = match TcpListener::bind((address, 0)).await {
            Ok(listener) => listener,
            // A machine may have no IPv6 at all.
            Err(_) if address == "::1" => continue,
            Err(error) => panic!("{error}"),
        };
        let local = listener.local_addr().unwrap();
        let endpoint = Endpoint::new(address, local.port(), Security::Plain);
        assert_eq!(endpoint.authority(), local.to_string());
        let connector = Authority::new("a").trusted();
        let mut stream = connector.connect(&endpoint, Alpn::None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), local);
        assert_eq!(stream.alpn(), None);
        let (mut peer, _) = listener.accept().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = Vec::new();
        peer.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"hello");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, port) = listen().await;
    drop(listener);
    let connector = Authority::new("a").trusted();
    let error = connector
        .connect(&Endpoint::new("127.0.0.1", port, Security::Tls), Alpn::None)
        .await
        .expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.is_retryable());
    assert_eq!(
        error.to_string(),
        format!("can not connect to 127.0.0.1:{port}")
    );
    assert!(error.help().unwrap().contains("nothing listens there"));
}

#[tokio::test]
async fn an_unknown_host() {
    // A label of 64 characters can not exist, so that no name server is asked.
    let host = format!("{}.invalid", "a".repeat(64));
    let error = Authority::new("a")
        .trusted()
        .connect(&Endpoint::new(&host, 443, Security::Plain), Alpn::None)
        .await
        .expect_err("no such host");
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains(&host), "{error}");
    assert!(error.help().unwrap().contains("host name"));
}

#[tokio::test(start_paused = true)]
async fn no_answer_to_a_connect() {
    let start = tokio::time::Instant::now();
    let endpoint = Endpoint::new("192.0.2.1", 443, Security::Tls);
    let error = within_limit::<()>(Hop::Target(&endpoint), pending())
        .await
        .expect_err("nobody answers");
    assert!(start.elapsed() >= TCP_CONNECT_LIMIT);
    assert!(error.is_timeout() && error.is_retryable());
    assert!(error.to_string().contains("192.0.2.1:443"), "{error}");
}

#[tokio::test]
async fn tls_carries_bytes_and_both_ends_agree_on_the_protocol() {
    let authority = Authority::new("a");
    for (client, server, agreed) in [
        (Alpn::Http2OrHttp1, Alpn::Http2OrHttp1, Some(Alpn::Http2)),
        (Alpn::Http1, Alpn::Http2OrHttp1, Some(Alpn::Http1)),
        (Alpn::Http2OrHttp1, Alpn::Http1, Some(Alpn::Http1)),
        (Alpn::Http2, Alpn::Http2, Some(Alpn::Http2)),
        (Alpn::None, Alpn::Http2OrHttp1, None),
        (Alpn::Http1, Alpn::None, None),
    ] {
        let (listener, port) = listen().await;
        let task = serve(listener, authority.acceptor("localhost", server));
        let mut stream = authority
            .trusted()
            .connect(&tls_on(port), client)
            .await
            .unwrap();
        assert_eq!(stream.alpn(), agreed, "{client:?} {server:?}");
        assert!(stream.is_write_vectored());
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"hello");
        assert_eq!(task.await.unwrap().unwrap(), agreed);
    }
}

/// The relay is dialled again and again: all but the first handshake are to be the short one, whatever is offered in it.
#[tokio::test]
async fn a_second_connection_resumes_the_session() {
    let authority = Authority::new("a");
    let acceptor = authority.acceptor("localhost", Alpn::Http2OrHttp1);
    let connector = authority.trusted();
    for (alpn, expected) in [
        (Alpn::Http1, rustls::HandshakeKind::Full),
        (Alpn::Http1, rustls::HandshakeKind::Resumed),
        (Alpn::Http2, rustls::HandshakeKind::Resumed),
    ] {
        let (listener, port) = listen().await;
        let server = serve(listener, acceptor.clone());
        let mut stream = connector
            .clone()
            .connect(&tls_on(port), alpn)
            .await
            .unwrap();
        // The ticket for the next connection comes with the first bytes.
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stream.handshake_kind(), Some(expected));
        server.await.unwrap().unwrap();
    }
}

/// Azure's relays want P-384; without the hint the first handshake has a retry in it. Others are not hindered.
#[tokio::test]
async fn a_relay_is_met_with_the_key_that_it_wants() {
    use rustls::HandshakeKind::{Full, FullWithHelloRetryRequest, Resumed};
    const AZURE: &str = "contoso.servicebus.windows.net";
    let authority = Authority::new("a");
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([AZURE.to_owned()])
        .unwrap()
        .signed_by(&key, &authority.0)
        .unwrap();
    let azure =
        TlsAcceptor::with_p384_only(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
    let usual = authority.acceptor("localhost", Alpn::None);
    let unaware = authority.trusted().with_server_name(AZURE).unwrap();
    let aware = unaware.clone().for_relay();
    for (connector, acceptor, expected) in [
        (unaware, &azure, FullWithHelloRetryRequest),
        (aware.clone(), &azure, Full),
        (aware, &azure, Resumed),
        (authority.trusted().for_relay(), &usual, Full),
    ] {
        let (listener, port) = listen().await;
        let server = serve(listener, acceptor.clone());
        let mut stream = connector.connect(&tls_on(port), Alpn::None).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stream.handshake_kind(), Some(expected));
        server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_address_in_place_of_a_name() {
    let authority = Authority::new("a");
    let (listener, port) = listen().await;
    let _server = serve(listener, authority.acceptor("127.0.0.1", Alpn::None));
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Tls);
    authority
        .trusted()
        .connect(&endpoint, Alpn::None)
        .await
        .unwrap();
    // The bracketless form of `Endpoint` is also the form that certificates are checked against.
    assert!(rustls::pki_types::ServerName::try_from(Ipv6Addr::LOCALHOST.to_string()).is_ok());
}

#[tokio::test]
async fn no_protocol_in_common() {
    let authority = Authority::new("a");
    let acceptor = authority.acceptor("localhost", Alpn::Http1);
    let (error, server) = refused(&authority.trusted(), acceptor, Alpn::Http2).await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.help().unwrap().contains("protocol in common"));
    assert_eq!(server.expect_err("refused").kind(), ErrorKind::Tls);
}

#[tokio::test]
async fn an_authority_that_is_not_trusted() {
    let acceptor = Authority::new("mine").acceptor("localhost", Alpn::None);
    let (error, server) = refused(&Authority::new("other").trusted(), acceptor, Alpn::None).await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(!error.is_retryable());
    assert!(error.help().unwrap().contains("CA file"));
    assert!(
        error.report().contains("UnknownIssuer"),
        "{}",
        error.report()
    );
    assert_eq!(server.expect_err("refused").kind(), ErrorKind::Tls);
}

#[tokio::test]
async fn an_extra_authority_beside_the_platforms() {
    let authority = Authority::new("a");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.0.pem()).unwrap();
    let from_text = TrustRoots::platform()
        .and_pem(authority.0.pem().as_bytes())
        .unwrap();
    let from_file = TrustRoots::platform().and_file(file.path()).unwrap();
    for roots in [from_text, from_file] {
        let connector = Connector::new(roots).unwrap();
        let (listener, port) = listen().await;
        let _server = serve(listener, authority.acceptor("localhost", Alpn::None));
        connector.connect(&tls_on(port), Alpn::None).await.unwrap();
        // It is an addition, not a way around the check.
        let stranger = Authority::new("stranger").acceptor("localhost", Alpn::None);
        let (error, _) = refused(&connector, stranger, Alpn::None).await;
        assert_eq!(error.kind(), ErrorKind::Tls);
    }
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_or_has_not_come() {
    let authority = Authority::new("a");
    for (from, to) in [(2000, 2001), (2999, 3000)] {
        let acceptor = authority.acceptor_with("localhost", Alpn::None, |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        });
        let (error, _) = refused(&authority.trusted(), acceptor, Alpn::None).await;
        assert_eq!(error.kind(), ErrorKind::Tls);
        let help = error.help().unwrap();
        assert!(help.contains("renewed") && help.contains("clock"), "{help}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host() {
    let authority = Authority::new("a");
    let acceptor = authority.acceptor("elsewhere.example", Alpn::None);
    let (error, _) = refused(&authority.trusted(), acceptor, Alpn::None).await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.help().unwrap().contains("another host"));
}

#[tokio::test]
async fn a_host_that_no_certificate_can_name() {
    let (listener, _) = listen().await;
    let tcp = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let endpoint = Endpoint::new("not a name", 443, Security::Tls);
    let connector = Authority::new("a").trusted();
    let hop = Hop::Target(&endpoint);
    let error = connector
        .tls
        .handshake(&endpoint, tcp, Alpn::None, hop)
        .await;
    let error = error.expect_err("no such name");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "'not a name' is not a host name");
}

#[tokio::test]
async fn tls_spoken_to_a_plain_port() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let connector = Authority::new("a").trusted();
    let error = connector.connect(&tls_on(port), Alpn::None).await;
    let error = error.expect_err("not TLS");
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.help().unwrap().contains("does not speak TLS"));
    server.await.unwrap();
}

#[tokio::test]
async fn plain_text_spoken_to_a_tls_port() {
    let (listener, port) = listen().await;
    let server = serve(
        listener,
        Authority::new("a").acceptor("localhost", Alpn::None),
    );
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = server.await.unwrap().expect_err("not TLS");
    assert_eq!(error.kind(), ErrorKind::Tls);
}

#[tokio::test]
async fn a_connection_that_ends_in_the_handshake_may_work_the_next_time() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let connector = Authority::new("a").trusted();
    let error = connector.connect(&tls_on(port), Alpn::None).await;
    let error = error.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.is_retryable());
    server.await.unwrap();
}

/// Time is paused only once the connection stands: while it is being made, there would be nothing else to wait for.
#[tokio::test]
async fn a_peer_that_says_nothing_in_the_handshake() {
    let authority = Authority::new("a");
    let (listener, port) = listen().await;
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    tokio::time::pause();

    let start = tokio::time::Instant::now();
    let connector = authority.trusted();
    let endpoint = tls_on(port);
    let hop = Hop::Target(&endpoint);
    let error = connector
        .tls
        .handshake(&endpoint, tcp, Alpn::None, hop)
        .await;
    assert!(error.expect_err("silence").is_timeout());
    assert!(start.elapsed() >= tls::TLS_HANDSHAKE_LIMIT);
    drop(accepted);
}

#[tokio::test]
async fn a_client_that_says_nothing_in_the_handshake() {
    let acceptor = Authority::new("a").acceptor("localhost", Alpn::None);
    let (listener, port) = listen().await;
    let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    tokio::time::pause();

    let error = acceptor.accept(accepted).await.expect_err("silence");
    assert!(error.is_timeout());
    drop(silent);
}

#[test]
fn unusable_certificates_and_keys() {
    let pem = Authority::new("a").0.pem();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let acceptor = |certificate: &str, key: &str| {
        TlsAcceptor::from_pem(certificate.as_bytes(), key.as_bytes(), Alpn::None)
            .expect_err("unusable")
    };
    let garbage = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    for (error, expected) in [
        (acceptor("", &key), "no PEM certificate"),
        (acceptor(garbage, &key), "malformed"),
        (acceptor(&pem, ""), "no usable PEM private key"),
        (acceptor(&pem, &key), "do not go together"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn unusable_authority_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let error = TrustRoots::platform().and_file(&path).expect_err("missing");
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("ca.pem"), "{error}");
    std::fs::write(&path, "no certificate").unwrap();
    let error = TrustRoots::platform().and_file(&path).expect_err("empty");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("ca.pem"), "{error}");
    assert!(error.help().unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn debug_shows_no_private_key() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let pem = key.serialize_pem();
    let acceptor =
        TlsAcceptor::from_pem(certificate.pem().as_bytes(), pem.as_bytes(), Alpn::None).unwrap();
    let shown = format!("{acceptor:?}");
    let bytes = format!("{:?}", &key.serialized_der()[8..24]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}
