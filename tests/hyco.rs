//! Microsoft's own relay clients for Node, unpatched, against our relay and against our own ends.
//!
//! What is covered is listed in docs/relay-interop.md.
//!
//! Needs `node`, and `npm ci --ignore-scripts` in `tests/interop/hyco`.

#[path = "support/kubectl.rs"]
#[allow(dead_code, reason = "only its way to skip is used here")]
mod kubectl;

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_cluster_connect::{
    net::{Alpn, Connector, Security, TlsAcceptor, TrustRoots},
    relay::{
        HybridConnection, RelayCredential, RelayListener, RelaySender, SasRule,
        server::{RelayServer, RelayServerBuilder, Rights},
    },
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tracing_subscriber::fmt::MakeWriter;

const PATH: &str = "hyco";
const RULE: &str = "root";
const KEY: &str = "a-key-of-this-test-run";

/// Node is slow to start on a busy machine. Nothing but a hang is decided by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// As many refusals of one address wait at a time.
const MAX_HELD: u64 = 64;

/// How long a client floods the relay, at least.
const FLOOD: Duration = Duration::from_secs(2);

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
    let (certificate, acceptor) = private_authority();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate).unwrap();
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

#[tokio::test]
async fn a_foreign_http_listener_serves_our_client() {
    if !is_installed("a_foreign_http_listener_serves_our_client") {
        return;
    }
    let relay = relay(None).await;
    let mut listener = Peer::start("https-listen", &relay, KEY, &[], &[]).await;
    listener.expect("listening").await;

    for (name, method, query, sent, status, received) in [
        ("nothing either way", "GET", "", 0, 200, 0),
        ("a short body, echoed", "POST", "", 5, 200, 5),
        ("the longest inline body", "PUT", "", 60_000, 200, 60_000),
        ("a body by pointer", "POST", "", 65_536, 200, 65_536),
        ("a long body, echoed", "POST", "", 3 << 20, 200, 3 << 20),
        ("a long reply", "GET", "?size=65537", 0, 200, 65_537),
        ("a very long reply", "GET", "?size=4194304", 0, 200, 4 << 20),
        (
            "the longest inline reply",
            "GET",
            "?size=65536",
            0,
            200,
            65_536,
        ),
        ("several writes", "GET", "?pieces=100", 0, 200, 100_000),
        ("no content", "DELETE", "?status=204", 0, 204, 0),
        ("made", "POST", "?status=201", 1, 201, 1),
        ("not modified", "GET", "?status=304", 0, 304, 0),
        (
            "an own status",
            "GET",
            "?status=418&reason=short",
            0,
            418,
            0,
        ),
        ("a gateway's status", "GET", "?status=502", 0, 502, 0),
        ("no body to HEAD", "HEAD", "?size=10", 0, 200, 0),
        ("a query", "GET", "?a=1&&b&c=%20", 0, 200, 0),
    ] {
        // The relay's own part of the query goes no further.
        let separator = if query.is_empty() { '?' } else { '&' };
        let request = Request::builder()
            .method(method)
            .uri(format!("/{PATH}/more{query}{separator}sb-hc-id=ours"))
            .header("x-probe", "1");
        let response = timeout(PATIENCE, send(&relay, request, vec![66; sent]))
            .await
            .unwrap_or_else(|_| panic!("{name}: no response"));
        assert_eq!(response.status().as_u16(), status, "{name}");
        let headers = response.headers().clone();
        assert_eq!(headers["x-saw-method"], method, "{name}");
        assert_eq!(
            headers["x-saw-target"],
            format!("/{PATH}/more{query}"),
            "{name}"
        );
        assert_eq!(headers["x-saw-length"], sent.to_string(), "{name}");
        assert_eq!(headers["via"], "1.1 127.0.0.1", "{name}");
        let saw = percent_encoding::percent_decode_str(headers["x-saw-headers"].to_str().unwrap());
        let saw: Value = serde_json::from_str(&saw.decode_utf8().unwrap()).unwrap();
        let saw = lower_case(&saw);
        assert_eq!(saw["x-probe"], "1", "{name}");
        assert_eq!(saw["via"], "1.1 127.0.0.1", "{name}");
        assert_eq!(saw["servicebusauthorization"], Value::Null, "{name}");
        if query.contains("reason") {
            let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
            assert_eq!(phrase.map(|phrase| phrase.as_bytes()), Some(&b"short"[..]));
        }
        let body = timeout(PATIENCE, response.into_body().collect())
            .await
            .unwrap_or_else(|_| panic!("{name}: the body does not end"))
            .unwrap()
            .to_bytes();
        assert_eq!(body.len(), received, "{name}");
    }
}

