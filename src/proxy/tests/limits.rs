//! Every limit, reached.

use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    fakes::{FakeAuth, FakeTunnel, StreamEnd},
    support::{
        BOTH_VERSIONS, Bed, ClientVersion, channel, data, empty, is_ended, limits, next_data, ok,
        raw_exchange, status_of, text,
    },
};
use crate::{
    net::Alpn,
    proxy::endpoint::limits::{
        HEADER_READ_LIMIT, MAX_HEADER_BYTES, MAX_HEADERS, MAX_HTTP2_STREAMS, PROOF_LIMIT,
    },
};

/// An agent whose answers never end.
fn endless() -> FakeTunnel {
    FakeTunnel::serving(|_| {
        let (frames, body) = channel();
        frames.send(data("event")).expect("room");
        async move {
            tokio::spawn(async move {
                frames.closed().await;
            });
            Response::new(body)
        }
    })
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_again() {
    let bed = Bed::with(endless(), FakeAuth::fixed(), |proxy| {
        proxy.limits(limits(10, 2))
    })
    .await;
    for version in BOTH_VERSIONS {
        let mut watches = Vec::new();
        for _ in 0..2 {
            let mut client = bed.client(version).await;
            let request = bed.request("GET", "/").body(empty()).expect("a request");
            let response = client.send(request).await.expect("a head");
            watches.push((client, response.into_body()));
        }
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let response = client.send(request).await.expect("an answer");
        assert_eq!(response.headers()["retry-after"], "1");
        let (code, reason, _) = status_of(response).await;
        assert_eq!(
            (code, reason.as_str()),
            (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")
        );
        // A place is free again when a watch has ended.
        drop(watches);
        for _ in 0..2 {
            bed.tunnel.next_end().await;
        }
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let response = client.send(request).await.expect("a head");
        assert_eq!(response.status(), StatusCode::OK);
        drop((response, client));
        bed.tunnel.next_end().await;
    }
}

#[tokio::test]
async fn a_connection_too_many_waits_for_a_place() {
    let bed = Bed::with(
        FakeTunnel::serving(|_| async { ok("pods") }),
        FakeAuth::fixed(),
        |proxy| proxy.limits(limits(1, 10)),
    )
    .await;
    let first = bed.connect(Alpn::Http1).await;
    let mut second = std::pin::pin!(bed.client(ClientVersion::Http1));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(early.is_err(), "there is no place yet");
    drop(first);
    let mut second = second.await;
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    assert!(second.send(request).await.is_ok());
}

#[tokio::test]
async fn a_stream_too_many_waits_for_its_connection() {
    let bed = Bed::with(endless(), FakeAuth::fixed(), |proxy| proxy).await;
    let client = bed.client(ClientVersion::Http2).await;
    let most = MAX_HTTP2_STREAMS as usize;
    let mut watches = Vec::new();
    for _ in 0..most {
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        watches.push(client.start(request).await.expect("a head"));
    }
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    let waiting = tokio::spawn(client.start(request));
    // Another connection's whole exchange leaves the waiting one more than enough turns.
    let mut other = bed.client(ClientVersion::Http1).await;
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    drop(other.send(request).await.expect("a head"));
    assert_eq!(bed.tunnel.opened(), most + 1);
    assert!(!waiting.is_finished());

    drop(watches.pop());
    let response = waiting.await.expect("no panic").expect("a head");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_close_is_reset() {
    let tunnel = FakeTunnel::that_does_not_close();
    let bed = Bed::with(tunnel, FakeAuth::fixed(), |proxy| proxy).await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    let response = client.send(request).await.expect("an answer");
    assert_eq!(text(response.into_body()).await, "pods");
    let start = Instant::now();
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    assert!(start.elapsed() >= Duration::from_secs(4));
}

#[tokio::test]
async fn headers_pass_up_to_their_limits_and_not_beyond() {
    let bed = Bed::start(|request| async move {
        let size: usize = request.headers().values().map(http::HeaderValue::len).sum();
        ok(size.to_string())
    })
    .await;
    for version in BOTH_VERSIONS {
        // Much, but within: more than any default, in one value and in many.
        for (count, size) in [(1, 200 * 1024), (200, 1024)] {
            let mut client = bed.client(version).await;
            let mut request = bed.request("GET", "/");
            for _ in 0..count {
                request = request.header("impersonate-group", "g".repeat(size));
            }
            let request = request.body(empty()).expect("a request");
            let response = client.send(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK, "{version:?} {count}");
            let total: usize = text(response.into_body()).await.parse().expect("a number");
            assert!(total >= count * size);
        }
        let mut client = bed.client(version).await;
        let request = bed
            .request("GET", "/")
            .header("impersonate-group", "g".repeat(MAX_HEADER_BYTES))
            .body(empty())
            .expect("a request");
        let answer = client.send(request).await;
        let refused = answer.is_err()
            || answer.is_ok_and(|response| {
                response.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            });
        assert!(refused, "{version:?}");
    }
    let mut stream = bed.connect(Alpn::Http1).await;
    let many = "X-Many: 1\r\n".repeat(MAX_HEADERS);
    let answer = raw_exchange(&mut stream, &bed.request_text("GET", "/", &many)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_is_let_go() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let start = Instant::now();
    let mut silent = TcpStream::connect(bed.proxy.local_addr())
        .await
        .expect("connected");
    let _ = silent.read(&mut [0; 1]).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(start.elapsed() <= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_show_the_secret_is_let_go() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let start = Instant::now();
        let mut silent = bed.connect(alpn).await;
        let _ = silent.read_to_end(&mut Vec::new()).await;
        assert!(start.elapsed() >= PROOF_LIMIT, "{alpn:?}");
        assert!(start.elapsed() < PROOF_LIMIT * 2, "{alpn:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_shown_the_secret_may_stay() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        for _ in 0..3 {
            let request = bed.request("GET", "/").body(empty()).expect("a request");
            let response = client.send(request).await.expect("an answer");
            assert_eq!(text(response.into_body()).await, "pods");
            tokio::time::sleep(HEADER_READ_LIMIT * 3 / 4).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_not_waited_for_for_ever() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let mut stream = bed.connect(Alpn::Http1).await;
    let whole = bed.request_text("GET", "/", "");
    stream.write_all(whole.as_bytes()).await.expect("written");
    super::support::read_until(&mut stream, "pods").await;
    let start = Instant::now();
    let half = &whole[..whole.len() / 2];
    stream.write_all(half.as_bytes()).await.expect("written");
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert!(start.elapsed() >= HEADER_READ_LIMIT / 2);
    assert!(start.elapsed() <= HEADER_READ_LIMIT * 2);
}

#[tokio::test]
async fn shutdown_lets_a_running_request_end() {
    for version in BOTH_VERSIONS {
        let (frames, answer) = channel();
        let answer = std::sync::Mutex::new(Some(answer));
        let bed = Bed::start(move |_| {
            let answer = answer.lock().expect("not poisoned").take();
            async move { Response::new(answer.expect("one request")) }
        })
        .await;
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let mut list = client.send(request).await.expect("a head").into_body();
        let address = bed.proxy.local_addr();
        let proxy = bed.proxy;
        let ending = tokio::spawn(async move { proxy.shutdown().await });
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        frames.send(data("the rest")).expect("the list runs");
        drop(frames);
        assert_eq!(next_data(&mut list).await, "the rest");
        assert!(is_ended(&mut list).await, "{version:?}");
        ending.await.expect("no panic");
    }
}

#[tokio::test]
async fn shutdown_breaks_what_does_not_end() {
    for version in BOTH_VERSIONS {
        let bed = Bed::with(endless(), FakeAuth::fixed(), |proxy| {
            proxy.drain_limit(Duration::from_millis(50))
        })
        .await;
        let mut client = bed.client(version).await;
        let request = bed.request("GET", "/").body(empty()).expect("a request");
        let mut events = client.send(request).await.expect("a head").into_body();
        assert_eq!(next_data(&mut events).await, "event");
        bed.proxy.shutdown().await;
        let end = events.frame().await.expect("not a clean end");
        assert!(end.is_err(), "{version:?}");
        bed.tunnel.next_end().await;
    }
}

#[tokio::test]
async fn dropping_the_proxy_stops_it() {
    let bed = Bed::with(endless(), FakeAuth::fixed(), |proxy| proxy).await;
    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    let mut events = client.send(request).await.expect("a head").into_body();
    assert_eq!(next_data(&mut events).await, "event");
    let address = bed.proxy.local_addr();
    drop(bed.proxy);
    bed.tunnel.next_end().await;
    assert!(events.frame().await.is_none_or(|end| end.is_err()));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
