//! `arc-connect`: kubectl, helm and friends against a cluster with no inbound port.
//!
//! ```console
//! $ arc-connect proxy --connection-string-file send.txt --token-file token &
//! $ kubectl get pods
//! $ arc-connect exec --connection-string-file send.txt --token-file token -- kubectl get pods
//! ```

mod arcproxy;
#[path = "../common/mod.rs"]
mod common;
mod enable_features;
mod exec;
mod proxy;
mod running;
mod session;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Reach the API server of a Kubernetes cluster that accepts no inbound connection.
#[derive(Parser)]
#[command(name = "arc-connect", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    verbosity: common::Verbosity,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the cluster on a loopback port and point a kubeconfig at it, until Ctrl-C
    Proxy(proxy::Arguments),
    /// Run one command with a private kubeconfig that reaches the cluster, and pass its exit code on
    Exec(exec::Arguments),
    /// Stand in for the proxy program of `az connectedk8s proxy`
    Arcproxy(arcproxy::Arguments),
    /// Install the agent in the cluster that a kubeconfig names, and wait until it serves
    EnableFeatures(enable_features::EnableArguments),
    /// Take away what enable-features installed
    DisableFeatures(enable_features::DisableArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(common::Audience::Person, arguments.verbosity, async {
        match arguments.command {
            Command::Proxy(arguments) => proxy::run(arguments).await,
            Command::Arcproxy(arguments) => arcproxy::run(arguments).await,
            Command::Exec(arguments) => exec::run(arguments).await,
            Command::EnableFeatures(arguments) => enable_features::enable(arguments).await,
            Command::DisableFeatures(arguments) => enable_features::disable(arguments).await,
        }
    })
}
