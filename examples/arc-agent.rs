//! `arc-agent`: the agent beside the cluster. Dials out to the relay, forwards callers to the API server.
//!
//! ```console
//! $ arc-agent --connection-string-file listen.txt --kubeconfig ~/.kube/config --allow-service-account-tokens
//! ```

#[path = "common/mod.rs"]
mod common;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    agent::{Agent, ApiServer, ServiceAccountTokens},
    kubeconfig::Kubeconfig,
    relay::RelayListener,
};
use clap::Parser;
use serde_json::json;

/// Serves the API server of this cluster to callers who come through the relay, under their own identity.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    relay: common::RelayArguments,

    /// Kubeconfig that names the API server (address and CA only: its credentials are never used);
    /// without it, the in-cluster environment
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context in the kubeconfig; without it, the current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,

    /// Let callers in who bring a service account's bearer token; the API server checks it
    #[arg(long)]
    allow_service_account_tokens: bool,

    /// Written once the agent is registered at the relay; JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    #[command(flatten)]
    verbosity: common::Verbosity,
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
    if !arguments.allow_service_account_tokens {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "no kind of caller is allowed, so nobody could use this agent",
        )
        .with_help("pass --allow-service-account-tokens"));
    }
    let api_server = api_server(
        arguments.kubeconfig.as_deref(),
        arguments.context.as_deref(),
    )?;
    let connection_string = arguments.relay.connection_string()?;
    let hybrid_connection = connection_string.hybrid_connection()?;
    let connector = arguments.relay.connector()?;

    let agent = Agent::builder(api_server.clone())
        .service_account_tokens(ServiceAccountTokens::PassThrough)
        .build()?;
    agent.check_api_server().await?;

    common::progress(format_args!("registering at {hybrid_connection}"));
    let listener =
        RelayListener::start(connector, hybrid_connection, connection_string.credential());
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
        }),
    )?;

    agent
        .serve_relay(listener, common::stop_requested())
        .await?;
    common::progress("closed");
    Ok(ExitCode::SUCCESS)
}

fn api_server(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<ApiServer> {
    let Some(path) = kubeconfig else {
        return ApiServer::in_cluster();
    };
    let base = path.parent().unwrap_or(Path::new("."));
    ApiServer::from_kubeconfig(&Kubeconfig::read(path)?, context, base)
}
