//! The short examples do what they say: each runs as a program of its own, against a relay in this process and an agent in
//! front of a stand-in API server. (`connect` needs Azure; `azure_route.rs` goes its way in this process.)

#![cfg(all(feature = "agent", feature = "relay-server"))]

#[path = "examples/bed.rs"]
mod bed;
mod support;

use std::{path::Path, process::Stdio};

use bed::Bed;
use support::programs::{Ended, PATIENCE, command, run};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

#[track_caller]
fn succeeded(ended: &Ended) {
    assert!(ended.status.success(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embed_lists_pods() {
    let bed = Bed::start(1).await;
    let ended = run("embed", &[&bed.file("edge.txt"), &bed.file("token")]).await;
    succeeded(&ended);
    assert_eq!(ended.stdout, "200 OK\nweb-0\n");
}

#[cfg(feature = "kube")]
#[tokio::test(flavor = "multi_thread")]
async fn kube_client_lists_pods() {
    let bed = Bed::start(1).await;
    let ended = run("kube_client", &[&bed.file("edge.txt"), &bed.file("token")]).await;
    succeeded(&ended);
    assert_eq!(ended.stdout, "web-0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_says_what_is_wrong_with_an_id() {
    let ended = run("connect", &["/subscriptions/mine"]).await;
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("InvalidInput"), "{ended:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn custom_auth_asks_its_program_once() {
    let bed = Bed::start(1).await;
    let (token, calls) = (bed.file("token"), bed.file("calls"));
    let script = format!("echo called >> {calls}; cat {token}");
    let ended = run("custom_auth", &[&bed.file("edge.txt"), "sh", "-c", &script]).await;
    succeeded(&ended);
    assert_eq!(
        ended.stdout,
        "200 OK /version\n200 OK /api/v1/namespaces/default/pods\n"
    );
    assert_eq!(std::fs::read_to_string(calls).unwrap(), "called\n");

    let ended = run("custom_auth", &[&bed.file("edge.txt"), "false"]).await;
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("run `false` by hand"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_tunnel_goes_straight() {
    let bed = Bed::start(0).await;
    let address = bed.stand_in().address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let files = [bed.file("ca.crt"), bed.file("token")];
    let ended = run("custom_tunnel", &[&host, &port, &files[0], &files[1]]).await;
    succeeded(&ended);
    assert!(ended.stdout.contains("gitVersion"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fan_out_gets_past_clusters_that_fail() {
    let bed = Bed::start(2).await;
    let files = [
        bed.file("edge.txt"),
        bed.file("none.txt"),
        bed.file("quay.txt"),
    ];
    let ended = run(
        "fan_out",
        &[&bed.file("token"), &files[0], &files[1], &files[2]],
    )
    .await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 2, "{ended:?}");
    for answered in [&files[0], &files[2]] {
        let line = format!("{answered}: v");
        assert!(ended.stdout.contains(&line), "{ended:?}");
    }
    assert!(ended.stderr.starts_with(&files[1]), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[cfg(feature = "proxy")]
#[tokio::test(flavor = "multi_thread")]
async fn embedded_proxy_takes_clusters_and_gives_them_back() {
    use arc_cluster_connect::kubeconfig::Kubeconfig;

    let bed = Bed::start(1).await;
    let path = bed.file("made");
    let mut program = Talking::start("embedded_proxy", &[&path]);
    assert!(program.line().await.starts_with("serving at 127.0.0.1:"));

    let add = format!("add edge {} {}", bed.file("edge.txt"), bed.file("token"));
    program.say(&add).await;
    assert_eq!(program.line().await, format!("done: {add}"));
    let kubeconfig = Kubeconfig::read(Path::new(&path)).unwrap();
    assert_eq!(kubeconfig.current_context, "edge");

    program.say("add edge").await;
    assert!(program.line().await.starts_with("failed: add edge: say"));
    program.say("remove edge").await;
    assert_eq!(program.line().await, "done: remove edge");
    program.say("remove edge").await;
    assert!(program.line().await.starts_with("failed: remove edge"));
    let told = program.end().await;
    succeeded(&told);
    for change in ["ClusterAdded", "ClusterRemoving", "ClusterRemoved"] {
        assert!(told.stderr.contains(change), "{told:?}");
    }
    // It was not there before.
    assert!(!Path::new(&path).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_policy_refuses_what_its_house_refuses() {
    let bed = Bed::start(0).await;
    let mut program = Talking::start(
        "agent_policy",
        &[&bed.file("edge.txt"), &bed.file("kubeconfig")],
    );
    assert!(program.line().await.starts_with("serving "));
    let tunnel = asking::tunnel(&bed.connection_string("edge"));
    let mut answers = Vec::new();
    for path in ["pods", "secrets/of-somebody", "pods/web-0/exec?command=sh"] {
        let path = format!("/api/v1/namespaces/default/{path}");
        answers.push(asking::get(&tunnel, bed.token(), &path).await);
    }
    assert_eq!(answers[0].0, 200);
    for (answer, why) in [
        (&answers[1], "Secrets do not leave"),
        (&answers[2], "no shells"),
    ] {
        assert_eq!(answer.0, 403);
        assert!(answer.1.contains(why), "{answer:?}");
    }
    // Nothing of what was refused came near the API server.
    let arrived = bed.stand_in().requests();
    assert!(
        arrived
            .iter()
            .all(|one| !one.path_and_query.contains("secrets"))
    );
}

/// An example that is talked with, over standard input and output.
struct Talking {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = command(name, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            stdin: child.stdin.take().expect("stdin is piped"),
            stdout: BufReader::new(child.stdout.take().expect("stdout is piped")).lines(),
            child,
        }
    }

    async fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stdin
            .write_all(line.as_bytes())
            .await
            .expect("it listens");
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.stdout.next_line()).await;
        line.expect("it answers").expect("text").expect("a line")
    }

    /// Closes its standard input and waits for its end.
    async fn end(self) -> Ended {
        drop(self.stdin);
        let output = timeout(PATIENCE, self.child.wait_with_output()).await;
        let output = output.expect("it ends").expect("it can be waited for");
        Ended {
            status: output.status,
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A client of an agent, in this process.
mod asking {
    use std::sync::Arc;

    use arc_cluster_connect::{
        Tunnel,
        net::{Connector, TrustRoots},
        relay::{ConnectionString, RelaySender},
        tunnel::{RelayTunnel, Target, TunnelConnector},
    };
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};

    pub fn tunnel(connection_string: &str) -> Arc<dyn Tunnel> {
        let string = ConnectionString::parse(connection_string).expect("well formed");
        Arc::new(RelayTunnel::new(RelaySender::new(
            Connector::new(TrustRoots::platform()).expect("roots can be read"),
            string.hybrid_connection().expect("it names one"),
            string.credential(),
        )))
    }

    pub async fn get(tunnel: &Arc<dyn Tunnel>, token: &str, path: &str) -> (u16, String) {
        let connector = TunnelConnector::new(Arc::clone(tunnel), Target::api_server());
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let request = http::Request::get(format!("http://kubernetes{path}"))
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let answer = client.request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}
