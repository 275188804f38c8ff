//! What an idle watch costs in memory, in each program on its way: the stand-in API server, the relay, the agent and the
//! client are processes of their own, whose resident memory is looked at with 0, 100 and 1 000 watches open.
//!
//! ```console
//! $ cargo bench --bench watches
//! ```
//!
//! Linux only. The cost of a watch is taken between the two larger counts, so that what is allocated once does not count.

#[path = "../tests/support/api_server/mod.rs"]
mod api_server;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write, stdin},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
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
    tunnel::{RelayTunnel, Target, TunnelConnector},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

const NAME: &str = "bench";
const TOKEN: &str = "a-token-of-this-run";
const COUNTS: [usize; 3] = [0, 100, 1_000];
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Watches of one HTTP/2 connection to the loopback endpoint.
const PER_CONNECTION: usize = 90;
/// How long the memory may settle: whatever was allocated for the opening is freed by then.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let argument = env::args().find_map(|argument| Some(argument.strip_prefix("as-")?.to_owned()));
    let Some(role) = argument else {
        compare();
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match &*role {
            "api" => api_server().await,
            "relay" => relay().await,
            "agent" => agent().await,
            "client" => client().await,
            _ => proxy_and_client().await,
        }
    })
}

fn compare() {
    println!(
        "{:<22} {:>10} {:>10} {:>10} {:>16}",
        "program", "0", "100", "1000", "bytes a watch"
    );
    for client in ["client", "proxy"] {
        let mut api = Program::start("api", &[]);
        let kubeconfig = api.line();
        let mut relay = Program::start("relay", &[]);
        let connection = relay.line();
        let mut agent = Program::start("agent", &[&kubeconfig, &connection]);
        agent.line();
        let mut client = Program::start(client, &[&connection]);
        client.line();
        let mut programs = [client, agent, relay, api];
        let mut resident = [[0; COUNTS.len()]; 4];
        for (column, count) in COUNTS.into_iter().enumerate() {
            programs[0].say(&count.to_string());
            assert_eq!(programs[0].line(), count.to_string());
            std::thread::sleep(SETTLE);
            for (program, figures) in programs.iter().zip(&mut resident) {
                figures[column] = program.resident();
            }
        }
        for (program, [none, some, all]) in programs.iter().zip(resident) {
            let each = all.saturating_sub(some) / (COUNTS[2] - COUNTS[1]);
            println!(
                "{:<22} {:>6} KiB {:>6} KiB {:>6} KiB {:>16}",
                program.role,
                none / 1024,
                some / 1024,
                all / 1024,
                each
            );
        }
        println!();
    }
}