#[tokio::test]
async fn a_foreign_http_pair_meets_at_our_relay() {
    if !is_installed("a_foreign_http_pair_meets_at_our_relay") {
        return;
    }
    let (certificate, acceptor) = private_authority();
    let relay = relay(Some(acceptor)).await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate).unwrap();
    let trust = ("NODE_EXTRA_CA_CERTS", ca.to_str().unwrap());
    let mut listener = Peer::start("https-listen", &relay, KEY, &[], &[trust]).await;
    listener.expect("listening").await;

    for (environment, length) in [
        (vec![], 0),
        (vec![("BODY_BYTES", "100")], 100),
        (vec![("BODY_BYTES", "1000000")], 1_000_000),
        (vec![("BODY_BYTES", "100"), ("CHUNKED", "1")], 100),
        (vec![("BODY_BYTES", "200000"), ("CHUNKED", "1")], 200_000),
    ] {
        let mut all = environment.clone();
        all.push(trust);
        let mut sender = Peer::start("https-send", &relay, KEY, &[], &all).await;
        let response = sender.expect("response").await;
        assert_eq!(response["status"], 200, "{environment:?}");
        assert_eq!(response["length"], length, "{environment:?}");
        assert_eq!(response["isEcho"], true, "{environment:?}");
        assert_eq!(response["isComplete"], true, "{environment:?}");
        assert_eq!(response["headers"]["via"], "1.1 localhost");
    }
    let query = [trust, ("QUERY", "?size=2000000")];
    let mut sender = Peer::start("https-send", &relay, KEY, &[], &query).await;
    assert_eq!(sender.expect("response").await["length"], 2_000_000);
}

#[tokio::test]
async fn a_foreign_http_client_understands_refusals() {
    if !is_installed("a_foreign_http_client_understands_refusals") {
        return;
    }
    let relay = relay(None).await;
    for (key, environment, status, text) in [
        (KEY, None, 404, "There are no listeners connected"),
        ("another-key", None, 401, "InvalidSignature: "),
        (KEY, Some(("TOKEN_SECONDS", "-60")), 401, "ExpiredToken: "),
    ] {
        let environment: Vec<_> = environment.into_iter().collect();
        let mut sender = Peer::start("https-send", &relay, key, &[], &environment).await;
        let response = sender.expect("response").await;
        assert_eq!(response["status"], status, "{response}");
        assert!(
            response["reason"].as_str().unwrap().starts_with(text),
            "{response}"
        );
        assert_eq!(response["headers"]["via"], Value::Null);
    }

    // Our own listener serves no HTTP, and says so.
    let listener = RelayListener::start(connector(), address(&relay), credential());
    listener.online().await.expect("the relay is there");
    for bytes in ["0", "200000"] {
        let environment = [("BODY_BYTES", bytes)];
        let mut sender = Peer::start("https-send", &relay, KEY, &[], &environment).await;
        assert_eq!(sender.expect("response").await["status"], 501);
    }
}

