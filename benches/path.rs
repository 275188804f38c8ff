//! What the whole path costs: the same requests straight to the API server and through proxy, tunnel, relay and agent, taken
//! in turns in one run. Compare the ratios; the absolute figures are the machine's.
//!
//! ```console
//! $ cargo bench --bench path
//! ```

#[path = "../tests/support/api_server/mod.rs"]
mod api_server;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use api_server::{StandIn, User};
use arc_cluster_connect::{
    Result, Tunnel,
    agent::{Agent, ApiServer, ServiceAccountTokens},
    auth::BearerAuth,
    kubeconfig::Kubeconfig,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
    proxy::{Proxy, ProxyId},
    relay::{
        ConnectionString, RelayListener, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::RelayTunnel,
};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const NAME: &str = "bench";
const TOKEN: &str = "a-token-of-this-run";
const ROUNDS: usize = 5;
const REQUESTS: usize = 400;
const AT_ONCE: usize = 16;
/// Long enough that the time is spent on bytes, not on the request.
const BIG_LIST: usize = 40_000;

/// One way to the API server.
struct Way {
    name: &'static str,
    server: Uri,
    roots: TrustRoots,
    token: String,
}

#[derive(Default)]
struct Figures {
    latencies: Vec<Duration>,
    requests_per_second: Vec<f64>,
    /// Of all that runs in this process, client and API server among them.
    cpu_per_request: Vec<Duration>,
    mebibytes_per_second: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let stand_in = StandIn::builder()
        .token(TOKEN, User::service_account("default", "bench"))
        .big_namespace_pods(BIG_LIST)
        .start()
        .await
        .expect("the stand-in starts");
    let relay = RelayServer::builder()
        .hybrid_connection(NAME)
        .rule(
            SasRule::new("root", "key-of-this-run")?,
            Rights::LISTEN | Rights::SEND,
        )
        .start(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))?;
    let string = ConnectionString::parse(&relay.connection_string("root", NAME)?)?;
    let connector = Connector::new(TrustRoots::platform())?;
    let api_server = ApiServer::from_kubeconfig(
        &Kubeconfig::parse(&stand_in.kubeconfig(None))?,
        None,
        Path::new("."),
    )?;
    let agent = Agent::builder(api_server)
        .service_account_tokens(ServiceAccountTokens::PassThrough)
        .build()?;
    let listener = RelayListener::start(
        connector.clone(),
        string.hybrid_connection()?,
        string.credential(),
    );
    listener.online().await?;
    tokio::spawn(async move { agent.serve_relay(listener, std::future::pending()).await });
    let tunnel: Arc<dyn Tunnel> = Arc::new(RelayTunnel::new(RelaySender::new(
        connector,
        string.hybrid_connection()?,
        string.credential(),
    )));
    let id = ProxyId::from_name(NAME);
    let proxy = Proxy::builder()
        .port(0)
        .cluster(id, tunnel, Arc::new(BearerAuth::fixed(TOKEN)?))
        .start()
        .await?;
    let endpoint = proxy.endpoint(&id).expect("it was registered");

    let ways = [
        Way {
            name: "straight",
            server: format!("https://{}", stand_in.address())
                .parse()
                .expect("a URL"),
            roots: TrustRoots::only_pem(stand_in.ca_pem().as_bytes())?,
            token: TOKEN.to_owned(),
        },
        Way {
            name: "through",
            server: endpoint.server().parse().expect("a URL"),
            roots: TrustRoots::only_pem(endpoint.certificate_authority_pem().as_bytes())?,
            token: endpoint.secret().to_owned(),
        },
    ];
    let mut figures = [Figures::default(), Figures::default()];
    for _ in 0..ROUNDS {
        for (way, figures) in ways.iter().zip(&mut figures) {
            way.sequential(figures).await;
            way.concurrent(figures).await;
            way.bulk(figures).await;
        }
    }
    print(&ways, &mut figures);
    Ok(())
}

impl Way {
    async fn connect(&self) -> SendRequest<Empty<Bytes>> {
        let endpoint = Endpoint::new(
            self.server.host().expect("a host"),
            self.server.port_u16().expect("a port"),
            Security::Tls,
        );
        let stream = Connector::new(self.roots.clone())
            .expect("roots that were read before")
            .connect(&endpoint, Alpn::Http1)
            .await
            .expect("the server is there");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }

