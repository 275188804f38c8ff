//! The way of a request to its listener.

use bytes::Bytes;
use http::Request;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    super::{
        super::forward::{MAX_INLINE, MAX_REQUEST_BODIES, REQUEST_BODY_WINDOW},
        bed::*,
    },
    play::*,
};
use crate::relay::websocket::{Event, MessageEnd, MessageKind};

#[tokio::test]
async fn a_short_request_and_its_reply_pass_over_the_control_channel() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let request = post(
        &bed,
        "/clusters/east/more%20?a=1&sb-hc-x=2&b&sb-hc-id=my-id",
    )
    .header("x-probe", "1")
    .header("authorization", "Basic mine")
    .body(whole("hello"))
    .unwrap();
    let sent = bed.send(request);

    let (request, body) = request_of(&mut listener.control).await;
    assert_eq!(body.unwrap(), "hello");
    assert_eq!(request["method"], "POST");
    assert_eq!(request["requestTarget"], "/clusters/east/more%20?a=1&b");
    assert!(request["id"].as_str().unwrap().starts_with("my-id_G"));
    assert_eq!(request["remoteEndpoint"]["address"], "192.0.2.1");
    assert_eq!(
        request["requestHeaders"],
        json!({
            "Host": "relay.example:443", "X-Probe": "1", "Authorization": "Basic mine",
            "Via": "1.1 relay.example",
        })
    );

    respond(&mut listener.control, &request, Some("reply".into())).await;
    let response = sent.await.unwrap().unwrap();
    assert_eq!(
        (response.status().as_u16(), reason(&response)),
        (201, "Made".into())
    );
    assert_eq!(response.headers()["x-mine"], "1");
    assert_eq!(response.headers()["via"], "1.1 relay.example");
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(body_of(response).await, "reply");
}

#[tokio::test]
async fn a_long_or_open_ended_request_is_fetched() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    for is_open_ended in [false, true] {
        let long = Bytes::from(vec![7; 300_000]);
        let sent = if is_open_ended {
            let (body, stream) = pieces();
            for piece in long.chunks(50_000) {
                let frame = Frame::data(Bytes::copy_from_slice(piece));
                body.send(Ok(frame)).unwrap();
            }
            bed.send(post(&bed, "/clusters/east").body(stream).unwrap())
        } else {
            bed.send(
                post(&bed, "/clusters/east")
                    .body(whole(long.clone()))
                    .unwrap(),
            )
        };
        let (pointer, _) = request_of(&mut listener.control).await;
        let members: Vec<_> = pointer.as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["address", "id"]);

        let mut socket = bed.dial(&pointer).await;
        let (request, body) = request_of(&mut socket).await;
        assert_eq!(request["method"], "POST");
        assert_eq!(body.unwrap(), long);
        respond(&mut socket, &request, Some("reply".into())).await;
        let response = sent.await.unwrap().unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(body_of(response).await, "reply");
        assert_eq!(closed(&mut socket).await, (1000, "NormalClosure".into()));
    }
}

#[tokio::test]
async fn what_is_fetched_depends_on_message_and_body_together() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    for (length, is_inline) in [(MAX_INLINE - 1024, true), (MAX_INLINE, false)] {
        let body = vec![1; length];
        let _sent = bed.send(post(&bed, "/clusters/east").body(whole(body)).unwrap());
        let (request, body) = request_of(&mut listener.control).await;
        assert_eq!(body.is_some(), is_inline);
        if !is_inline {
            let mut socket = bed.dial(&request).await;
            let (_, body) = request_of(&mut socket).await;
            assert_eq!(body.unwrap().len(), length);
        }
    }
}