#[tokio::test]
async fn a_foreign_listener_stays_by_its_renewed_token() {
    if !is_installed("a_foreign_listener_stays_by_its_renewed_token") {
        return;
    }
    let ahead = Arc::new(AtomicU64::new(0));
    let seconds = Arc::clone(&ahead);
    let builder = builder()
        .expiry_grace(Duration::ZERO)
        .clock(move || SystemTime::now() + Duration::from_secs(seconds.load(Ordering::Relaxed)));
    let relay = start(builder).await;
    let renewal = [
        ("RENEW_MILLISECONDS", "100"),
        ("TOKEN_SECONDS", "600"),
        ("RENEWED_TOKEN_SECONDS", "6000"),
    ];
    let mut listener = Peer::start("ws-listen", &relay, KEY, &[], &renewal).await;
    listener.expect("listening").await;
    for _ in 0..3 {
        listener.expect("renewed").await;
    }
    // The first token is no good any longer. Each message of the listener makes the relay look at its clock.
    ahead.store(1200, Ordering::Relaxed);
    for _ in 0..5 {
        let said = listener.next().await;
        assert_eq!(said["event"], "renewed", "{said}");
    }
    assert_eq!(relay.listeners(PATH), 1);
}

#[tokio::test]
async fn a_foreign_listener_is_closed_with_its_token_and_comes_back() {
    if !is_installed("a_foreign_listener_is_closed_with_its_token_and_comes_back") {
        return;
    }
    let relay = start(builder().expiry_grace(Duration::ZERO)).await;
    let short = [("TOKEN_SECONDS", "2"), ("RENEWED_TOKEN_SECONDS", "600")];
    let mut listener = Peer::start("ws-listen", &relay, KEY, &[], &short).await;
    listener.expect("listening").await;
    listener.expect("listening").await;
}

#[tokio::test]
async fn the_daily_recycle_costs_a_foreign_listener_no_connection() {
    if !is_installed("the_daily_recycle_costs_a_foreign_listener_no_connection") {
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
    relay.recycle();
    listener.expect("listening").await;
    stream.write_all(b"still here").await.unwrap();
    stream.flush().await.unwrap();
    let mut echoed = [0; 10];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"still here");
}

