//! [`Kubectl`]: runs the real kubectl, in a home of its own, for a bounded time.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long one kubectl may take. Far more than any needs, so that a busy machine fails no test; not for ever, so that
/// a hang does.
const RUN_LIMIT: Duration = Duration::from_secs(90);

/// How exec, attach and port-forward leave HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket: what kubectl does since 1.31.
    WebSocket,
    /// SPDY/3.1: what kubectl did before, and still does when told.
    Spdy,
}

/// Whether there is a kubectl. Without one a test skips, with one line that says so; under `CI=true` it fails.
///
/// The environment variable `KUBECTL` names another program than the `kubectl` of the `PATH`.
pub fn is_installed(test: &str) -> bool {
    let found = std::process::Command::new(program())
        .args(["version", "--client"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        skip(test, "kubectl");
    }
    found
}

/// Says that a test is skipped for want of a program; fails instead under `CI=true`.
pub fn skip(test: &str, missing: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!in_ci, "{test}: {missing} is not installed, and CI=true");
    eprintln!("SKIPPED {test}: {missing} is not installed");
}

fn program() -> OsString {
    std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into())
}

/// The real kubectl with one kubeconfig.
#[derive(Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    /// kubectl caches discovery below its home; a fresh one keeps runs apart.
    home: Arc<TempDir>,
    transport: Transport,
    variables: Vec<(&'static str, OsString)>,
}

/// How a kubectl ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Kubectl {
    /// A kubectl that uses this kubeconfig and WebSocket.
    pub fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        Self {
            kubeconfig: kubeconfig.into(),
            home: Arc::new(tempfile::tempdir().expect("a temporary directory can be made")),
            transport: Transport::WebSocket,
            variables: Vec::new(),
        }
    }

    /// The same with another transport.
    pub fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The same with a variable in its environment, and in that of the programs that it runs.
    pub fn with_environment(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// A directory that lives as long as this kubectl.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs kubectl to its end, with nothing on standard input.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with_input(arguments, b"").await
    }

    /// Runs kubectl to its end, with this on standard input.
    pub async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Finished {
        let mut command = self.command();
        command.args(arguments);
        finish(command, input, &format!("kubectl {}", arguments.join(" "))).await
    }

    /// Runs kubectl on a terminal, with these keys pressed; `None` when `script`, which makes the terminal, is missing.
    pub async fn run_on_terminal(&self, arguments: &str, keys: &str) -> Option<Finished> {
        let mut command = Command::new("script");
        let line = format!("{} {arguments}", program().to_string_lossy());
        command.args(["-qec", &line, "/dev/null"]);
        self.set_environment(&mut command);
        if std::process::Command::new("script")
            .arg("--version")
            .output()
            .is_err()
        {
            return None;
        }
        Some(finish(command, keys.as_bytes(), &line).await)
    }

    /// Starts a kubectl that goes on until it is stopped.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let stdout = child.stdout.take().expect("standard output is piped");
        Running {
            child,
            lines: BufReader::new(stdout).lines(),
            name: format!("kubectl {}", arguments.join(" ")),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        let websockets = match self.transport {
            Transport::WebSocket => "true",
            Transport::Spdy => "false",
        };
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.path())
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .current_dir(self.home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Loopback is reached directly, whatever the machine's proxy settings.
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(variable);
        }
    }
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself, when the exit code is 0.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(
            self.code,
            Some(0),
            "kubectl failed: {}{}",
            self.stderr,
            self.text()
        );
        self
    }
}

/// A kubectl that goes on. Dropping it kills it.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Running {
    /// The next line that contains `wanted`; others are passed over.
    ///
    /// # Panics
    /// When kubectl ends, or the time is up, without such a line.
    pub async fn line_with(&mut self, wanted: &str) -> String {
        let mut seen = Vec::new();
        let found = timeout(RUN_LIMIT, async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                if line.contains(wanted) {
                    return Some(line);
                }
                seen.push(line);
            }
            None
        })
        .await;
        match found {
            Ok(Some(line)) => line,
            _ => {
                let errors = self.errors().await;
                panic!(
                    "{}: no line with {wanted:?} in {seen:?}; {errors}",
                    self.name
                )
            }
        }
    }

    /// Kills it.
    pub async fn stop(mut self) {
        self.child
            .kill()
            .await
            .expect("a child of ours can be killed");
    }

    async fn errors(&mut self) -> String {
        let _ = self.child.start_kill();
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = timeout(RUN_LIMIT, stderr.read_to_string(&mut text)).await;
        }
        text
    }
}

async fn finish(mut command: Command, input: &[u8], name: &str) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let feeding = async {
        // A kubectl that ends early closes its input; how it ended is looked at below.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let both = async { tokio::join!(feeding, child.wait_with_output()).1 };
    let output = timeout(RUN_LIMIT, both)
        .await
        .unwrap_or_else(|_| panic!("{name} did not end within {RUN_LIMIT:?}"))
        .expect("a child of ours can be waited for");
    Finished {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
