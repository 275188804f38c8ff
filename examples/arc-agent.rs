//! `arc-agent`: the agent beside the cluster. Dials out to the relay, forwards callers to the API server.
//!
//! ```console
//! $ arc-agent --connection-string-file listen.txt --kubeconfig ~/.kube/config --allow-service-account-tokens
//! ```

#[path = "arc-agent/callers.rs"]
mod callers;
#[path = "common/mod.rs"]
mod common;
#[path = "arc-agent/directory_credential.rs"]
mod directory_credential;
#[path = "arc-agent/entra.rs"]
mod entra;
#[path = "arc-agent/identity.rs"]
mod identity;
#[path = "arc-agent/open_files.rs"]
mod open_files;
#[path = "arc-agent/relay.rs"]
mod relay;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use arc_cluster_connect::{
    Result,
    agent::{Agent, ApiServer, AuditLog, AuditSink, RedirectPolicy},
    kubeconfig::Kubeconfig,
    relay::RelayListener,
};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// How long the end waits for a slow disk to take the last audit events.
const AUDIT_LIMIT: Duration = Duration::from_secs(5);

/// The longest that a shutdown may wait, in seconds: a day, after which nobody remembers that it was asked for.
const MAX_DRAIN_LIMIT: u64 = 24 * 60 * 60;

/// Serves the API server of this cluster to callers who come through the relay, under their own identity.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    relay: relay::RelayPlace,

    /// Kubeconfig that names the API server (address and CA only: its credentials are never used);
    /// without it, the in-cluster environment
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context in the kubeconfig; without it, the current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,

    /// Serve /livez, /readyz and /metrics here, for a pod's probes and for Prometheus
    #[arg(long, value_name = "HOST:PORT")]
    health: Option<String>,

    /// Append an audit event, one line of JSON, for each request; `-` is standard output
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,

    /// How long requests and open streams may go on once the agent is told to stop; then they are cut off. A pod's
    /// terminationGracePeriodSeconds has to be some 5 seconds more
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 25,
        value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN_LIMIT)
    )]
    drain_limit: u64,

    /// Redirects that the API server answers with: `pass-on` to the caller, who decides, or `refuse` with a 502, where a
    /// workload behind a proxy path is not trusted to send callers elsewhere. The agent itself follows none
    #[arg(long, value_name = "WHETHER", default_value = "pass-on")]
    redirects: Redirects,

    /// Written once the agent is registered at the relay; JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    #[command(flatten)]
    verbosity: common::Verbosity,

    // For everything but the API server.
    #[command(flatten)]
    proxy: common::ProxyArguments,

    #[command(flatten)]
    callers: callers::CallerArguments,

    // Last: a heading holds for all that follows.
    #[command(flatten)]
    identity: identity::IdentityArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Redirects {
    PassOn,
    Refuse,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(
        common::Audience::Operator,
        arguments.verbosity,
        run(arguments),
    )
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    open_files::raise_limit();
    let api_server = api_server(
        arguments.kubeconfig.as_deref(),
        arguments.context.as_deref(),
    )?;
    arguments.proxy.check();
    let proxy = arguments.proxy.settings()?.unwrap_or_default();
    let identity = arguments
        .identity
        .credential(arguments.callers.entra(), &proxy)?;
    let (hybrid_connection, credential) = arguments.relay.place(identity.as_ref())?;
    let connector = arguments.relay.connector(&proxy)?;

    let audit_log = audit_log(arguments.audit_log.as_deref())?;
    let mut builder = arguments
        .callers
        .apply(
            Agent::builder(api_server.clone()),
            identity.as_ref(),
            &proxy,
        )?
        .redirects(match arguments.redirects {
            Redirects::PassOn => RedirectPolicy::PassOn,
            Redirects::Refuse => RedirectPolicy::Refuse,
        })
        .drain_limit(Duration::from_secs(arguments.drain_limit));
    if let Some(log) = &audit_log {
        builder = builder.audit(Arc::clone(log) as Arc<dyn AuditSink>);
    }
    let agent = builder.build()?;
    let health = serve_health(&agent, arguments.health.as_deref()).await?;
    agent.check_api_server().await?;

    common::progress(format_args!("registering at {hybrid_connection}"));
    let options = arguments.relay.options();
    let listener = RelayListener::start_with(connector, hybrid_connection, credential, options);
    tokio::select! {
        online = listener.online() => online?,
        () = common::stop_requested() => return Ok(ExitCode::SUCCESS),
    }
    common::progress(format_args!(
        "ready: callers at {} reach {api_server}",
        listener.hybrid_connection()
    ));
    common::write_ready_file(
        arguments.ready_file.as_deref(),
        &json!({
            "relay": listener.hybrid_connection().endpoint().authority(),
            "hybridConnection": listener.hybrid_connection().path(),
            "apiServer": api_server.to_string(),
            "health": health.map(|address| address.to_string()),
        }),
    )?;

    let stop = async {
        common::stop_requested().await;
        common::progress("closing; once more, and what is in flight is cut off");
    };
    let served = tokio::select! {
        served = agent.serve_relay(listener, stop) => Some(served),
        () = stop_insisted() => None,
    };
    if served.is_none() {
        agent.idle().await;
    }
    flush(audit_log.as_deref()).await;
    let Some(served) = served else {
        common::warn("closed at once: what was in flight is cut off");
        return Ok(ExitCode::FAILURE);
    };
    match served?.cut_off() {
        0 => common::progress("closed"),
        // An orderly end all the same: a shell that somebody left open is no failure of the agent.
        streams => common::warn(format_args!(
            "closed; requests and streams that were cut off because they did not end in time: {streams}"
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn audit_log(path: Option<&Path>) -> Result<Option<Arc<AuditLog>>> {
    Ok(match path {
        None => None,
        Some(path) if path == Path::new("-") => Some(Arc::new(AuditLog::standard_output()?)),
        Some(path) => Some(Arc::new(AuditLog::file(path)?)),
    })
}

/// Writes the last audit events, and says so when some are lost.
async fn flush(log: Option<&AuditLog>) {
    let Some(log) = log else {
        return;
    };
    if tokio::time::timeout(AUDIT_LIMIT, log.flush())
        .await
        .is_err()
    {
        common::warn("the last audit events could not be written in time");
    }
    if log.lost() > 0 {
        common::warn(format_args!("audit events that were lost: {}", log.lost()));
    }
}

/// Serves health until the program ends: a shutdown is to be seen there.
async fn serve_health(agent: &Agent, address: Option<&str>) -> Result<Option<SocketAddr>> {
    let Some((listener, bound)) = common::health_listener(address).await? else {
        return Ok(None);
    };
    let agent = agent.clone();
    tokio::spawn(async move { agent.serve_health(listener, std::future::pending()).await });
    Ok(Some(bound))
}

/// Resolves at the second request to stop.
async fn stop_insisted() {
    common::stop_requested().await;
    common::stop_requested().await;
}

fn api_server(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<ApiServer> {
    let Some(path) = kubeconfig else {
        return ApiServer::in_cluster();
    };
    let base = path.parent().unwrap_or(Path::new("."));
    ApiServer::from_kubeconfig(&Kubeconfig::read(path)?, context, base)
}
