//! Microsoft's own relay client for Node, unpatched, against our relay and against our own ends.
//!
//! Needs `node`, and `npm ci --ignore-scripts` in `tests/interop/hyco`.

#[path = "support/kubectl.rs"]
#[allow(dead_code, reason = "only its way to skip is used here")]
mod kubectl;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use arc_cluster_connect::{
    net::{Alpn, Connector, Security, TlsAcceptor, TrustRoots},
    relay::{
        HybridConnection, RelayCredential, RelayListener, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const PATH: &str = "hyco";
const RULE: &str = "root";
const KEY: &str = "a-key-of-this-test-run";

/// Node is slow to start on a busy machine. Nothing but a hang is decided by it.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_foreign_pair_meets_at_our_relay() {
    if !is_installed("a_foreign_pair_meets_at_our_relay") {
        return;
    }
    let relay = relay(None).await;
    let mut listener = Peer::start("ws-listen", &relay, KEY, &["chosen"], &[]).await;
    listener.expect("listening").await;
    let mut sender = Peer::start("ws-send", &relay, KEY, &["chosen"], &[("MEBIBYTES", "3")]).await;

    assert_eq!(sender.expect("open").await["subProtocol"], "chosen");
    assert_eq!(listener.expect("open").await["subProtocol"], "chosen");
    let text = sender.expect("message").await;
    assert_eq!(
        (text["text"].as_bool(), text["length"].as_u64()),
        (Some(true), Some(5))
    );
    let binary = sender.expect("message").await;
    assert_eq!(
        (binary["text"].as_bool(), binary["length"].as_u64()),
        (Some(false), Some(3 << 20))
    );
    let close = listener.expect("close").await;
    assert_eq!(
        (close["code"].as_u64(), close["reason"].as_str()),
        (Some(1000), Some("bye"))
    );
}

#[tokio::test]
async fn a_foreign_sender_reaches_our_listener() {
    if !is_installed("a_foreign_sender_reaches_our_listener") {
        return;
    }
    let relay = relay(None).await;
    let mut listener = RelayListener::start(connector(), address(&relay), credential());
    listener.online().await.expect("the relay is there");
    let mut sender = Peer::start("ws-send", &relay, KEY, &[], &[("BYTE_STREAM", "1")]).await;

    let incoming = timeout(PATIENCE, listener.accept())
        .await
        .expect("a sender arrives")
        .expect("the listener runs");
    assert_eq!(incoming.headers()["x-probe"], "1");
    let mut stream = incoming.accept().await.expect("the sender waits");
    sender.expect("open").await;
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    stream.write_all(&hello).await.unwrap();
    stream.flush().await.unwrap();

    let mut bulk = vec![0; 1 << 20];
    stream.read_exact(&mut bulk).await.unwrap();
    assert!(bulk.iter().all(|&byte| byte == 7));
    stream.shutdown().await.unwrap();
    let close = sender.expect("close").await;
    assert_eq!(close["code"].as_u64(), Some(1000), "{close}");
}

#[tokio::test]
async fn our_sender_reaches_a_foreign_listener() {
    if !is_installed("our_sender_reaches_a_foreign_listener") {
        return;
    }
    let relay = relay(None).await;
    let mut listener = Peer::start("ws-listen", &relay, KEY, &[], &[]).await;
    listener.expect("listening").await;

    let mut stream = RelaySender::new(connector(), address(&relay), credential())
        .connect()
        .await
        .expect("a listener is there");
    listener.expect("open").await;
    let sent: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let mut echoed = vec![0; sent.len()];
    let (written, read) = tokio::join!(
        async {
            writer.write_all(&sent).await?;
            writer.flush().await
        },
        reader.read_exact(&mut echoed)
    );
    written.unwrap();
    read.unwrap();
    assert!(echoed == sent, "the bytes differ");
    stream.shutdown().await.unwrap();
    let close = listener.expect("close").await;
    assert_eq!(close["code"].as_u64(), Some(1000), "{close}");
}

#[tokio::test]
async fn over_tls_with_a_private_authority() {
    if !is_installed("over_tls_with_a_private_authority") {
        return;
    }
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate.cert.pem()).unwrap();
    let acceptor = TlsAcceptor::from_pem(
        certificate.cert.pem().as_bytes(),
        certificate.signing_key.serialize_pem().as_bytes(),
        Alpn::Http1,
    )
    .unwrap();
    let relay = relay(Some(acceptor)).await;
    let trust = [("NODE_EXTRA_CA_CERTS", ca.to_str().unwrap())];

