//! HTTP mode, with a listener played by hand.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, request::Builder};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    ext::ReasonPhrase,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_websockets::Message;

use super::{
    super::forward::{MAX_INLINE, MAX_REQUEST_BODIES, REQUEST_BODY_WINDOW, RESPONSE_WINDOW},
    bed::*,
};
use crate::relay::websocket::{Event, MessageEnd, MessageKind, Outgoing, WebSocket};

type Sent = JoinHandle<hyper::Result<Response<Incoming>>>;

fn post(bed: &Bed, target: &str) -> Builder {
    Request::post(target)
        .header("host", "relay.example:443")
        .header("ServiceBusAuthorization", bed.token_for("relay.example"))
}

impl Bed {
    fn token_for(&self, host: &str) -> String {
        let endpoint = crate::net::Endpoint::new(host, 443, crate::net::Security::Plain);
        let hybrid_connection = crate::relay::HybridConnection::new(endpoint, PATH).unwrap();
        let until = self.server.relay.now() + Duration::from_secs(3600);
        root().sign(&hybrid_connection, until).secret().to_owned()
    }

    /// Sends a request over a connection of its own.
    fn send<B>(&self, request: Request<B>) -> Sent
    where
        B: Body<Data = Bytes, Error = std::io::Error> + Send + Unpin + 'static,
    {
        let io = self.memory(64 * 1024);
        tokio::spawn(async move {
            let (mut client, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
            tokio::spawn(connection);
            client.send_request(request).await
        })
    }

    async fn dial(&self, request: &Value) -> Foreign {
        foreign(self.request(&target_of(request), &[]).await.unwrap().io)
    }
}

fn whole(body: impl Into<Bytes>) -> impl Body<Data = Bytes, Error = std::io::Error> + Send + Unpin {
    Full::new(body.into()).map_err(|never| match never {})
}

/// A body in pieces, of unknown length.
fn pieces() -> (
    mpsc::UnboundedSender<std::io::Result<Frame<Bytes>>>,
    impl Body<Data = Bytes, Error = std::io::Error> + Send + Unpin,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, StreamBody::new(stream))
}

/// The next `request`, with the body that follows it.
async fn request_of(socket: &mut Foreign) -> (Value, Option<Bytes>) {
    let text = next_message(socket).await;
    let value: Value = serde_json::from_str(text.as_text().unwrap()).unwrap();
    let request = value["request"].clone();
    let body = match request["body"] {
        Value::Bool(true) => Some(next_message(socket).await.into_payload().into()),
        _ => None,
    };
    (request, body)
}

async fn next_message(socket: &mut Foreign) -> Message {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        if message.is_text() || message.is_binary() {
            break message;
        }
    }
}

async fn respond(socket: &mut Foreign, request: &Value, body: Option<Bytes>) {
    let response = json!({ "response": {
        "requestId": request["id"], "statusCode": 201, "statusDescription": "Made",
        "responseHeaders": { "X-Mine": "1", "Connection": "close" }, "body": body.is_some(),
    }});
    socket
        .send(Message::text(response.to_string()))
        .await
        .unwrap();
    if let Some(body) = body {
        socket.send(Message::binary(body)).await.unwrap();
    }
}

fn reason(response: &Response<Incoming>) -> String {
    let phrase = response.extensions().get::<ReasonPhrase>();
    phrase.map_or(String::new(), |phrase| {
        String::from_utf8(phrase.as_bytes().to_vec()).unwrap()
    })
}

async fn body_of(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

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

async fn send_piece(
    socket: &mut WebSocket<Io>,
    kind: MessageKind,
    payload: &[u8],
    end: MessageEnd,
) {
    let piece = Outgoing::Data { kind, payload, end };
    socket.send(piece).await.unwrap();
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
