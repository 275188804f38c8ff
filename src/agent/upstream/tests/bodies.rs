//! Bodies both ways: flow, cancellation, truncation, trailers, headers.

use std::{sync::Arc, time::Duration};

use h2::Reason;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;

use super::bed::{
    Bed, Caller, Command, Dialling, at_once, collect, get, read_all, request, reset, send,
};
use crate::{
    ErrorKind,
    agent::upstream::http2::{MAX_HEADERS, STREAM_WINDOW},
};

#[tokio::test]
async fn a_caller_that_does_not_read_holds_one_window_and_nobody_else() {
    const SIZE: usize = 8 * 1024 * 1024;
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let asking = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { send(&upstream, get()).await }
    });
    let mut large = server.request().await;
    let mut stream = large.answer();
    let response = asking.await.expect("no panic").expect("an answer");

    stream.reserve_capacity(SIZE);
    let mut sent = 0;
    while sent < STREAM_WINDOW as usize {
        let capacity = at_once(std::future::poll_fn(|cx| stream.poll_capacity(cx)))
            .await
            .expect("open")
            .expect("open");
        stream
            .send_data(vec![7; capacity].into(), false)
            .expect("open");
        sent += capacity;
    }
    assert_eq!(sent, STREAM_WINDOW as usize);

    // The window is used up, and another request on the same connection is answered meanwhile.
    let other = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { collect(send(&upstream, get()).await?).await }
    });
    let received = server.request().await;
    assert_eq!(received.connection, large.connection);
    received.echo().await;
    other.await.expect("no panic").expect("an answer");
    assert_eq!(stream.capacity(), 0, "nothing more may be sent");

    let rest = tokio::spawn(async move {
        while sent < SIZE {
            stream.reserve_capacity(SIZE - sent);
            let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx))
                .await
                .expect("open")
                .expect("open")
                .min(SIZE - sent);
            sent += capacity;
            stream
                .send_data(vec![7; capacity].into(), sent == SIZE)
                .expect("open");
        }
    });
    let body = collect(response).await.expect("whole");
    assert_eq!(body.len(), SIZE);
    rest.await.expect("no panic");
}

#[tokio::test]
async fn who_leaves_before_the_answer_cancels_the_request() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let asking = tokio::spawn(async move { send(&upstream, get()).await.map(|_| ()) });
    let mut received = server.request().await;
    asking.abort();
    assert_eq!(received.reset().await, Reason::CANCEL);
}

#[tokio::test]
async fn who_leaves_a_silent_watch_cancels_it_and_the_connection_stays() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    for _ in 0..3 {
        let asking = tokio::spawn({
            let upstream = Arc::clone(&upstream);
            async move { send(&upstream, get()).await }
        });
        let mut received = server.request().await;
        let mut silent = received.answer();
        drop(asking.await.expect("no panic").expect("an answer"));
        assert_eq!(reset(&mut silent).await, Reason::CANCEL);
    }
    assert_eq!(server.dialled(), 1);
}

#[tokio::test]
async fn who_leaves_during_an_upload_cancels_it() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (mut caller, body) = Caller::body().await;
    let asking = tokio::spawn(async move { send(&upstream, request(Method::POST, body)).await });
    let mut received = server.request().await;
    let mut stream = received.answer();
    let response = asking.await.expect("no panic").expect("an early answer");
    caller.send(b"more").await;
    let first = at_once(received.request.body_mut().data()).await;
    assert_eq!(first.expect("more").expect("whole"), "more");
    drop(response);
    assert_eq!(reset(&mut stream).await, Reason::CANCEL);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_never_a_whole_one() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (mut caller, body) = Caller::body().await;
    let asking = tokio::spawn(async move {
        send(&upstream, request(Method::POST, body))
            .await
            .map(|_| ())
    });
    let mut received = server.request().await;
    caller.send(b"half").await;
    let first = at_once(received.request.body_mut().data()).await;
    assert_eq!(first.expect("more").expect("whole"), "half");
    drop(caller);
    let end = at_once(received.request.body_mut().data()).await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    let error = asking.await.expect("no panic").expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(server.dialled(), 1, "it was not sent again");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_a_whole_one() {
    for reason in [
        Some(Reason::NO_ERROR),
        Some(Reason::CANCEL),
        Some(Reason::INTERNAL_ERROR),
        // The connection is lost.
        None,
    ] {
        let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
        let asking = tokio::spawn(async move { send(&upstream, get()).await });
        let mut received = server.request().await;
        let mut stream = received.answer();
        stream
            .send_data("half of a li".into(), false)
            .expect("open");
        let mut body = asking
            .await
            .expect("no panic")
            .expect("an answer")
            .into_body();
        let frame = at_once(body.frame()).await.expect("more").expect("whole");
        assert_eq!(frame.data_ref().expect("data"), "half of a li");
        match reason {
            Some(reason) => stream.send_reset(reason),
            None => server.command(Command::Die),
        }
        let end = at_once(body.frame()).await;
        let error = end
            .expect("not a clean end")
            .map(|_| ())
            .expect_err("not data");
        assert_eq!(error.kind(), ErrorKind::Closed, "{reason:?}");
    }
}

