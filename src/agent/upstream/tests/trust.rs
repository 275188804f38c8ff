//! The API server's certificate authority changes while the agent runs.

use std::path::Path;

use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    ErrorKind,
    agent::upstream::{Dial, NetDial, Trust, dial::Dialled},
    net::{Alpn, Endpoint, NetStream, Security, TlsAcceptor},
};

/// A certificate that only its own key vouches for.
struct Identity {
    pem: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    fn new(alpn: Alpn) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["kubernetes".to_owned()]).expect("a name");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let acceptor = TlsAcceptor::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes(), alpn)
            .expect("an acceptor");
        Self { pem, acceptor }
    }
}

struct Bed {
    directory: tempfile::TempDir,
    listener: TcpListener,
    dial: NetDial,
}

impl Bed {
    async fn new(trusted_pem: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ca.crt");
        replace(&file, trusted_pem);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let dial = NetDial::new(
            Endpoint::new("127.0.0.1", port, Security::Tls),
            Some("kubernetes".to_owned()),
            &Trust::file(&file).expect("usable"),
        )
        .expect("usable");
        Self {
            directory,
            listener,
            dial,
        }
    }

    fn write(&self, pem: &str) {
        replace(&self.directory.path().join("ca.crt"), pem);
    }

    /// The kind of error of a dial to a server with this identity.
    async fn dial(&self, identity: &Identity) -> Result<(), ErrorKind> {
        let accept = async {
            let (tcp, _) = self.listener.accept().await.expect("a connection");
            identity.acceptor.accept(tcp).await
        };
        let (dialled, _) = tokio::join!(self.dial.dial(), accept);
        dialled.map(|_| ()).map_err(|error| error.kind())
    }
}

/// As Kubernetes does it: a new file takes the old one's place.
fn replace(path: &Path, pem: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, pem).expect("a file");
    std::fs::rename(new, path).expect("a file");
}

#[tokio::test]
async fn new_connections_use_the_new_roots_and_a_broken_file_changes_nothing() {
    let (old, new) = (Identity::new(Alpn::Http1), Identity::new(Alpn::Http1));
    let bed = Bed::new(&old.pem).await;
    bed.dial(&old).await.expect("trusted");
    assert_eq!(bed.dial(&new).await, Err(ErrorKind::Tls));

    for broken in ["", "-----BEGIN CERTIFICATE-----\nnot base64\n", "no PEM"] {
        bed.write(broken);
        bed.dial(&old).await.expect("still trusted");
    }
    std::fs::remove_file(bed.directory.path().join("ca.crt")).expect("a file");
    bed.dial(&old).await.expect("still trusted");

    bed.write(&new.pem);
    bed.dial(&new).await.expect("trusted now");
    assert_eq!(bed.dial(&old).await, Err(ErrorKind::Tls));

    // Both, as a rotation has it for a while.
    bed.write(&format!("{}{}", old.pem, new.pem));
    bed.dial(&old).await.expect("trusted again");
    bed.dial(&new).await.expect("trusted");
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read() {
    let identity = Identity::new(Alpn::Http1);
    let bed = Bed::new(&identity.pem).await;
    bed.write(&identity.pem.repeat(2_000));
    bed.dial(&identity).await.expect("still trusted");
    let error = Trust::file(&bed.directory.path().join("ca.crt")).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::File);
}

#[tokio::test]
async fn upgrades_get_http1_and_the_rest_what_the_server_prefers() {
    for (alpn, expected_http2) in [(Alpn::Http2OrHttp1, true), (Alpn::Http1, false)] {
        let identity = Identity::new(alpn);
        let bed = Bed::new(&identity.pem).await;
        let Bed { listener, dial, .. } = bed;
        let accepting: JoinHandle<Vec<NetStream>> = tokio::spawn(async move {
            let mut streams = Vec::new();
            for _ in 0..2 {
                let (tcp, _) = listener.accept().await.expect("a connection");
                streams.push(identity.acceptor.accept(tcp).await.expect("a handshake"));
            }
            streams
        });
        let any = dial.dial_any().await.expect("a connection");
        let _upgrade = dial.dial().await.expect("a connection");
        assert_eq!(matches!(any, Dialled::Http2(_)), expected_http2);
        let streams = accepting.await.expect("no panic");
        assert_eq!(streams[1].alpn(), Some(Alpn::Http1));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_hangs_delays_a_connection_and_does_not_stop_it() {
    let identity = Identity::new(Alpn::Http1);
    let bed = Bed::new(&identity.pem).await;
    let file = bed.directory.path().join("ca.crt");
    std::fs::remove_file(&file).expect("a file");
    // Opening a pipe waits for whoever writes to it, as a dead network mount waits for its server.
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.expect("mkfifo runs").success());
    let outcome = bed.dial(&identity).await;
    // The thread that waits must be let go, or the test would not end.
    drop(std::fs::OpenOptions::new().write(true).open(&file));
    outcome.expect("the last good roots are trusted");
}
