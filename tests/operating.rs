//! An agent as its operator sees it: health port, audit log, shutdown; and what no log may hold.

mod support;

#[path = "operating/drain.rs"]
mod drain;
#[path = "operating/health_port.rs"]
mod health_port;

use std::{fs, path::Path, sync::Arc, time::Duration};

use arc_cluster_connect::{
    Tunnel,
    net::{Connector, TrustRoots},
    relay::{ConnectionString, RelaySender},
    tunnel::{OpenOptions, RelayTunnel, Target, TunnelStream},
};
use serde_json::Value;
use support::{
    api_server::random_token,
    installation::{Installation, POD},
    programs::Program,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

/// A bound on what should happen at once. Only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Site {
    installation: Installation,
    _relay: Program,
    agent: Program,
    tunnel: Arc<RelayTunnel>,
}

impl Site {
    /// An agent that tells all it can.
    async fn new() -> Self {
        Self::with_audit_log("audit.log").await
    }

    async fn with_audit_log(name: &str) -> Self {
        let installation = Installation::prepare().await;
        let relay = installation.start_relay(0).await;
        let audit_log = match name {
            "-" => name.to_owned(),
            _ => installation.argument(name),
        };
        let agent = Program::start(
            "arc-agent",
            installation.directory(),
            &[
                "--connection-string-file",
                &installation.argument("relay"),
                "--kubeconfig",
                &installation.argument("cluster"),
                "--allow-service-account-tokens",
                "--health",
                "127.0.0.1:0",
                "--audit-log",
                &audit_log,
                "-vvv",
            ],
        )
        .await;
        let tunnel = Arc::new(tunnel(&installation));
        Self {
            installation,
            _relay: relay,
            agent,
            tunnel,
        }
    }

