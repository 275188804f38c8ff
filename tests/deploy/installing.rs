//! `arc-connect enable-features` and `disable-features`, as a user runs them, with a real kubectl.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};

use super::{
    manifests::{self, Impersonation, Settings},
    support::{
        api_server::{Access, StandIn, User, random_token},
        kubectl::{self, Kubectl},
        programs::{self, Ended},
    },
};

const IMAGE: &str = "registry.example/arc-agent:0.1.0";

/// What must never be seen outside of the Secret.
const KEY: &str = "bm90LWEtcmVhbC1rZXktYnV0LXNlY3JldC1hbnlob3c=";

/// The kinds that are looked at for what an installation changes.
const KINDS: &str = "namespaces,serviceaccounts,secrets,configmaps,deployments,networkpolicies,\
                     poddisruptionbudgets,clusterroles,clusterrolebindings,roles,rolebindings";

/// How often the stand-in is asked. Nothing is decided by it.
const POLL: Duration = Duration::from_millis(20);

const REPLICAS: u64 = 2;

/// A cluster without an agent, and the files of its administrator.
struct Cluster {
    stand_in: StandIn,
    directory: TempDir,
    kubectl: Kubectl,
}

impl Cluster {
    /// `None` without kubectl.
    async fn start(test: &str) -> Option<Self> {
        Self::start_with(test, Access::Everything).await
    }

    async fn start_with(test: &str, access: Access) -> Option<Self> {
        if !kubectl::is_installed(test) {
            return None;
        }
        let token = random_token();
        let stand_in = StandIn::builder()
            .token(&token, User::new("admin"))
            .access("admin", access)
            .start()
            .await
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("the kubeconfig");
        fs::write(&kubeconfig, stand_in.kubeconfig(Some(&token))).unwrap();
        let cluster = Self {
            stand_in,
            kubectl: Kubectl::new(kubeconfig),
            directory,
        };
        cluster.write_connection_string(KEY);
        // `KUBECTL` chooses the kubectl of these tests; the program takes that of the PATH.
        cluster.wrap_kubectl("");
        Some(cluster)
    }

    fn write_connection_string(&self, key: &str) {
        let text = format!(
            "Endpoint=sb://relay.example.net/;SharedAccessKeyName=listen;SharedAccessKey={key};EntityPath=till-7\n"
        );
        fs::write(self.path("listen"), text).unwrap();
    }

    /// Puts a kubectl into the PATH that writes its arguments down, does what the shell text says, and is the real one.
    fn wrap_kubectl(&self, first: &str) {
        let real = std::env::var("KUBECTL").unwrap_or_else(|_| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .map(|directory| directory.join("kubectl"))
                .find(|file| file.is_file())
                .expect("kubectl is installed")
                .to_string_lossy()
                .into_owned()
        });
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        let log = self.path("arguments");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{}'\n{first}\nexec '{real}' \"$@\"\n",
            log.display()
        );
        let file = bin.join("kubectl");
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = programs::command("arc-connect", arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.directory.path())
            .env("KUBECONFIG", self.path("the kubeconfig"));
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(variable);
        }
        command
    }

    fn enable_command(&self, more: &[&str]) -> Command {
        let listen = self.path("listen");
        let mut arguments = vec![
            "enable-features",
            "--features",
            "cluster-connect",
            "--connection-string-file",
            listen.to_str().unwrap(),
            "--image",
            IMAGE,
        ];
        arguments.extend(more);
        self.command(&arguments)
    }

    async fn enable(&self, more: &[&str]) -> Ended {
        programs::run_command(self.enable_command(more)).await
    }

    async fn disable(&self) -> Ended {
        let arguments = ["disable-features", "--features", "cluster-connect"];
        programs::run_command(self.command(&arguments)).await
    }

    /// Enables the feature while somebody plays the Deployment's controller.
    async fn enable_and_start(&self, more: &[&str]) -> Ended {
        let enabling = self.enable(more);
        let controller = async {
            self.deployment_is_asked_for(0).await;
            self.set_available(REPLICAS).await;
        };
        tokio::join!(enabling, controller).0
    }

    /// Waits until the program has looked at the Deployment once more than `before`; returns how often it has.
    async fn deployment_is_asked_for(&self, before: usize) -> usize {
        let path = "/apis/apps/v1/namespaces/arc-cluster-connect/deployments/arc-agent";
        loop {
            let asked = self
                .stand_in
                .requests()
                .iter()
                .filter(|request| {
                    request.method == "GET" && request.path_and_query.starts_with(path)
                })
                .count();
            if asked > before {
                return asked;
            }
            sleep(POLL).await;
        }
    }

    async fn set_available(&self, available: u64) {
        let status = json!({ "status": {
            "replicas": REPLICAS,
            "updatedReplicas": REPLICAS,
            "availableReplicas": available,
        } });
        let arguments = [
            "patch",
            "deployment",
            "arc-agent",
            "--namespace=arc-cluster-connect",
            "--type=merge",
            "--patch",
            &status.to_string(),
        ];
        self.kubectl.run(&arguments).await.succeeded();
    }

    /// Every object of the kinds that matter.
    async fn objects(&self) -> Vec<Value> {
        let arguments = ["get", KINDS, "--all-namespaces", "--output=json"];
        let list = self.kubectl.run(&arguments).await.succeeded();
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    async fn names(&self) -> Vec<String> {
        let name = |object: &Value| {
            format!(
                "{} {} {}",
                object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]
            )
        };
        let mut names: Vec<String> = self.objects().await.iter().map(name).collect();
        names.sort();
        names
    }

    async fn object(&self, kind: &str) -> Value {
        let objects = self.objects().await;
        let is_ours = |object: &&Value| {
            object["kind"] == kind
                && object["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("arc-"))
        };
        objects
            .iter()
            .find(is_ours)
            .cloned()
            .unwrap_or_else(|| panic!("no {kind}: {objects:?}"))
    }
}

