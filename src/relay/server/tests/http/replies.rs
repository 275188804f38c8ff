//! The way of a reply to its sender.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::json;
use tokio::time::Instant;
use tokio_websockets::Message;

use super::{
    super::{super::forward::RESPONSE_WINDOW, bed::*},
    play::*,
};
use crate::relay::websocket::{MessageEnd, MessageKind};

#[tokio::test]
async fn empty_replies_come_in_three_forms() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    for form in ["none", "an empty body", "none, and a stray message"] {
        let sent = bed.send(post(&bed, "/clusters/east").body(whole("")).unwrap());
        let (request, body) = request_of(&mut listener.control).await;
        assert_eq!((&request["body"], body), (&json!(false), None));
        let body = (form == "an empty body").then(Bytes::new);
        respond(&mut listener.control, &request, body).await;
        if form.ends_with("message") {
            let stray = Message::binary(Bytes::new());
            listener.control.send(stray).await.unwrap();
        }
        let response = sent.await.unwrap().unwrap();
        assert_eq!(response.status(), 201, "{form}");
        assert!(body_of(response).await.is_empty());
    }
}

/// The listener's 60 s do not run while the sender takes its time.
#[tokio::test(start_paused = true)]
async fn a_sender_that_does_not_read_holds_its_reply_up() {
    const BLOCK: usize = 32 * 1024;
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("q")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    let mut socket = ours(bed.request(&target_of(&request), &[]).await.unwrap().io);
    let head = json!({"response": {"requestId": request["id"], "statusCode": 200, "body": true}});
    let head = head.to_string();
    let last = MessageEnd::Last;
    send_piece(&mut socket, MessageKind::Text, head.as_bytes(), last).await;
    let response = sent.await.unwrap().unwrap();

    let mut passed = 0;
    let block = [7; BLOCK];
    let patience = 5 * RESPONSE_WINDOW;
    while tokio::time::timeout(
        patience,
        send_piece(&mut socket, MessageKind::Binary, &block, MessageEnd::More),
    )
    .await
    .is_ok()
    {
        passed += BLOCK;
        assert!(passed < 1 << 20, "nothing holds the listener up");
    }
    let (body, ()) = tokio::join!(
        body_of(response),
        send_piece(&mut socket, MessageKind::Binary, b"", last)
    );
    // The last block may or may not have been taken.
    assert!(
        [passed, passed + BLOCK].contains(&body.len()),
        "{}",
        body.len()
    );
}

#[tokio::test]
async fn a_long_reply_passes_in_pieces() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("q")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    let mut socket = ours(bed.request(&target_of(&request), &[]).await.unwrap().io);
    let head = json!({"response": {"requestId": request["id"], "statusCode": "200", "body": true}});
    send_piece(
        &mut socket,
        MessageKind::Text,
        head.to_string().as_bytes(),
        MessageEnd::Last,
    )
    .await;
    send_piece(&mut socket, MessageKind::Binary, b"first", MessageEnd::More).await;

    let mut response = sent.await.unwrap().unwrap();
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
    send_piece(
        &mut socket,
        MessageKind::Binary,
        b"second",
        MessageEnd::More,
    )
    .await;
    send_piece(&mut socket, MessageKind::Binary, b"", MessageEnd::Last).await;
    assert_eq!(body_of(response).await, "second");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_never_complete() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("q")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    let mut socket = ours(bed.request(&target_of(&request), &[]).await.unwrap().io);
    let head = json!({"response": {"requestId": request["id"], "statusCode": 200, "body": true}});
    send_piece(
        &mut socket,
        MessageKind::Text,
        head.to_string().as_bytes(),
        MessageEnd::Last,
    )
    .await;
    send_piece(&mut socket, MessageKind::Binary, b"first", MessageEnd::More).await;
    let response = sent.await.unwrap().unwrap();
    drop(socket);
    response.into_body().collect().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_listener_has_60_seconds() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;

    let start = Instant::now();
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("q")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    let response = sent.await.unwrap().unwrap();
    assert_eq!(response.status(), 504);
    assert!(reason(&response).starts_with("The request was routed to the listener but"));
    assert!(!response.headers().contains_key("via"));
    assert_eq!(start.elapsed(), RESPONSE_WINDOW);
    // What comes too late is nobody's.
    let refused = bed.request(&target_of(&request), &[]).await.err().unwrap();
    assert_eq!(refused.status, 403);
    // A listener played by hand answers no ping while nobody reads for it, and so is lost by now.
    let mut listener = bed.listen().await;
    respond(&mut listener.control, &request, Some("late".into())).await;

    // After a dial as well, and between pieces.
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("q")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    let _socket = bed.dial(&request).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 504);

    let mut listener = bed.listen().await;
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("q")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    let mut socket = ours(bed.request(&target_of(&request), &[]).await.unwrap().io);
    let head = json!({"response": {"requestId": request["id"], "statusCode": 200, "body": true}});
    send_piece(
        &mut socket,
        MessageKind::Text,
        head.to_string().as_bytes(),
        MessageEnd::Last,
    )
    .await;
    let response = sent.await.unwrap().unwrap();
    let start = Instant::now();
    response.into_body().collect().await.unwrap_err();
    assert_eq!(start.elapsed(), RESPONSE_WINDOW);
}

