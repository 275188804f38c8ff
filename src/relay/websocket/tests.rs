mod against_tokio_websockets;

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{error::Violation, outbox::MIN_SHARED, stream::OUT_BUFFER, *};

fn server(bytes: &[u8]) -> WebSocket<DuplexStream> {
    over(Role::Server, bytes)
}

/// A WebSocket whose peer has sent exactly `bytes` and then closed the socket.
fn over(role: Role, bytes: &[u8]) -> WebSocket<DuplexStream> {
    let (near, _far) = duplex(1);
    WebSocket::new(near, role, Bytes::copy_from_slice(bytes))
}

fn data(kind: MessageKind, payload: &'static [u8], end: MessageEnd) -> Event {
    Event::Data {
        kind,
        payload: Bytes::from_static(payload),
        end,
    }
}

#[tokio::test]
async fn the_examples_of_rfc_6455_section_5_7() {
    let mut unmasked = over(
        Role::Client,
        b"\x81\x05Hello\x01\x03Hel\x80\x02lo\x89\x05Hello",
    );
    let hello = data(MessageKind::Text, b"Hello", MessageEnd::Last);
    assert_eq!(unmasked.next_event().await.unwrap(), hello);
    assert_eq!(
        unmasked.next_event().await.unwrap(),
        data(MessageKind::Text, b"Hel", MessageEnd::More)
    );
    assert_eq!(
        unmasked.next_event().await.unwrap(),
        data(MessageKind::Text, b"lo", MessageEnd::Last)
    );
    assert_eq!(unmasked.next_event().await.unwrap(), Event::Ping);
    assert_eq!(unmasked.next_event().await.unwrap(), Event::Ended);

    let mut masked = server(
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    );
    assert_eq!(masked.next_event().await.unwrap(), hello);
    assert_eq!(masked.next_event().await.unwrap(), Event::Pong);
    assert_eq!(masked.next_event().await.unwrap(), Event::Ended);
}

#[tokio::test]
async fn message_rules() {
    let cases: [(&[u8], Violation); 5] = [
        (b"\x80\x00", Violation::StrayContinuation),
        (b"\x01\x00\x81\x00", Violation::InterruptedMessage),
        (b"\x88\x01\x03", Violation::TruncatedCloseCode),
        (b"\x88\x02\x03\xed", Violation::InvalidCloseCode(1005)),
        (b"\x88\x03\x03\xe8\xff", Violation::CloseReasonNotUtf8),
    ];
    for (bytes, expected) in cases {
        let mut socket = over(Role::Client, bytes);
        let error = socket.next_event().await.unwrap_err();
        assert!(
            matches!(&error, WebSocketError::Violation(violation) if *violation == expected),
            "{error:?}"
        );
        let code = if expected == Violation::CloseReasonNotUtf8 {
            1007
        } else {
            1002
        };
        assert_eq!(error.close_code(), Some(code));
        // The rest of the input has no meaning any more.
        assert_eq!(socket.next_event().await.unwrap(), Event::Ended);
    }
}

