use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::{
    agent::test_bed::{Bed, FarEnd, with_token},
    net::{Connector, Endpoint, Security, TrustRoots},
    relay::ConnectionString,
    tunnel::{
        DirectTunnel, OpenOptions, Tunnel, TunnelStream,
        mux::{Role, Session},
    },
};

#[cfg(feature = "relay-server")]
mod draining;
#[cfg(feature = "relay-server")]
mod relayed;

const WATCH: &str = "GET /api/v1/pods?watch=1 HTTP/1.1";

/// A client's end of a tunnel to an agent.
struct Client {
    session: Session,
    driver: JoinHandle<Result<()>>,
    agent: JoinHandle<u64>,
    draining: CancellationToken,
}

impl Client {
    fn of(bed: &Bed) -> Self {
        let (near, far) = duplex(64 * 1024);
        let draining = CancellationToken::new();
        let core = Arc::clone(&bed.agent.core);
        let agent = tokio::spawn(serve_tunnel(core, far, None, draining.clone()));
        let (session, _incoming, driver) = mux::start(near, Role::Client, mux::Config::default());
        Self {
            session,
            driver: tokio::spawn(driver),
            agent,
            draining,
        }
    }

    async fn open(&self, target: &'static str) -> Result<TunnelStream> {
        let stream = self
            .session
            .open(Bytes::from_static(target.as_bytes()))
            .await?;
        Ok(TunnelStream::from(stream))
    }

    async fn asks(&self, head: &str) -> TunnelStream {
        let mut stream = self.open("kubernetes-api").await.expect("a stream");
        stream
            .write_all(with_token(head).as_bytes())
            .await
            .expect("the agent reads");
        stream
    }
}

async fn read_to_end(stream: &mut TunnelStream) -> (String, std::io::Result<()>) {
    let mut read = Vec::new();
    let result = stream.read_to_end(&mut read).await;
    (String::from_utf8(read).expect("text"), result.map(|_| ()))
}

async fn read_until(stream: &mut TunnelStream, marker: &str) {
    let mut read = Vec::new();
    while !read.ends_with(marker.as_bytes()) {
        read.push(stream.read_u8().await.expect("more"));
    }
}

/// A watch that has begun: the caller's stream and the API server's connection.
async fn watch(bed: &mut Bed, client: &Client) -> (TunnelStream, FarEnd) {
    let mut stream = client.asks(WATCH).await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    read_until(&mut stream, "\r\n\r\n").await;
    (stream, api)
}

#[tokio::test]
async fn a_tunnel_carries_requests_side_by_side() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let (mut watching, mut api) = watch(&mut bed, &client).await;
    let mut second = client.asks("GET /version HTTP/1.1").await;
    let mut second_api = bed.api.connection().await;
    assert!(second_api.head().await.starts_with("GET /version "));
    second_api
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let (text, end) = read_to_end(&mut second).await;
    assert!(text.ends_with("\r\n\r\n{}"), "{text}");
    end.expect("a clean end");
    api.send("5\r\nevent\r\n").await;
    read_until(&mut watching, "event").await;
}

#[tokio::test]
async fn a_truncated_response_is_an_error_at_the_far_end_of_the_tunnel() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let (mut stream, mut api) = watch(&mut bed, &client).await;
    api.send("4\r\nhalf\r\n").await;
    drop(api);
    let (_, end) = read_to_end(&mut stream).await;
    assert!(end.is_err(), "a cut response ended like a whole one");
}

#[tokio::test]
async fn a_dropped_stream_and_a_lost_tunnel_cancel_upstream() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let (stream, mut api) = watch(&mut bed, &client).await;
    drop(stream);
    api.rest().await;
    let (_stream, mut api) = watch(&mut bed, &client).await;
    client.driver.abort();
    api.rest().await;
    client.agent.await.expect("no panic");
}