#[tokio::test]
async fn only_a_listener_of_the_same_entity_answers() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let token = bed.token(&root(), "other", Duration::from_secs(3600));
    let opened = bed
        .request(
            "/$hc/other?sb-hc-action=listen",
            &[("ServiceBusAuthorization", &token)],
        )
        .await;
    let mut stranger = foreign(opened.unwrap().io);
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    respond(&mut stranger, &request, Some("forged".into())).await;
    respond(&mut stranger, &json!({"id": "unknown"}), None).await;
    // Its messages were read when its Close is answered.
    stranger.close().await.unwrap();
    while stranger.next().await.is_some() {}

    // The address is for one purpose and for one use.
    let wrong = target_of(&request).replace("=request", "=accept");
    assert_eq!(bed.request(&wrong, &[]).await.err().unwrap().status, 403);
    let mut socket = bed.dial(&request).await;
    let again = bed.request(&target_of(&request), &[]).await;
    assert_eq!(again.err().unwrap().status, 403);
    respond(&mut socket, &request, Some("mine".into())).await;
    assert_eq!(body_of(sent.await.unwrap().unwrap()).await, "mine");
}

#[tokio::test]
async fn a_pointer_may_be_answered_without_being_followed() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let (_body, stream) = pieces();
    let sent = bed.send(post(&bed, "/clusters/east").body(stream).unwrap());
    let (pointer, _) = request_of(&mut listener.control).await;
    respond(&mut listener.control, &pointer, None).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_listener_that_was_cut_off_may_answer_when_it_is_back() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("")).unwrap());
    let (request, _) = request_of(&mut listener.control).await;
    drop(listener);
    let mut listener = bed.listen().await;
    respond(&mut listener.control, &request, None).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_response_that_is_none_is_the_listeners_fault() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    for member in [
        json!({"statusCode": 101}),
        json!({"statusCode": 200, "responseHeaders": {"X": "a\r\nY: b"}}),
        // The body does not come.
        json!({"statusCode": 200, "body": true}),
    ] {
        let sent = bed.send(post(&bed, "/clusters/east").body(whole("")).unwrap());
        let (request, _) = request_of(&mut listener.control).await;
        let mut response = json!({ "response": member });
        response["response"]["requestId"] = request["id"].clone();
        for text in [response.to_string(), "{}".to_owned()] {
            listener.control.send(Message::text(text)).await.unwrap();
        }
        let response = sent.await.unwrap().unwrap();
        assert_eq!(response.status(), 502, "{member}");
        assert!(!response.headers().contains_key("y"));
    }

    // The same over a socket of its own.
    for message in [
        Message::binary("x"),
        Message::text("x".repeat(64 * 1024 + 1)),
        Message::close(None, ""),
    ] {
        let sent = bed.send(post(&bed, "/clusters/east").body(whole("")).unwrap());
        let (request, _) = request_of(&mut listener.control).await;
        let mut socket = bed.dial(&request).await;
        let _ = socket.send(message).await;
        assert_eq!(sent.await.unwrap().unwrap().status(), 502);
    }
}

#[tokio::test]
async fn a_reply_longer_than_a_message_costs_the_control_channel() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    for (length, is_taken) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let sent = bed.send(post(&bed, "/clusters/east").body(whole("")).unwrap());
        let (request, _) = request_of(&mut listener.control).await;
        let body = Bytes::from(vec![1; length]);
        respond(&mut listener.control, &request, Some(body)).await;
        let response = sent.await.unwrap().unwrap();
        if is_taken {
            assert_eq!(body_of(response).await.len(), length);
        } else {
            assert_eq!(response.status(), 502);
            assert_eq!(listener.closed().await.0, 1009);
        }
    }
}

#[tokio::test]
async fn a_sender_that_leaves_ends_the_listeners_socket() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let (body, stream) = pieces();
    let sent = bed.send(post(&bed, "/clusters/east").body(stream).unwrap());
    let (pointer, _) = request_of(&mut listener.control).await;
    let mut socket = bed.dial(&pointer).await;
    body.send(Ok(Frame::data("all".into()))).unwrap();
    drop(body);
    let (request, _) = request_of(&mut socket).await;
    let head = json!({"response": {"requestId": request["id"], "statusCode": 200, "body": true}});
    socket.send(Message::text(head.to_string())).await.unwrap();
    drop(sent.await.unwrap().unwrap());
    assert_eq!(closed(&mut socket).await.0, 1001);
}
