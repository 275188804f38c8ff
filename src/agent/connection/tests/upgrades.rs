//! Requests that become raw bytes.

use crate::agent::test_bed::{Bed, End, FarEnd, with_token};
use crate::tunnel::LINGER_LIMIT;

const SPDY: &str = "POST /exec?command=sh HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                    X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0";
const WEBSOCKET: &str = "GET /exec HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\
                         Sec-WebSocket-Extensions: permessage-deflate";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
     X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

/// Both ends of a switched connection.
async fn switched(bed: &mut Bed) -> (FarEnd, FarEnd) {
    let mut caller = bed.asks(SPDY).await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send(SWITCHED).await;
    caller.head().await;
    (caller, api)
}

#[tokio::test]
async fn the_handshake_passes_verbatim() {
    let mut bed = Bed::new();
    let mut caller = bed.asks(WEBSOCKET).await;
    let mut api = bed.api.connection().await;
    let head = api.head().await.to_ascii_lowercase();
    for line in WEBSOCKET.to_ascii_lowercase().lines().skip(2) {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    api.send(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\r\n",
    )
    .await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    let head = head.to_ascii_lowercase();
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "sec-websocket-protocol: spdy/3.1+portforward.k8s.io",
    ] {
        assert!(
            head.contains(&format!("\r\n{line}\r\n")),
            "{line} in {head}"
        );
    }
    assert!(!head.contains("content-length"), "{head}");
}

#[tokio::test]
async fn early_bytes_are_kept_both_ways() {
    let mut bed = Bed::new();
    let mut caller = bed.caller();
    caller.send(with_token(SPDY) + "early-input").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send(format!("{SWITCHED}early-output")).await;
    caller.head().await;
    caller.until("early-output").await;
    api.until("early-input").await;
    caller.send("later-input").await;
    api.until("later-input").await;
    api.send("later-output").await;
    caller.until("later-output").await;
}

#[tokio::test]
async fn each_direction_ends_by_itself_and_the_tail_arrives() {
    let mut bed = Bed::new();
    let (mut caller, mut api) = switched(&mut bed).await;
    caller.send("input").await;
    caller.half_close().await;
    assert_eq!(api.rest().await, ("input".to_owned(), End::Clean));
    api.send("tail").await;
    api.half_close().await;
    assert_eq!(caller.rest().await, ("tail".to_owned(), End::Clean));
}

#[tokio::test]
async fn a_caller_who_vanishes_ends_the_upstream_connection() {
    let mut bed = Bed::new();
    let (caller, mut api) = switched(&mut bed).await;
    drop(caller);
    // Only a duplex stream makes an end of it; whichever, the API server's connection must not linger on output.
    api.rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_half_is_aborted_after_the_linger() {
    let mut bed = Bed::new();
    let (mut caller, mut api) = switched(&mut bed).await;
    caller.half_close().await;
    let start = tokio::time::Instant::now();
    api.rest().await;
    // The reader's own bound is shorter than the limit, so the wait is here.
    tokio::time::sleep(LINGER_LIMIT - start.elapsed()).await;
    assert_eq!(caller.rest().await, (String::new(), End::Aborted));
}

#[tokio::test]
async fn r11_after_a_refused_upgrade_nothing_more_reaches_upstream() {
    let mut bed = Bed::new();
    let mut caller = bed.caller();
    caller
        .send(with_token(SPDY) + &with_token("GET /api/v1/secrets HTTP/1.1"))
        .await;
    let mut api = bed.api.connection().await;
    assert!(api.head().await.starts_with("POST /exec"));
    api.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\nWarning: 299 - \"w\"\r\n\r\ndenied")
        .await;
    let (text, end) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
    assert!(text.contains("connection: close\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\ndenied"), "{text}");
    assert_eq!(end, End::Clean);
    let (more, _) = api.rest().await;
    assert_eq!(more, "", "a second request reached the API server");
    assert_eq!(bed.api.dialled(), 1);
}