/// An upload that fills every buffer on its way to an API server that does not read: from then on nobody looks at the
/// caller's stream.
#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_a_stalled_upload_ends_it_upstream() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let mut stream = client
        .asks("POST /upload HTTP/1.1\r\nContent-Length: 1000000000")
        .await;
    let _api = bed.api.connection().await;
    let stalled = tokio::time::timeout(Duration::from_secs(2), async {
        loop {
            stream.write_all(&[b'x'; 16 * 1024]).await.expect("open");
        }
    });
    assert!(stalled.await.is_err(), "nobody reads");
    assert_eq!(bed.agent.core.metrics.in_flight(), 1);
    drop(stream);
    let ended = tokio::time::timeout(Duration::from_secs(20), bed.agent.idle());
    ended.await.expect("the request has ended with its caller");
    let metrics = bed.agent.core.metrics_text();
    let stalled = r#"acc_stream_stall_seconds_count{direction="to_api_server"} 1"#;
    assert!(metrics.lines().any(|line| line == stalled), "{metrics}");
    let mut live = u64::MAX;
    // The connection's task ends a moment later.
    for _ in 0..1_000 {
        live = bed.agent.core.metrics.upstream_connections();
        if live == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(live, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_does_not_read_is_counted_when_the_wait_is_over() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let (mut stream, mut api) = watch(&mut bed, &client).await;
    assert_eq!(bed.agent.core.metrics.upstream_connections(), 1);
    let count = || {
        let text = bed.agent.core.metrics_text();
        let name = r#"acc_stream_stall_seconds_count{direction="to_caller"} "#;
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.expect("the metric").parse::<u64>().expect("a number")
    };
    let filling = tokio::time::timeout(Duration::from_secs(2), async {
        loop {
            api.send(format!("4000\r\n{}\r\n", "x".repeat(0x4000)))
                .await;
        }
    });
    assert!(filling.await.is_err(), "nobody reads");
    assert_eq!(count(), 0, "it is not over");
    let mut rest = vec![0; 1 << 20];
    while count() == 0 {
        assert!(stream.read(&mut rest).await.expect("open") > 0);
    }
}

#[tokio::test]
async fn only_the_api_server_is_a_target() {
    let bed = Bed::new();
    let client = Client::of(&bed);
    for target in ["kubelet", "127.0.0.1:22", "kubernetes-API"] {
        let mut stream = client.open(target).await.expect("costs no round trip");
        let (text, end) = read_to_end(&mut stream).await;
        assert_eq!(text, "");
        assert!(end.is_err(), "{target}");
    }
    assert_eq!(bed.api.dialled(), 0);
}

#[tokio::test]
async fn each_tunnel_has_places_of_its_own() {
    let mut bed = Bed::with(|builder| builder.max_requests_per_connection(1));
    let first = Client::of(&bed);
    let _watching = watch(&mut bed, &first).await;
    let mut refused = first.asks(WATCH).await;
    let (text, _) = read_to_end(&mut refused).await;
    assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
    let second = Client::of(&bed);
    watch(&mut bed, &second).await;
}

#[tokio::test]
async fn draining_lets_what_is_in_flight_finish() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let (mut stream, mut api) = watch(&mut bed, &client).await;
    client.draining.cancel();
    api.send("4\r\nlast\r\n0\r\n\r\n").await;
    let (text, end) = read_to_end(&mut stream).await;
    assert!(text.contains("last"), "{text}");
    end.expect("a clean end");
    let Client { session, agent, .. } = client;
    agent.await.expect("no panic");
    session.closed().await;
    assert!(session.open(Bytes::new()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn draining_cuts_upgraded_streams_off_at_the_limit() {
    let mut bed = Bed::new();
    let client = Client::of(&bed);
    let mut stream = client
        .asks("POST /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1")
        .await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        .await;
    read_until(&mut stream, "\r\n\r\n").await;
    let start = Instant::now();
    client.draining.cancel();
    tokio::time::sleep(DRAIN_LIMIT / 2).await;
    api.send("still alive").await;
    read_until(&mut stream, "still alive").await;
    assert_eq!(client.agent.await.expect("no panic"), 1, "one was cut off");
    assert_eq!(start.elapsed(), DRAIN_LIMIT);
    let metrics = bed.agent.core.metrics_text();
    assert!(
        metrics.contains("acc_drain_cut_streams_total 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("acc_requests_in_flight 0\n"), "{metrics}");
    api.rest().await;
    assert!(read_to_end(&mut stream).await.1.is_err());
}

#[tokio::test]
async fn a_socket_serves_tunnels_until_told_to_stop() {
    let mut bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let stop = CancellationToken::new();
    let serving = {
        let (agent, stop) = (bed.agent.clone(), stop.clone());
        tokio::spawn(async move {
            agent
                .serve_direct(listener, None, stop.cancelled_owned())
                .await
        })
    };
    let connector = Connector::new(TrustRoots::platform()).expect("roots");
    let tunnel = DirectTunnel::new(connector, Endpoint::new("127.0.0.1", port, Security::Plain));
    let mut stream = tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .expect("a stream");
    let request = with_token("GET /version HTTP/1.1");
    stream.write_all(request.as_bytes()).await.expect("open");
    let mut api = bed.api.connection().await;
    api.head().await;
    stop.cancel();
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let (text, end) = read_to_end(&mut stream).await;
    assert!(text.ends_with("\r\n\r\n{}"), "{text}");
    end.expect("a clean end");
    serving.await.expect("no panic").expect("served");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn a_relay_out_of_reach_does_not_keep_the_agent_from_stopping() {
    let bed = Bed::new();
    let text = "Endpoint=ws://127.0.0.1:9;SharedAccessKeyName=n;SharedAccessKey=a2V5;EntityPath=p";
    let connection = ConnectionString::parse(text).expect("a connection string");
    let listener = RelayListener::start(
        Connector::new(TrustRoots::platform()).expect("roots"),
        connection.hybrid_connection().expect("a path"),
        connection.credential(),
    );
    let stop = CancellationToken::new();
    let serving = bed
        .agent
        .serve_relay(listener, stop.clone().cancelled_owned());
    let stopping = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serving, stopping);
    served.expect("told to stop");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let agent = bed.agent.clone();
    let serving = tokio::spawn(async move {
        agent
            .serve_direct(listener, None, std::future::pending())
            .await
    });
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut tcp = TcpStream::connect(address).await.expect("accepted");
        // The agent's first word: this connection has its place.
        tcp.read_u8().await.expect("served");
        open.push(tcp);
    }
    let mut refused = TcpStream::connect(address).await.expect("accepted");
    assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0);
    drop(open.pop());
    // A place is free once the agent has seen the end.
    let mut tries = 0;
    while TcpStream::connect(address)
        .await
        .expect("accepted")
        .read_u8()
        .await
        .is_err()
    {
        tries += 1;
        assert!(tries < 10_000, "the place was never given back");
        tokio::task::yield_now().await;
    }
    serving.abort();
}
