//! `arc-connect arcproxy`: the local API that `az connectedk8s proxy` expects of the proxy program that it starts.
//!
//! ```console
//! $ arc-connect arcproxy -c config.yml
//! ```
//!
//! `az` writes `config.yml`, starts the program, posts the user's access token and each cluster's credential for the
//! relay, and merges the kubeconfig that comes back. Here that all works with this crate's tunnel, so the agent beside
//! the cluster must be this crate's too.
//!
//! # What others on the machine can do
//! The API is Azure's, and it has no authentication: whoever reaches the two ports may post a token, or register a
//! cluster and be told the secret of the run in the answer. This program narrows that as far as the API lets it:
//!
//! * both ports are loopback only;
//! * `Host` must be a loopback name with the port, and whatever a browser sends (`Origin`, `Sec-Fetch-*`, a form's
//!   content type) is refused;
//! * on Linux the kernel tells whose connection it is: another user's is refused (root's is not);
//! * requests, their sizes, times and number are bounded;
//! * the secret of the run leaves in the answer to a registration and nowhere else. Requests to clusters need it, which
//!   those to Azure's own program do not.
//!
//! Processes of the same user are not kept out. They could as well ask the Azure CLI for a token themselves.

mod caller;
mod config;
mod identity;
mod neighbour;
mod proof;
mod register;
mod registration;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use arc_cluster_connect::{Result, proxy::Proxy};
use clap::Args;
use serde_json::json;

use self::{
    caller::PostedToken, config::Config, identity::IdentityService, register::RegisterServer,
    registration::Registrar,
};
use crate::common;

#[derive(Args)]
pub struct Arguments {
    /// The configuration that `az connectedk8s proxy` writes: ports, tenant and cloud
    #[arg(short = 'c', long, value_name = "FILE")]
    config: PathBuf,

    /// Print a line of JSON for each request on standard error
    #[arg(short = 'd', long)]
    debug: bool,

    /// Relay to use instead of the one that Azure names, for tests: ws://127.0.0.1:PORT or wss://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    relay_endpoint: Option<String>,

    /// File with a certificate authority to trust for the relay, besides the platform's
    #[arg(long, value_name = "FILE")]
    relay_ca: Option<PathBuf>,

    /// Written once both ports are served; holds their addresses as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut stop = std::pin::pin!(common::stop_requested());
    let config = Config::read(&arguments.config)?;
    let relays = config.relays(arguments.relay_endpoint.as_deref())?;
    let connector = common::connector(arguments.relay_ca.as_deref())?;
    let posted = Arc::new(PostedToken::new(proof::generate()?));

    let mut builder = Proxy::builder()
        .port(config.https_port())
        .local_service(Arc::new(IdentityService::new(Arc::clone(&posted), &config)));
    if arguments.debug {
        builder = builder.request_log(|record| eprintln!("{}", record.to_json()));
    }
    let proxy = Arc::new(builder.start().await?);
    let registrar = Registrar::new(Arc::clone(&proxy), connector, relays, posted);
    let server = RegisterServer::bind(config.http_port(), registrar).await?;

    common::progress(format_args!(
        "serving https://{} and, for registrations, http://{}",
        proxy.local_addr(),
        server.local_addr()
    ));
    common::write_ready_file(
        arguments.ready_file.as_deref(),
        &json!({
            "https": proxy.local_addr().to_string(),
            "http": server.local_addr().to_string(),
        }),
    )?;
    tokio::select! {
        () = server.run() => {}
        () = &mut stop => {}
    }
    proxy.shutdown().await;
    common::progress("closed");
    Ok(ExitCode::SUCCESS)
}
