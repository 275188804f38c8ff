//! What the agent sees of a request, and the client of the answer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use tokio::io::AsyncWriteExt;

use super::{
    fakes::{FakeAuth, FakeTunnel, TOKEN},
    support::{
        BOTH_VERSIONS, Bed, ClientVersion, body, channel, data, empty, headers_of, ok,
        raw_exchange, read_until, text,
    },
};
use crate::{
    auth::{AccessToken, Freshness},
    net::Alpn,
};

/// What the agent saw, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Method, Uri, HeaderMap)>>>);

impl Seen {
    fn note(&self, request: &http::Request<hyper::body::Incoming>) {
        self.0.lock().expect("not poisoned").push((
            request.method().clone(),
            request.uri().clone(),
            headers_of(request),
        ));
    }

    fn take(&self) -> Vec<(Method, Uri, HeaderMap)> {
        std::mem::take(&mut self.0.lock().expect("not poisoned"))
    }
}

async fn noting_bed() -> (Bed, Seen) {
    let seen = Seen::default();
    let noting = seen.clone();
    let bed = Bed::start(move |request| {
        noting.note(&request);
        async { ok("pods") }
    })
    .await;
    (bed, seen)
}

#[tokio::test]
async fn the_agent_gets_the_callers_token_and_not_the_secret() {
    let (bed, seen) = noting_bed().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let mut request = bed
            .request("GET", "/api/v1/pods")
            .header("impersonate-user", "jane")
            .header("x-remote-user", "admin")
            .header("accept-encoding", "gzip");
        if matches!(version, ClientVersion::Http1) {
            request = request
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("upgrade", "h2c");
        }
        let request = request.body(empty()).expect("a request");
        let response = client.send(request).await.expect("an answer");
        let correlation_id = response.headers()["x-ms-correlation-request-id"].clone();
        assert_eq!(text(response.into_body()).await, "pods");

        let (method, uri, mut headers) = seen.take().pop().expect("one request");
        assert_eq!(
            (method, uri.to_string().as_str()),
            (Method::GET, "/api/v1/pods")
        );
        let mut take = |name: &'static str| -> Vec<_> {
            match headers.entry(name) {
                header::Entry::Occupied(entry) => entry.remove_entry_mult().1.collect(),
                header::Entry::Vacant(_) => Vec::new(),
            }
        };
        assert_eq!(take("authorization"), [format!("Bearer {TOKEN}").as_str()]);
        assert_eq!(take("x-ms-correlation-request-id"), [correlation_id]);
        assert_eq!(take("host"), ["kubernetes-api"]);
        assert_eq!(take("impersonate-user"), ["jane"]);
        assert_eq!(take("accept-encoding"), ["gzip"]);
        assert!(headers.is_empty(), "nothing else passes: {headers:?}");
    }
}

#[tokio::test]
async fn the_correlation_id_of_the_client_is_kept() {
    let (bed, seen) = noting_bed().await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed
        .request("GET", "/")
        .header("x-ms-correlation-request-id", "mine-1")
        .body(empty())
        .expect("a request");
    let response = client.send(request).await.expect("an answer");
    assert_eq!(response.headers()["x-ms-correlation-request-id"], "mine-1");
    let (_, _, headers) = seen.take().pop().expect("one request");
    assert_eq!(headers["x-ms-correlation-request-id"], "mine-1");
}

#[tokio::test]
async fn the_target_passes_byte_for_byte() {
    let (bed, seen) = noting_bed().await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        for target in [
            "/api/v1/namespaces/a%2Fb/pods",
            "//api//v1",
            "/a/../b/",
            "/x?&&watch=true",
            "/x?",
            "/x?a=%zz&b=c?d",
        ] {
            let request = bed.request("GET", target).body(empty()).expect("a request");
            client.send(request).await.expect("an answer");
            let (_, uri, _) = seen.take().pop().expect("one request");
            assert_eq!(uri.path_and_query().expect("a path").as_str(), target);
        }
    }
}

