//! Against an established implementation, as client and as server.

use futures_util::{SinkExt, StreamExt};
use tokio_websockets::{ClientBuilder, Limits, Message, ServerBuilder};

use super::*;

const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 100_000, 3 << 20];

/// Sends each size both ways between ours and an established implementation.
async fn exchange<S>(mut ours: WebSocket<DuplexStream>, theirs: S)
where
    S: futures_util::Stream<Item = Result<Message, tokio_websockets::Error>>
        + futures_util::Sink<Message, Error = tokio_websockets::Error>
        + Send
        + 'static,
{
    // Echoes everything: the messages by us, the pong to our ping by itself.
    let echo = tokio::spawn(async move {
        let mut theirs = Box::pin(theirs);
        let (mut kinds, mut close) = (Vec::new(), None);
        while let Some(message) = theirs.next().await {
            let message = message.unwrap();
            if message.is_text() || message.is_binary() {
                kinds.push((message.is_text(), message.as_payload().len()));
                theirs.send(message).await.unwrap();
            } else if let Some((code, reason)) = message.as_close() {
                close = Some((u16::from(code), reason.to_owned()));
            }
        }
        (kinds, close)
    });

    let mut expected = Vec::new();
    for size in SIZES {
        for kind in [MessageKind::Text, MessageKind::Binary] {
            expected.push((kind == MessageKind::Text, size));
            let sent: Vec<u8> = (0..size).map(|i| (i % 96) as u8 + 32).collect();
            // Two fragments, so that continuation is exercised too.
            let (first, second) = sent.split_at(size / 3);
            for (payload, end) in [(first, MessageEnd::More), (second, MessageEnd::Last)] {
                ours.start_send(Outgoing::Data { kind, payload, end });
            }
            let mut received = Vec::new();
            let mut is_flushed = false;
            let received_kind = std::future::poll_fn(|cx| {
                is_flushed = is_flushed || ours.poll_flush(cx)?.is_ready();
                loop {
                    match std::task::ready!(ours.poll_event(cx))? {
                        Event::Data { kind, payload, end } => {
                            received.extend_from_slice(&payload);
                            if end == MessageEnd::Last {
                                return std::task::Poll::Ready(Ok::<_, WebSocketError>(kind));
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
            assert_eq!(received_kind.await.unwrap(), kind);
            assert!(received == sent, "{size} bytes came back changed");
        }
    }

    ours.start_ping(b"are you there");
    ours.flush().await.unwrap();
    assert_eq!(ours.next_event().await.unwrap(), Event::Pong);

    let reason = CloseReason::new(1000, "bye");
    ours.send(Outgoing::Close(Some(&reason))).await.unwrap();
    // That implementation answers a Close by itself, with the same code.
    assert!(matches!(
        ours.next_event().await.unwrap(),
        Event::Close(Some(CloseReason { code: 1000, .. }))
    ));
    drop(ours);
    let (kinds, close) = echo.await.unwrap();
    assert_eq!(kinds, expected);
    assert_eq!(close, Some((1000, "bye".to_owned())));
}

#[tokio::test]
async fn we_are_the_client() {
    let (near, far) = duplex(8 * 1024);
    let theirs = ServerBuilder::new().limits(Limits::unlimited()).serve(far);
    exchange(WebSocket::new(near, Role::Client, Bytes::new()), theirs).await;
}

#[tokio::test]
async fn we_are_the_server() {
    let (near, far) = duplex(8 * 1024);
    let theirs = ClientBuilder::new()
        .limits(Limits::unlimited())
        .take_over(far);
    exchange(WebSocket::new(near, Role::Server, Bytes::new()), theirs).await;
}
