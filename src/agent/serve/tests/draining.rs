//! A shutdown, seen from the health port, and with a second agent on the same hybrid connection.

use std::collections::BTreeSet;

use super::*;
use crate::{
    agent::Drained,
    relay::{
        RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::RelayTunnel,
};

/// More than any client opens, and few enough for a test.
const EXECS: usize = 50;
const ROUNDS: usize = 80;
const SIDE_BY_SIDE: usize = 5;

struct Site {
    relay: RelayServer,
    connection: ConnectionString,
}

/// An agent that serves the site's relay.
struct Served {
    bed: Bed,
    stop: CancellationToken,
    serving: JoinHandle<Result<Drained>>,
}

impl Site {
    async fn new() -> Self {
        let rule = SasRule::new("rule", "a2V5").expect("a rule");
        let relay = RelayServer::builder()
            .hybrid_connection("cluster")
            .rule(rule, Rights::LISTEN | Rights::SEND)
            .start(TcpListener::bind("127.0.0.1:0").await.expect("a socket"))
            .expect("a relay");
        let text = relay
            .connection_string("rule", "cluster")
            .expect("a connection string");
        let connection = ConnectionString::parse(&text).expect("a connection string");
        Self { relay, connection }
    }

    async fn agent(&self, limit: Duration) -> Served {
        let bed = Bed::with(|builder| builder.drain_limit(limit));
        let listener = RelayListener::start(
            Connector::new(TrustRoots::platform()).expect("roots"),
            self.connection.hybrid_connection().expect("a path"),
            self.connection.credential(),
        );
        listener.online().await.expect("registered");
        let stop = CancellationToken::new();
        let serving = {
            let (agent, stop) = (bed.agent.clone(), stop.clone());
            tokio::spawn(async move { agent.serve_relay(listener, stop.cancelled_owned()).await })
        };
        Served { bed, stop, serving }
    }

    fn tunnel(&self) -> RelayTunnel {
        let connector = Connector::new(TrustRoots::platform()).expect("roots");
        let path = self.connection.hybrid_connection().expect("a path");
        RelayTunnel::new(RelaySender::new(
            connector,
            path,
            self.connection.credential(),
        ))
    }
}

impl Served {
    /// Whether a line stands in the metrics.
    fn shows(&self, line: &str) -> bool {
        self.bed
            .agent
            .core
            .metrics_text()
            .lines()
            .any(|found| found == line)
    }

    async fn until_it_shows(&self, line: &str) {
        for _ in 0..10_000 {
            if self.shows(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never {line} in {}", self.bed.agent.core.metrics_text());
    }
}

async fn send(tunnel: &RelayTunnel, head: &str) -> TunnelStream {
    let mut stream = tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .expect("a stream");
    stream
        .write_all(with_token(head).as_bytes())
        .await
        .expect("open");
    stream.flush().await.expect("open");
    stream
}

/// Answers every request on every connection with its own name, until dropped.
fn answering(mut bed: Bed, name: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut api = bed.api.connection().await;
            tokio::spawn(async move {
                loop {
                    api.head().await;
                    let length = name.len();
                    api.send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
                    ))
                    .await;
                }
            });
        }
    })
}

#[tokio::test]
async fn one_of_two_agents_drains_and_no_new_request_fails() {
    let site = Site::new().await;
    let first = site.agent(DRAIN_LIMIT).await;
    let tunnel = site.tunnel();
    let Served { bed, stop, serving } = first;
    let first_agent = bed.agent.clone();
    let answers = answering(bed, "first");
    assert!(
        read_to_end(&mut send(&tunnel, "GET /version HTTP/1.1").await)
            .await
            .0
            .ends_with("first")
    );
    let second = site.agent(DRAIN_LIMIT).await;
    let second_answers = answering(second.bed, "second");

    let mut answered = BTreeSet::new();
    for round in 0..ROUNDS {
        if round == ROUNDS / 4 {
            stop.cancel();
        }
        let requests = (0..SIDE_BY_SIDE).map(async |number| {
            let mut stream = send(&tunnel, "GET /version HTTP/1.1").await;
            let (text, end) = read_to_end(&mut stream).await;
            end.unwrap_or_else(|error| panic!("request {round}.{number}: {error}"));
            assert!(
                text.starts_with("HTTP/1.1 200 "),
                "{round}.{number}: {text}"
            );
            text
        });
        for text in futures_util::future::join_all(requests).await {
            let (_, name) = text.rsplit_once("\r\n\r\n").expect("a body");
            answered.insert(name.to_owned());
        }
    }
    assert_eq!(
        answered.into_iter().collect::<Vec<_>>(),
        ["first", "second"]
    );
    let drained = serving.await.expect("no panic").expect("served");
    assert_eq!(drained.cut_off(), 0);
    drop((first_agent, answers, second_answers));
    second.stop.cancel();
    site.relay.shutdown().await;
}

#[tokio::test]
async fn fifty_execs_are_waited_for_and_told() {
    let site = Site::new().await;
    let mut agent = site.agent(DRAIN_LIMIT).await;
    let tunnel = site.tunnel();
    let mut sessions = Vec::new();
    for _ in 0..EXECS {
        let mut stream = send(
            &tunnel,
            "POST /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1",
        )
        .await;
        let mut api = agent.bed.api.connection().await;
        api.head().await;
        api.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            .await;
        read_until(&mut stream, "\r\n\r\n").await;
        sessions.push((stream, api));
    }
    agent
        .until_it_shows(&format!("acc_upgraded_streams {EXECS}"))
        .await;
    agent
        .until_it_shows(r#"acc_relay_registrations{state="online"} 1"#)
        .await;
    assert!(agent.shows("acc_drain_remaining_streams 0"));
    assert!(agent.shows("acc_tunnels 1"));

    agent.stop.cancel();
    agent.until_it_shows("acc_draining 1").await;
    agent
        .until_it_shows(&format!("acc_drain_remaining_streams {EXECS}"))
        .await;
    // They work on as if nothing were.
    for (stream, api) in &mut sessions {
        api.send("output").await;
        read_until(stream, "output").await;
    }
    // Nobody is told that they may come: the registration has ended.
    let late = site.tunnel();
    let options = OpenOptions::new().with_wait_limit(Duration::from_millis(200));
    assert!(late.open(&Target::api_server(), options).await.is_err());
    let last = sessions.pop().expect("fifty");
    drop(sessions);
    agent.until_it_shows("acc_drain_remaining_streams 1").await;
    drop(last);
    let drained = agent.serving.await.expect("no panic").expect("served");
    assert_eq!(drained.cut_off(), 0);
    site.relay.shutdown().await;
}

#[tokio::test]
async fn what_outlasts_the_limit_is_cut_off_and_counted() {
    let site = Site::new().await;
    let mut agent = site.agent(Duration::from_millis(50)).await;
    let tunnel = site.tunnel();
    let mut stream = send(&tunnel, WATCH).await;
    let mut api = agent.bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    read_until(&mut stream, "\r\n\r\n").await;
    agent.stop.cancel();
    let drained = (&mut agent.serving)
        .await
        .expect("no panic")
        .expect("served");
    assert_eq!(drained.cut_off(), 1);
    assert!(agent.shows("acc_drain_cut_streams_total 1"));
    assert!(agent.shows("acc_requests_in_flight 0"));
    assert!(
        read_to_end(&mut stream).await.1.is_err(),
        "cut, and not complete"
    );
    site.relay.shutdown().await;
}
