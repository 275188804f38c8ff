//! The main job in one process and one command: a relay, an agent beside a cluster, a loopback endpoint and a kubeconfig,
//! and a list of pods that was read through all of them.
//!
//! ```console
//! $ cargo run --release --example quickstart
//! $ cargo run --release --example quickstart -- --kubeconfig ~/.kube/config --token-file token --hold
//! ```

#[path = "../../tests/support/api_server/mod.rs"]
mod api_server;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod pods;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use arc_cluster_connect::{
    Error, ErrorKind, KubeconfigBuilder, Result, Tunnel,
    agent::{Agent, ServiceAccountTokens},
    auth::BearerAuth,
    kubeconfig::{CurrentContext, KubeconfigFile, TokenKubeconfig},
    proxy::{Proxy, ProxyId},
    relay::{
        ConnectionString, RelayListener, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::RelayTunnel,
};
use clap::Parser;
use tokio::{net::TcpListener, sync::oneshot};
use uuid::Uuid;

use cluster::Cluster;

/// The one hybrid connection of the embedded relay, and the context's name in the kubeconfig.
const NAME: &str = "quickstart";

/// Lists pods through relay, agent and tunnel, all in this one process.
#[derive(Parser)]
#[command(name = "quickstart", version)]
struct Arguments {
    /// Kubeconfig of a real cluster; without it, a stand-in API server is embedded
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context in the kubeconfig; without it, the current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,

    /// File with a service account's token for the real cluster; without it, the token of the kubeconfig's user
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    token_file: Option<PathBuf>,

    /// Stay until Ctrl-C, so that kubectl can be used
    #[arg(long)]
    hold: bool,

    #[command(flatten)]
    verbosity: common::Verbosity,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(
        common::Audience::Person,
        arguments.verbosity,
        run(arguments),
    )
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let cluster = Cluster::find(&arguments).await?;
    println!("1. cluster   {}", cluster.description);

    // Both sides dial this relay; in production it is Azure's. The keys exist for this run only.
    let relay = RelayServer::builder()
        .hybrid_connection(NAME)
        .rule(SasRule::new("listen", random_key())?, Rights::LISTEN)
        .rule(SasRule::new("send", random_key())?, Rights::SEND)
        .start(loopback().await?)?;
    println!(
        "2. relay     ws://{}: the only thing that either side connects to",
        relay.local_addr()
    );

    // Beside the cluster: dials out, accepts nothing from the network.
    let agent = Agent::builder(cluster.api_server.clone())
        .service_account_tokens(ServiceAccountTokens::PassThrough)
        .build()?;
    let connector = common::connector(None)?;
    let listen = ConnectionString::parse(&relay.connection_string("listen", NAME)?)?;
    let listener = RelayListener::start(
        connector.clone(),
        listen.hybrid_connection()?,
        listen.credential(),
    );
    listener.online().await?;
    println!(
        "3. agent     registered at the relay; passes each caller's own token to the API server"
    );
    let (stop_agent, agent_stopped) = oneshot::channel::<()>();
    let agent = tokio::spawn(async move {
        agent
            .serve_relay(listener, async {
                let _ = agent_stopped.await;
            })
            .await
    });

    // On the user's machine: a tunnel, and a loopback endpoint that kubectl understands.
    let send = ConnectionString::parse(&relay.connection_string("send", NAME)?)?;
    let tunnel: Arc<dyn Tunnel> = Arc::new(RelayTunnel::new(RelaySender::new(
        connector,
        send.hybrid_connection()?,
        send.credential(),
    )));
    let id = ProxyId::from_name(NAME);
    let proxy = Proxy::builder()
        .port(0)
        .cluster(
            id,
            Arc::clone(&tunnel),
            Arc::new(BearerAuth::fixed(cluster.token.as_str())?),
        )
        .start()
        .await?;
    let endpoint = proxy
        .endpoint(&id)
        .expect("the cluster was registered just above");
    println!("4. proxy     {}", endpoint.server());

    let directory = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::File, "can not make a temporary directory").with_source(error)
    })?;
    let kubeconfig = KubeconfigFile::at(directory.path().join("config"));
    let receipt = kubeconfig.merge(
        &TokenKubeconfig::new(NAME).build(&endpoint)?,
        CurrentContext::KeepIfSet,
    )?;
    println!(
        "5. kubectl   export KUBECONFIG={}",
        kubeconfig.path().display()
    );

    println!("\nGET /api/v1/pods through proxy, tunnel, relay and agent:\n");
    let listed = pods::list(&endpoint).await;
    if let Ok(pods) = &listed {
        pods::print(pods);
        let status = tunnel.status();
        println!(
            "\n{} pods, {} bytes through the tunnel; the API server saw {}",
            pods.len(),
            status.bytes_received,
            cluster.seen_as()
        );
    }

    if arguments.hold && listed.is_ok() {
        println!("\nholding: use the KUBECONFIG above in another terminal, Ctrl-C ends this");
        common::stop_requested().await;
    }

    let undone = receipt.undo();
    proxy.shutdown().await;
    let tunnel_closed = tunnel.shutdown().await;
    let _ = stop_agent.send(());
    let agent_closed = agent.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Other, "the agent failed").with_source(error))
    });
    relay.shutdown().await;
    cluster.shutdown().await;
    listed?;
    undone?;
    tunnel_closed?;
    agent_closed?;
    Ok(ExitCode::SUCCESS)
}

fn random_key() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

async fn loopback() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await.map_err(|error| {
        Error::new(ErrorKind::Network, "can not listen on a loopback port").with_source(error)
    })
}
