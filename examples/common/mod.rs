//! What the example programs share: how they start, report, signal that they are ready, and stop.

#![allow(dead_code, reason = "each program uses a part of this")]

mod corporate_proxy;
mod ready_file;
mod report;

use std::{future::Future, io::IsTerminal, net::SocketAddr, path::Path, process::ExitCode};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    net::{Connector, TrustRoots},
    relay::ConnectionString,
};
use clap::Args;
use tokio::{net::TcpListener, signal};
use tracing_subscriber::EnvFilter;

#[allow(unused_imports, reason = "each program uses a part of this")]
pub use self::{
    corporate_proxy::ProxyArguments,
    ready_file::write_ready_file,
    report::{failure, note, printable, progress, warn, with_patience},
};

/// The environment variable that stands in for `--connection-string-file`.
pub const CONNECTION_STRING_VARIABLE: &str = "ARC_RELAY_CONNECTION_STRING";

/// How much a program tells on standard error.
#[derive(Args, Clone, Copy, Debug)]
pub struct Verbosity {
    /// Tell more: -v decisions, -vv requests, -vvv everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

/// Who reads standard error when no -v is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A person at a terminal, to whom the program speaks in sentences: no log lines.
    Person,
    /// Whoever operates a server: warnings.
    Operator,
}

/// How a program finds its relay.
#[derive(Args, Clone, Debug)]
pub struct RelayArguments {
    /// File with the relay's connection string (Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…);
    /// the environment variable ARC_RELAY_CONNECTION_STRING stands in for it
    #[arg(long, value_name = "FILE")]
    connection_string_file: Option<std::path::PathBuf>,

    /// File with a certificate authority to trust for the relay, besides the platform's
    #[arg(long, value_name = "FILE")]
    relay_ca: Option<std::path::PathBuf>,
}

impl RelayArguments {
    /// The connection string from the file, else from the environment.
    pub fn connection_string(&self) -> Result<ConnectionString> {
        let given = connection_string(self.connection_string_file.as_deref())?;
        given.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "there is no relay to connect to").with_help(
                format!("pass --connection-string-file FILE, or set {CONNECTION_STRING_VARIABLE}"),
            )
        })
    }

    /// A connector that trusts the platform and `--relay-ca`.
    pub fn connector(&self) -> Result<Connector> {
        connector(self.relay_ca.as_deref())
    }
}

/// The connection string from `file`, else from the environment, if there is one.
pub fn connection_string(file: Option<&Path>) -> Result<Option<ConnectionString>> {
    if let Some(path) = file {
        return ConnectionString::read_file(path).map(Some);
    }
    match std::env::var(CONNECTION_STRING_VARIABLE) {
        Ok(text) => ConnectionString::parse(&text).map(Some),
        Err(_) => Ok(None),
    }
}

/// A listener for health at `address`, if one is wanted, and where it really listens.
pub async fn health_listener(address: Option<&str>) -> Result<Option<(TcpListener, SocketAddr)>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let unusable = |error: std::io::Error| {
        Error::new(
            ErrorKind::Network,
            format!("can not listen on {address} for health"),
        )
        .with_source(error)
        .with_help("pass a free port of this machine: --health 127.0.0.1:8080")
    };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let bound = listener.local_addr().map_err(unusable)?;
    Ok(Some((listener, bound)))
}

/// A connector that trusts the platform and, if given, the certificates in `extra_roots`.
pub fn connector(extra_roots: Option<&Path>) -> Result<Connector> {
    let roots = TrustRoots::platform();
    Connector::new(match extra_roots {
        Some(path) => roots.and_file(path)?,
        None => roots,
    })
}

/// Runs a program to its end and turns its result into an exit code: what it says, or 1 and a message.
pub fn run(
    audience: Audience,
    verbosity: Verbosity,
    program: impl Future<Output = Result<ExitCode>>,
) -> ExitCode {
    start_logging(audience, verbosity);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: can not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(program);
    // A blocking read of standard input must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Resolves at the first Ctrl-C or request to terminate.
pub async fn stop_requested() {
    #[cfg(unix)]
    {
        let mut terminate = match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(_) => {
                let _ = signal::ctrl_c().await;
                return;
            }
        };
        tokio::select! {
            _ = signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = signal::ctrl_c().await;
    }
}

fn start_logging(audience: Audience, verbosity: Verbosity) {
    let level = match verbosity.verbose {
        0 if audience == Audience::Person => "off",
        0 => "warn",
        1 => "arc_cluster_connect=info,arc_connect=info,warn",
        2 => "arc_cluster_connect=debug,arc_connect=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
