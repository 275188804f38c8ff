//! A process that is killed while it writes a kubeconfig leaves a whole file behind.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use arc_cluster_connect::kubeconfig::{
    CurrentContext, Kubeconfig, KubeconfigBuilder, KubeconfigFile, ProxyEndpoint, TokenKubeconfig,
};

const ROUNDS: u64 = 8;
/// Says to the ignored test below that it is the process to be killed, and which file it writes.
const VARIABLE: &str = "ARC_TEST_KUBECONFIG_TO_WRITE";
/// The writer ends by itself if nobody kills it.
const MAX_WRITES: usize = 100_000;

const USERS: &str = "\
# a comment
apiVersion: v1
kind: Config
clusters: [{name: home, cluster: {server: 'https://home:6443'}}]
users: [{name: me, user: {token: t}}]
contexts: [{name: me@home, context: {cluster: home, user: me}}]
current-context: me@home
";

fn ours() -> Kubeconfig {
    let server = "https://127.0.0.1:1/proxies/ab12";
    // Large enough for a write that is not atomic to be caught half-way.
    let authority = "certificate ".repeat(20_000);
    let endpoint = ProxyEndpoint::new(server, authority, "s".into());
    TokenKubeconfig::new("till").build(&endpoint).unwrap()
}

#[test]
#[ignore = "the process that the other test kills"]
fn writer() {
    let Some(path) = std::env::var_os(VARIABLE) else {
        return;
    };
    let file = KubeconfigFile::at(PathBuf::from(path));
    for _ in 0..MAX_WRITES {
        let receipt = file.merge(&ours(), CurrentContext::Switch).unwrap();
        receipt.undo().unwrap();
    }
}

/// Kills the writer also when the test fails.
struct Writer(Child);

impl Writer {
    fn start(file: &KubeconfigFile) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored"])
            .env(VARIABLE, file.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_writer_leaves_the_old_file_or_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = KubeconfigFile::at(directory.path().join("config"));
    let original = Kubeconfig::parse(USERS).unwrap();
    for round in 0..ROUNDS {
        std::fs::write(file.path(), USERS).unwrap();
        let writer = Writer::start(&file);
        // It has begun once the file changes.
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_to_string(file.path()).unwrap() == USERS {
            assert!(Instant::now() < deadline, "the writer does not write");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(700 * round));
        drop(writer);

        let left = std::fs::read_to_string(file.path()).unwrap();
        let kubeconfig = Kubeconfig::parse(&left).unwrap();
        if left != USERS {
            assert_eq!(kubeconfig.clusters[..1], original.clusters);
            assert_eq!(kubeconfig.clusters[1..], ours().clusters);
            assert_eq!(kubeconfig.current_context, "till");
        }
        // What the message about a stale lock tells the user to do.
        let _ = std::fs::remove_file(directory.path().join("config.lock"));
        let receipt = file.merge(&ours(), CurrentContext::Switch).unwrap();
        receipt.undo().unwrap();
        assert_eq!(file.read().unwrap().clusters, original.clusters);
    }
}
