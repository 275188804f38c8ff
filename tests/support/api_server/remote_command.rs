//! exec and attach behind whatever protocol carries them: streams in, streams out, and how it ended.

use std::{future::pending, process::Stdio, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::ChildStdin,
    sync::{Notify, mpsc},
};

use super::{
    process::{self, Runs},
    status::Status,
    terminal::{self, Effect, LineDiscipline},
    to_json,
};

/// How much of a process's output is sent at once; kubectl's own buffers have this size.
const READ_BYTES: usize = 32 * 1024;

/// What a shell reports for a program that was interrupted by Control-C.
const INTERRUPTED: i32 = 130;

/// What a shell reports for a program that was killed.
const KILLED: i32 = 137;

/// The streams of one remote command.
pub(super) struct Streams {
    /// Ends when the client closes its standard input.
    pub(super) stdin: Option<mpsc::Receiver<Bytes>>,
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    /// Where the final status goes.
    pub(super) error: Output,
}

/// Which streams the client asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) runs: Runs,
}

/// One stream towards the client.
#[derive(Clone)]
pub(super) struct Output {
    stream: u32,
    queue: mpsc::Sender<Outgoing>,
}

/// A piece of one stream, on its way to whoever writes the connection.
pub(super) struct Outgoing {
    pub(super) stream: u32,
    pub(super) payload: Bytes,
    pub(super) end: StreamEnd,
}

/// Whether a piece is a stream's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    More,
    Last,
}

impl Output {
    pub(super) fn new(stream: u32, queue: mpsc::Sender<Outgoing>) -> Self {
        Self { stream, queue }
    }

    /// Sends a piece; waits for room. `Err` when the connection is gone.
    pub(super) async fn send(&self, payload: Bytes) -> Result<(), Gone> {
        self.push(payload, StreamEnd::More).await
    }

    /// Ends the stream.
    pub(super) async fn finish(&self) -> Result<(), Gone> {
        self.push(Bytes::new(), StreamEnd::Last).await
    }

    async fn push(&self, payload: Bytes, end: StreamEnd) -> Result<(), Gone> {
        let piece = Outgoing {
            stream: self.stream,
            payload,
            end,
        };
        self.queue.send(piece).await.map_err(|_| Gone)
    }
}

/// The client's connection is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// What exec runs.
pub(super) struct PodCommand {
    pub(super) pod: String,
    pub(super) arguments: Vec<String>,
    pub(super) directory: Arc<TempDir>,
    pub(super) runs: Runs,
}

impl PodCommand {
    /// Runs the command to its end and tells the client how it ended. Dropping the future kills the process.
    pub(super) async fn run(self, mut streams: Streams) {
        let stdin = streams.stdin.take();
        let status = match self.exit_code(stdin, &streams).await {
            Ok(0) => success(),
            Ok(code) => Status::exit_code(code).to_value(),
            Err(status) => status.to_value(),
        };
        finish(&streams, &status).await;
    }

    async fn exit_code(
        &self,
        stdin: Option<mpsc::Receiver<Bytes>>,
        streams: &Streams,
    ) -> Result<i32, Status> {
        let piped = if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let directory = self.directory.path();
        let mut child = process::spawn(&self.arguments, directory, &self.pod, piped, self.runs)
            .map_err(|error| {
                Status::internal(format!("can not start {:?}: {error}", self.arguments))
            })?;
        let (child_stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());

        let interrupted = Notify::new();
        let shown_on = streams.stdout.as_ref();
        let (stderr_output, fed) = match self.runs {
            Runs::OnPipes => (streams.stderr.as_ref(), None),
            // A terminal has one screen.
            Runs::OnTerminal => (shown_on, shown_on),
        };
        let feeding = async {
            if let (Some(stdin), Some(child_stdin)) = (stdin, child_stdin) {
                match self.runs {
                    Runs::OnPipes => feed(stdin, child_stdin).await,
                    Runs::OnTerminal => type_in(stdin, child_stdin, fed, &interrupted).await,
                }
            }
            // A command ends when it ends, not when its input does.
            pending::<()>().await;
        };
        let running = async {
            tokio::join!(
                show(stdout, shown_on, self.runs),
                show(stderr, stderr_output, self.runs)
            );
            child.wait().await
        };
        tokio::select! {
            () = feeding => unreachable!("feeding never resolves"),
            () = interrupted.notified() => Ok(INTERRUPTED),
            status = running => {
                let status = status
                    .map_err(|error| Status::internal(format!("the command is lost: {error}")))?;
                Ok(status.code().unwrap_or(KILLED))
            }
        }
    }
}

/// What attach meets: a main process that says back what it is told, line after line, until there is no more.
pub(super) async fn attached(pod: String, mut streams: Streams) {
    if let Some(stdout) = &streams.stdout {
        let greeting = Bytes::from(format!("attached to {pod}\n"));
        if stdout.send(greeting).await.is_err() {
            return;
        }
        if let Some(mut stdin) = streams.stdin.take() {
            while let Some(input) = stdin.recv().await {
                if stdout.send(input).await.is_err() {
                    return;
                }
            }
        }
    }
    finish(&streams, &success()).await;
}

fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// Ends the output streams, then tells the status: nobody may take the status for the end of the output.
async fn finish(streams: &Streams, status: &Value) {
    for output in [&streams.stdout, &streams.stderr].into_iter().flatten() {
        if output.finish().await.is_err() {
            return;
        }
    }
    if streams
        .error
        .send(Bytes::from(to_json(status)))
        .await
        .is_ok()
    {
        let _ = streams.error.finish().await;
    }
}

async fn feed(mut stdin: mpsc::Receiver<Bytes>, mut child: ChildStdin) {
    while let Some(input) = stdin.recv().await {
        // The process no longer reads: what else comes is thrown away, as a closed pipe does.
        if child.write_all(&input).await.is_err() {
            return;
        }
    }
}

async fn type_in(
    mut stdin: mpsc::Receiver<Bytes>,
    child: ChildStdin,
    screen: Option<&Output>,
    interrupted: &Notify,
) {
    let mut terminal = LineDiscipline::default();
    let mut child = Some(child);
    while let Some(keys) = stdin.recv().await {
        for effect in terminal.keys(&keys) {
            match effect {
                Effect::Echo(text) => {
                    if let Some(screen) = screen {
                        let _ = screen.send(Bytes::from(text)).await;
                    }
                }
                Effect::Input(line) => {
                    if let Some(child) = &mut child {
                        let _ = child.write_all(&line).await;
                    }
                }
                Effect::EndOfInput => child = None,
                Effect::Interrupt => interrupted.notify_one(),
            }
        }
    }
}

/// Sends what a process writes. Without anybody who wants it, it is read all the same, so that the process goes on.
async fn show(source: Option<impl AsyncRead + Unpin>, output: Option<&Output>, runs: Runs) {
    let Some(mut source) = source else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        let text = &buffer[..count];
        let text = match runs {
            Runs::OnPipes => Bytes::copy_from_slice(text),
            Runs::OnTerminal => Bytes::from(terminal::output(text)),
        };
        if let Some(output) = output
            && output.send(text).await.is_err()
        {
            return;
        }
    }
}
