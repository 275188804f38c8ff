//! Requests that the agent answers itself.

use crate::ErrorKind;
use crate::agent::test_bed::{Bed, FarEnd, TOKEN, unreachable_agent, with_token};

async fn refused(bed: &Bed, request: impl AsRef<[u8]>) -> (u16, serde_json::Value) {
    let mut caller = bed.caller();
    caller.send(request).await;
    caller.status().await
}

#[tokio::test]
async fn r14_nothing_passes_without_an_identity() {
    let bed = Bed::new();
    for line in [
        "GET /api HTTP/1.1",
        "GET / HTTP/1.1",
        "GET /healthz HTTP/1.1",
        "GET /livez?verbose HTTP/1.1",
        "GET /version HTTP/1.1",
        "HEAD /x HTTP/1.1",
        "OPTIONS /api HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "GET http://evil.example/api HTTP/1.1",
        "TRACE / HTTP/1.1",
        "BREW /pot HTTP/1.1",
        "GET /api?access_token=abc HTTP/1.1",
        "GET /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
        "POST /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1",
        "GET /api HTTP/1.1\r\nImpersonate-User: admin",
        "GET /api HTTP/1.1\r\nX-Remote-User: admin",
        "GET /api HTTP/1.1\r\nOrigin: https://evil.example",
    ] {
        let mut caller = bed.caller();
        caller.send(format!("{line}\r\nHost: x\r\n\r\n")).await;
        if line.starts_with("HEAD") {
            assert!(caller.rest().await.0.starts_with("HTTP/1.1 401 "));
            continue;
        }
        let (code, status) = caller.status().await;
        assert_eq!(code, 401, "{line}");
        assert_eq!(status["reason"], "Unauthorized");
    }
    assert_eq!(bed.api.dialled(), 0);
}

#[tokio::test]
async fn the_body_of_an_unknown_caller_stays_unread() {
    let bed = Bed::new();
    let mut caller = bed.caller();
    caller
        .send("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        .await;
    let (text, _) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
}

#[tokio::test]
async fn connect_and_targets_that_are_no_path_are_refused() {
    let bed = Bed::new();
    for (line, expected) in [
        ("CONNECT evil.example:443 HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 400),
    ] {
        assert_eq!(refused(&bed, with_token(line)).await.0, expected, "{line}");
    }
    assert_eq!(bed.api.dialled(), 0);
}

#[tokio::test]
async fn r15_web_pages_are_refused() {
    let bed = Bed::new();
    for head in [
        "GET /api HTTP/1.1\r\nOrigin: https://evil.example",
        "GET /api HTTP/1.1\r\nOrigin: null",
        "GET /api HTTP/1.1\r\nOrigin:",
        "GET /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://a",
    ] {
        assert_eq!(refused(&bed, with_token(head)).await.0, 403, "{head}");
    }
    assert_eq!(bed.api.dialled(), 0);
}

#[tokio::test]
async fn r06_impersonation_is_refused_with_an_explanation() {
    let bed = Bed::new();
    let head = "GET /api HTTP/1.1\r\nImpersonate-User: admin";
    let (code, status) = refused(&bed, with_token(head)).await;
    assert_eq!(code, 403);
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains("not enabled"), "{message}");
    assert!(!message.contains("admin"), "{message}");
}

#[tokio::test]
async fn r17_r31_malformed_requests_are_a_status_too() {
    let bed = Bed::new();
    for (request, expected) in [
        (
            format!(
                "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: {TOKEN}\r\nContent-Length: 3\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"
            ),
            400,
        ),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.0\r\nHost: x\r\n\r\n".to_owned(), 505),
        (
            with_token(&format!("GET /{} HTTP/1.1", "a".repeat(16 * 1024))),
            414,
        ),
        (
            with_token(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(70_000))),
            431,
        ),
        (
            with_token(&format!("GET / HTTP/1.1{}", "\r\nX: a".repeat(200))),
            431,
        ),
    ] {
        let mut caller = bed.caller();
        // The agent may stop reading before all is sent.
        let cut = request.len().min(60_000);
        caller.send(&request[..cut]).await;
        if cut < request.len() {
            caller.send(&request[cut..]).await;
        }
        assert_eq!(caller.status().await.0, expected);
    }
    assert_eq!(bed.api.dialled(), 0);
}

#[tokio::test]
async fn an_api_server_out_of_reach_is_named() {
    for (kind, expected) in [
        (ErrorKind::Network, 503),
        (ErrorKind::Timeout, 503),
        (ErrorKind::Tls, 502),
    ] {
        for head in [
            "GET /api HTTP/1.1",
            "POST /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1",
        ] {
            let (mut caller, near) = crate::agent::test_bed::pipe();
            let agent = unreachable_agent(kind);
            let task = tokio::spawn(async move { agent.serve_stream(near).await });
            caller.send(with_token(head)).await;
            let (code, status) = caller.status().await;
            assert_eq!(code, expected);
            let message = status["message"].as_str().expect("a message");
            assert!(message.contains("api.example:6443"), "{message}");
            assert!(message.contains("no route"), "{message}");
            task.await.expect("no panic");
        }
    }
}

#[tokio::test]
async fn r31_an_upstream_that_breaks_off_or_talks_nonsense_is_a_502() {
    let mut bed = Bed::new();
    for answer in [
        "",
        "HTTP/1.1 200",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut caller = bed.asks("GET /api HTTP/1.1").await;
        let mut api: FarEnd = bed.api.connection().await;
        api.head().await;
        api.send(answer).await;
        drop(api);
        assert_eq!(caller.status().await.0, 502, "{answer:?}");
    }
}

#[tokio::test]
async fn the_callers_correlation_id_is_in_the_refusal() {
    let bed = Bed::new();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nx-ms-correlation-request-id: run-7\r\n\r\n";
    let (_, status) = refused(&bed, request).await;
    assert_eq!(status["details"]["causes"][1]["message"], "run-7");
}