#[tokio::test]
async fn a_location_at_the_api_server_stays_at_the_proxy() {
    let bed = Bed::start(|_| async {
        Response::builder()
            .status(StatusCode::MOVED_PERMANENTLY)
            .header("location", "/api/v1/")
            .body(empty())
            .expect("a response")
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed
            .request("GET", "/api/v1")
            .body(empty())
            .expect("a request");
        let response = client.send(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
        let local = format!("/proxies/{}/api/v1/", bed.id);
        assert_eq!(response.headers()["location"], local.as_str());
    }
    assert_eq!(bed.tunnel.opened(), 2, "the proxy follows no redirect");
}

#[tokio::test]
async fn connection_can_not_strip_an_identity() {
    let (bed, seen) = noting_bed().await;
    let mut stream = bed.connect(Alpn::Http1).await;
    let request = bed.request_text(
        "GET",
        "/",
        "Impersonate-User: jane\r\nConnection:\r\nConnection: close, Impersonate-User\r\n",
    );
    let answer = raw_exchange(&mut stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("impersonate-user"), "{answer}");
    assert!(seen.take().is_empty());
}

#[tokio::test]
async fn r17_two_framings_are_refused() {
    for framings in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let (bed, seen) = noting_bed().await;
        let mut stream = bed.connect(Alpn::Http1).await;
        let head = bed.request_text("POST", "/", &format!("{framings}Connection: close\r\n"));
        let answer = raw_exchange(&mut stream, &format!("{head}0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{framings}: {answer}");
        assert!(seen.take().is_empty());
    }
}

#[tokio::test]
async fn other_transfer_codings_are_refused() {
    let (bed, seen) = noting_bed().await;
    for coding in ["gzip, chunked", "gzip", "chunked, gzip"] {
        let mut stream = bed.connect(Alpn::Http1).await;
        let head = bed.request_text(
            "POST",
            "/",
            &format!("Transfer-Encoding: {coding}\r\nConnection: close\r\n"),
        );
        let answer = raw_exchange(&mut stream, &format!("{head}0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{coding}: {answer}");
    }
    assert!(seen.take().is_empty());
}

#[tokio::test]
async fn expect_is_answered_only_to_who_may_send() {
    let seen = Seen::default();
    let noting = seen.clone();
    let bed = Bed::start(move |request| {
        noting.note(&request);
        async move { ok(text(request.into_body()).await) }
    })
    .await;
    let expect = "Expect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n";

    let mut stranger = bed.connect(Alpn::Http1).await;
    let head = bed
        .request_text("POST", "/", expect)
        .replace("Bearer ", "Bearer 0");
    let answer = raw_exchange(&mut stranger, &head).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    let mut client = bed.connect(Alpn::Http1).await;
    let head = bed.request_text("POST", "/", expect);
    client.write_all(head.as_bytes()).await.expect("written");
    assert_eq!(
        read_until(&mut client, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    let answer = raw_exchange(&mut client, "body").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("body"), "{answer}");
    let (_, _, headers) = seen.take().pop().expect("one request");
    assert!(!headers.contains_key("expect"));
}

/// An agent that accepts the token `fresh` only, and a provider that has it when asked for another.
async fn bed_with_a_revoked_token(fresh: &'static str) -> (Bed, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let tunnel = FakeTunnel::serving(|request| async move {
        if request.headers()["authorization"] == "Bearer fresh" {
            return ok(text(request.into_body()).await);
        }
        let mut response = ok("refused by the agent");
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    });
    let auth = FakeAuth::new(move |freshness| {
        Ok(AccessToken::new(
            match freshness {
                Freshness::Cached => "stale",
                Freshness::Fresh => {
                    counter.fetch_add(1, Ordering::SeqCst);
                    fresh
                }
            },
            None,
        ))
    });
    (Bed::with(tunnel, auth, |proxy| proxy).await, asked)
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let (bed, asked) = bed_with_a_revoked_token("fresh").await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let response = client.send(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{version:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(bed.tunnel.opened(), 4);
}

#[tokio::test]
async fn a_second_refusal_is_the_clients() {
    for fresh in ["stale", "another that is refused"] {
        let (bed, asked) = bed_with_a_revoked_token(fresh).await;
        let mut client = bed.client(ClientVersion::Http2).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let response = client.send(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(text(response.into_body()).await, "refused by the agent");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_body_that_is_under_way_is_not_sent_twice() {
    let (bed, asked) = bed_with_a_revoked_token("fresh").await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let request = bed
            .request("POST", "/")
            .body(body("manifest"))
            .expect("a request");
        let response = client.send(request).await.expect("an answer");
        // The agent answers without reading, so the body may by chance not have been touched yet.
        if response.status() == StatusCode::OK {
            assert_eq!(text(response.into_body()).await, "manifest");
        } else {
            assert_eq!(text(response.into_body()).await, "refused by the agent");
        }
    }
    assert!(asked.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_body_that_is_still_to_come_is_sent_with_the_new_token() {
    let (bed, _) = bed_with_a_revoked_token("fresh").await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let (frames, upload) = channel();
    let request = bed.request("POST", "/").body(upload).expect("a request");
    let answering = tokio::spawn(async move { client.send(request).await });
    // One stream was refused and given up, the second has the body now.
    bed.tunnel.next_end().await;
    frames.send(data("manifest")).expect("the request runs");
    drop(frames);
    let response = answering.await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response.into_body()).await, "manifest");
}
