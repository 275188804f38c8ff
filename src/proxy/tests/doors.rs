//! The other ways in: local services, and the Unix socket.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Response, StatusCode};

use super::{
    fakes::{FakeAuth, FakeTunnel},
    support::{BOTH_VERSIONS, Bed, body, empty, ok, status_of, text},
};
use crate::proxy::{LocalRequest, LocalService};

/// Says what it was asked.
struct Echo;

#[async_trait]
impl LocalService for Echo {
    fn takes(&self, method: &Method, path: &str) -> bool {
        // It may want more than it is ever asked for.
        method != Method::DELETE && (path.starts_with("/local/") || path.starts_with("/proxies/"))
    }

    fn max_body_bytes(&self) -> usize {
        16
    }

    async fn answer(&self, request: LocalRequest) -> Response<Bytes> {
        let shows_secret = request.shows_secret();
        let peer = request.peer().expect("it came over the port");
        assert!(peer.ip().is_loopback());
        assert!(request.local_addr().is_some());
        let request = request.into_request();
        assert!(!request.headers().contains_key("authorization"));
        if request.uri().path() == "/local/hangs" {
            std::future::pending::<()>().await;
        }
        let mut response = Response::new(Bytes::from(format!(
            "{} {} {shows_secret} {}",
            request.method(),
            request.uri(),
            String::from_utf8_lossy(request.body()),
        )));
        // What no service can mean.
        response
            .headers_mut()
            .insert("content-length", "999".parse().expect("a value"));
        response
            .headers_mut()
            .insert("connection", "upgrade".parse().expect("a value"));
        if request.uri().path() == "/local/switch" {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        response
    }
}

async fn with_echo() -> Bed {
    Bed::with(
        FakeTunnel::serving(|_| async { ok("pods") }),
        FakeAuth::fixed(),
        |proxy| proxy.local_service(Arc::new(Echo)),
    )
    .await
}

#[tokio::test]
async fn a_local_service_answers_its_paths_with_and_without_the_secret() {
    let bed = with_echo().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        for (secret, shown) in [
            (None, false),
            (Some("wrong"), false),
            (Some(bed.endpoint().secret()), true),
        ] {
            let mut request = bed.request_to("POST", "/local/x?y", secret);
            *request.body_mut() = body("hello");
            let answer = client.send(request).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            let answer = text(answer.into_body()).await;
            assert!(
                answer.starts_with("POST ")
                    && answer.ends_with(&format!("/local/x?y {shown} hello")),
                "{answer}"
            );
        }
        // Not its own: as if there was none.
        for (method, path) in [
            ("DELETE", "/local/x"),
            ("GET", "/other"),
            ("GET", "/-/status"),
        ] {
            let answer = client.send(bed.request_to(method, path, None)).await;
            let (code, _, _) = status_of(answer.expect("an answer")).await;
            assert_eq!(code, StatusCode::UNAUTHORIZED, "{method} {path}");
        }
        let request = bed.request("GET", "/api").body(empty()).expect("a request");
        let answer = client.send(request).await.expect("an answer");
        assert_eq!(text(answer.into_body()).await, "pods");
    }
}

#[tokio::test]
async fn a_local_service_is_behind_the_checks_for_browsers_and_limits() {
    let bed = with_echo().await;
    for version in BOTH_VERSIONS {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("sec-fetch-mode", "cors"),
            ("host", "evil.example"),
        ] {
            let mut request = bed.request_to("GET", "/local/x", None);
            request
                .headers_mut()
                .insert(name, value.parse().expect("a value"));
            let mut client = bed.client(version).await;
            let answer = client.send(request).await.expect("an answer");
            let (code, _, _) = status_of(answer).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{version:?} {name}");
        }
        let mut client = bed.client(version).await;
        let mut request = bed.request_to("POST", "/local/x", None);
        *request.body_mut() = body("x".repeat(17));
        let (code, reason, _) = status_of(client.send(request).await.expect("an answer")).await;
        assert_eq!(
            (code, reason.as_str()),
            (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
        );
        let mut client = bed.client(version).await;
        let request = bed.request_to("GET", "/local/switch", None);
        let (code, _, _) = status_of(client.send(request).await.expect("an answer")).await;
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_service_that_hangs_is_a_timeout() {
    let bed = with_echo().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let start = tokio::time::Instant::now();
        let request = bed.request_to("GET", "/local/hangs", None);
        let (code, _, _) = status_of(client.send(request).await.expect("an answer")).await;
        assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
        assert!(start.elapsed() >= Duration::from_secs(20));
    }
}

#[cfg(unix)]
mod unix_socket {
    use std::path::Path;

    use http::{Request, header};
    use hyper::{body::Incoming, client::conn::http1};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;
    use crate::proxy::tests::support::{TestBody, read_until};

    async fn send(path: &Path, request: Request<TestBody>) -> Response<Incoming> {
        let stream = UnixStream::connect(path).await.expect("connected");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1 starts");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    fn get(path: &str, host: &str) -> Request<TestBody> {
        Request::get(path)
            .header(header::HOST, host)
            .body(empty())
            .expect("a request")
    }

    #[tokio::test]
    async fn the_socket_serves_the_same_without_tls_and_secret() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("own").join("proxy.sock");
        let bed = Bed::with(
            FakeTunnel::serving(|request| async move {
                assert!(request.headers()["authorization"] != "Bearer mine");
                ok(request.uri().to_string())
            }),
            FakeAuth::fixed(),
            |proxy| proxy.unix_socket(&path),
        )
        .await;
        assert_eq!(bed.proxy.status().unix_socket.as_ref(), Some(&path));
        let base = format!("/proxies/{}", bed.id);
        let mut request = get(&format!("{base}/version"), "localhost");
        request
            .headers_mut()
            .insert("authorization", "Bearer mine".parse().expect("a value"));
        let answer = send(&path, request).await;
        assert_eq!(text(answer.into_body()).await, "/version");
        let answer = send(&path, get("/-/status", "localhost")).await;
        assert!(text(answer.into_body()).await.contains(&bed.id.to_string()));
        // Somebody may have put a forwarder in front of it.
        let answer = send(&path, get("/-/status", "evil.example")).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);

        bed.proxy.shutdown().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_shell_works_over_the_socket() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("own").join("proxy.sock");
        let bed = Bed::with(FakeTunnel::raw(), FakeAuth::fixed(), |proxy| {
            proxy.unix_socket(&path)
        })
        .await;
        let mut shell = UnixStream::connect(&path).await.expect("connected");
        let ask = format!(
            "POST /proxies/{}/exec HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
            bed.id
        );
        shell.write_all(ask.as_bytes()).await.expect("written");
        let mut agent = bed.tunnel.raw_stream().await;
        read_until(&mut agent, "\r\n\r\n").await;
        let agreement =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
        agent
            .write_all(agreement.as_bytes())
            .await
            .expect("written");
        read_until(&mut shell, "\r\n\r\n").await;
        shell.write_all(b"ls").await.expect("written");
        let mut typed = [0; 2];
        agent.read_exact(&mut typed).await.expect("read");
        assert_eq!(&typed, b"ls");
    }
}