    async fn health(&self, path: &str) -> (u16, String) {
        let address = self.agent.ready()["health"].as_str().expect("an address");
        let mut tcp = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    async fn until_metrics_show(&self, line: &str) {
        let start = Instant::now();
        loop {
            let (_, metrics) = self.health("/metrics").await;
            if metrics.lines().any(|found| found == line) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "never {line} in\n{metrics}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn send(&self, head: &str, token: &str) -> TunnelStream {
        let options = OpenOptions::new();
        let mut stream = self
            .tunnel
            .open(&Target::api_server(), options)
            .await
            .unwrap();
        let request = format!("{head}\r\nHost: cluster\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn status(&self, head: &str, token: &str) -> u16 {
        let mut answer = Vec::new();
        let mut stream = self.send(head, token).await;
        stream.read_to_end(&mut answer).await.unwrap();
        let head = String::from_utf8_lossy(&answer[9..12]).into_owned();
        head.parse().expect("a status")
    }
}

/// A client's way to whichever agent serves the relay.
fn tunnel(installation: &Installation) -> RelayTunnel {
    let connection = ConnectionString::read_file(&installation.path("relay")).unwrap();
    RelayTunnel::new(RelaySender::new(
        Connector::new(TrustRoots::platform()).unwrap(),
        connection.hybrid_connection().unwrap(),
        connection.credential(),
    ))
}

async fn read_head(stream: &mut TunnelStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text")
}

fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("an audit log");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

#[tokio::test]
async fn audit_log_and_log_tell_all_but_secrets() {
    let site = Site::new().await;
    let token = &site.installation.token;
    let wrong = random_token();
    let pods = "GET /api/v1/namespaces/default/pods?labelSelector=query-secret HTTP/1.1";
    assert_eq!(site.status(pods, token).await, 200);
    assert_eq!(site.status(pods, &wrong).await, 401);
    let origin = format!("{pods}\r\nOrigin: https://evil\r\nCookie: cookie-secret");
    assert_eq!(site.status(&origin, token).await, 403);
    assert_eq!(site.status(pods, "no token").await, 401);
    let exec = format!(
        "GET /api/v1/namespaces/default/pods/{POD}/exec?command=echo&command=command-secret&stdout=true HTTP/1.1\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io"
    );
    let mut session = site.send(&exec, token).await;
    assert!(read_head(&mut session).await.starts_with("HTTP/1.1 101 "));
    let mut output = Vec::new();
    let _ = session.read_to_end(&mut output).await;
    drop(session);
    site.until_metrics_show("acc_requests_in_flight 0").await;

    let relay_key = fs::read_to_string(site.installation.path("relay-key")).unwrap();
    let mut secrets = vec![token.clone(), wrong.clone(), relay_key.trim().to_owned()];
    secrets.extend(["query-secret", "command-secret", "cookie-secret"].map(str::to_owned));

    let (_, metrics) = site.health("/metrics").await;
    for line in [
        r#"acc_requests_total{method="GET",code="2xx",decision="allowed"} 1"#,
        r#"acc_requests_total{method="GET",code="4xx",decision="allowed"} 1"#,
        r#"acc_requests_total{method="GET",code="4xx",decision="denied"} 2"#,
        r#"acc_requests_denied_total{reason="Forbidden"} 1"#,
        r#"acc_requests_denied_total{reason="malformed"} 1"#,
        r#"acc_request_duration_seconds_count{kind="upgrade"} 1"#,
        "acc_tunnels 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is missing in\n{metrics}"
        );
    }

    let Site {
        installation,
        agent,
        ..
    } = site;
    let ended = agent.terminate().await;
    assert!(ended.status.success(), "{ended:?}");
    let path = installation.path("audit.log");
    let text = fs::read_to_string(&path).unwrap();
    for secret in &secrets {
        assert!(!text.contains(secret), "the audit log holds {secret}");
        assert!(!ended.stderr.contains(secret), "the log holds {secret}");
    }
    assert!(
        ended.stderr.contains("DEBUG"),
        "the log tells all: {}",
        ended.stderr
    );

    let events = events(&path);
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            format!(
                "{} {} {} {} {}",
                event["stage"].as_str().unwrap(),
                event["verb"].as_str().unwrap(),
                event["decision"].as_str().unwrap(),
                event["reason"].as_str().unwrap_or("-"),
                event["status"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "ResponseComplete list allowed - 200",
            "ResponseComplete list allowed - 401",
            "ResponseComplete list denied Forbidden 403",
            "ResponseComplete list denied malformed 401",
            "ResponseStarted get allowed - 101",
            "ResponseComplete get allowed - 101",
        ]
    );
    assert_eq!(events[5]["objectRef"]["subresource"], "exec");
    assert_eq!(events[5]["bytesSent"], output.len());
    assert!(
        events[0]["remote"]
            .as_str()
            .is_some_and(|remote| remote.starts_with("127.0.0.1:"))
    );

    // The API server knows each request that reached it by the same id.
    let requests = installation.stand_in.requests();
    let theirs: Vec<_> = requests
        .iter()
        .filter_map(|request| request.headers.get("audit-id")?.to_str().ok())
        .collect();
    for event in events.iter().filter(|event| event["decision"] == "allowed") {
        assert!(
            theirs.contains(&event["auditID"].as_str().unwrap()),
            "{event}"
        );
    }
}

#[tokio::test]
async fn a_shutdown_is_seen_on_the_health_port_and_waits() {
    let site = Site::new().await;
    site.until_metrics_show(r#"acc_relay_registrations{state="online"} 1"#)
        .await;
    assert_eq!(site.health("/livez").await, (200, "ok\n".to_owned()));
    let start = Instant::now();
    while site.health("/readyz").await.0 != 200 {
        assert!(
            start.elapsed() < PATIENCE,
            "never ready: {:?}",
            site.health("/readyz").await
        );
        sleep(Duration::from_millis(20)).await;
    }
    let (status, checks) = site.health("/readyz?verbose").await;
    assert_eq!(status, 200);
    for check in ["[+]tunnels ok", "[+]api-server ok", "[+]shutdown ok"] {
        assert!(checks.contains(check), "{checks}");
    }
    assert_eq!(site.health("/debug/pprof/").await.0, 404);

    let watch = "GET /api/v1/namespaces/default/pods?watch=true HTTP/1.1";
    let mut watching = site.send(watch, &site.installation.token).await;
    assert!(read_head(&mut watching).await.starts_with("HTTP/1.1 200 "));
    site.agent.ask_to_terminate();
    site.until_metrics_show("acc_drain_remaining_streams 1")
        .await;
    let (status, checks) = site.health("/readyz").await;
    assert_eq!(status, 503);
    assert!(checks.contains("[-]shutdown failed: "), "{checks}");
    assert_eq!(site.health("/livez").await.0, 200);
    drop(watching);

    let Site {
        installation,
        agent,
        ..
    } = site;
    let ended = agent.ended().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(
        ended.stderr.lines().any(|line| line == "closed"),
        "{}",
        ended.stderr
    );
    let events = events(&installation.path("audit.log"));
    let last = events.last().expect("events");
    assert_eq!(
        (&last["verb"], &last["outcome"]),
        (&"watch".into(), &"answered".into())
    );
}

#[tokio::test]
async fn a_second_request_to_stop_cuts_off_at_once() {
    let site = Site::new().await;
    let watch = "GET /api/v1/namespaces/default/pods?watch=true HTTP/1.1";
    let mut watching = site.send(watch, &site.installation.token).await;
    assert!(read_head(&mut watching).await.starts_with("HTTP/1.1 200 "));
    site.agent.ask_to_terminate();
    site.until_metrics_show("acc_draining 1").await;
    let Site {
        installation,
        agent,
        ..
    } = site;
    let ended = agent.terminate().await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let events = events(&installation.path("audit.log"));
    assert_eq!(events.last().expect("events")["outcome"], "cut");
}

#[tokio::test]
async fn standard_output_holds_the_audit_log_and_nothing_else() {
    let site = Site::with_audit_log("-").await;
    let token = &site.installation.token;
    assert_eq!(site.status("GET /version HTTP/1.1", token).await, 200);
    site.until_metrics_show("acc_requests_in_flight 0").await;
    let ended = site.agent.terminate().await;
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{ended:?}");
    let event: Value = serde_json::from_str(lines[0]).expect("a line is JSON");
    assert_eq!(
        (&event["path"], &event["status"]),
        (&"/version".into(), &200.into())
    );
}
