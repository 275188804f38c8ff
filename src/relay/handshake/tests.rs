use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::relay::{HybridConnection, SasRule, websocket::Event};

fn endpoint() -> Endpoint {
    Endpoint::new("relay.example", 443, Security::Tls)
}

fn token() -> RelayToken {
    let hybrid_connection = HybridConnection::new(endpoint(), "hyco").unwrap();
    let end = SystemTime::now() + Duration::from_secs(3600);
    SasRule::new("rule", "key")
        .unwrap()
        .sign(&hybrid_connection, end)
}

/// Performs a handshake as a sender against a peer that answers with `answer(request head)`.
async fn against(
    headers: &HeaderMap,
    answer: impl FnOnce(&str) -> Vec<u8>,
) -> (Result<WebSocket<DuplexStream>>, String) {
    against_with(TokenPlace::Header, headers, answer).await
}

async fn against_with(
    token_place: TokenPlace,
    headers: &HeaderMap,
    answer: impl FnOnce(&str) -> Vec<u8>,
) -> (Result<WebSocket<DuplexStream>>, String) {
    let (ours, mut theirs) = duplex(64 * 1024);
    let endpoint = endpoint();
    let token = token();
    let upgrade = Upgrade {
        party: Party::Sender,
        endpoint: &endpoint,
        target: "/$hc/hyco?sb-hc-action=connect&sb-hc-id=secret-id",
        token: Some(&token),
        token_place,
        headers,
    };
    let peer = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(theirs.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        theirs.write_all(&answer(&head)).await.unwrap();
        drop(theirs);
        head
    };
    let (result, head) = tokio::join!(upgrade.perform(ours), peer);
    if let Err(error) = &result {
        let printed = format!("{error:?} {}", error.report());
        assert!(
            !printed.contains("sig=") && !printed.contains("sig%3D"),
            "{printed}"
        );
        assert!(!printed.contains("secret-id"), "{printed}");
    }
    (result, head)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn switching(head: &str, extra: &str) -> Vec<u8> {
    let accept = accept_key(header(head, "sec-websocket-key").unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn the_request_is_what_the_relay_expects() {
    let mut headers = HeaderMap::new();
    headers.insert("x-extra", HeaderValue::from_static("rides along"));
    headers.insert("host", HeaderValue::from_static("evil.example"));
    headers.insert("servicebusauthorization", HeaderValue::from_static("other"));
    let (result, head) = against(&headers, |head| switching(head, "")).await;
    result.map(|_| ()).unwrap();
    assert!(
        head.starts_with("GET /$hc/hyco?sb-hc-action=connect&sb-hc-id=secret-id HTTP/1.1\r\n"),
        "{head}"
    );
    for (name, value) in [
        ("host", "relay.example"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("x-extra", "rides along"),
        ("user-agent", AGENT),
    ] {
        assert_eq!(header(&head, name), Some(value), "{head}");
    }
    let shown = header(&head, "servicebusauthorization").unwrap();
    assert!(
        shown.starts_with("SharedAccessSignature sr=http%3A%2F%2Frelay.example%2Fhyco%2F&sig=")
    );
}

/// The token's own escapes are escaped once more.
#[tokio::test]
async fn the_token_may_be_in_the_query() {
    let (result, head) = against_with(TokenPlace::Query, &HeaderMap::new(), |head| {
        switching(head, "")
    })
    .await;
    result.map(|_| ()).unwrap();
    assert!(
        head.starts_with(
            "GET /$hc/hyco?sb-hc-action=connect&sb-hc-id=secret-id\
             &sb-hc-token=SharedAccessSignature%20sr%3Dhttp%253A%252F%252Frelay.example%252Fhyco%252F%26sig%3D"
        ),
        "{head}"
    );
    assert_eq!(header(&head, "servicebusauthorization"), None);
    // Nor does it get into an error.
    let (result, _) = against_with(TokenPlace::Query, &HeaderMap::new(), |_| Vec::new()).await;
    result.map(|_| ()).unwrap_err();
}

#[tokio::test]
async fn bytes_right_behind_the_answer_are_kept() {
    let (result, _) = against(&HeaderMap::new(), |head| {
        let mut answer = switching(head, "");
        answer.extend_from_slice(b"\x82\x05early");
        answer
    })
    .await;
    let mut socket = result.map_err(|error| error.report()).unwrap();
    let Event::Data { payload, .. } = socket.next_event().await.unwrap() else {
        panic!("no data");
    };
    assert_eq!(payload, "early");
}

#[tokio::test]
async fn an_answer_that_is_no_101_of_a_relay_is_a_protocol_error() {
    for (answer, text) in [
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            "Sec-WebSocket-Accept",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            "switch to WebSocket",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 OK"),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "302 Found"),
    ] {
        let (result, _) = against(&HeaderMap::new(), |_| answer.as_bytes().to_vec()).await;
        let error = result.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(!error.is_retryable() && error.help().is_some());
    }
    let (result, _) = against(&HeaderMap::new(), |head| {
        switching(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
    })
    .await;
    assert_eq!(result.map(|_| ()).unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_peer_that_speaks_no_http_or_hangs_up_is_a_network_error() {
    let long = format!(
        "HTTP/1.1 101 x\r\nX: {}\r\n\r\n",
        "x".repeat(MAX_RESPONSE_HEAD)
    );
    for answer in ["", "SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 ", &long] {
        let (result, _) = against(&HeaderMap::new(), |_| answer.as_bytes().to_vec()).await;
        let error = result.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        assert!(error.to_string().contains("relay.example:443"));
    }
}

#[tokio::test]
async fn a_refusals_reason_phrase_reaches_the_error() {
    let (result, _) = against(&HeaderMap::new(), |_| {
        b"HTTP/1.1 404 There are no listeners connected for the endpoint. TrackingId:1a2b-3c_G17_G30, \
          SystemTracker:sb://relay.example/hyco, Timestamp:2025-04-24T11:08:15\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    })
    .await;
    let error = result.map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the relay relay.example:443 refused a connection: 404 There are no listeners connected for the endpoint"
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.status(), Some(404));
    assert_eq!(error.tracking_id(), Some("1a2b-3c_G17_G30"));
    assert!(error.help().unwrap().contains("no agent is connected"));
    assert!(error.is_retryable());
}

#[test]
fn each_refusal_has_its_kind_and_its_help() {
    use ErrorKind::{NotFound, Protocol, Refused, Timeout, Unauthorized};
    use Party::{Accept, Listener, Sender};
    for (party, status, reason, kind, help) in [
        (
            Sender,
            401,
            "ExpiredToken: The token is expired.",
            Unauthorized,
            "has expired",
        ),
        (
            Sender,
            401,
            "InvalidSignature: The token has an invalid signature.",
            Unauthorized,
            "key does not match",
        ),
        (
            Listener,
            401,
            "InvalidAudience: wrong audience",
            Unauthorized,
            "EntityPath",
        ),
        (
            Listener,
            401,
            "Generic: Ip has been prevented to connect",
            Unauthorized,
            "IP filter",
        ),
        (Sender, 401, "", Unauthorized, "'Send'"),
        (Listener, 403, "", Unauthorized, "'Listen'"),
        (Accept, 403, "", Unauthorized, "sender has gone"),
        (
            Sender,
            404,
            "Endpoint does not exist",
            NotFound,
            "EntityPath",
        ),
        (
            Listener,
            404,
            "Endpoint does not exist",
            NotFound,
            "EntityPath",
        ),
        (Accept, 404, "", NotFound, "sender has gone"),
        (Sender, 408, "", Timeout, "in time"),
        (Sender, 504, "", Timeout, "in time"),
        (Sender, 429, "", Refused, "later"),
        (Sender, 500, "", Refused, "later"),
        (Listener, 503, "", Refused, "later"),
        (
            Sender,
            400,
            "Rejected by user code",
            Refused,
            "does not take",
        ),
        (Sender, 204, "", Protocol, "proxy"),
        (Sender, 307, "", Protocol, "proxy"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = refusal(party, &endpoint(), status, reason);
        assert_eq!(error.kind(), kind, "{status} {reason}");
        assert_eq!(error.status(), Some(status.as_u16()));
        let shown = error.help().unwrap();
        assert!(shown.contains(help), "{status} {reason}: {shown}");
    }
}

#[test]
fn a_peers_text_is_cut_and_cleaned() {
    let long = "x".repeat(MAX_SHOWN_REASON + 1);
    assert_eq!(shown_reason(&long).len(), MAX_SHOWN_REASON);
    assert_eq!(shown_reason("a\u{1b}[31mb. TrackingId:1"), "a[31mb");
    for leak in [
        "Bad token SharedAccessSignature sr=a&sig=b",
        "query was sb-hc-token=x",
        "eyJhbGciOi",
    ] {
        assert!(shown_reason(leak).contains("not shown"));
    }
    let long = format!("TrackingId:{}", "a".repeat(MAX_TRACKING_ID + 1));
    assert_eq!(tracking_id(&long).unwrap().len(), MAX_TRACKING_ID);
    assert_eq!(tracking_id("TrackingId:, x"), None);
    assert_eq!(tracking_id("no id"), None);
}

#[test]
fn the_host_header_leaves_out_the_schemes_port() {
    for (host, port, security, header) in [
        ("a", 443, Security::Tls, "a"),
        ("a", 80, Security::Tls, "a:80"),
        ("a", 80, Security::Plain, "a"),
        ("::1", 443, Security::Tls, "[::1]"),
        ("::1", 9, Security::Plain, "[::1]:9"),
    ] {
        assert_eq!(host_header(&Endpoint::new(host, port, security)), header);
    }
}

proptest! {
    #[test]
    fn any_reason_makes_an_error_of_one_bounded_line(status in 200..600_u16, reason in ".{0,600}") {
        let status = StatusCode::from_u16(status).unwrap();
        let text = refusal(Party::Sender, &endpoint(), status, &reason).to_string();
        prop_assert!(!text.contains('\n'));
        prop_assert!(text.chars().count() < MAX_SHOWN_REASON + 100);
    }
}
