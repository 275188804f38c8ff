use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::relay::websocket::{MessageEnd, MessageKind, Role};

type Message = (MessageKind, Vec<u8>);

/// What one end does: its messages, each in pieces of some size, and whether it ends with a Close.
#[derive(Clone, Debug)]
struct Script {
    messages: Vec<Message>,
    piece: usize,
    ending: Option<CloseReason>,
}

fn script() -> impl Strategy<Value = Script> {
    let kind = prop::sample::select(vec![MessageKind::Text, MessageKind::Binary]);
    let message = (kind, prop_oneof![0usize..5, 0usize..100_000], any::<u8>())
        .prop_map(|(kind, size, seed)| (kind, (0..size).map(|i| i as u8 ^ seed).collect()));
    let code = prop::sample::select(vec![1000u16, 1001, 1011, 4321]);
    (
        prop::collection::vec(message, 0..6),
        prop_oneof![1usize..100, Just(10_000), Just(1_000_000)],
        prop::option::weighted(0.7, code),
    )
        .prop_map(|(messages, piece, code)| Script {
            messages,
            // Not thousands of frames for one message.
            piece: piece.max(50),
            ending: code.map(|code| CloseReason::new(code, "the end")),
        })
}

/// Plays a script and collects what arrives, both at once.
async fn play(
    mut socket: WebSocket<DuplexStream>,
    script: Script,
) -> (Vec<Message>, Option<CloseReason>) {
    let mut pieces = Vec::new();
    for (kind, payload) in &script.messages {
        let mut chunks: Vec<&[u8]> = payload.chunks(script.piece).collect();
        if chunks.is_empty() {
            chunks.push(b"");
        }
        let last = chunks.len() - 1;
        pieces.extend(chunks.into_iter().enumerate().map(|(index, payload)| {
            let end = if index == last {
                MessageEnd::Last
            } else {
                MessageEnd::More
            };
            let kind = *kind;
            Outgoing::Data { kind, payload, end }
        }));
    }
    pieces.extend(
        script
            .ending
            .as_ref()
            .map(|reason| Outgoing::Close(Some(reason))),
    );

    let (mut pieces, mut is_lost) = (pieces.into_iter(), false);
    let (mut messages, mut message) = (Vec::new(), Vec::new());
    let mut close = None;
    poll_fn(|cx| {
        while !is_lost && pieces.len() > 0 {
            match socket.poll_ready(cx) {
                Poll::Ready(Ok(())) => socket.start_send(pieces.next().unwrap()),
                Poll::Ready(Err(_)) => is_lost = true,
                Poll::Pending => break,
            }
        }
        if !is_lost && let Poll::Ready(Ok(())) = socket.poll_flush(cx) {
            // Everything is out; without a Close at its end the script leaves the socket here.
            if pieces.len() == 0 && script.ending.is_none() {
                return Poll::Ready(());
            }
        }
        loop {
            match ready!(socket.poll_event(cx)) {
                Ok(Event::Data { kind, payload, end }) => {
                    message.extend_from_slice(&payload);
                    if end == MessageEnd::Last {
                        messages.push((kind, std::mem::take(&mut message)));
                    }
                }
                Ok(Event::Close(reason)) => close = reason,
                Ok(Event::Ping | Event::Pong) => {}
                Ok(Event::Ended) | Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
    (messages, close)
}

fn run(left: Script, right: Script, pipes: [usize; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let [(left_near, left_far), (right_near, right_far)] = pipes.map(duplex);
        let client = |io| WebSocket::new(io, Role::Client, Bytes::new());
        let server = |io| WebSocket::new(io, Role::Server, Bytes::new());
        let token = CancellationToken::new();
        let (ending, at_left, at_right) = tokio::join!(
            bridge(server(left_far), server(right_far), &token),
            play(client(left_near), left.clone()),
            play(client(right_near), right.clone()),
        );
        let both_close = left.ending.is_some() && right.ending.is_some();
        assert_eq!(ending == Ending::Closed, both_close, "{ending:?}");
        for (received, sent) in [(at_left, &right), (at_right, &left)] {
            let (messages, close) = received;
            if both_close {
                assert!(messages == sent.messages, "messages were changed");
                assert_eq!(close, sent.ending);
            } else {
                // Whoever left early may miss something, but nobody gets anything else, or an end that was not sent.
                assert!(
                    sent.messages.starts_with(&messages),
                    "messages were changed"
                );
                assert!(close.is_none() || close == sent.ending);
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_two_ends_do_arrives_as_it_was_sent(
        left in script(),
        right in script(),
        pipes in [1usize..100_000, 1usize..100_000],
    ) {
        // A pipe of a few bytes makes a message of 100,000 a matter of minutes.
        run(left, right, pipes.map(|pipe| pipe.max(500)));
    }
}
