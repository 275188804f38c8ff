use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::relay::{
    server::emulation::{Emulation, Emulator},
    websocket::{MessageEnd, MessageKind, Role},
};

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

/// What is between the two: often nothing.
fn emulation() -> impl Strategy<Value = Emulation> {
    let delays = [0u64..500, 0..500];
    let rate = prop::sample::select(vec![0u64, 1_000_000, 100_000_000]);
    let buffer = prop::sample::select(vec![0usize, 1000, 1 << 20]);
    let slow = (delays, rate, buffer).prop_map(|([sender, listener], rate, buffer)| {
        Emulation::new()
            .sender_delay(Duration::from_millis(sender))
            .listener_delay(Duration::from_millis(listener))
            .rate(rate)
            .buffer(buffer)
    });
    prop_oneof![Just(Emulation::new()), slow]
}

fn conditions(emulation: Emulation) -> Conditions {
    Emulator::new(emulation).conditions()
}

fn run(left: Script, right: Script, pipes: [usize; 2], emulation: Emulation) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let [(left_near, left_far), (right_near, right_far)] = pipes.map(duplex);
        let client = |io| WebSocket::new(io, Role::Client, Bytes::new());
        let server = |io| WebSocket::new(io, Role::Server, Bytes::new());
        let (ending, at_left, at_right) = tokio::join!(
            bridge(
                server(left_far),
                server(right_far),
                conditions(emulation),
                std::future::pending()
            ),
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

#[test]
fn pings_do_not_pile_up_behind_unsent_data() {
    let (near, _far) = duplex(1);
    let socket = WebSocket::new(near, Role::Server, Bytes::new());
    let mut leg = Leg::new(socket, Liveness::of_data());
    leg.needs_flush = true;
    leg.liveness.excuse();
    for _ in 0..1000 {
        assert!(leg.pulse().is_ok());
    }
    assert!(leg.socket.is_drained(), "a ping waits to be sent");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_two_ends_do_arrives_as_it_was_sent(
        left in script(),
        right in script(),
        pipes in [1usize..100_000, 1usize..100_000],
        emulation in emulation(),
    ) {
        // A pipe of a few bytes makes a message of 100,000 a matter of minutes.
        run(left, right, pipes.map(|pipe| pipe.max(500)), emulation);
    }
}

/// A socket that is always ready: delivers the same bytes for ever, or once, and takes everything. Unlike tokio's own
/// it knows no budget that would interrupt who reads it without end.
struct AlwaysReady {
    input: Vec<u8>,
    at: usize,
    repeats: bool,
    written: usize,
}

impl AlwaysReady {
    fn new(input: &[u8], repeats: bool) -> Self {
        Self {
            input: input.to_vec(),
            at: 0,
            repeats,
            written: 0,
        }
    }
}

impl AsyncRead for AlwaysReady {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.at == self.input.len() {
            if !self.repeats {
                return Poll::Pending;
            }
            self.at = 0;
        }
        let size = buffer.remaining().min(self.input.len() - self.at);
        buffer.put_slice(&self.input[self.at..self.at + size]);
        self.at += size;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AlwaysReady {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.written += bytes.len();
        // A way out, so that a failure is a failure and not a test without end.
        if self.written > 64 << 20 {
            return Poll::Ready(Err(std::io::ErrorKind::StorageFull.into()));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_direction_that_never_pauses_does_not_stop_the_other() {
    let mut flood = vec![0x82, 126, 0x0f, 0xfc];
    flood.resize(4 + 0x0ffc, b'x');
    for flooded in [0, 1] {
        let one_message = AlwaysReady::new(b"\x82\x01y", false);
        let legs = [one_message, AlwaysReady::new(&flood, true)];
        let [mut sender, mut listener] =
            legs.map(|io| WebSocket::new(io, Role::Client, Bytes::new()));
        if flooded == 1 {
            std::mem::swap(&mut sender, &mut listener);
        }
        let mut bridge = Bridge::new(sender, listener, conditions(Emulation::new()));
        // One poll is what a runtime gives before other tasks have their turn.
        let polled = poll_fn(|cx| Poll::Ready(bridge.poll(cx))).await;
        assert!(polled.is_pending(), "the poll did not come back by itself");
        let [quick, slow] = match flooded {
            0 => [bridge.listener, bridge.sender],
            _ => [bridge.sender, bridge.listener],
        };
        assert!(
            quick.socket.is_drained() && slow.socket.is_drained(),
            "what was taken is sent"
        );
        // The flooding leg got the other's message: two bytes, the mask, the payload.
        assert_eq!(quick.socket.io().written, 2 + 4 + 1);
        assert!(slow.socket.io().written > 0);
    }
}
