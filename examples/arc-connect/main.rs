//! `arc-connect`: kubectl, helm and friends against a cluster with no inbound port.
//!
//! ```console
//! $ arc-connect proxy -n till-7 -g shop &
//! $ kubectl get pods
//! $ arc-connect exec -n till-7 -g shop -- kubectl get pods
//! $ arc-connect whoami -n till-7 -g shop
//! ```

mod arcproxy;
mod azure_code;
mod bridge_arguments;
mod caller_arguments;
mod cluster_arguments;
#[path = "../common/mod.rs"]
mod common;
mod completions;
mod credential;
mod doctor;
mod enable_features;
mod exec;
mod first_request;
mod kubeconfig;
mod open_files;
mod proxy;
mod reach;
mod request_log;
mod running;
mod session;
mod status;
mod table;
mod whoami;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  arc-connect proxy -n till-7 -g shop                    serve a cluster until Ctrl-C; kubectl works in any terminal
  arc-connect exec -n till-7 -g shop -- kubectl get pods one command, and nothing stays behind
  arc-connect whoami -n till-7 -g shop                   who am I there, and how am I let in?
  arc-connect proxy -n till-7 -g shop --auth device-code sign in with a browser on any machine";

/// Reach the API server of a Kubernetes cluster that accepts no inbound connection.
#[derive(Parser)]
#[command(name = "arc-connect", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    verbosity: common::Verbosity,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clusters on a loopback port and point a kubeconfig at it, until Ctrl-C
    Proxy(proxy::Arguments),
    /// Run one command with a private kubeconfig that reaches the cluster, and pass its exit code on
    Exec(exec::Arguments),
    /// Tell who the caller is to the cluster, and what an administrator has to run to let them in
    Whoami(whoami::Arguments),
    /// Print a kubeconfig for the running proxies, or merge it into a file. It holds no secret
    ///
    /// It names this program as the one that gives the secret: kubectl runs `arc-connect credential` for it, which finds
    /// the running proxy of the same user. Whoever copies the file elsewhere has nothing. It is good for as long as the
    /// proxy runs.
    Kubeconfig(kubeconfig::Arguments),
    /// What a kubeconfig of `arc-connect kubeconfig` runs: prints the running proxy's secret for kubectl
    #[command(hide = true)]
    Credential(credential::Arguments),
    /// Look at everything on the way to a cluster, and say what to do about what is in the way
    Doctor(doctor::Arguments),
    /// Show what your running proxies are doing
    Status(status::Arguments),
    /// Stand in for the proxy program of `az connectedk8s proxy`
    Arcproxy(arcproxy::Arguments),
    /// Install the agent in the cluster that a kubeconfig names, and wait until it serves
    EnableFeatures(enable_features::EnableArguments),
    /// Take away what enable-features installed
    DisableFeatures(enable_features::DisableArguments),
    /// Print a script that completes command lines in a shell
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(common::Audience::Person, arguments.verbosity, async {
        match arguments.command {
            Command::Proxy(arguments) => proxy::run(arguments).await,
            Command::Whoami(arguments) => whoami::run(arguments).await,
            Command::Kubeconfig(arguments) => kubeconfig::run(&arguments),
            Command::Credential(arguments) => credential::run(&arguments),
            Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
            Command::Doctor(arguments) => doctor::run(arguments).await,
            Command::Status(arguments) => status::run(arguments).await,
            Command::Arcproxy(arguments) => arcproxy::run(arguments).await,
            Command::Exec(arguments) => exec::run(arguments).await,
            Command::EnableFeatures(arguments) => enable_features::enable(arguments).await,
            Command::DisableFeatures(arguments) => enable_features::disable(arguments).await,
        }
    })
}
