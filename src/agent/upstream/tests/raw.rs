//! Servers by the byte, for what no server library does on purpose.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::bed::{Bed, Caller, Dialling, at_once, collect, request, send};

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `:status: 200` by its number in the static table, END_HEADERS; then an empty DATA with END_STREAM.
const ANSWER: [u8; 19] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88, 0, 0, 0, 0, 1, 0, 0, 0, 1];
const DATA: u8 = 0;
const END_STREAM: u8 = 1;

fn go_away(last_stream: u8, reason: u8) -> [u8; 17] {
    let mut frame = [0; 17];
    (frame[2], frame[3], frame[12], frame[16]) = (8, 7, last_stream, reason);
    frame
}

/// Reads the preface and sends empty settings.
pub(super) async fn settle(io: &mut DuplexStream) {
    let mut preface = [0; 24];
    at_once(io.read_exact(&mut preface))
        .await
        .expect("a preface");
    io.write_all(&SETTINGS).await.expect("open");
}

/// Reads the preface and everything up to the end of the first request; its body comes back.
async fn read_request(io: &mut DuplexStream) -> Vec<u8> {
    settle(io).await;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        at_once(io.read_exact(&mut head)).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        at_once(io.read_exact(&mut payload)).await.expect("a frame");
        if head[3] == DATA {
            body.extend(payload);
            if head[4] & END_STREAM != 0 {
                return body;
            }
        }
    }
}

#[tokio::test]
async fn a_request_above_the_last_stream_of_a_goaway_is_sent_again() {
    for reason in [0, 11] {
        let mut bed = Bed::new(Dialling::Http2);
        let upstream = std::sync::Arc::clone(&bed.upstream);
        let (_caller, body) = Caller::whole_body(b"an object").await;
        let asking = tokio::spawn(async move {
            collect(send(&upstream, request(Method::POST, body)).await?).await
        });
        let mut first = bed.connection().await;
        assert_eq!(read_request(&mut first).await, b"an object");
        first.write_all(&go_away(0, reason)).await.expect("open");
        let mut second = bed.connection().await;
        assert_eq!(read_request(&mut second).await, b"an object");
        second.write_all(&ANSWER).await.expect("open");
        asking.await.expect("no panic").expect("an answer");
        assert_eq!(bed.dialled(), 2);
    }
}

#[tokio::test]
async fn a_request_that_a_goaway_does_not_disown_is_not_sent_again() {
    for reason in [0, 2, 11] {
        let mut bed = Bed::new(Dialling::Http2);
        let upstream = std::sync::Arc::clone(&bed.upstream);
        let (_caller, body) = Caller::whole_body(b"an object").await;
        let asking = tokio::spawn(async move {
            send(&upstream, request(Method::POST, body))
                .await
                .map(|_| ())
        });
        let mut first = bed.connection().await;
        read_request(&mut first).await;
        first.write_all(&go_away(1, reason)).await.expect("open");
        drop(first);
        asking
            .await
            .expect("no panic")
            .expect_err("it may have counted");
        assert_eq!(bed.dialled(), 1, "{reason}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_to_keep_is_not_sent_again() {
    let large = vec![7; crate::agent::upstream::replay_body::MAX_KEPT + 1_000];
    let mut bed = Bed::new(Dialling::Http2);
    let upstream = std::sync::Arc::clone(&bed.upstream);
    let (mut caller, body) = Caller::body().await;
    let sending = tokio::spawn(async move {
        caller.send(&large[..40_000]).await;
        caller.send(&large[40_000..]).await;
        caller
    });
    let asking = tokio::spawn(async move {
        send(&upstream, request(Method::POST, body))
            .await
            .map(|_| ())
    });
    let mut first = bed.connection().await;
    let mut sent = vec![0; 24];
    at_once(first.read_exact(&mut sent))
        .await
        .expect("a preface");
    // Settings with a stream window of 1 MiB, and the connection's.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0x10, 0, 0];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0];
    first.write_all(&settings).await.expect("open");
    first.write_all(&window).await.expect("open");
    // More of the body than is kept, whatever the frames around it take.
    let mut sent = vec![0; crate::agent::upstream::replay_body::MAX_KEPT + 500];
    at_once(first.read_exact(&mut sent))
        .await
        .expect("the body");
    first.write_all(&go_away(0, 0)).await.expect("open");
    asking
        .await
        .expect("no panic")
        .expect_err("it can not start again");
    assert_eq!(bed.dialled(), 1);
    drop(sending.await.expect("no panic"));
}

#[tokio::test]
async fn what_is_not_http2_is_an_error_and_not_a_hang() {
    for nonsense in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", &[0xff; 64]] {
        let mut bed = Bed::new(Dialling::Http2);
        let upstream = std::sync::Arc::clone(&bed.upstream);
        let asking =
            tokio::spawn(async move { send(&upstream, super::bed::get()).await.map(|_| ()) });
        let mut first = bed.connection().await;
        first.write_all(nonsense).await.expect("open");
        drop(first);
        asking.await.expect("no panic").expect_err("not HTTP/2");
    }
}
