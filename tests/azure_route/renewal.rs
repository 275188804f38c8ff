//! Credentials end; what runs does not.

use std::time::{Duration, SystemTime};

use arc_cluster_connect::{ClusterConnect, Tunnel, tunnel::TunnelState};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    bed::{Bed, PODS, send},
    support::{
        api_server::ECHO_PATH,
        arm::{Fault, Question},
    },
};

/// Long enough for a loaded machine, short enough for three of them.
const SHORT: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(1));

/// A hang is a failure and not a wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn three_credentials_end_under_streams_that_go_on() {
    let bed = Bed::start(SHORT).await;
    let cluster = bed.builder().connect().await.unwrap();
    let watch = format!("{PODS}?watch=true");
    let mut watch = send(&cluster, Request::get(&watch), Bytes::new()).await;
    assert_eq!(watch.status(), StatusCode::OK);
    let mut keystrokes = upgraded(&cluster).await;
    let mut forwarded = upgraded(&cluster).await;

    for round in 0..3 {
        let ends_at = cluster.status().credential.unwrap().expires_at;
        until(|| SystemTime::now() > ends_at).await;
        echo(&mut keystrokes, b"ls\n").await;
        echo(&mut forwarded, &[round; 100_000]).await;
        let name = format!("new-{round}");
        create_pod(&bed, &cluster, &name).await;
        until_event(&mut watch, &name).await;
        assert!(matches!(cluster.status().state, TunnelState::Connected));
    }
    assert!(cluster.status().credential.unwrap().issued >= 4);
    // Three long streams, and nothing of the short ones.
    until(|| cluster.status().live_streams == 3).await;
}

#[tokio::test]
async fn a_resource_manager_that_is_away_for_a_time_costs_nothing() {
    let bed = Bed::start((Duration::from_secs(5), Duration::from_secs(600))).await;
    let cluster = bed.builder().connect().await.unwrap();
    let mut stream = upgraded(&cluster).await;
    // A wait that no call waits for: each fails at once, and the next is the refresher's.
    let down = Fault::Refusal {
        status: 503,
        code: "ServerBusy",
        headers: vec![("retry-after", "300".to_owned())],
    };
    bed.arm.fail(Question::Credential, usize::MAX, down);
    let failure = || cluster.status().credential.unwrap().failure;
    until(|| failure().is_some()).await;
    let failure_text = failure().unwrap().report();
    assert!(failure_text.contains("ServerBusy"), "{failure_text}");
    echo(&mut stream, b"still").await;
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);

    bed.arm.recover();
    until(|| failure().is_none()).await;
    echo(&mut stream, b"still").await;
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_the_relay_refuses_is_replaced_in_the_same_dial() {
    let bed = Bed::start((Duration::from_secs(3_600), Duration::ZERO)).await;
    bed.arm.withdraw_key_for_next(1);
    let cluster = bed.builder().connect().await.unwrap();
    assert_eq!(bed.get(&cluster, PODS).await.status, StatusCode::OK);
    assert_eq!(bed.arm.issued(), 2);
}

async fn upgraded(cluster: &ClusterConnect) -> TokioIo<Upgraded> {
    let request = Request::get(ECHO_PATH)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1");
    let response = send(cluster, request, Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"))
}

async fn echo(stream: &mut TokioIo<Upgraded>, bytes: &[u8]) {
    let mut answer = vec![0; bytes.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let exchange = async {
        let write = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        let (written, read) = tokio::join!(write, reader.read_exact(&mut answer));
        written.and(read.map(drop))
    };
    timeout(PATIENCE, exchange)
        .await
        .expect("the stream moves")
        .expect("the stream is whole");
    assert!(answer == bytes);
}

async fn create_pod(bed: &Bed, cluster: &ClusterConnect, name: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    });
    let request = Request::post(PODS).header(header::CONTENT_TYPE, "application/json");
    let answer = bed
        .whole(cluster, request, Bytes::from(pod.to_string()))
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
}

async fn until_event(watch: &mut Response<Incoming>, name: &str) {
    let mut seen = String::new();
    let wait = async {
        while !seen.contains(name) {
            let frame = watch.body_mut().frame().await.expect("the watch goes on");
            if let Ok(data) = frame.expect("the watch is whole").into_data() {
                seen.push_str(&String::from_utf8_lossy(&data));
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("the event comes");
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it comes to that");
}
