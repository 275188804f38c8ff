//! [`Kubectl`]: the user's own kubectl, which knows how to use whatever credential a kubeconfig names.
//!
//! Client certificates, exec plugins, interactive logins, proxies: kubectl has them all, and asks nothing twice. What is
//! secret goes to its standard input; its command line holds names only.

use std::{
    ffi::OsString,
    io::Write,
    path::Path,
    process::{ExitStatus, Stdio},
};

use arc_cluster_connect::{Error, ErrorKind, Result};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// How long kubectl waits for one answer of the API server. Logging in may take longer, and is not limited.
const REQUEST_LIMIT: &str = "--request-timeout=30s";

/// Under this name the API server remembers which fields are ours.
const FIELD_MANAGER: &str = "--field-manager=arc-connect";

/// How much of what kubectl says is looked at for advice. All of it is shown.
const KEPT_BYTES: usize = 64 << 10;

/// kubectl, with the options that say which cluster is meant.
pub struct Kubectl {
    cluster: Vec<OsString>,
}

/// The cluster that kubectl talks to.
pub struct Target {
    pub context: String,
    pub server: String,
}

impl Kubectl {
    pub fn new(kubeconfig: Option<&Path>, context: Option<&str>) -> Self {
        let mut cluster = Vec::new();
        if let Some(path) = kubeconfig {
            cluster.extend(["--kubeconfig".into(), path.into()]);
        }
        if let Some(context) = context {
            cluster.extend(["--context".into(), context.into()]);
        }
        Self { cluster }
    }

    /// Which cluster the kubeconfig names.
    pub async fn target(&self) -> Result<Target> {
        let config = self
            .json(&["config", "view", "--minify", "--output=json"])
            .await?;
        let text = |pointer: &str| {
            let value = config.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        Ok(Target {
            context: text("/current-context"),
            server: text("/clusters/0/cluster/server"),
        })
    }

    /// The API server's version, as kubectl gives it: an object with `serverVersion`.
    pub async fn version(&self) -> Result<Value> {
        self.json(&["version", REQUEST_LIMIT, "--output=json"])
            .await
    }

    /// Applies objects on the server's side; one line for each.
    pub async fn apply(&self, objects: &Value) -> Result<String> {
        self.apply_as(objects, &[]).await
    }

    /// Applies one object, and returns the version in which it is now stored.
    pub async fn apply_for_version(&self, object: &Value) -> Result<String> {
        let output = "--output=jsonpath={.metadata.resourceVersion}";
        let version = self.apply_as(object, &[output]).await?;
        Ok(version.trim().to_owned())
    }

    async fn apply_as(&self, objects: &Value, options: &[&str]) -> Result<String> {
        let mut arguments = vec![
            "apply",
            "--server-side",
            FIELD_MANAGER,
            REQUEST_LIMIT,
            "--filename=-",
        ];
        arguments.extend(options);
        self.run(&arguments, objects.to_string().as_bytes()).await
    }

    /// Runs kubectl to its end, and reads the object that it prints.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(arguments, b"").await?;
        serde_json::from_str(&text).map_err(|error| {
            Error::new(
                ErrorKind::Protocol,
                format!("kubectl {} printed no JSON", arguments[0]),
            )
            .with_source(error)
        })
    }

    /// Runs kubectl to its end, with `input` on its standard input, and returns what it prints. What it says on
    /// standard error is shown as it comes, since it may be a question to the user.
    ///
    /// # Cancel safety
    /// A dropped future ends kubectl.
    pub async fn run(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let mut child = Command::new("kubectl")
            .args(&self.cluster)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_started)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) = pipes else {
            unreachable!("all three are piped, four lines above");
        };
        let mut printed = Vec::new();
        let feed = async {
            // A kubectl that ends early closes its input; how it ended is looked at below.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let ((), said, read, status) = tokio::join!(
            feed,
            pass_on(stderr),
            stdout.read_to_end(&mut printed),
            child.wait()
        );
        let failed =
            |error| Error::new(ErrorKind::Other, "can not wait for kubectl").with_source(error);
        read.map_err(failed)?;
        let status = status.map_err(failed)?;
        if !status.success() {
            return Err(refused(arguments[0], status, &said));
        }
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

/// Shows everything, and returns its beginning.
async fn pass_on(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        let piece = &piece[..length];
        // Nobody may be listening any more, which is no reason to stop.
        let _ = std::io::stderr().write_all(piece);
        let room = KEPT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..length.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn not_started(error: std::io::Error) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let (kind, message) = if missing {
        (
            ErrorKind::NotFound,
            "kubectl is needed to use the kubeconfig's credential, and there is none in PATH",
        )
    } else {
        (ErrorKind::Other, "kubectl can not be started")
    };
    Error::new(kind, message)
        .with_source(error)
        .with_help("install it as https://kubernetes.io/docs/tasks/tools/ says, and try again")
}

fn refused(command: &str, status: ExitStatus, said: &str) -> Error {
    let error = Error::new(
        ErrorKind::Refused,
        format!("kubectl {command} did not succeed ({status}); its own words stand above"),
    );
    match advice(&said.to_lowercase()) {
        Some(advice) => error.with_help(advice),
        None => error,
    }
}

/// What to do about the usual reasons.
fn advice(said: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["forbidden", "attempting to grant rbac permissions"]) {
        Some(
            "use a kubeconfig of a cluster administrator: only who holds the right to impersonate may give it to the agent",
        )
    } else if says(&["conflict"]) {
        Some(
            "somebody else set these fields, for instance with `kubectl apply -k deploy/overlays/…`: \
             go on with that, or remove it with `arc-connect disable-features` first",
        )
    } else if says(&["unauthorized", "must be logged in"]) {
        Some(
            "the credential in the kubeconfig is refused: log in again, and see that `kubectl get namespaces` works",
        )
    } else if said.contains("context") && says(&["cannot locate", "not found", "does not exist"]) {
        Some("`kubectl config get-contexts` lists the names for --context")
    } else if says(&["current-context must exist"]) {
        Some("pass --kubeconfig FILE, or choose a cluster with `kubectl config use-context NAME`")
    } else if says(&["refused", "unable to connect", "no such host", "timeout"]) {
        Some("see that `kubectl get namespaces` works with the same kubeconfig and context")
    } else {
        None
    }
}
