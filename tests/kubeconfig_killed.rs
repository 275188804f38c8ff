//! A process that is killed while it writes a kubeconfig, or while its entries are in it, leaves a file that the next
//! start repairs.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use arc_cluster_connect::kubeconfig::{
    CurrentContext, Kubeconfig, KubeconfigBuilder, KubeconfigFile, ProxyEndpoint, TokenKubeconfig,
};

const ROUNDS: u64 = 8;
/// Says to the ignored tests below that they are the process to be killed, and which file they write.
const VARIABLE: &str = "ARC_TEST_KUBECONFIG_TO_WRITE";
/// The writer ends by itself if nobody kills it.
const MAX_WRITES: usize = 100_000;
/// How long a process to be killed may take to do its part, and lives at most.
const LIMIT: Duration = Duration::from_secs(60);

const USERS: &str = "\
# a comment
apiVersion: v1
kind: Config
clusters:
- {name: home, cluster: {server: 'https://home:6443'}} # at home
users:
- name: me
  user: {token: t}
contexts:
- context: {cluster: home, user: me}
  name: me@home
current-context: me@home
";

fn ours(name: &str, port: u16) -> Kubeconfig {
    let server = format!("https://127.0.0.1:{port}/proxies/ab12");
    // Large enough for a write that is not atomic to be caught half-way.
    let authority = "certificate ".repeat(20_000);
    let endpoint = ProxyEndpoint::new(server, authority, "s".into());
    TokenKubeconfig::new(name).build(&endpoint).unwrap()
}

fn file() -> Option<KubeconfigFile> {
    let path = std::env::var_os(VARIABLE)?;
    Some(KubeconfigFile::at(PathBuf::from(path)))
}

#[test]
#[ignore = "a process that another test kills"]
fn writer() {
    let Some(file) = file() else {
        return;
    };
    for _ in 0..MAX_WRITES {
        let receipt = file
            .merge(&ours("till", 1), CurrentContext::Switch)
            .unwrap();
        receipt.undo().unwrap();
    }
}

#[test]
#[ignore = "a process that another test kills"]
fn server() {
    let Some(file) = file() else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _receipt = file
        .merge(&ours("till", port), CurrentContext::Switch)
        .unwrap();
    std::thread::sleep(LIMIT);
}

/// Kills its process also when the test fails.
struct Killed(Child);

impl Killed {
    fn start(test: &str, file: &KubeconfigFile) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored"])
            .env(VARIABLE, file.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_a_change(file: &KubeconfigFile) {
    let deadline = Instant::now() + LIMIT;
    while std::fs::read_to_string(file.path()).unwrap() == USERS {
        assert!(Instant::now() < deadline, "the process does not write");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// In the instant after it is created, a lock can not be told from kubectl's: then the user is asked to delete it.
fn delete_a_lock_without_mark(directory: &Path) {
    let lock = directory.join("config.lock");
    if std::fs::read(&lock).is_ok_and(|content| content.is_empty()) || cfg!(not(unix)) {
        let _ = std::fs::remove_file(lock);
    }
}

#[test]
fn a_killed_writer_leaves_the_old_file_or_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = KubeconfigFile::at(directory.path().join("config"));
    let original = Kubeconfig::parse(USERS).unwrap();
    for round in 0..ROUNDS {
        std::fs::write(file.path(), USERS).unwrap();
        let writer = Killed::start("writer", &file);
        wait_for_a_change(&file);
        std::thread::sleep(Duration::from_micros(700 * round));
        drop(writer);

        let left = std::fs::read_to_string(file.path()).unwrap();
        let kubeconfig = Kubeconfig::parse(&left).unwrap();
        if left != USERS {
            assert_eq!(kubeconfig.clusters[..1], original.clusters);
            let added = &kubeconfig.cluster("till").unwrap().server;
            assert_eq!(*added, ours("till", 1).clusters[0].cluster.server);
            assert_eq!(kubeconfig.current_context, "till");
            assert!(left.starts_with("# a comment\n"));
        }
        delete_a_lock_without_mark(directory.path());
        let receipt = file
            .merge(&ours("till", 1), CurrentContext::Switch)
            .unwrap();
        receipt.undo().unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), USERS);
        let names = std::fs::read_dir(directory.path()).unwrap();
        assert_eq!(names.count(), 1, "no lock, no half-written file");
    }
}

#[test]
fn what_a_killed_server_left_is_taken_out_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = KubeconfigFile::at(directory.path().join("config"));
    // The port that the next run gets is its own until the end, so that nobody else's is mistaken for it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for way in ["the same name", "another name", "repair"] {
        std::fs::write(file.path(), USERS).unwrap();
        let server = Killed::start("server", &file);
        wait_for_a_change(&file);
        // It is served: nobody takes it out.
        assert!(file.repair().unwrap().is_empty());
        assert_eq!(file.read().unwrap().current_context, "till");
        drop(server);
        delete_a_lock_without_mark(directory.path());

        match way {
            "repair" => assert_eq!(file.repair().unwrap(), ["till"]),
            _ => {
                let name = if way == "another name" {
                    "shelf"
                } else {
                    "till"
                };
                let receipt = file
                    .merge(&ours(name, port), CurrentContext::Switch)
                    .unwrap();
                let merged = file.read().unwrap();
                assert_eq!(merged.clusters.len(), 2, "{way}");
                assert_eq!(merged.resolve(None).unwrap().name, name);
                receipt.undo().unwrap();
            }
        }
        assert_eq!(
            std::fs::read_to_string(file.path()).unwrap(),
            USERS,
            "{way}"
        );
    }
}
