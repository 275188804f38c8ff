//! [`Program`]: this program again, in another role, and what it uses.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Killed when dropped.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    greeting: String,
    log_lines: Arc<AtomicUsize>,
}

impl Program {
    pub fn start(role: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().expect("a path"))
            .arg(format!("as-{role}"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let log_lines = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&log_lines);
        std::thread::spawn(move || {
            for _ in log.lines().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut program = Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("piped")),
            greeting: String::new(),
            child,
            log_lines,
        };
        program.greeting = program.line();
        program
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.greeting.parse().expect("its address")
    }

    /// Its last word.
    pub fn finish(mut self) -> String {
        self.input = None;
        self.line()
    }

    pub fn log_lines(&self) -> usize {
        self.log_lines.load(Ordering::Relaxed)
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> usize {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("a size").parse().expect("a number")
    }

    /// What it has used so far. The scheduler counts nanoseconds.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let used = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let number = text.split_whitespace().next();
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let tasks = tasks.expect("Linux tells of each process");
        Duration::from_nanos(tasks.flatten().map(used).sum())
    }

    pub fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        files.expect("Linux tells of each process").count()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    fn read(&self, file: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()));
        text.expect("Linux tells of each process")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the program that has started this one.
pub fn tell(line: &str) {
    println!("{line}");
}

/// Waits until that program wants this one to finish.
pub async fn told_to_finish() {
    let wait = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    // Whatever happens to the input: it is the end.
    let _ = tokio::task::spawn_blocking(wait).await;
}