#[tokio::test]
async fn a_huge_frame_is_delivered_as_it_arrives() {
    let (near, mut far) = duplex(1024);
    let mut socket = WebSocket::new(near, Role::Client, Bytes::new());
    // Announces 2^63 - 1 bytes.
    far.write_all(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")
        .await
        .unwrap();
    for _ in 0..1000 {
        far.write_all(&[7; 512]).await.unwrap();
        let mut received = 0;
        while received < 512 {
            let Event::Data { payload, end, .. } = socket.next_event().await.unwrap() else {
                panic!("not data");
            };
            assert_eq!(end, MessageEnd::More);
            received += payload.len();
        }
    }
}

#[tokio::test]
async fn a_close_ends_one_direction_only() {
    let (near, far) = duplex(64 * 1024);
    let mut near = WebSocket::new(near, Role::Client, Bytes::new());
    let mut far = WebSocket::new(far, Role::Server, Bytes::new());
    let reason = CloseReason::new(CloseReason::NORMAL, "Shutdown");
    near.send(Outgoing::Close(Some(&reason))).await.unwrap();
    assert_eq!(far.next_event().await.unwrap(), Event::Close(Some(reason)));

    // The other way goes on, also in several messages.
    for _ in 0..2 {
        let payload = Outgoing::Data {
            kind: MessageKind::Binary,
            payload: b"still here",
            end: MessageEnd::Last,
        };
        far.send(payload).await.unwrap();
        assert_eq!(
            near.next_event().await.unwrap(),
            data(MessageKind::Binary, b"still here", MessageEnd::Last)
        );
    }
    // A ping still works both ways.
    near.start_ping(b"?");
    near.flush().await.unwrap();
    assert_eq!(far.next_event().await.unwrap(), Event::Ping);
    assert_eq!(near.next_event().await.unwrap(), Event::Pong);

    far.send(Outgoing::Close(None)).await.unwrap();
    assert_eq!(near.next_event().await.unwrap(), Event::Close(None));
    assert!(matches!(
        far.send(Outgoing::Close(None)).await,
        Err(WebSocketError::SendAfterClose)
    ));
}

#[tokio::test]
async fn data_after_a_close_is_discarded_but_pings_count() {
    let mut socket = over(
        Role::Client,
        b"\x88\x02\x03\xe8\x82\x03abc\x88\x00\x89\x00\x82\x01d",
    );
    assert_eq!(
        socket.next_event().await.unwrap(),
        Event::Close(Some(CloseReason::new(1000, "")))
    );
    assert_eq!(socket.next_event().await.unwrap(), Event::Ping);
    assert_eq!(socket.next_event().await.unwrap(), Event::Ended);
}

#[tokio::test]
async fn a_flood_of_pings_costs_one_answer_when_nobody_reads_it() {
    let (near, mut far) = duplex(1);
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        bytes.extend_from_slice(b"\x89\x0801234567");
    }
    bytes.extend_from_slice(b"\x89\x04last");
    let mut socket = WebSocket::new(near, Role::Client, bytes.into());
    for _ in 0..10_001 {
        assert_eq!(socket.next_event().await.unwrap(), Event::Ping);
    }
    assert!(
        socket.unsent() <= OUT_BUFFER + 200,
        "{} bytes are unsent",
        socket.unsent()
    );

    // The newest ping is answered for sure.
    let read = tokio::spawn(async move {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        all
    });
    socket.flush().await.unwrap();
    drop(socket);
    let mut answers = WebSocket::new(duplex(1).0, Role::Server, read.await.unwrap().into());
    assert_eq!(answers.next_event().await.unwrap(), Event::Pong);
}

#[tokio::test(start_paused = true)]
async fn what_is_unsent_is_bounded() {
    let (near, _far) = duplex(1024);
    let mut socket = WebSocket::new(near, Role::Client, Bytes::new());
    let piece = [1; 1000];
    let full = tokio::time::timeout(Duration::from_millis(50), async {
        loop {
            std::future::poll_fn(|cx| socket.poll_ready(cx))
                .await
                .unwrap();
            socket.start_send(Outgoing::Data {
                kind: MessageKind::Binary,
                payload: &piece,
                end: MessageEnd::Last,
            });
        }
    });
    full.await
        .expect_err("nobody reads, so it must wait at some point");
    assert!(socket.unsent() >= OUT_BUFFER);
    assert!(socket.unsent() < OUT_BUFFER + 1024);
}

#[tokio::test]
async fn what_was_received_is_not_lost_to_a_failed_answer() {
    // The far end has sent a ping and data, and is gone: the pong can not be written.
    let mut socket = over(Role::Client, b"\x89\x00\x82\x03abc");
    assert_eq!(socket.next_event().await.unwrap(), Event::Ping);
    assert_eq!(
        socket.next_event().await.unwrap(),
        data(MessageKind::Binary, b"abc", MessageEnd::Last)
    );
    assert_eq!(socket.next_event().await.unwrap(), Event::Ended);
    assert!(matches!(socket.flush().await, Err(WebSocketError::Io(_))));
}