/// This program again, in another role. Killed when dropped.
struct Program {
    role: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(role: &'static str, lines: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().expect("a path"))
            .arg(format!("as-{role}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut program = Self {
            role,
            child,
            input,
            output,
        };
        for line in lines {
            program.say(line);
        }
        program
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{}", line.replace('\n', "\u{1}")).expect("it listens");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        line.trim_end().replace('\u{1}', "\n")
    }

    /// Resident bytes.
    fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("Linux tells of each process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        1024 * number.expect("a size").parse::<usize>().expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tell(line: &str) {
    println!("{}", line.replace('\n', "\u{1}"));
}

fn hear() -> Option<String> {
    let mut line = String::new();
    let length = stdin().read_line(&mut line).expect("it can be read");
    (length > 0).then(|| line.trim_end().replace('\u{1}', "\n"))
}

async fn api_server() -> Result<()> {
    let stand_in = StandIn::builder()
        .token(TOKEN, User::service_account("default", "bench"))
        .start()
        .await
        .expect("the stand-in starts");
    tell(&stand_in.kubeconfig(None));
    std::future::pending().await
}

async fn relay() -> Result<()> {
    let relay = RelayServer::builder()
        .hybrid_connection(NAME)
        .rule(
            SasRule::new("root", "key-of-this-run")?,
            Rights::LISTEN | Rights::SEND,
        )
        .start(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))?;
    tell(&relay.connection_string("root", NAME)?);
    std::future::pending().await
}

async fn agent() -> Result<()> {
    let kubeconfig = Kubeconfig::parse(&hear().expect("a kubeconfig"))?;
    let string = ConnectionString::parse(&hear().expect("a connection string"))?;
    let agent = Agent::builder(ApiServer::from_kubeconfig(
        &kubeconfig,
        None,
        Path::new("."),
    )?)
    .service_account_tokens(ServiceAccountTokens::PassThrough)
    .build()?;
    let listener = RelayListener::start(
        Connector::new(TrustRoots::platform())?,
        string.hybrid_connection()?,
        string.credential(),
    );
    listener.online().await?;
    tell("online");
    agent.serve_relay(listener, std::future::pending()).await?;
    Ok(())
}

fn tunnel() -> Result<Arc<dyn Tunnel>> {
    let string = ConnectionString::parse(&hear().expect("a connection string"))?;
    Ok(Arc::new(RelayTunnel::new(RelaySender::new(
        Connector::new(TrustRoots::platform())?,
        string.hybrid_connection()?,
        string.credential(),
    ))))
}

/// A program that has the tunnel itself.
async fn client() -> Result<()> {
    let connector = TunnelConnector::new(tunnel()?, Target::api_server());
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let ask = |path: &str| {
        let answer = client.request(request(&format!("http://kubernetes{path}"), TOKEN));
        async { answer.await.expect("an answer") }
    };
    let watch = watch_path(ask(MAPS).await).await;
    tell("ready");
    let mut watches = Vec::new();
    while let Some(count) = hear() {
        let more = count.parse::<usize>().expect("a number") - watches.len();
        watches.extend(join_all((0..more).map(|_| ask(&watch))).await);
        tell(&count);
    }
    Ok(())
}

/// The loopback endpoint, and a client of it: both ends of the HTTP/2 connections between them count.
async fn proxy_and_client() -> Result<()> {
    let id = ProxyId::from_name(NAME);
    let auth = Arc::new(BearerAuth::fixed(TOKEN)?);
    let proxy = Proxy::builder()
        .port(0)
        .cluster(id, tunnel()?, auth)
        .start()
        .await?;
    let endpoint = proxy.endpoint(&id).expect("it was registered");
    let server: Uri = endpoint.server().parse().expect("a URL");
    let address = Endpoint::new(
        "127.0.0.1",
        server.port_u16().expect("a port"),
        Security::Tls,
    );
    let roots = TrustRoots::only_pem(endpoint.certificate_authority_pem().as_bytes())?;
    let connector = Connector::new(roots)?;
    let base = endpoint.server().trim_end_matches('/');
    let connect = async || {
        let io = connector.connect(&address, Alpn::Http2).await;
        let io = TokioIo::new(io.expect("the endpoint is there"));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender
    };
    let ask = |sender: &http2::SendRequest<Empty<Bytes>>, path: &str| {
        let answer = sender
            .clone()
            .send_request(request(&format!("{base}{path}"), endpoint.secret()));
        async { answer.await.expect("an answer") }
    };
    let watch = watch_path(ask(&connect().await, MAPS).await).await;
    tell("ready");
    let mut watches = Vec::new();
    while let Some(count) = hear() {
        let goal = count.parse::<usize>().expect("a number");
        while watches.len() < goal {
            let sender = connect().await;
            let more = PER_CONNECTION.min(goal - watches.len());
            watches.extend(join_all((0..more).map(|_| ask(&sender, &watch))).await);
        }
        tell(&count);
    }
    Ok(())
}

fn request(uri: &str, token: &str) -> Request<Empty<Bytes>> {
    Request::get(uri)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::new())
        .expect("well-formed")
}

/// The path of a watch for whatever happens from now on.
async fn watch_path(list: Response<Incoming>) -> String {
    let list = list.into_body().collect().await.expect("whole").to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str();
    format!(
        "{MAPS}?watch=true&resourceVersion={}",
        version.expect("a version")
    )
}
