//! What a user does with kubectl, as functions: the same list runs straight against the stand-in and through the
//! tunnel. Each takes a kubectl and the name of a running pod in its namespace, and panics when something is wrong.
//!
//! Names of objects are made up anew each time, so scenarios can run side by side.

use std::fs;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use super::kubectl::{self, Kubectl};

/// Enough to go through every buffer many times over, and not to be the slowest thing of a test run.
const PAYLOAD_BYTES: usize = 3 << 20;

/// How many kubectls run at once in [`many_at_once`].
const AT_ONCE: usize = 20;

/// Every scenario, one after the other.
pub async fn all(kubectl: &Kubectl, pod: &str) {
    get_pods(kubectl, pod).await;
    get_unknown_pod(kubectl).await;
    watch_pods(kubectl).await;
    logs(kubectl, pod).await;
    exec_output_and_exit_code(kubectl, pod).await;
    exec_with_input(kubectl, pod).await;
    exec_on_terminal(kubectl, pod).await;
    attach(kubectl, pod).await;
    copy_both_ways(kubectl, pod).await;
    port_forward(kubectl, pod).await;
    apply_and_delete(kubectl).await;
    service_account_token(kubectl).await;
    many_at_once(kubectl, pod).await;
}

/// `get pods`, as a table and as JSON.
pub async fn get_pods(kubectl: &Kubectl, pod: &str) {
    let table = kubectl.run(&["get", "pods"]).await.succeeded().text();
    assert!(table.starts_with("NAME"), "{table}");
    assert!(table.contains(pod) && table.contains("Running"), "{table}");

    let json = kubectl
        .run(&["get", "pod", pod, "-o", "json"])
        .await
        .succeeded();
    let json: serde_json::Value =
        serde_json::from_slice(&json.stdout).expect("kubectl prints JSON");
    assert_eq!(json["metadata"]["name"], pod);
}

/// A pod that is not there: the server's own words, exit code 1.
pub async fn get_unknown_pod(kubectl: &Kubectl) {
    let finished = kubectl.run(&["get", "pod", "no-such-pod"]).await;
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.contains("pods \"no-such-pod\" not found"),
        "{}",
        finished.stderr
    );
}

/// `get pods -w` while a pod is made, starts and is deleted.
pub async fn watch_pods(kubectl: &Kubectl) {
    let name = unique("watched");
    let selector = format!("--field-selector=metadata.name={name}");
    // The pod is there before the watch, so that its line says when the watch has begun.
    kubectl
        .run_with_input(&["apply", "-f", "-"], pod_manifest(&name).as_bytes())
        .await
        .succeeded();
    let mut watch = kubectl.start(&["get", "pods", "-w", "--output-watch-events", &selector]);
    watch.line_with("ADDED").await;
    kubectl
        .run(&["label", "pod", &name, "colour=red"])
        .await
        .succeeded();
    watch.line_with("MODIFIED").await;
    kubectl.run(&["delete", "pod", &name]).await.succeeded();
    let line = watch.line_with("DELETED").await;
    assert!(line.contains(&name), "{line}");
    watch.stop().await;
}

/// `logs`, whole, the tail, and followed to the end.
pub async fn logs(kubectl: &Kubectl, pod: &str) {
    let tail = kubectl
        .run(&["logs", pod, "--tail=3"])
        .await
        .succeeded()
        .text();
    assert_eq!(tail.lines().count(), 3, "{tail}");

    let followed = kubectl
        .run(&["logs", "-f", pod, "--tail=3"])
        .await
        .succeeded()
        .text();
    let lines: Vec<&str> = followed.lines().collect();
    assert!(followed.starts_with(&tail) && lines.len() > 3, "{followed}");
    assert!(lines.iter().all(|line| line.contains(pod)), "{followed}");
}