    async fn get(&self, sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> usize {
        let base = self.server.path().trim_end_matches('/');
        let request = Request::get(format!("{base}{path}"))
            .header(
                header::HOST,
                self.server.authority().expect("a host").as_str(),
            )
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Empty::new())
            .expect("a request");
        sender.ready().await.expect("the connection is kept");
        let response = sender.send_request(request).await.expect("an answer");
        assert!(response.status().is_success(), "{}", response.status());
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.expect("a whole body").data_ref() {
                length += data.len();
            }
        }
        length
    }

    async fn sequential(&self, figures: &mut Figures) {
        let mut sender = self.connect().await;
        self.get(&mut sender, "/version").await;
        for _ in 0..REQUESTS {
            let start = Instant::now();
            self.get(&mut sender, "/version").await;
            figures.latencies.push(start.elapsed());
        }
    }

    async fn concurrent(&self, figures: &mut Figures) {
        let mut senders = Vec::new();
        for _ in 0..AT_ONCE {
            senders.push(self.connect().await);
        }
        let cpu = cpu_time();
        let start = Instant::now();
        futures_util::future::join_all(senders.into_iter().map(|mut sender| async move {
            for _ in 0..REQUESTS / 4 {
                self.get(&mut sender, "/version").await;
            }
        }))
        .await;
        let count = AT_ONCE * (REQUESTS / 4);
        if let (Some(before), Some(after)) = (cpu, cpu_time()) {
            let used = after.saturating_sub(before);
            figures.cpu_per_request.push(used / count as u32);
        }
        let requests = count as f64;
        figures
            .requests_per_second
            .push(requests / start.elapsed().as_secs_f64());
    }

    async fn bulk(&self, figures: &mut Figures) {
        let mut sender = self.connect().await;
        let start = Instant::now();
        let length = self.get(&mut sender, "/api/v1/namespaces/big/pods").await;
        figures
            .mebibytes_per_second
            .push(length as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64());
    }
}

fn print(ways: &[Way; 2], figures: &mut [Figures; 2]) {
    println!(
        "{:<10} {:>10} {:>10} {:>12} {:>12} {:>10}",
        "way", "p50", "p99", "requests/s", "CPU/request", "MiB/s"
    );
    for (way, figures) in ways.iter().zip(figures.iter_mut()) {
        figures.latencies.sort_unstable();
        figures.requests_per_second.sort_by(f64::total_cmp);
        figures.mebibytes_per_second.sort_by(f64::total_cmp);
        println!(
            "{:<10} {:>7} µs {:>7} µs {:>12.0} {:>9} µs {:>10.0}",
            way.name,
            percentile(&figures.latencies, 50).as_micros(),
            percentile(&figures.latencies, 99).as_micros(),
            percentile(&figures.requests_per_second, 50),
            mean(&figures.cpu_per_request).as_micros(),
            percentile(&figures.mebibytes_per_second, 50),
        );
    }
    let [straight, through] = figures;
    println!(
        "{:<10} {:>9.2}x {:>9.2}x {:>11.2}x {:>11.2}x {:>9.2}x",
        "ratio",
        percentile(&through.latencies, 50).as_secs_f64()
            / percentile(&straight.latencies, 50).as_secs_f64(),
        percentile(&through.latencies, 99).as_secs_f64()
            / percentile(&straight.latencies, 99).as_secs_f64(),
        percentile(&through.requests_per_second, 50)
            / percentile(&straight.requests_per_second, 50),
        mean(&through.cpu_per_request).as_secs_f64()
            / mean(&straight.cpu_per_request).as_secs_f64(),
        percentile(&through.mebibytes_per_second, 50)
            / percentile(&straight.mebibytes_per_second, 50),
    );
}

/// Zero where the system does not tell.
fn mean(durations: &[Duration]) -> Duration {
    durations.iter().sum::<Duration>() / durations.len().max(1) as u32
}

/// What this process has used so far, in steps of 10 ms: Linux counts in hundredths of a second.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the parenthesis may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Some(Duration::from_millis(ticks * 10))
}

fn percentile<T: Copy>(sorted: &[T], percent: usize) -> T {
    sorted[(sorted.len() - 1) * percent / 100]
}