#[tokio::test]
async fn a_refused_upgrades_truncated_body_is_not_a_clean_end() {
    let mut bed = Bed::new();
    let mut caller = bed.asks(SPDY).await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 500 Oops\r\nContent-Length: 60\r\n\r\nhalf")
        .await;
    caller.until("half").await;
    drop(api);
    assert_eq!(caller.rest().await.1, End::Aborted);
}

#[tokio::test]
async fn r12_an_answer_below_400_that_is_no_101_is_a_502() {
    let mut bed = Bed::new();
    for answer in ["200 OK", "204 No Content", "300 X", "302 Found", "307 X"] {
        let mut caller = bed.asks(SPDY).await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.send(format!(
            "HTTP/1.1 {answer}\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let (code, status) = caller.status().await;
        assert_eq!(code, 502, "{answer}");
        assert!(!status.to_string().contains("evil"));
        api.rest().await;
    }
}

/// Behind `…/proxy` stands a workload or a kubelet, and not the API server, that may answer anything. What it answers to
/// a failed upgrade must not leave a pipe open on which a caller reaches it past the API server.
#[tokio::test]
async fn r25_a_failed_upgrade_by_a_proxy_path_leaves_no_pipe() {
    let next = with_token("GET /api/v1/nodes/n1/proxy/run HTTP/1.1");
    for path in [
        "/api/v1/nodes/n1/proxy/exec/default/web-0/main?command=sh",
        "/api/v1/namespaces/default/pods/web-0/proxy/socket",
        "/api/v1/namespaces/default/pods/web-0:8080/proxy",
        "/api/v1/namespaces/default/services/https:web:443/proxy/",
    ] {
        for (answer, code) in [
            ("400 Bad Request", 400),
            ("403 Forbidden", 403),
            ("404 Not Found", 404),
            ("500 Internal Server Error", 500),
            ("200 OK", 502),
            ("302 Found", 502),
        ] {
            let mut bed = Bed::new();
            let mut caller = bed.caller();
            let head = format!(
                "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
            );
            caller.send(with_token(&head) + &next).await;
            let mut api = bed.api.connection().await;
            assert!(api.head().await.starts_with(&format!("GET {path} ")));
            api.send(format!(
                "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nLocation: /elsewhere\r\n\r\n"
            ))
            .await;
            let (text, end) = caller.rest().await;
            assert!(
                text.starts_with(&format!("HTTP/1.1 {code} ")),
                "{path}: {text}"
            );
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{path}: {text}");
            assert_eq!(end, End::Clean, "{path}, {answer}");
            let (more, _) = api.rest().await;
            assert_eq!(more, "", "{path}, {answer}");
            assert_eq!(bed.api.dialled(), 1, "{path}, {answer}");
        }
    }
}

#[tokio::test]
async fn a_101_to_another_protocol_is_a_502() {
    let mut bed = Bed::new();
    for headers in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nUpgrade: SPDY/3.1\r\n",
        "Connection: Upgrade\r\n",
    ] {
        let mut caller = bed.asks(SPDY).await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.send(format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n"))
            .await;
        assert_eq!(caller.status().await.0, 502, "{headers}");
    }
}

#[tokio::test]
async fn half_an_upgrade_is_a_plain_request() {
    let mut bed = Bed::new();
    for head in [
        "GET /x HTTP/1.1\r\nUpgrade: websocket",
        "GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c",
        "PUT /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1",
    ] {
        let _caller = bed.asks(head).await;
        let sent = bed.api.connection().await.head().await.to_ascii_lowercase();
        assert!(!sent.contains("\r\nupgrade:"), "{sent}");
        assert!(!sent.contains("\r\nconnection:"), "{sent}");
    }
}

#[tokio::test]
async fn an_upgrade_never_shares_a_connection() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /1 HTTP/1.1").await;
    let mut idle = bed.api.connection().await;
    idle.head().await;
    idle.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    caller.rest().await;
    let (_caller, _api) = switched(&mut bed).await;
    assert_eq!(bed.api.dialled(), 2);
}

#[tokio::test]
async fn r26_a_failure_after_the_101_writes_no_http() {
    let mut bed = Bed::new();
    let (mut caller, api) = switched(&mut bed).await;
    drop(api);
    let (text, _) = caller.rest().await;
    assert_eq!(text, "");
}