/// `exec`: standard output and standard error apart, and the command's exit code.
pub async fn exec_output_and_exit_code(kubectl: &Kubectl, pod: &str) {
    let script = "echo to-output; echo to-error >&2; exit 3";
    let finished = kubectl.run(&["exec", pod, "--", "sh", "-c", script]).await;
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    assert_eq!(finished.text(), "to-output\n");
    assert!(
        finished.stderr.starts_with("to-error\n"),
        "{}",
        finished.stderr
    );

    let slow = kubectl
        .run(&["exec", pod, "--", "sh", "-c", "sleep 1; exit 0"])
        .await;
    assert_eq!(slow.code, Some(0), "{}", slow.stderr);
}

/// `exec -i cat`: what goes in comes out, byte for byte, and the end of the input is seen.
pub async fn exec_with_input(kubectl: &Kubectl, pod: &str) {
    let payload = payload();
    let arguments = ["exec", "-i", pod, "--", "cat"];
    let finished = kubectl
        .run_with_input(&arguments, &payload)
        .await
        .succeeded();
    assert_same(&finished.stdout, &payload);
}

/// `exec -it sh`: a shell that answers and ends with the exit code it is told. Needs `script` to have a terminal.
pub async fn exec_on_terminal(kubectl: &Kubectl, pod: &str) {
    let arguments = format!("exec -it {pod} -- sh");
    let keys = "echo $((6 * 7))-answered\rexit 4\r";
    let Some(finished) = kubectl.run_on_terminal(&arguments, keys).await else {
        return kubectl::skip("exec_on_terminal", "script");
    };
    assert!(
        finished.text().contains("42-answered"),
        "{}",
        finished.text()
    );
    assert_eq!(finished.code, Some(4), "{}", finished.text());
}

/// `attach -i`: the main process says back what it is told.
pub async fn attach(kubectl: &Kubectl, pod: &str) {
    let finished = kubectl
        .run_with_input(&["attach", "-i", pod], b"are you there\n")
        .await;
    let finished = finished.succeeded();
    assert!(
        finished.text().ends_with("are you there\n"),
        "{}",
        finished.text()
    );
}

/// `cp` of a file into the pod and back.
pub async fn copy_both_ways(kubectl: &Kubectl, pod: &str) {
    let payload = payload();
    let (there, back) = (
        kubectl.home().join(unique("there")),
        kubectl.home().join(unique("back")),
    );
    fs::write(&there, &payload).expect("the home can be written");
    let remote = format!("{pod}:/tmp/{}", unique("copied"));
    let path = |path: &std::path::Path| path.to_str().expect("our names are UTF-8").to_owned();
    kubectl
        .run(&["cp", &path(&there), &remote])
        .await
        .succeeded();
    kubectl
        .run(&["cp", &remote, &path(&back)])
        .await
        .succeeded();
    assert_same(&fs::read(&back).expect("cp made the file"), &payload);
}

/// `port-forward` of an HTTP port, several connections, and of an echo port with much data and a half-close.
pub async fn port_forward(kubectl: &Kubectl, pod: &str) {
    let target = format!("pod/{pod}");
    let mut forward = kubectl.start(&[
        "port-forward",
        "--address",
        "127.0.0.1",
        &target,
        ":8080",
        ":7",
    ]);
    let http = forwarded_port(&forward.line_with("-> 8080").await);
    let echo = forwarded_port(&forward.line_with("-> 7").await);

    for _ in 0..3 {
        let mut tcp = TcpStream::connect(("127.0.0.1", http))
            .await
            .expect("kubectl listens");
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
            .await
            .expect("the request is taken");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer)
            .await
            .expect("the answer has an end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(&format!("hello from {pod}\n")), "{answer}");
    }

    let payload = payload();
    let tcp = TcpStream::connect(("127.0.0.1", echo))
        .await
        .expect("kubectl listens");
    let (mut read, mut write) = tcp.into_split();
    let sending = async {
        write
            .write_all(&payload)
            .await
            .expect("the bytes are taken");
    };
    let mut echoed = vec![0; payload.len()];
    let receiving = async { read.read_exact(&mut echoed).await.map(drop) };
    let (_, received) = tokio::join!(sending, receiving);
    received.expect("every byte comes back");
    assert_same(&echoed, &payload);
    forward.stop().await;
}