/// The package tries again at once, and twice for each failure: what it has under way doubles with each answer.
#[tokio::test]
async fn a_foreign_listener_that_never_pauses_leaves_room_for_others() {
    if !is_installed("a_foreign_listener_that_never_pauses_leaves_room_for_others") {
        return;
    }
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let relay = relay(None).await;
    let health = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health_address = health.local_addr().unwrap();
    let health = tokio::spawn(relay.serve_health(health, std::future::pending()));

    let start = Instant::now();
    let mut flood = Peer::start("ws-listen", &relay, "another-key", &[], &[]).await;
    flood.expect("error").await;
    let errors = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&errors);
    // Read all the time, or the process would wait for its reader.
    let reading = tokio::spawn(async move {
        loop {
            flood.expect("error").await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut listener = RelayListener::start(connector(), address(&relay), credential());
    listener.online().await.expect("the relay has room");
    let sender = RelaySender::new(connector(), address(&relay), credential());
    let begin = Instant::now();
    let mut good = 0;
    // More of it than may wait at a time, and long enough for it to double many times.
    while begin.elapsed() < FLOOD || errors.load(Ordering::Relaxed) < 2 * MAX_HELD {
        assert!(begin.elapsed() < PATIENCE, "{errors:?}");
        let accept = async { listener.accept().await.unwrap().accept().await };
        let pair = async { tokio::join!(sender.connect(), accept) };
        let (sent, accepted) = timeout(PATIENCE, pair).await.expect("the two meet");
        drop((sent.unwrap(), accepted.unwrap()));
        good += 1;

        let metrics = metrics(health_address).await;
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
                .unwrap_or_else(|| panic!("{name} is missing: {metrics}"))
        };
        let held = value("acc_relay_server_refusals_held ");
        let newcomers = value("acc_relay_server_newcomers ");
        let connections = value("acc_relay_server_connections ");
        assert!(held <= MAX_HELD, "{held}");
        assert!(newcomers <= 1024, "{newcomers}");
        // What is neither waiting nor new: the control channel, and connections that are about to end.
        assert!(
            connections <= held + newcomers + 200,
            "{connections} {held} {newcomers}"
        );
        assert_eq!(value("acc_relay_server_newcomers_evicted_total "), 0);
    }
    assert!(good >= 10, "{good} good connections");
    reading.abort();
    health.abort();
    let windows = 1 + start.elapsed().as_secs() / 10;
    let lines = log.lines("refused a request");
    assert!(
        (1..=2 * windows).contains(&lines),
        "{lines} in {windows} times ten seconds"
    );
    assert_eq!(relay.listeners(PATH), 1);
}

/// The package can not take WebSockets (it ends with an error of its own), so only its Pongs and its return are ours.
#[tokio::test]
async fn a_foreign_http_listener_keeps_alive_and_comes_back() {
    if !is_installed("a_foreign_http_listener_keeps_alive_and_comes_back") {
        return;
    }
    let relay = relay(None).await;
    let pong = [("PONG_MILLISECONDS", "50")];
    let mut listener = Peer::start("https-listen", &relay, KEY, &[], &pong).await;
    listener.expect("listening").await;
    relay.recycle();
    listener.expect("listening").await;
    let request = Request::get(format!("/{PATH}"));
    let response = timeout(PATIENCE, send(&relay, request, Vec::new()))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

/// One request on a connection of its own, by a client that knows nothing of relays.
async fn send(
    relay: &RelayServer,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Response<Incoming> {
    let tcp = TcpStream::connect(relay.local_addr()).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .unwrap();
    tokio::spawn(connection);
    let rule = SasRule::new(RULE, KEY).unwrap();
    let token = rule.sign(&address(relay), SystemTime::now() + PATIENCE);
    let request = request
        .header("host", relay.endpoint().authority())
        .header("ServiceBusAuthorization", token.secret())
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    client.send_request(request).await.unwrap()
}

/// The relay's own counts.
async fn metrics(health: SocketAddr) -> String {
    let mut tcp = TcpStream::connect(health).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    tcp.write_all(request).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

fn lower_case(headers: &Value) -> Value {
    let headers = headers.as_object().unwrap().iter();
    headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect()
}

/// A certificate for `localhost` (PEM), and what serves it.
fn private_authority() -> (String, TlsAcceptor) {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let acceptor = TlsAcceptor::from_pem(
        certificate.cert.pem().as_bytes(),
        certificate.signing_key.serialize_pem().as_bytes(),
        Alpn::Http1,
    )
    .unwrap();
    (certificate.cert.pem(), acceptor)
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

fn builder() -> RelayServerBuilder {
    RelayServer::builder().hybrid_connection(PATH).rule(
        SasRule::new(RULE, KEY).unwrap(),
        Rights::LISTEN | Rights::SEND,
    )
}

async fn start(builder: RelayServerBuilder) -> RelayServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    builder.start(listener).unwrap()
}

async fn relay(tls: Option<TlsAcceptor>) -> RelayServer {
    let mut builder = builder();
    if let Some(tls) = tls {
        builder = builder.tls(tls).host("localhost");
    }
    start(builder).await
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
            let value = timeout(PATIENCE, self.next())
                .await
                .unwrap_or_else(|_| panic!("{} does not say {event}: {seen:?}", self.role));
            if value["event"] == event {
                return value;
            }
            assert_ne!(value["event"], "end", "{event} is missing: {seen:?}");
            seen.push(value);
        }
    }

    /// The next event, which is `end` when the process has ended.
    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("a readable pipe");
        line.map_or_else(
            || serde_json::json!({ "event": "end" }),
            |line| serde_json::from_str(&line).expect("a JSON line"),
        )
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, part: &str) -> u64 {
        let text = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter(|line| line.contains(part)).count() as u64
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