    let mut listener = Peer::start("ws-listen", &relay, KEY, &[], &trust).await;
    listener.expect("listening").await;
    let mut sender = Peer::start("ws-send", &relay, KEY, &[], &trust).await;
    sender.expect("message").await;
    sender.expect("message").await;
    assert_eq!(sender.expect("close").await["code"].as_u64(), Some(1000));
}

#[tokio::test]
async fn what_our_relay_refuses_a_foreign_client_understands() {
    if !is_installed("what_our_relay_refuses_a_foreign_client_understands") {
        return;
    }
    let relay = relay(None).await;
    let mut nobody = Peer::start("ws-send", &relay, KEY, &[], &[]).await;
    let error = nobody.expect("error").await;
    assert!(
        error["message"].as_str().unwrap().contains("404"),
        "{error}"
    );

    let mut wrong_key = Peer::start("ws-send", &relay, "another-key", &[], &[]).await;
    let error = wrong_key.expect("error").await;
    assert!(
        error["message"].as_str().unwrap().contains("401"),
        "{error}"
    );

    let mut expired = Peer::start("ws-send", &relay, KEY, &[], &[("TOKEN_SECONDS", "-60")]).await;
    let error = expired.expect("error").await;
    assert!(
        error["message"].as_str().unwrap().contains("401"),
        "{error}"
    );
}

fn is_installed(test: &str) -> bool {
    let node = std::process::Command::new("node")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    let packages = folder().join("node_modules").join("hyco-ws").exists();
    if !node || !packages {
        kubectl::skip(
            test,
            "hyco-ws (`npm ci --ignore-scripts` in tests/interop/hyco)",
        );
    }
    node && packages
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/hyco")
}

async fn relay(tls: Option<TlsAcceptor>) -> RelayServer {
    let mut builder = RelayServer::builder().hybrid_connection(PATH).rule(
        SasRule::new(RULE, KEY).unwrap(),
        Rights::LISTEN | Rights::SEND,
    );
    if let Some(tls) = tls {
        builder = builder.tls(tls).host("localhost");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    builder.start(listener).unwrap()
}

fn connector() -> Connector {
    Connector::new(TrustRoots::platform()).unwrap()
}

fn address(relay: &RelayServer) -> HybridConnection {
    HybridConnection::new(relay.endpoint().clone(), PATH).unwrap()
}

fn credential() -> RelayCredential {
    RelayCredential::from(SasRule::new(RULE, KEY).unwrap())
}

/// A foreign client as a process. Killed when dropped.
struct Peer {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    role: &'static str,
}

impl Peer {
    async fn start(
        role: &'static str,
        relay: &RelayServer,
        key: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let endpoint = relay.endpoint();
        let scheme = match endpoint.security() {
            Security::Plain => "ws",
            Security::Tls => "wss",
        };
        let base = format!("{scheme}://{}", endpoint.authority());
        let mut child = Command::new("node")
            .current_dir(folder())
            .args(["peer.js", role, &base, PATH, RULE, key])
            .args(more)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        Self {
            _child: child,
            lines: BufReader::new(stdout).lines(),
            role,
        }
    }

    /// The next event of this name; others are passed over.
    async fn expect(&mut self, event: &str) -> Value {
        let mut seen = Vec::new();
        loop {
            let line = timeout(PATIENCE, self.lines.next_line())
                .await
                .unwrap_or_else(|_| panic!("{} does not say {event}: {seen:?}", self.role))
                .expect("a readable pipe")
                .unwrap_or_else(|| panic!("{} ended without {event}: {seen:?}", self.role));
            let value: Value = serde_json::from_str(&line).expect("a JSON line");
            if value["event"] == event {
                return value;
            }
            seen.push(line);
        }
    }
}
