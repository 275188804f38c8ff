//! `arc-connect exec`: one command with a private kubeconfig that is gone when the command is.

use std::{
    ffi::OsString,
    io::Write,
    process::{ExitCode, ExitStatus},
};

use arc_cluster_connect::{Error, ErrorKind, Result, proxy::Proxy};
use clap::Args;
use tokio::process::{Child, Command};

use crate::{
    common,
    session::{Count, Session, SessionArguments},
};

/// What a shell answers when the command is not there, or is not a program.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    session: SessionArguments,

    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let session = tokio::select! {
        session = Session::start(&arguments.session, Proxy::builder(), Count::One) => session?,
        () = common::stop_requested() => return Ok(ExitCode::from(128 + SIGINT)),
    };
    let result = run_command(&arguments.command, &session).await;
    // The command's exit code is what the caller acts on: a tunnel that closes late does not change it.
    if let Err(error) = session.close().await {
        common::warn(error.report());
    }
    result
}

async fn run_command(command: &[OsString], session: &Session) -> Result<ExitCode> {
    let failed = |error| {
        Error::new(ErrorKind::File, "can not write the private kubeconfig").with_source(error)
    };
    // Mode 0600 by construction; deleted when it goes out of scope, whatever the command did.
    let mut kubeconfig = tempfile::Builder::new()
        .prefix("arc-connect-")
        .suffix(".kubeconfig")
        .tempfile()
        .map_err(failed)?;
    kubeconfig
        .write_all(session.kubeconfig().to_yaml()?.as_bytes())
        .map_err(failed)?;

    let mut child = match Command::new(&command[0])
        .args(&command[1..])
        .env("KUBECONFIG", kubeconfig.path())
        .kill_on_drop(true)
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            common::warn(format_args!(
                "can not run {}: {error}",
                command[0].to_string_lossy()
            ));
            return Ok(ExitCode::from(code));
        }
    };
    let status = wait(&mut child).await.map_err(|error| {
        Error::new(ErrorKind::Other, "can not wait for the command").with_source(error)
    })?;
    Ok(exit_code(status))
}

/// Waits for the command. Ctrl-C reaches it by itself, since it shares our terminal; a request to terminate does not,
/// so it is passed on.
async fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        use tokio::signal::unix::{SignalKind, signal};

        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {
                    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
                    if let Some(pid) = pid {
                        let _ = kill_process(pid, Signal::TERM);
                    }
                }
            }
        }
    }
    #[cfg(not(unix))]
    {
        child.wait().await
    }
}

const SIGINT: u8 = 2;

/// The command's own code; 128 plus the signal's number where a signal ended it, as shells have it.
fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;

        if let Some(signal) = status.signal() {
            return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
        }
    }
    let code = status.code().unwrap_or(1);
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