#[tokio::test]
async fn a_whole_answer_stays_whole_when_the_server_wants_no_more_of_the_upload() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (mut caller, body) = Caller::body().await;
    caller.send(b"far too m").await;
    let asking = tokio::spawn(async move { send(&upstream, request(Method::POST, body)).await });
    let mut received = server.request().await;
    let mut refusal = Response::new(());
    *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    let mut stream = received
        .respond
        .send_response(refusal, false)
        .expect("open");
    stream.send_data("too large".into(), true).expect("open");
    // With the rest of the request unread, this resets the stream with NO_ERROR behind the answer.
    drop((stream, received));
    let response = asking.await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(collect(response).await.expect("whole"), "too large");
}

#[tokio::test]
async fn a_large_upload_arrives_whole() {
    const SIZE: usize = 3 * 1024 * 1024;
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (mut caller, body) = Caller::body().await;
    let sending = tokio::spawn(async move {
        for index in 0..SIZE / 4096 {
            caller.send(&[index as u8; 4096]).await;
        }
        caller.finish("").await;
        caller
    });
    let asking = tokio::spawn(async move { send(&upstream, request(Method::POST, body)).await });
    let mut received = server.request().await;
    let _stream = received.answer();
    let response = asking.await.expect("no panic").expect("an answer");
    let body = at_once(read_all(received.request.into_body())).await;
    assert_eq!(body.len(), SIZE);
    assert!(
        body.chunks(4096)
            .enumerate()
            .all(|(index, chunk)| chunk == [index as u8; 4096])
    );
    drop((sending.await.expect("no panic"), response));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (mut caller, body) = Caller::body().await;
    caller.send(b"question").await;
    caller.finish("x-sum: 1\r\n").await;
    let mut question = request(Method::POST, body);
    question
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("x-sum"));
    let asking = tokio::spawn(async move { send(&upstream, question).await });
    let mut received = server.request().await;
    let mut body = received.request.body_mut();
    assert_eq!(
        at_once(body.data()).await.expect("more").expect("whole"),
        "question"
    );
    assert!(at_once(body.data()).await.is_none());
    let trailers = at_once(body.trailers())
        .await
        .expect("whole")
        .expect("trailers");
    assert_eq!(trailers["x-sum"], "1");
    let mut stream = received.answer();
    stream.send_data("answer".into(), false).expect("open");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("2"));
    stream.send_trailers(trailers).expect("open");
    body = received.request.body_mut();
    assert!(body.is_end_stream());
    let response = asking.await.expect("no panic").expect("an answer");
    let collected = at_once(response.into_body().collect())
        .await
        .expect("whole");
    assert_eq!(collected.trailers().expect("trailers")["x-sum"], "2");
    assert_eq!(collected.to_bytes(), "answer");
}

#[tokio::test]
async fn heads_may_be_large_up_to_a_limit() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    for (size, passes) in [(MAX_HEADERS / 2, true), (MAX_HEADERS * 2, false)] {
        let mut question = get();
        for group in 0..2_000 {
            let group = format!("a-group-with-quite-a-long-name-{group}");
            let group = HeaderValue::try_from(group).expect("a value");
            question.headers_mut().append("impersonate-group", group);
        }
        let asking = tokio::spawn({
            let upstream = Arc::clone(&upstream);
            async move { send(&upstream, question).await.map(|_| ()) }
        });
        let mut received = server.request().await;
        let groups = received.request.headers().get_all("impersonate-group");
        assert_eq!(groups.iter().count(), 2_000);
        let mut answer = Response::new(());
        for index in 0..size / 1024 {
            let value = HeaderValue::try_from("x".repeat(1024 - 64)).expect("a value");
            answer.headers_mut().append("x-large", value);
            let _ = index;
        }
        received.respond.send_response(answer, true).expect("open");
        assert_eq!(asking.await.expect("no panic").is_ok(), passes, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_found_out_by_a_ping() {
    use crate::agent::upstream::http2::{PING_INTERVAL, PONG_LIMIT};

    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let asking = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { send(&upstream, get()).await }
    });
    let mut received = server.request().await;
    let _stream = received.answer();
    let mut body = asking
        .await
        .expect("no panic")
        .expect("an answer")
        .into_body();
    // While the server answers pings, silence is no fault.
    let silence = tokio::time::timeout(PING_INTERVAL * 20, body.frame()).await;
    assert!(silence.is_err(), "a watch may be silent");
    server.command(Command::Freeze);
    let limit = PING_INTERVAL + PONG_LIMIT + Duration::from_secs(1);
    let end = tokio::time::timeout(limit, body.frame())
        .await
        .expect("in time");
    assert!(matches!(end, Some(Err(_))));
}
