//! Runs the example programs as a user would: as processes of their own.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Generous: a debug build on a busy machine. Nothing is decided by it but that a program hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a file is looked for.
const POLL: Duration = Duration::from_millis(20);

/// A running example program. Killed when dropped.
pub struct Program {
    name: &'static str,
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    ready: Value,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// Starts `name` and waits until it says that it serves.
    ///
    /// # Panics
    /// When the program ends instead, or says nothing for a minute.
    pub async fn start(name: &'static str, directory: &Path, arguments: &[&str]) -> Self {
        let mut command = command(name, arguments);
        // Where a proxy leaves its record.
        command.env("XDG_RUNTIME_DIR", directory);
        Self::start_command(name, directory, command).await
    }

    /// As [`start`](Self::start), for a command that the caller has set up.
    pub async fn start_command(name: &'static str, directory: &Path, mut command: Command) -> Self {
        let ready_file = directory.join(format!("{name}.{}.ready", uuid::Uuid::new_v4().simple()));
        let mut child = command
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = collect(child.stdout.take().expect("stdout is piped"));
        let stderr = collect(child.stderr.take().expect("stderr is piped"));
        let deadline = Instant::now() + PATIENCE;
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).expect("a ready file is whole and JSON");
            }
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                panic!("{name} ended with {status}: {}", stderr.await.unwrap());
            }
            assert!(Instant::now() < deadline, "{name} is not ready in time");
            sleep(POLL).await;
        };
        Self {
            name,
            child,
            stdout,
            stderr,
            ready,
        }
    }

    /// What stands in the ready file.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the program runs")
    }

    /// Memory in use, in bytes.
    #[cfg(target_os = "linux")]
    pub fn resident_bytes(&self) -> u64 {
        let id = self.child.id().expect("the program runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .expect("the kernel tells it");
        kib * 1024
    }

    /// Ends the program at once, as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the program runs");
    }

    /// Asks the program to end, and waits until it has.
    pub async fn terminate(self) -> Ended {
        self.ask_to_terminate();
        self.ended().await
    }

    /// Asks the program to end.
    pub fn ask_to_terminate(&self) {
        use rustix::process::{Pid, Signal, kill_process};

        let id = self.child.id().expect("the program runs");
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).expect("the program runs");
    }

    /// Waits until the program has ended.
    pub async fn ended(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("{} does not end", self.name))
            .expect("the child can be waited for");
        Ended {
            status,
            stdout: self.stdout.await.expect("stdout was read"),
            stderr: self.stderr.await.expect("stderr was read"),
        }
    }
}

/// Everything that comes out of a pipe until its end.
fn collect(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<String> {
    tokio::spawn(async move {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Runs a program to its end.
///
/// # Panics
/// When it takes longer than a minute.
pub async fn run(name: &'static str, arguments: &[&str]) -> Ended {
    run_command(command(name, arguments)).await
}

/// As [`run`], for a command that the caller has set up.
pub async fn run_command(mut command: Command) -> Ended {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = timeout(PATIENCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The command for an example program, without what the caller's environment would change.
pub fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG")
        .env_remove("ARC_RELAY_CONNECTION_STRING")
        // Where proxies leave records: not among those of whoever runs the tests.
        .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
        .kill_on_drop(true);
    command
}

/// Cargo builds the examples beside the tests: `target/<profile>/examples`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test stands in target/<profile>/deps");
    let path = profile.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples` with the tests' profile first",
        path.display()
    );
    path
}
