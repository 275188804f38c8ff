//! `arc-connect credential`: the credential plugin that kubectl runs for a kubeconfig of `arc-connect kubeconfig`.
//!
//! It prints the secret of a running proxy of the same user, whose record nobody else can read. The secret is worth
//! something at that proxy's loopback port only, and only while the proxy runs.

use std::{io::Write, process::ExitCode};

use arc_cluster_connect::{Error, ErrorKind, Result, kubeconfig::exec_credential};
use clap::Args;

use crate::running::Running;

#[derive(Args)]
pub struct Arguments {
    /// The server's URL, as it stands in the kubeconfig
    #[arg(long, value_name = "URL")]
    server: String,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let running = Running::list()?;
    let serves = |proxy: &&Running| {
        let mut clusters = proxy.clusters.iter();
        clusters.any(|cluster| cluster.server == arguments.server)
    };
    let Some(proxy) = running.iter().find(serves) else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("no running proxy serves {}", arguments.server),
        )
        .with_help(
            "start `arc-connect proxy` again; if it then has another port, run `arc-connect kubeconfig` again too",
        ));
    };
    // kubectl uses it until it is refused: it ends with the proxy.
    let json = exec_credential(&proxy.secret, None);
    writeln!(std::io::stdout().lock(), "{json}").map_err(|error| {
        Error::new(ErrorKind::File, "can not write to standard output").with_source(error)
    })?;
    Ok(ExitCode::SUCCESS)
}
