//! `arc-connect proxy`: a loopback endpoint and a kubeconfig entry for as long as the program runs.

use std::{
    io::Write,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    kubeconfig::{CurrentContext, KubeconfigFile, MergeReceipt},
    tunnel::TunnelState,
};
use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use crate::{
    common,
    session::{Session, SessionArguments},
};

/// The port that Azure's own client uses.
const DEFAULT_PORT: u16 = 47011;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    session: SessionArguments,

    /// Kubeconfig to add the context to; - prints it on standard output instead.
    /// Without it, what kubectl uses: $KUBECONFIG or ~/.kube/config
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Make the new context the current one even if there is one already (it is put back at the end)
    #[arg(long)]
    switch_context: bool,

    /// Loopback port; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    port: u16,

    /// Written once kubectl can be used; holds address, kubeconfig path and context as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    // One wait from the start to the end: a Ctrl-C while the kubeconfig is written is not lost.
    let mut stop = pin!(common::stop_requested());
    let session = tokio::select! {
        session = Session::start(&arguments.session, arguments.port) => session?,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    let placed = place(&arguments, &session)?;
    let served = serve(&arguments, &session, &placed, stop).await;

    // The kubeconfig is put back whatever happened, and first: it must not point at a closed port.
    let undone = match placed.receipt {
        Some(receipt) => receipt.undo(),
        None => Ok(()),
    };
    let closed = session.close().await;
    served.and(undone).and(closed)?;
    common::progress("closed");
    Ok(ExitCode::SUCCESS)
}

/// Where the kubeconfig went, and how to take it back.
struct Placed {
    path: Option<PathBuf>,
    receipt: Option<MergeReceipt>,
}

fn place(arguments: &Arguments, session: &Session) -> Result<Placed> {
    if arguments.file.as_deref() == Some(Path::new("-")) {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(session.kubeconfig.to_yaml()?.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| {
                Error::new(
                    ErrorKind::File,
                    "can not write the kubeconfig to standard output",
                )
                .with_source(error)
            })?;
        return Ok(Placed {
            path: None,
            receipt: None,
        });
    }
    let file = match &arguments.file {
        Some(path) => KubeconfigFile::at(path),
        None => KubeconfigFile::default_location()?,
    };
    let current = if arguments.switch_context {
        CurrentContext::Switch
    } else {
        CurrentContext::KeepIfSet
    };
    Ok(Placed {
        path: Some(file.path().to_owned()),
        receipt: Some(file.merge(&session.kubeconfig, current)?),
    })
}

async fn serve(
    arguments: &Arguments,
    session: &Session,
    placed: &Placed,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    common::progress(format_args!("ready: {}", session.server));
    if let Some(path) = &placed.path {
        common::progress(format_args!(
            "try it: kubectl --kubeconfig {} --context {} get pods",
            path.display(),
            session.context
        ));
    }
    common::progress("Ctrl-C closes it");
    common::write_ready_file(
        arguments.ready_file.as_deref(),
        &json!({
            "address": session.proxy.local_addr().to_string(),
            "server": session.server,
            "kubeconfig": placed.path,
            "context": session.context,
        }),
    )?;
    tokio::select! {
        () = stop => {}
        () = tell_changes(session) => {}
    }
    Ok(())
}

/// One line when the tunnel is lost and one when it is back: silence in between is what makes people doubt a tool.
async fn tell_changes(session: &Session) {
    let mut states = session.tunnel.states();
    let mut lost = false;
    while let Some(state) = states.next().await {
        match state {
            TunnelState::Waiting { reason, .. } if !lost => {
                lost = true;
                common::warn(format_args!(
                    "the tunnel was lost ({}); connecting again",
                    reason.report()
                ));
            }
            TunnelState::Connected if lost => {
                lost = false;
                common::note("the tunnel is back");
            }
            _ => {}
        }
    }
    std::future::pending().await
}
