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
    proxy::{Proxy, ProxyBuilder},
    tunnel::TunnelState,
};
use clap::Args;
use futures_util::{StreamExt, future::join_all};
use serde_json::json;

use crate::{
    azure_code, common, open_files, request_log,
    running::{Announcement, Running, RunningCluster},
    session::{Count, Served, Session, SessionArguments},
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

    /// Serve on this Unix socket too, for HTTP clients without TLS. Its directory must be closed to others
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    unix_socket: Option<PathBuf>,

    /// Add a line of JSON for each request to this file; - writes to standard error
    #[arg(long, value_name = "FILE")]
    request_log: Option<PathBuf>,

    /// Written once kubectl can be used; holds address, kubeconfig path and contexts as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    open_files::raise_limit();
    // One wait from the start to the end: a Ctrl-C while the kubeconfig is written is not lost.
    let mut stop = pin!(common::stop_requested());
    let starting = Session::start(&arguments.session, builder(&arguments)?, Count::Any);
    let session = tokio::select! {
        session = starting => session?,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    let placed = place(&arguments, &session)?;
    let announcement = announce(&arguments, &session);
    let served = serve(&arguments, &session, &placed, stop).await;

    // The kubeconfig is put back whatever happened, and first: it must not point at a closed port.
    let undone = match placed.receipt {
        Some(receipt) => receipt.undo(),
        None => Ok(()),
    };
    drop(announcement);
    let closed = session.close().await;
    // What `arc-connect kubeconfig` has put there since is not the receipt's, and leads nowhere now.
    if let Some(Err(error)) = placed.file.map(|file| file.repair()) {
        common::warn(error.report());
    }
    served.and(undone).and(closed)?;
    common::progress("closed");
    Ok(ExitCode::SUCCESS)
}

fn builder(arguments: &Arguments) -> Result<ProxyBuilder> {
    let mut builder = Proxy::builder().port(arguments.port);
    #[cfg(unix)]
    if let Some(path) = &arguments.unix_socket {
        builder = builder.unix_socket(path);
    }
    if let Some(path) = &arguments.request_log {
        builder = builder.request_log(request_log::open(path)?);
    }
    Ok(builder)
}

/// Where the kubeconfig went, and how to take it back.
struct Placed {
    file: Option<KubeconfigFile>,
    receipt: Option<MergeReceipt>,
}

fn place(arguments: &Arguments, session: &Session) -> Result<Placed> {
    let kubeconfig = session.kubeconfig();
    if arguments.file.as_deref() == Some(Path::new("-")) {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(kubeconfig.to_yaml()?.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| {
                Error::new(
                    ErrorKind::File,
                    "can not write the kubeconfig to standard output",
                )
                .with_source(error)
            })?;
        return Ok(Placed {
            file: None,
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
    let receipt = file.merge(&kubeconfig, current).map_err(|error| {
        if file.path().exists() && file.read().is_err() {
            azure_code::of_existing_kubeconfig(error)
        } else {
            error
        }
    })?;
    Ok(Placed {
        file: Some(file),
        receipt: Some(receipt),
    })
}

/// Leaves a record for `status`, `kubeconfig` and `credential`. Without it the proxy works all the same.
fn announce(arguments: &Arguments, session: &Session) -> Option<Announcement> {
    let mut running = Running::this_process(session.proxy.local_addr(), &session.first().endpoint);
    #[cfg(unix)]
    running.unix_socket.clone_from(&arguments.unix_socket);
    for cluster in &session.clusters {
        let reached = &cluster.reached;
        running = running.with_cluster(RunningCluster {
            id: reached.id.to_string(),
            name: reached.name.clone(),
            server: cluster.endpoint.server().to_owned(),
            context: Some(cluster.context.clone()),
            resource: reached.resource.as_ref().map(ToString::to_string),
        });
    }
    #[cfg(not(unix))]
    let _ = arguments;
    running
        .announce()
        .inspect_err(|error| common::warn(error.report()))
        .ok()
}

async fn serve(
    arguments: &Arguments,
    session: &Session,
    placed: &Placed,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    for cluster in &session.clusters {
        common::progress(format_args!("ready: {}", cluster.endpoint.server()));
        if let Some(file) = &placed.file {
            common::progress(format_args!(
                "try it: kubectl --kubeconfig {} --context {} get pods",
                file.path().display(),
                cluster.context
            ));
        }
    }
    common::progress("Ctrl-C closes it");
    let clusters = session.clusters.iter().map(|cluster| {
        json!({
            "name": cluster.reached.name,
            "server": cluster.endpoint.server(),
            "context": cluster.context,
        })
    });
    common::write_ready_file(
        arguments.ready_file.as_deref(),
        &json!({
            "address": session.proxy.local_addr().to_string(),
            "server": session.first().endpoint.server(),
            "kubeconfig": placed.file.as_ref().map(KubeconfigFile::path),
            "context": session.first().context,
            "clusters": clusters.collect::<Vec<_>>(),
        }),
    )?;
    let count = session.clusters.len();
    let changes = session
        .clusters
        .iter()
        .map(|cluster| tell_changes(cluster, count));
    tokio::select! {
        () = stop => {}
        _ = join_all(changes) => {}
    }
    Ok(())
}

/// One line when the tunnel is lost and one when it is back: silence in between is what makes people doubt a tool.
async fn tell_changes(cluster: &Served, count: usize) {
    let which = match count {
        1 => String::new(),
        _ => format!(" to {}", cluster.reached.name),
    };
    let mut states = cluster.reached.tunnel.states();
    let mut lost = false;
    while let Some(state) = states.next().await {
        match state {
            TunnelState::Waiting { reason, .. } if !lost => {
                lost = true;
                common::warn(format_args!(
                    "the tunnel{which} was lost ({}); connecting again",
                    reason.report()
                ));
            }
            TunnelState::Connected if lost => {
                lost = false;
                common::note(format_args!("the tunnel{which} is back"));
            }
            _ => {}
        }
    }
    std::future::pending().await
}
