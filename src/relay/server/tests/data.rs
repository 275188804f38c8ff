use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_websockets::{CloseCode, Message};

use super::bed::*;
use crate::relay::websocket::{
    CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket, WebSocketError,
};

fn piece(payload: &[u8], end: MessageEnd) -> Outgoing<'_> {
    Outgoing::Data {
        kind: MessageKind::Binary,
        payload,
        end,
    }
}

async fn paired(bed: &Bed) -> (Listener, WebSocket<Io>, WebSocket<Io>) {
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    (listener, ours(sender), ours(accepted))
}

#[tokio::test]
async fn messages_keep_their_type_and_their_bounds() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (sender, mut accepted) = (foreign(sender), foreign(accepted));
    let messages = || {
        let sizes = [0, 1, 125, 126, 65_535, 65_536, 3 << 20, 5];
        sizes.into_iter().flat_map(|size: usize| {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 89) as u8 + 33).collect();
            [
                Message::text(String::from_utf8(bytes.clone()).unwrap()),
                Message::binary(bytes),
            ]
        })
    };
    let (mut sink, mut source) = sender.split();
    let send = async {
        for message in messages() {
            sink.send(message).await.unwrap();
        }
    };
    let echo = async {
        for expected in messages() {
            let message = accepted.next().await.unwrap().unwrap();
            assert_eq!(message.is_text(), expected.is_text());
            assert!(message.as_payload()[..] == expected.as_payload()[..]);
            accepted.send(message).await.unwrap();
        }
    };
    let receive = async {
        for expected in messages() {
            let message = source.next().await.unwrap().unwrap();
            assert_eq!(message.is_text(), expected.is_text());
            assert!(message.as_payload()[..] == expected.as_payload()[..]);
        }
    };
    tokio::join!(send, echo, receive);
}

#[tokio::test]
async fn a_message_in_fragments_stays_one_message() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (mut sender, mut accepted) = (ours(sender), foreign(accepted));
    for fragment in [&b"one "[..], b"message, ", b""] {
        sender
            .send(piece(fragment, MessageEnd::More))
            .await
            .unwrap();
        sender.start_ping(b"between");
        sender.flush().await.unwrap();
    }
    sender
        .send(piece(b"in four", MessageEnd::Last))
        .await
        .unwrap();
    sender
        .send(piece(b"another", MessageEnd::Last))
        .await
        .unwrap();
    let first = accepted.next().await.unwrap().unwrap();
    assert!(is_binary(&first, b"one message, in four"));
    // The pings were for the relay.
    let second = accepted.next().await.unwrap().unwrap();
    assert!(is_binary(&second, b"another"), "{second:?}");
    for _ in 0..3 {
        assert_eq!(sender.next_event().await.unwrap(), Event::Pong);
    }
}

#[tokio::test]
async fn a_close_ends_its_direction_only() {
    let bed = Bed::start(Transport::Tcp).await;
    let (_listener, mut sender, mut accepted) = paired(&bed).await;
    let shutdown = CloseReason::new(1000, "Shutdown");
    sender
        .send(piece(b"last words", MessageEnd::Last))
        .await
        .unwrap();
    sender.send(Outgoing::Close(Some(&shutdown))).await.unwrap();
    assert!(
        matches!(next(&mut accepted).await.unwrap(), Event::Data { payload, .. } if payload == "last words")
    );
    assert_eq!(
        next(&mut accepted).await.unwrap(),
        Event::Close(Some(shutdown))
    );

    for _ in 0..3 {
        accepted
            .send(piece(b"still here", MessageEnd::Last))
            .await
            .unwrap();
        assert!(
            matches!(next(&mut sender).await.unwrap(), Event::Data { payload, .. } if payload == "still here")
        );
    }
    let bye = CloseReason::new(4001, "bye");
    accepted.send(Outgoing::Close(Some(&bye))).await.unwrap();
    assert_eq!(next(&mut sender).await.unwrap(), Event::Close(Some(bye)));
    // Both directions are over, so the relay ends the sockets.
    assert_eq!(next(&mut sender).await.unwrap(), Event::Ended);
    assert_eq!(next(&mut accepted).await.unwrap(), Event::Ended);
}

