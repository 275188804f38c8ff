//! What brought other multiplexers down, and what their defences did to honest users.

use std::{task::Poll, time::Duration};

use bytes::Bytes;

use super::{
    super::{code::StreamCode, id::Role, simulation::Pair},
    data, open,
    wire::Scripted,
};

#[test]
fn ten_thousand_opens_with_resets_leave_nothing_behind() {
    let mut pair = Pair::ready();
    pair.latency = Duration::from_micros(100);
    let mut opened = 0;
    while opened < 10_000 {
        match pair.client.connection.open(&Bytes::from_static(b"x")) {
            Poll::Ready(stream) => {
                let stream = stream.expect("a stream");
                pair.client.write(stream, b"request");
                pair.client
                    .connection
                    .release(stream, StreamCode::CANCELLED);
                opened += 1;
            }
            Poll::Pending => {
                pair.drive();
                // Accepts what was not yet reset; drops what it accepted.
                while let Poll::Ready(Some((id, _))) = pair.server.connection.accept() {
                    pair.server.connection.release(id, StreamCode::CANCELLED);
                }
                pair.drive();
            }
        }
    }
    pair.drive();
    assert!(!matches!(
        pair.server.connection.accept(),
        Poll::Ready(Some(_))
    ));
    pair.drive();
    assert!(!pair.client.connection.is_closing() && !pair.server.connection.is_closing());
    assert_eq!(pair.client.connection.held_streams(), 0);
    assert_eq!(pair.server.connection.held_streams(), 0);
    // The cancel storm was paid for with waiting, not with the session.
    let stream = pair.established();
    pair.client.write(stream, b"alive");
    pair.drive();
    assert_eq!(pair.server.read(stream), b"alive");
}

#[test]
fn frames_of_one_byte_cost_neither_memory_nor_the_session() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("a stream");
    };
    server.sent();
    let mut received = 0;
    for round in 0..50 {
        for byte in 0..8 {
            server.feed(&data(1, &[round + byte]).repeat(512));
            while server.connection.poll_event().is_some() {}
        }
        while let Poll::Ready(Ok(Some(bytes))) = server.connection.read(stream, usize::MAX) {
            assert!(bytes.len() > 1, "one-byte frames are gathered");
            received += bytes.len();
        }
        server.sent();
        assert!(server.connection.is_reading());
    }
    assert_eq!(received, 50 * 4096);
}
