//! With a list of endpoints of one's own.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::net::{Alpn, TlsAcceptor};
use azure_core::time::to_rfc7231;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    bed::{Desk, Found},
    support::{authority::certificate::Certificate, programs},
};

/// A server that answers everything alike, by a clock that is off.
struct Server {
    url: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(certificate: &Certificate, status: StatusCode, ahead: Duration) -> Self {
        let acceptor = TlsAcceptor::from_pem(
            certificate.chain_pem.as_bytes(),
            certificate.key_pem.as_bytes(),
            Alpn::Http1,
        )
        .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let answer = service_fn(move |_| async move {
                        let date = to_rfc7231(&(SystemTime::now() + ahead).into());
                        let response = Response::builder()
                            .status(status)
                            .header(header::DATE, date)
                            .body(Full::new(Bytes::new()));
                        Ok::<_, Infallible>(response.expect("an answer"))
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            task,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn examine(certificate: &Certificate, endpoints: serde_json::Value, more: &[&str]) -> Found {
    let desk = Desk::new();
    let ca = desk.write("ca", &certificate.ca_pem);
    let list = desk.write("endpoints", &json!({ "endpoints": endpoints }).to_string());
    let mut arguments = vec!["--relay-ca", &ca, "--endpoints", &list];
    arguments.extend(more);
    desk.examine(&arguments).await
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off() {
    let certificate = Certificate::generate();
    let hour = Duration::from_secs(3_600);
    let server = Server::start(&certificate, StatusCode::OK, hour).await;
    let endpoints = json!([{ "purpose": "time", "url": server.url }]);
    let found = examine(&certificate, endpoints, &[]).await;
    found.assert_failed(
        &["network.clock"],
        "this machine's clock is 60 min behind",
        "have it kept by NTP",
    );
    assert_eq!(found.result("network.endpoint"), "ok");
    // Which relay it would be nobody can say without a cluster.
    assert_eq!(found.result("relay.endpoint"), "skipped");
}

#[tokio::test]
async fn upgrades_that_something_on_the_way_strips() {
    let certificate = Certificate::generate();
    let server = Server::start(&certificate, StatusCode::BAD_REQUEST, Duration::ZERO).await;
    let endpoints = json!([{ "purpose": "relay", "url": server.url, "websocket": true }]);
    let found = examine(&certificate, endpoints, &[]).await;
    found.assert_failed(
        &["network.endpoint"],
        "websocket: a WebSocket upgrade was answered 400",
        "have WebSocket upgrades",
    );
}

#[tokio::test]
async fn what_only_the_agent_needs_is_a_warning_unless_one_is_beside_it() {
    let certificate = Certificate::generate();
    let server = Server::start(&certificate, StatusCode::OK, Duration::ZERO).await;
    let endpoints = json!([
        { "purpose": "sign-in", "url": server.url },
        { "purpose": "identity", "url": "https://no-such-host.invalid", "neededBy": "agent" },
    ]);
    let found = examine(&certificate, endpoints.clone(), &[]).await;
    found.assert_healthy();
    assert_eq!(found.with_result("warning"), ["network.endpoint"]);
    let found = examine(&certificate, endpoints, &["--beside-the-cluster"]).await;
    assert_eq!(found.with_result("failed"), ["network.endpoint"]);
}

#[tokio::test]
async fn a_list_that_is_none_is_an_error_of_the_command() {
    let desk = Desk::new();
    let list = desk.write("endpoints", "[]");
    let ended = programs::run_command(desk.command(&["--endpoints", &list])).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    assert!(
        ended.stderr.contains("no usable list of endpoints"),
        "{ended:?}"
    );
}