#[tokio::test]
async fn a_close_goes_through_to_a_foreign_client_and_back() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (mut sender, mut accepted) = (foreign(sender), foreign(accepted));
    let close = Message::close(Some(CloseCode::try_from(4321).unwrap()), "enough");
    sender.send(close).await.unwrap();
    assert_eq!(closed(&mut accepted).await, (4321, "enough".to_owned()));
    // That implementation echoes by itself, and so both ends finish.
    while let Some(Ok(_)) = accepted.next().await {}
    while let Some(Ok(message)) = sender.next().await {
        assert!(message.is_close());
    }
}

#[tokio::test]
async fn a_lost_socket_is_no_clean_end() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    for lost_is_the_sender in [true, false] {
        let (sender, accepted) = bed.pair(&mut listener).await;
        let (lost, left) = if lost_is_the_sender {
            (sender, accepted)
        } else {
            (accepted, sender)
        };
        let (mut lost, mut left) = (ours(lost), ours(left));
        lost.send(piece(b"before", MessageEnd::More)).await.unwrap();
        drop(lost);
        // What was sent before arrives, and then the socket ends without a Close.
        assert!(
            matches!(next(&mut left).await.unwrap(), Event::Data { payload, .. } if payload == "before")
        );
        match next(&mut left).await {
            Ok(Event::Ended) | Err(WebSocketError::Io(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn data_sent_before_a_close_and_an_end_arrives() {
    let bed = Bed::start(Transport::Tcp).await;
    let (_listener, mut sender, mut accepted) = paired(&bed).await;
    let payload = vec![7; 200_000];
    tokio::join!(
        async {
            sender
                .send(piece(&payload, MessageEnd::Last))
                .await
                .unwrap();
            sender.send(Outgoing::Close(None)).await.unwrap();
            // Gone without waiting for the other direction.
            drop(sender);
        },
        async {
            let mut received = 0;
            loop {
                match next(&mut accepted).await.unwrap() {
                    Event::Data { payload, .. } => received += payload.len(),
                    Event::Close(None) => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(received, payload.len());
        }
    );
}

#[tokio::test]
async fn a_violation_is_told_to_its_author_and_aborts_the_other() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let (mut sender, accepted) = bed.pair(&mut listener).await;
    sender.write_all(b"\x81\x00").await.unwrap();
    assert_eq!(closed(&mut foreign(sender)).await.0, 1002);
    assert_eq!(next(&mut ours(accepted)).await.unwrap(), Event::Ended);
}

/// Sends until nothing more is taken for a (virtual) second, and returns how much was.
async fn fill(socket: &mut WebSocket<Io>) -> usize {
    let chunk = [0; 16 * 1024];
    let mut sent = 0;
    while let Ok(result) = tokio::time::timeout(
        Duration::from_secs(1),
        socket.send(piece(&chunk, MessageEnd::More)),
    )
    .await
    {
        result.unwrap();
        sent += chunk.len();
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_bounds_memory_and_leaves_the_other_direction_alone() {
    let bed = Bed::start(Transport::Memory).await;
    let (_listener, mut sender, mut accepted) = paired(&bed).await;
    let sent = fill(&mut sender).await;
    // Two pipes of 64 KiB, the relay's read block and out buffer, and a piece of slack.
    assert!(
        (64 * 1024..400 * 1024).contains(&sent),
        "{sent} bytes were taken"
    );

    // The other direction still runs, for longer than a silent peer would be kept.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        accepted
            .send(piece(b"tick", MessageEnd::Last))
            .await
            .unwrap();
        assert!(
            matches!(next(&mut sender).await.unwrap(), Event::Data { payload, .. } if payload == "tick")
        );
        tokio::time::sleep(Duration::from_secs(20)).await;
    }

    // And all that was taken arrives when the reader goes on.
    let mut received = 0;
    while received < sent {
        match next(&mut accepted).await.unwrap() {
            Event::Data { payload, .. } => received += payload.len(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_kept_as_long_as_both_ends_answer() {
    let bed = Bed::start(Transport::Memory).await;
    let (_listener, mut sender, mut accepted) = paired(&bed).await;
    let idle = async {
        tokio::join!(async { panic!("{:?}", next(&mut sender).await) }, async {
            panic!("{:?}", next(&mut accepted).await)
        })
    };
    tokio::time::timeout(Duration::from_secs(3600), idle)
        .await
        .expect_err("nothing but pings");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_does_not_answer_is_given_up() {
    let bed = Bed::start(Transport::Memory).await;
    let (_listener, mut sender, _silent) = paired(&bed).await;
    let start = Instant::now();
    assert_eq!(next(&mut sender).await.unwrap(), Event::Ended);
    let lasted = start.elapsed().as_secs();
    assert!((120..=130).contains(&lasted), "{lasted} s");
}

#[tokio::test]
async fn shutdown_says_goodbye_to_all() {
    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let (sender, accepted) = bed.pair(&mut listener).await;
    let (mut sender, mut accepted) = (foreign(sender), foreign(accepted));
    let address = bed.server.local_addr();
    let held = bed.connect();
    let (held, accept) = tokio::join!(
        async {
            tokio::select! {
                held = held => held.map(|_| ()).map_err(|refused| refused.status.as_u16()),
                () = std::future::pending() => Ok(()),
            }
        },
        async {
            let accept = listener.accept_message().await;
            bed.server.relay.shutdown.cancel();
            accept
        }
    );
    assert!(accept.is_object());
    assert_eq!(held, Err(503));
    let (control, left, right, ()) = tokio::join!(
        listener.closed(),
        closed(&mut sender),
        closed(&mut accepted),
        bed.server.shutdown()
    );
    for (code, _) in [control, left, right] {
        assert_eq!(code, 1001);
    }
    // The port is free again.
    tokio::net::TcpListener::bind(address).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_the_deaf() {
    let bed = Bed::start(Transport::Memory).await;
    let (_listener, mut sender, _accepted) = paired(&bed).await;
    fill(&mut sender).await;
    let start = Instant::now();
    bed.server.shutdown().await;
    assert!(start.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_half_a_request() {
    let bed = Bed::start(Transport::Memory).await;
    let mut client = bed.memory(1024);
    client.write_all(b"GET / HT").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    bed.server.shutdown().await;
    assert_eq!(start.elapsed(), super::super::SHUTDOWN_WAIT);
}

#[tokio::test]
async fn dropping_the_relay_ends_everything_at_once() {
    let bed = Bed::start(Transport::Tcp).await;
    let (_listener, mut sender, mut accepted) = paired(&bed).await;
    drop(bed);
    for socket in [&mut sender, &mut accepted] {
        match next(socket).await {
            Ok(Event::Ended) | Err(WebSocketError::Io(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Bytes that are sent together with the request must not be lost in the HTTP layer.
#[tokio::test]
async fn early_bytes_are_kept() {
    use tokio::io::AsyncReadExt;

    let bed = Bed::start(Transport::Tcp).await;
    let mut listener = bed.listen().await;
    let mut sender = bed.tcp().await;
    let request = format!(
        "GET /$hc/{PATH} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         ServiceBusAuthorization: {}\r\n\r\n",
        bed.server.endpoint().authority(),
        bed.root_token()
    );
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(b"\x82\x83\0\0\0\0abc");
    sender.write_all(&bytes).await.unwrap();

    let accept = listener.accept_message().await;
    let mut accepted = foreign(bed.request_owned(&accept).await.unwrap().io);
    assert!(is_binary(&accepted.next().await.unwrap().unwrap(), b"abc"));
    let mut answer = [0; 12];
    sender.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
}
