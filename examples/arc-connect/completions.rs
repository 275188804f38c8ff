//! `arc-connect completions`: what a shell has to know to complete a command line.

use std::{io::Write, process::ExitCode};

use arc_cluster_connect::{Error, ErrorKind, Result};
use clap::{Args, Command};
use clap_complete::Shell;

#[derive(Args)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: &Arguments, mut command: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    std::io::stdout()
        .lock()
        .write_all(&script)
        .map_err(|error| {
            Error::new(ErrorKind::File, "can not write to standard output").with_source(error)
        })?;
    Ok(ExitCode::SUCCESS)
}