fn code(ended: &Ended) -> i32 {
    ended
        .status
        .code()
        .unwrap_or_else(|| panic!("killed: {ended:?}"))
}

/// Whether `actual` has everything that `wanted` has.
fn contains(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            let actual = actual.get(name);
            actual.is_some_and(|actual| contains(actual, wanted))
        }),
        (actual, wanted) => actual == wanted,
    }
}

#[tokio::test]
async fn what_is_enabled_is_in_the_cluster_and_disable_leaves_no_trace() {
    let test = "what_is_enabled_is_in_the_cluster_and_disable_leaves_no_trace";
    let Some(cluster) = Cluster::start(test).await else {
        return;
    };
    let before = cluster.names().await;

    let enabling = cluster.enable(&["--", "--entra-tenant", "contoso.example"]);
    let controller = async {
        let mut asked = cluster.deployment_is_asked_for(0).await;
        cluster.set_available(1).await;
        // One was asked by who set it; one is then certainly about it; the next says that that one was answered.
        for _ in 0..3 {
            asked = cluster.deployment_is_asked_for(asked).await;
        }
        cluster.set_available(REPLICAS).await;
    };
    let (enabled, ()) = tokio::join!(enabling, controller);
    assert_eq!(code(&enabled), 0, "{}", enabled.stderr);
    assert!(enabled.stdout.contains("relay.example.net"));
    assert!(
        enabled.stdout.contains(
            "Undo: arc-connect disable-features --features cluster-connect --context stand-in"
        ),
        "{}",
        enabled.stdout
    );
    for line in [
        "(context stand-in)",
        "Kubernetes 1.32: classic impersonation",
        "deployment.apps/arc-agent",
        "0 of 2 agents are available",
        "1 of 2 agents are available",
        "2 of 2 agents are available",
    ] {
        assert!(enabled.stderr.contains(line), "{line}: {}", enabled.stderr);
    }

    let secret_version = cluster.object("Secret").await["metadata"]["resourceVersion"].clone();
    let arguments = ["--entra-tenant".to_owned(), "contoso.example".to_owned()];
    let settings = Settings {
        image: IMAGE,
        agent_arguments: &arguments,
        relay_port: 443,
        secret_version: secret_version.as_str(),
    };
    for wanted in manifests::customized(Impersonation::Classic, &settings) {
        let kind = wanted["kind"].as_str().unwrap();
        let stored = cluster.object(kind).await;
        assert!(contains(&stored, &wanted), "{kind}: {stored}");
    }
    let after = cluster.names().await;
    let added = after.iter().filter(|name| !before.contains(name)).count();
    // Besides those: the namespace, and the Secret.
    assert_eq!(added, 2 + manifests::removal().len() - 1);

    let disabled = cluster.disable().await;
    assert_eq!(code(&disabled), 0, "{}", disabled.stderr);
    assert_eq!(cluster.names().await, before, "{}", disabled.stderr);

    // There is nothing left to do, which is not a failure.
    let again = cluster.disable().await;
    assert_eq!(code(&again), 0, "{}", again.stderr);
    assert_eq!(cluster.names().await, before);
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_a_new_key_starts_new_pods() {
    let test = "a_second_run_changes_nothing_and_a_new_key_starts_new_pods";
    let Some(cluster) = Cluster::start(test).await else {
        return;
    };
    let first = cluster.enable_and_start(&[]).await;
    assert_eq!(code(&first), 0, "{}", first.stderr);
    let before = cluster.objects().await;

    let second = cluster.enable(&[]).await;
    assert_eq!(code(&second), 0, "{}", second.stderr);
    assert_eq!(cluster.objects().await, before);

    cluster.write_connection_string("YW5vdGhlciBrZXksIGFsc28gbm90IGEgcmVhbCBvbmU=");
    let third = cluster.enable(&[]).await;
    assert_eq!(code(&third), 0, "{}", third.stderr);
    let annotations =
        |deployment: &Value| deployment["spec"]["template"]["metadata"]["annotations"].clone();
    let old = before
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .unwrap();
    let new = cluster.object("Deployment").await;
    assert_ne!(annotations(old), annotations(&new));
}

#[tokio::test]
async fn the_key_is_in_the_secret_and_nowhere_else() {
    let Some(cluster) = Cluster::start("the_key_is_in_the_secret_and_nowhere_else").await else {
        return;
    };
    let enabled = cluster.enable_and_start(&["-vvv"]).await;
    assert_eq!(code(&enabled), 0, "{}", enabled.stderr);

    let secret = cluster.object("Secret").await;
    let stored = secret["data"]["connection-string"].as_str().unwrap();
    let stored = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, stored).unwrap();
    let written = fs::read_to_string(cluster.path("listen")).unwrap();
    assert_eq!(String::from_utf8(stored).unwrap(), written.trim());

    let arguments = fs::read_to_string(cluster.path("arguments")).unwrap();
    assert!(arguments.contains("apply --server-side"), "{arguments}");
    for text in [&enabled.stdout, &enabled.stderr, &arguments] {
        assert!(!text.contains(KEY), "{text}");
        assert!(!text.contains(secret["data"]["connection-string"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn what_others_put_into_the_namespace_survives() {
    let Some(cluster) = Cluster::start("what_others_put_into_the_namespace_survives").await else {
        return;
    };
    let enabled = cluster.enable_and_start(&[]).await;
    assert_eq!(code(&enabled), 0, "{}", enabled.stderr);
    let namespace = "--namespace=arc-cluster-connect";
    let create = [
        "create",
        "configmap",
        "mine",
        "--from-literal=a=1",
        namespace,
    ];
    cluster.kubectl.run(&create).await.succeeded();

    let disabled = cluster.disable().await;
    assert_eq!(code(&disabled), 0, "{}", disabled.stderr);
    assert!(
        disabled.stderr.contains("configmap/mine"),
        "{}",
        disabled.stderr
    );
    let left: Vec<String> = cluster
        .names()
        .await
        .into_iter()
        .filter(|name| name.contains("arc-"))
        .collect();
    assert_eq!(
        left,
        [
            "\"ConfigMap\" \"arc-cluster-connect\" \"mine\"",
            "\"Namespace\" null \"arc-cluster-connect\"",
        ]
    );
}

#[tokio::test]
async fn constrained_impersonation_is_chosen_by_the_version_of_the_cluster() {
    let test = "constrained_impersonation_is_chosen_by_the_version_of_the_cluster";
    let Some(cluster) = Cluster::start(test).await else {
        return;
    };
    // 1.32 does not know it: asked for it, the program says so and touches nothing.
    let refused = cluster.enable(&["--constrained-impersonation=on"]).await;
    assert_eq!(code(&refused), 1);
    assert!(refused.stderr.contains("Kubernetes 1.32 does not know"));
    let changes = |cluster: &Cluster| {
        let requests = cluster.stand_in.requests();
        requests.iter().any(|request| request.method != "GET")
    };
    assert!(!changes(&cluster));

    let is_version = |minor: &str| {
        format!(
            "case \" $* \" in *\" version \"*) echo '{{\"serverVersion\":{{\"major\":\"1\",\"minor\":\"{minor}\"}}}}'; exit;; esac"
        )
    };
    let dry_run = async |arguments: &[&str]| {
        let mut all = vec!["--dry-run"];
        all.extend(arguments);
        let ended = cluster.enable(&all).await;
        assert_eq!(code(&ended), 0, "{}", ended.stderr);
        let constrained = ended.stdout.contains("impersonate-on:user-info:get");
        (constrained, ended.stderr)
    };
    cluster.wrap_kubectl(&is_version("36+"));
    assert!(dry_run(&[]).await.0);
    assert!(dry_run(&["--constrained-impersonation=on"]).await.0);
    assert!(!dry_run(&["--constrained-impersonation=off"]).await.0);
    // Callers of Entra ID have an extra key that the API server refuses in that form.
    let entra = ["--", "--entra-tenant=contoso.example"];
    let (constrained, said) = dry_run(&entra).await;
    assert!(!constrained && said.contains("Entra"), "{said}");
    let asked = [&["--constrained-impersonation=on"], &entra[..]].concat();
    let refused = cluster.enable(&asked).await;
    assert_eq!(code(&refused), 1);
    assert!(refused.stderr.contains("`oid`"), "{}", refused.stderr);
    // Unless it is sent under a name that passes.
    for renamed in [
        &["--entra-object-id=arc.azure.com/oid"][..],
        &["--entra-object-id", "none"],
    ] {
        assert!(dry_run(&[&entra[..], renamed].concat()).await.0);
    }
    let (constrained, _) = dry_run(&[&entra[..], &["--entra-object-id=oid"]].concat()).await;
    assert!(!constrained);
    cluster.wrap_kubectl(&is_version("35"));
    assert!(!dry_run(&[]).await.0);
    let (constrained, said) = dry_run(&["--constrained-impersonation=on"]).await;
    assert!(constrained && said.contains("feature gate"), "{said}");
    assert!(!changes(&cluster));

    // Installed in one form, then in the other: one role, and nothing of the first form in it.
    let classic = cluster.enable_and_start(&[]).await;
    assert_eq!(code(&classic), 0, "{}", classic.stderr);
    cluster.wrap_kubectl(&is_version("36"));
    let constrained = cluster.enable(&[]).await;
    assert_eq!(code(&constrained), 0, "{}", constrained.stderr);
    let roles = cluster.objects().await;
    let roles: Vec<&Value> = roles
        .iter()
        .filter(|object| object["kind"] == "ClusterRole")
        .collect();
    assert_eq!(roles.len(), 1);
    let verbs = roles[0]["rules"].to_string();
    assert!(verbs.contains("impersonate:user-info") && !verbs.contains("\"impersonate\""));
}

#[tokio::test]
async fn a_dry_run_prints_the_objects_and_asks_nobody() {
    let Some(cluster) = Cluster::start("a_dry_run_prints_the_objects_and_asks_nobody").await else {
        return;
    };
    let printed = cluster
        .enable(&["--dry-run", "--constrained-impersonation=off"])
        .await;
    assert_eq!(code(&printed), 0, "{}", printed.stderr);
    assert!(cluster.stand_in.requests().is_empty());
    assert!(!cluster.path("arguments").exists(), "kubectl was not run");

    let settings = Settings {
        image: IMAGE,
        agent_arguments: &[],
        relay_port: 443,
        secret_version: None,
    };
    let mut wanted = vec![manifests::namespace()];
    wanted.extend(manifests::customized(Impersonation::Classic, &settings));
    let objects = printed.stdout.split("\n---\n").skip(1);
    let objects: Vec<Value> = objects
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    assert_eq!(objects, wanted);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(cluster) = Cluster::start("a_reader_that_has_seen_enough_is_no_failure").await else {
        return;
    };
    let mut command = cluster.enable_command(&["--dry-run", "--constrained-impersonation=off"]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}

#[tokio::test]
async fn agents_that_do_not_start_are_a_failure_that_says_why() {
    let test = "agents_that_do_not_start_are_a_failure_that_says_why";
    let Some(cluster) = Cluster::start(test).await else {
        return;
    };
    let late = cluster.enable(&["--timeout=1s"]).await;
    assert_eq!(code(&late), 1);
    assert!(
        late.stderr
            .contains("after 1 s 0 of 2 agents are available"),
        "{}",
        late.stderr
    );
    // It names the way back although it failed.
    assert!(late.stderr.contains("Undo: arc-connect disable-features"));

    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "arc-agent-x",
            "namespace": "arc-cluster-connect",
            "labels": { "app.kubernetes.io/name": "arc-agent" },
        },
        "spec": { "containers": [{ "name": "arc-agent", "image": IMAGE }] },
    });
    let kubectl = &cluster.kubectl;
    kubectl
        .run_with_input(&["create", "--filename=-"], pod.to_string().as_bytes())
        .await
        .succeeded();
    let namespace = "--namespace=arc-cluster-connect";
    // Until then the stand-in's kubelet might still change the status.
    let running = [
        "wait",
        "--for=condition=Ready",
        "pod/arc-agent-x",
        namespace,
    ];
    kubectl.run(&running).await.succeeded();
    let status = json!({ "status": { "containerStatuses": [{
        "name": "arc-agent",
        "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } },
    }] } });
    let patch = format!("--patch={status}");
    let patch = [
        "patch",
        "pod",
        "arc-agent-x",
        "--type=merge",
        &patch,
        namespace,
    ];
    kubectl.run(&patch).await.succeeded();

    let late = cluster.enable(&["--timeout=1s"]).await;
    assert_eq!(code(&late), 1);
    assert!(
        late.stderr
            .contains("arc-agent-x: ImagePullBackOff: no such image"),
        "{}",
        late.stderr
    );
}

#[tokio::test]
async fn a_request_to_stop_is_obeyed_and_says_what_stays() {
    let Some(cluster) = Cluster::start("a_request_to_stop_is_obeyed_and_says_what_stays").await
    else {
        return;
    };
    let mut command = cluster.enable_command(&["--timeout=1h"]);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    cluster.deployment_is_asked_for(0).await;
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("what was applied so far stays. Undo: arc-connect disable-features"));
}

#[tokio::test]
async fn who_may_not_is_told_whom_to_ask() {
    let Some(cluster) =
        Cluster::start_with("who_may_not_is_told_whom_to_ask", Access::ReadOnly).await
    else {
        return;
    };
    let refused = cluster.enable(&[]).await;
    assert_eq!(code(&refused), 1);
    // kubectl's own words, then ours.
    assert!(refused.stderr.contains("cannot"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("cluster administrator"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_asked() {
    let Some(cluster) = Cluster::start("mistakes_are_told_before_anything_is_asked").await else {
        return;
    };
    let listen = cluster.path("listen");
    let listen = listen.to_str().unwrap();
    let with = async |features: &str, more: &[&str]| {
        let mut arguments = vec!["enable-features", "--features", features];
        arguments.extend(["--connection-string-file", listen, "--image", IMAGE]);
        arguments.extend(more);
        programs::run_command(cluster.command(&arguments)).await
    };

    let unknown = with("azure-rbac", &[]).await;
    assert_eq!(code(&unknown), 2);
    for word in ["azure-rbac", "possible values: cluster-connect"] {
        assert!(unknown.stderr.contains(word), "{}", unknown.stderr);
    }
    for wrong in ["--timeout=soon", "--timeout=0s", "--image=", "--image=a b"] {
        let ended = with("cluster-connect", &[wrong]).await;
        assert_eq!(code(&ended), 2, "{wrong}: {}", ended.stderr);
    }

    fs::write(listen, "Endpoint=sb://relay.example.net/").unwrap();
    let malformed = with("cluster-connect", &[]).await;
    assert_eq!(code(&malformed), 1);
    assert!(malformed.stderr.contains(listen), "{}", malformed.stderr);
    fs::remove_file(listen).unwrap();
    let missing = with("cluster-connect", &[]).await;
    assert_eq!(code(&missing), 1);
    assert!(missing.stderr.contains(listen), "{}", missing.stderr);
    assert!(cluster.stand_in.requests().is_empty());
}

#[tokio::test]
async fn a_wrong_context_and_a_missing_kubectl_are_told_as_such() {
    let test = "a_wrong_context_and_a_missing_kubectl_are_told_as_such";
    let Some(cluster) = Cluster::start(test).await else {
        return;
    };
    let wrong = cluster.enable(&["--context", "elsewhere"]).await;
    assert_eq!(code(&wrong), 1);
    assert!(wrong.stderr.contains("elsewhere"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("get-contexts"), "{}", wrong.stderr);

    let absent = cluster.enable(&["--kubeconfig", "/nowhere"]).await;
    assert_eq!(code(&absent), 1);
    assert!(
        absent
            .stderr
            .contains("can not read the kubeconfig /nowhere"),
        "{}",
        absent.stderr
    );

    let mut command = cluster.enable_command(&[]);
    command.env("KUBECONFIG", Path::new("/nowhere"));
    let none = programs::run_command(command).await;
    assert_eq!(code(&none), 1);
    assert!(none.stderr.contains("pass --kubeconfig"), "{}", none.stderr);

    let mut command = cluster.enable_command(&[]);
    command.env("PATH", Path::new("/nowhere"));
    let missing = programs::run_command(command).await;
    assert_eq!(code(&missing), 1);
    assert!(
        missing.stderr.contains("none in PATH"),
        "{}",
        missing.stderr
    );
    assert!(
        missing.stderr.contains("https://kubernetes.io"),
        "{}",
        missing.stderr
    );
}