#[tokio::test]
async fn a_dropped_wait_loses_no_event() {
    let (near, mut far) = duplex(3);
    let mut socket = WebSocket::new(near, Role::Client, Bytes::new());
    let writer = tokio::spawn(async move {
        for _ in 0..50 {
            for byte in b"\x82\x05Hello\x89\x01!" {
                far.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        let mut pongs = Vec::new();
        far.read_to_end(&mut pongs).await.unwrap();
    });
    let (mut bytes, mut pings) = (0, 0);
    while bytes < 250 || pings < 50 {
        tokio::select! {
            biased;
            event = socket.next_event() => match event.unwrap() {
                Event::Data { payload, .. } => bytes += payload.len(),
                Event::Ping => pings += 1,
                other => panic!("{other:?}"),
            },
            // Wins, and so drops the wait, whenever no event is ready at once.
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!((bytes, pings), (250, 50));
    drop(socket);
    writer.await.unwrap();
}

/// The reading task answers pings over the same socket that the writing task waits for.
#[tokio::test]
async fn a_reader_does_not_put_the_writer_to_sleep() {
    let (near, mut far) = duplex(16);
    let socket = std::sync::Arc::new(std::sync::Mutex::new(WebSocket::new(
        near,
        Role::Client,
        Bytes::new(),
    )));
    let (reading, writing) = (socket.clone(), socket);
    let reader = tokio::spawn(async move {
        loop {
            let event = std::future::poll_fn(|cx| reading.lock().unwrap().poll_event(cx)).await;
            if event.unwrap() == Event::Ended {
                break;
            }
        }
    });
    let writer = tokio::spawn(async move {
        for _ in 0..200 {
            std::future::poll_fn(|cx| writing.lock().unwrap().poll_ready(cx))
                .await
                .unwrap();
            writing.lock().unwrap().start_send(Outgoing::Data {
                kind: MessageKind::Binary,
                payload: &[0; 1000],
                end: MessageEnd::Last,
            });
        }
        std::future::poll_fn(|cx| writing.lock().unwrap().poll_flush(cx))
            .await
            .unwrap();
    });
    let peer = async {
        let mut chunk = [0; 64];
        let mut received = 0;
        // 200 frames of 8 + 1000 bytes, and pongs.
        while received < 200 * 1008 {
            far.write_all(b"\x89\x00").await.unwrap();
            received += far.read(&mut chunk).await.unwrap();
        }
        // What is left of the pongs must not block the last flush.
        drop(far);
    };
    let bounded = tokio::time::timeout(Duration::from_secs(20), peer);
    bounded.await.expect("the writer sleeps");
    let _ = writer.await;
    let _ = reader.await;
}

/// What a conversation is, apart from how it was cut into pieces.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Message(MessageKind, Vec<u8>),
    Ping,
    Pong,
    Close(Option<CloseReason>),
}

fn item() -> impl Strategy<Value = Item> {
    let kind = prop::sample::select(vec![MessageKind::Text, MessageKind::Binary]);
    let size = prop_oneof![0usize..10, 120usize..130, 65_530usize..65_540];
    prop_oneof![
        6 => (kind, size, any::<u8>()).prop_map(|(kind, size, seed)| {
            Item::Message(kind, (0..size).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect())
        }),
        1 => Just(Item::Ping),
        1 => Just(Item::Pong),
    ]
}

fn encode(role: Role, items: &[Item], fragment: usize) -> BytesMut {
    let mut encoder = encoder::Encoder::new(role);
    let mut out = BytesMut::new();
    for item in items {
        match item {
            Item::Message(kind, payload) => {
                let mut rest = &payload[..];
                loop {
                    let (piece, after) = rest.split_at(rest.len().min(fragment));
                    let end = if after.is_empty() {
                        MessageEnd::Last
                    } else {
                        MessageEnd::More
                    };
                    encoder.encode(
                        Outgoing::Data {
                            kind: *kind,
                            payload: piece,
                            end,
                        },
                        &mut out,
                    );
                    rest = after;
                    if after.is_empty() {
                        break;
                    }
                }
            }
            Item::Ping => encoder.encode(Outgoing::Ping(b"ping"), &mut out),
            Item::Pong => encoder.encode(Outgoing::Pong(b""), &mut out),
            Item::Close(reason) => encoder.encode(Outgoing::Close(reason.as_ref()), &mut out),
        }
    }
    out
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What one end encodes, the other decodes, however the bytes are cut on the way.
    #[test]
    fn round_trip_under_random_cuts(
        mut items in prop::collection::vec(item(), 0..8),
        close in prop::option::of(0usize..200),
        is_client: bool,
        fragment in prop_oneof![Just(1000usize), Just(usize::MAX), Just(40_000)],
        cuts in prop::collection::vec(1usize..5_000, 1..20),
    ) {
        let role = if is_client { Role::Client } else { Role::Server };
        items.extend(close.map(|size| {
            Item::Close((size > 0).then(|| CloseReason::new(1000, "x".repeat(size.min(close::MAX_REASON)))))
        }));
        let wire = encode(role, &items, fragment);

        let mut decoder = decoder::Decoder::new(other(role));
        let (mut input, mut decoded, mut message) = (BytesMut::new(), Vec::new(), Vec::new());
        let (mut rest, mut next_cut) = (&wire[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (arrives, after) = rest.split_at(rest.len().min(*next_cut.next().unwrap()));
            input.extend_from_slice(arrives);
            rest = after;
            while let Some(event) = decoder.decode(&mut input).unwrap() {
                decoded.extend(match event {
                    decoder::Decoded::Data { kind, payload, end } => {
                        message.extend_from_slice(&payload);
                        (end == MessageEnd::Last)
                            .then(|| Item::Message(kind, std::mem::take(&mut message)))
                    }
                    decoder::Decoded::Ping(payload) => {
                        prop_assert_eq!(&payload[..], b"ping");
                        Some(Item::Ping)
                    }
                    decoder::Decoded::Pong => Some(Item::Pong),
                    decoder::Decoded::Close(reason) => Some(Item::Close(reason)),
                });
            }
            prop_assert!(input.len() < decoder::MAX_UNDECODED);
        }
        prop_assert_eq!(decoded, items);
    }

    /// No bytes make the decoder panic, or keep more than an incomplete header or control frame.
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), is_client: bool) {
        let mut decoder = decoder::Decoder::new(if is_client { Role::Client } else { Role::Server });
        let mut input = BytesMut::from(&bytes[..]);
        let refused = loop {
            match decoder.decode(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(violation) => break Some(violation),
            }
        };
        match refused {
            None => prop_assert!(input.len() < decoder::MAX_UNDECODED),
            Some(violation) => prop_assert_eq!(decoder.decode(&mut input), Err(violation)),
        }
    }
}

#[tokio::test]
async fn a_forwarded_piece_arrives_as_one_that_was_sent() {
    for (role, other) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
        let (near, far) = duplex(1 << 20);
        let mut from = WebSocket::new(near, role, Bytes::new());
        let mut to = WebSocket::new(far, other, Bytes::new());
        let mut expected = Vec::new();
        for length in [1, 100, MIN_SHARED - 1, MIN_SHARED, 3 * MIN_SHARED] {
            let payload = vec![length as u8; length];
            expected.extend_from_slice(&payload);
            from.start_forward(MessageKind::Binary, payload.into(), MessageEnd::More);
        }
        from.start_forward(MessageKind::Binary, Bytes::new(), MessageEnd::Last);
        from.start_send(Outgoing::Close(None));
        // There is no place for it any more.
        let late = Bytes::from(vec![0; MIN_SHARED]);
        from.start_forward(MessageKind::Binary, late, MessageEnd::Last);
        from.flush().await.unwrap();
        drop(from);

        let (mut received, mut ends) = (Vec::new(), 0);
        while let Event::Data { payload, end, .. } = to.next_event().await.unwrap() {
            received.extend_from_slice(&payload);
            ends += usize::from(end == MessageEnd::Last);
        }
        assert!(received == expected, "{role:?}");
        assert_eq!(ends, 1);
        assert_eq!(to.next_event().await.unwrap(), Event::Ended);
    }
}

/// A relay has thousands of them.
#[tokio::test]
async fn a_socket_that_waits_holds_no_block() {
    let (near, mut far) = duplex(1024);
    let mut socket = WebSocket::new(near, Role::Client, Bytes::new());
    far.write_all(b"\x81\x05Hello\x81\x05He").await.unwrap();
    let hello = data(MessageKind::Text, b"Hello", MessageEnd::Last);
    assert_eq!(socket.next_event().await.unwrap(), hello);
    assert!(socket.block() > 0, "there is more to come");
    let he = data(MessageKind::Text, b"He", MessageEnd::More);
    assert_eq!(socket.next_event().await.unwrap(), he);
    assert!(futures_util::FutureExt::now_or_never(socket.next_event()).is_none());
    assert_eq!(socket.block(), 0);
    far.write_all(b"llo").await.unwrap();
    let llo = data(MessageKind::Text, b"llo", MessageEnd::Last);
    assert_eq!(socket.next_event().await.unwrap(), llo);
}
