//! Every limit, reached.

use std::time::Duration;

use crate::agent::connection::HEAD_LIMIT;
use crate::agent::test_bed::{Bed, End, FarEnd, with_token};

async fn watch(bed: &mut Bed) -> (FarEnd, FarEnd) {
    let mut caller = bed.asks("GET /api/v1/pods?watch=1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    caller.head().await;
    (caller, api)
}

#[tokio::test]
async fn requests_beyond_the_agents_limit_are_429_until_one_ends() {
    let mut bed = Bed::with(|builder| builder.max_requests(2));
    let (first, mut first_api) = watch(&mut bed).await;
    let _second = watch(&mut bed).await;
    let mut third = bed.asks("GET /x HTTP/1.1").await;
    let (text, _) = third.rest().await;
    assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
    assert!(text.contains("\r\nretry-after: 1\r\n"), "{text}");
    drop(first);
    first_api.rest().await;
    let _fourth = watch(&mut bed).await;
}

#[tokio::test]
async fn an_upgraded_stream_keeps_its_place() {
    let mut bed = Bed::with(|builder| builder.max_requests(1));
    let mut caller = bed
        .asks("POST /exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1")
        .await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        .await;
    caller.head().await;
    let mut second = bed.asks("GET /x HTTP/1.1").await;
    assert_eq!(second.status().await.0, 429);
    drop(caller);
    api.rest().await;
    drop(api);
    // The place is free once the task of the stream has seen both ends.
    for _ in 0..1000 {
        let mut next = bed.asks("OPTIONS * HTTP/1.1").await;
        if next.status().await.0 != 429 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the place was never given back");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_arrive_is_408() {
    let bed = Bed::new();
    let mut caller = bed.caller();
    caller.send("GET / HTTP/1.1\r\nHost: x\r\n").await;
    tokio::time::sleep(HEAD_LIMIT - Duration::from_secs(1)).await;
    let (code, status) = caller.status().await;
    assert_eq!(code, 408);
    assert_eq!(status["reason"], "RequestTimeout");
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_has_no_limit_of_time() {
    let mut bed = Bed::new();
    let (mut caller, mut api) = watch(&mut bed).await;
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    api.send("5\r\nevent\r\n0\r\n\r\n").await;
    caller.until("event").await;
    assert_eq!(caller.rest().await.1, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_not_used_after_its_limit() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    caller.rest().await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    let _caller = bed.asks("GET /2 HTTP/1.1").await;
    let mut fresh = bed.api.connection().await;
    assert!(fresh.head().await.starts_with("GET /2 "));
    api.rest().await;
}

#[tokio::test]
async fn no_more_than_the_limit_of_connections_stays_idle() {
    const REQUESTS: usize = 40;
    let mut bed = Bed::new();
    let mut open = Vec::new();
    for _ in 0..REQUESTS {
        open.push(watch(&mut bed).await);
    }
    let mut apis = Vec::new();
    for (mut caller, mut api) in open {
        api.send("0\r\n\r\n").await;
        caller.rest().await;
        apis.push(api);
    }
    let mut idle = Vec::new();
    for _ in 0..REQUESTS {
        idle.push(bed.asks("GET /again HTTP/1.1").await);
    }
    for _ in 0..REQUESTS - 32 {
        assert!(
            bed.api
                .connection()
                .await
                .head()
                .await
                .starts_with("GET /again ")
        );
    }
    assert_eq!(bed.api.dialled(), REQUESTS + REQUESTS - 32);
}

#[tokio::test]
async fn a_future_that_is_dropped_drops_everything() {
    let mut bed = Bed::new();
    let (mut caller, task) = bed.caller_and_task();
    caller.send(with_token("GET /x HTTP/1.1")).await;
    let mut api = bed.api.connection().await;
    api.head().await;
    task.abort();
    api.rest().await;
    assert_eq!(caller.rest().await.1, End::Aborted);
}