/// `apply`, `apply` again with a change, server-side `apply`, and `delete`.
pub async fn apply_and_delete(kubectl: &Kubectl) {
    let name = unique("applied");
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: {value}}}\n---\n{}",
            pod_manifest(&name)
        )
    };
    let apply = async |arguments: &[&str], value: &str| {
        let finished = kubectl
            .run_with_input(arguments, manifest(value).as_bytes())
            .await;
        finished.succeeded().text()
    };
    let value = async || {
        let arguments = ["get", "configmap", &name, "-o", "jsonpath={.data.value}"];
        kubectl.run(&arguments).await.succeeded().text()
    };

    let created = apply(&["apply", "-f", "-"], "one").await;
    assert!(
        created.contains(&format!("configmap/{name} created")),
        "{created}"
    );
    assert!(
        created.contains(&format!("pod/{name} created")),
        "{created}"
    );
    let changed = apply(&["apply", "-f", "-"], "two").await;
    assert!(
        changed.contains(&format!("configmap/{name} configured")),
        "{changed}"
    );
    assert!(
        changed.contains(&format!("pod/{name} unchanged")),
        "{changed}"
    );
    assert_eq!(value().await, "two");
    apply(&["apply", "--validate=false", "-f", "-"], "three").await;
    assert_eq!(value().await, "three");
    apply(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        "four",
    )
    .await;
    assert_eq!(value().await, "four");

    let deleted = apply(&["delete", "-f", "-"], "four").await;
    assert!(
        deleted.contains(&format!("pod \"{name}\" deleted")),
        "{deleted}"
    );
    let gone = kubectl.run(&["get", "configmap", &name]).await;
    assert_eq!(gone.code, Some(1), "{}", gone.text());
}

/// `create serviceaccount`, `create clusterrolebinding` and `create token`: the way to a credential of one's own.
pub async fn service_account_token(kubectl: &Kubectl) {
    let help = kubectl.run(&["create", "--help"]).await.succeeded().text();
    if !help
        .lines()
        .any(|line| line.trim_start().starts_with("token "))
    {
        return kubectl::skip(
            "service_account_token",
            "a kubectl with `create token` (1.24)",
        );
    }
    let name = unique("account");
    kubectl
        .run(&["create", "serviceaccount", &name])
        .await
        .succeeded();
    let subject = format!("--serviceaccount=default:{name}");
    kubectl
        .run(&[
            "create",
            "clusterrolebinding",
            &name,
            "--clusterrole=cluster-admin",
            &subject,
        ])
        .await
        .succeeded();
    let token = kubectl
        .run(&["create", "token", &name])
        .await
        .succeeded()
        .text();
    assert_eq!(
        token.trim().split('.').count(),
        3,
        "not the shape of a token"
    );
    for object in [
        format!("serviceaccount/{name}"),
        format!("clusterrolebinding/{name}"),
    ] {
        kubectl.run(&["delete", &object]).await.succeeded();
    }
}

/// Twenty kubectls at once, each with its own answer.
pub async fn many_at_once(kubectl: &Kubectl, pod: &str) {
    let runs = (0..AT_ONCE).map(async |number| {
        let word = format!("answer-{number}");
        let finished = kubectl
            .run(&["exec", pod, "--", "echo", &word])
            .await
            .succeeded();
        assert_eq!(finished.text(), format!("{word}\n"));
    });
    join_all(runs).await;
}

fn pod_manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, image: none}}]}}\n"
    )
}

fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", &Uuid::new_v4().simple().to_string()[..12])
}

/// `Forwarding from 127.0.0.1:40000 -> 8080`.
fn forwarded_port(line: &str) -> u16 {
    let port = line
        .split(" -> ")
        .next()
        .and_then(|from| from.rsplit(':').next());
    port.and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {line:?}"))
}

/// Bytes without a pattern that a lost, doubled or moved piece could hide in.
fn payload() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(PAYLOAD_BYTES);
    while bytes.len() < PAYLOAD_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Compares without printing megabytes.
#[track_caller]
fn assert_same(actual: &[u8], expected: &[u8]) {
    assert_eq!(actual.len(), expected.len(), "the lengths differ");
    let difference = actual.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(difference, None, "the first difference is at that byte");
}
