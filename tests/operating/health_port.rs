//! R29: nobody is let in by the health port, whoever they are and whatever they say.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use super::{PATIENCE, Site};

/// Where callers come from: the machine itself, and what a pod looks like that is not it.
const SOURCES: [&str; 2] = ["127.0.0.1:0", "127.0.0.2:0"];

/// What a caller does when all is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Reads,
    /// Ends its direction: what is no whole request would be waited for.
    Ends,
}

/// Everything that the port says to `bytes`, until it has nothing more to say.
async fn said(site: &Site, source: &str, bytes: &[u8], then: Then) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    let source: SocketAddr = source.parse().expect("an address");
    socket.bind(source).expect("a loopback address");
    let address = site.agent.ready()["health"].as_str().expect("an address");
    let mut tcp = socket
        .connect(address.parse().expect("an address"))
        .await
        .expect("it listens");
    tcp.write_all(bytes).await.expect("it reads");
    if then == Then::Ends {
        // It may have closed by itself.
        let _ = tcp.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await;
    // A reset, because not all was read, takes nothing back.
    let _ = read.expect("it answers or closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn r29_the_health_port_proxies_nothing_and_trusts_nobody() {
    let site = Site::new().await;
    let token = &site.installation.token;
    let server = site.installation.stand_in.address();
    let claims = format!(
        "Host: agent\r\nAuthorization: Bearer {token}\r\nX-Remote-User: system:admin\r\n\
         X-Remote-Group: system:masters\r\nImpersonate-User: system:admin\r\nX-Forwarded-For: 127.0.0.1\r\n"
    );
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for source in SOURCES {
        for (line, fields) in [
            ("GET /api/v1/namespaces/default/pods", ""),
            ("GET /version", ""),
            ("GET /proxies/x/api", ""),
            ("GET /livez/../api/v1/secrets", ""),
            (
                "GET /api/v1/namespaces/default/pods/web-0/exec?command=id",
                upgrade,
            ),
            ("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", ""),
            ("DELETE /api/v1/namespaces/default/pods/web-0", ""),
            (&format!("GET https://{server}/api/v1/secrets"), ""),
            (&format!("GET http://{server}/version"), ""),
            (&format!("CONNECT {server}"), ""),
            ("OPTIONS *", ""),
        ] {
            let request = format!("{line} HTTP/1.1\r\n{claims}{fields}\r\n");
            let answer = said(&site, source, request.as_bytes(), Then::Reads).await;
            assert!(
                answer.starts_with("HTTP/1.1 404 "),
                "{source}, {line}: {answer}"
            );
            assert!(answer.ends_with("\r\n\r\nnot found\n"), "{line}: {answer}");
        }
        // What it serves, it serves alike to all: claims change nothing, and no second request follows.
        for path in ["/livez", "/readyz", "/metrics"] {
            let plain = format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n");
            let claimed = format!(
                "GET {path} HTTP/1.1\r\n{claims}{upgrade}\r\nGET /api HTTP/1.1\r\n{claims}\r\n"
            );
            let plain = said(&site, source, plain.as_bytes(), Then::Reads).await;
            let claimed = said(&site, source, claimed.as_bytes(), Then::Reads).await;
            assert_eq!(plain.get(..13), claimed.get(..13), "{path}");
            assert_eq!(claimed.matches("HTTP/1.1 ").count(), 1, "{claimed}");
            assert!(!claimed.contains(token.as_str()), "{path}");
            for method in ["POST", "PUT", "DELETE"] {
                let request = format!("{method} {path} HTTP/1.1\r\n{claims}\r\n");
                let answer = said(&site, source, request.as_bytes(), Then::Reads).await;
                assert!(
                    answer.starts_with("HTTP/1.1 405 "),
                    "{method} {path}: {answer}"
                );
            }
        }
        // Nor is it a tunnel, or the API server's TLS.
        for bytes in [
            &b"ACC1\0\0\0\0\0\0\0\0"[..],
            b"\x16\x03\x01\0\x05\x01\0\0\x01\0",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let answer = said(&site, source, bytes, Then::Ends).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
                "{answer}"
            );
        }
    }
    let arrived = site.installation.stand_in.requests();
    assert!(arrived.is_empty(), "the API server was asked: {arrived:?}");
    let (_, metrics) = site.health("/metrics").await;
    for line in ["acc_requests_in_flight 0", "acc_tunnels 0"] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }
    let ended = site.agent.terminate().await;
    assert!(!ended.stderr.contains(token.as_str()), "{}", ended.stderr);
}
