//! exec and attach over SPDY: which stream is which.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::{
    super::{
        process::Runs,
        remote_command::{Outgoing, Output, Streams, Wanted},
    },
    IncomingStream,
};

/// The versions of the remote-command protocol; version 4 is the one that carries exit codes.
pub(in super::super) const PROTOCOLS: &[&str] = &["v4.channel.k8s.io"];

/// How long the client gets to open its streams, as in the real server.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Waits for the streams that the client asked for, then runs the command on them.
pub(in super::super) async fn serve<F>(
    wanted: Wanted,
    incoming: mpsc::Receiver<IncomingStream>,
    queue: mpsc::Sender<Outgoing>,
    command: impl FnOnce(Streams) -> F,
) where
    F: Future<Output = ()>,
{
    let on_terminal = wanted.runs == Runs::OnTerminal;
    let mut kinds = vec!["error"];
    let optional = [
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !on_terminal),
        ("resize", on_terminal),
    ];
    kinds.extend(
        optional
            .iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(kind, _)| *kind),
    );
    let Ok(Some(mut streams)) = timeout(OPEN_LIMIT, collect(incoming, kinds.len())).await else {
        return;
    };
    let output = |stream: &IncomingStream| Output::new(stream.id, queue.clone());
    let Some(error) = streams.get("error").map(output) else {
        return;
    };
    let streams = Streams {
        stdout: streams.get("stdout").map(output),
        stderr: streams.get("stderr").map(output),
        stdin: streams.remove("stdin").map(|stream| stream.data),
        error,
    };
    drop(queue);
    command(streams).await;
}

async fn collect(
    mut incoming: mpsc::Receiver<IncomingStream>,
    count: usize,
) -> Option<HashMap<String, IncomingStream>> {
    let mut streams = HashMap::new();
    while streams.len() < count {
        let stream = incoming.recv().await?;
        let kind = stream.header("streamtype")?.to_owned();
        streams.insert(kind, stream);
    }
    Some(streams)
}