#[tokio::test]
async fn with_too_many_bodies_in_memory_the_next_one_is_fetched() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let all = u32::try_from(MAX_REQUEST_BODIES).unwrap();
    let _all = bed
        .server
        .relay
        .request_bodies
        .try_acquire_many(all)
        .unwrap();
    let sent = bed.send(post(&bed, "/clusters/east").body(whole("short")).unwrap());
    let (pointer, _) = request_of(&mut listener.control).await;
    assert!(!pointer.as_object().unwrap().contains_key("method"));
    let mut socket = bed.dial(&pointer).await;
    let (request, body) = request_of(&mut socket).await;
    assert_eq!(body.unwrap(), "short");
    respond(&mut socket, &request, None).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_request_that_breaks_off_is_never_complete() {
    let bed = Bed::start(Transport::Memory).await;
    let mut listener = bed.listen().await;
    let (body, stream) = pieces();
    let sent = bed.send(post(&bed, "/clusters/east").body(stream).unwrap());
    let (pointer, _) = request_of(&mut listener.control).await;
    let mut socket = ours(bed.request(&target_of(&pointer), &[]).await.unwrap().io);
    body.send(Ok(Frame::data("part".into()))).unwrap();
    let mut received = Vec::new();
    let mut body = Some(body);
    loop {
        match next(&mut socket).await {
            Ok(Event::Data { kind, payload, end }) => {
                if kind == MessageKind::Binary {
                    assert_eq!(end, MessageEnd::More);
                    received.extend_from_slice(&payload);
                    if let Some(body) = body.take() {
                        body.send(Err(std::io::ErrorKind::Other.into())).unwrap();
                    }
                }
            }
            Ok(Event::Ended) | Err(_) => break,
            Ok(Event::Close(reason)) => {
                assert_eq!(reason.unwrap().code, 1001);
                break;
            }
            Ok(_) => {}
        }
    }
    assert_eq!(received, b"part");
    sent.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_sender_has_60_seconds_for_each_part_of_its_body() {
    let bed = Bed::start(Transport::Memory).await;
    let _listener = bed.listen().await;
    let (_body, stream) = pieces();
    let request = post(&bed, "/clusters/east")
        .header("content-length", "5")
        .body(stream)
        .unwrap();
    let start = Instant::now();
    let response = bed.send(request).await.unwrap().unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(start.elapsed(), REQUEST_BODY_WINDOW);

    let mut listener = bed.listen().await;
    let (_body, stream) = pieces();
    let sent = bed.send(post(&bed, "/clusters/east").body(stream).unwrap());
    let (pointer, _) = request_of(&mut listener.control).await;
    let _socket = bed.dial(&pointer).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 408);
}

#[tokio::test]
async fn who_may_send() {
    let bed = Bed::start(Transport::Memory).await;
    let token = bed.token_for("relay.example");
    let encoded = percent_encoding::utf8_percent_encode(&token, percent_encoding::NON_ALPHANUMERIC)
        .to_string();
    let ask = |target: String, headers: &[(&str, &str)]| {
        let mut request = Request::get(target).header("host", "relay.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        bed.send(request.body(whole("")).unwrap())
    };
    let path = || format!("/{PATH}");
    let refused = ask(path(), &[]).await.unwrap().unwrap();
    assert_eq!(refused.status(), 401);
    assert!(reason(&refused).starts_with("MissingToken: "));
    let nobody = ask(path(), &[("ServiceBusAuthorization", &token)])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(nobody.status(), 404);
    assert!(reason(&nobody).starts_with("There are no listeners connected"));
    let elsewhere = ask("/nowhere".into(), &[("ServiceBusAuthorization", &token)]);
    assert_eq!(elsewhere.await.unwrap().unwrap().status(), 401);

    let mut listener = bed.listen().await;
    for (target, headers, passed) in [
        (path(), vec![("Authorization", &*token)], None),
        (
            format!("{}?sb-hc-token={encoded}", path()),
            vec![("Authorization", "Basic mine")],
            Some("Basic mine"),
        ),
        (
            path(),
            vec![
                ("ServiceBusAuthorization", &*token),
                ("Authorization", &*token),
            ],
            Some(&*token),
        ),
    ] {
        let sent = ask(target, &headers);
        let (request, _) = request_of(&mut listener.control).await;
        assert_eq!(request["requestHeaders"]["Authorization"].as_str(), passed);
        assert_eq!(
            request["requestHeaders"]["Servicebusauthorization"],
            Value::Null
        );
        assert_eq!(request["requestTarget"], path());
        respond(&mut listener.control, &request, None).await;
        assert_eq!(sent.await.unwrap().unwrap().status(), 201);
    }
}

#[tokio::test]
async fn what_is_no_request_to_forward() {
    let bed = Bed::start(Transport::Memory).await;
    let token = bed.token_for("relay.example");
    for (line, header, status) in [
        ("CONNECT relay.example:443 HTTP/1.1", "X: y", 405),
        (
            "GET /clusters/east HTTP/1.1",
            "Upgrade: h2c, WebSocket\r\nConnection: upgrade",
            400,
        ),
        ("GET /clusters/east HTTP/1.0", "X: y", 505),
    ] {
        let mut client = bed.memory(64 * 1024);
        let request = format!(
            "{line}\r\nHost: relay.example\r\nServiceBusAuthorization: {token}\r\n{header}\r\n\r\n"
        );
        tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer)
            .await
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(
            answer.split(' ').nth(1),
            Some(&*status.to_string()),
            "{answer}"
        );
    }
}
