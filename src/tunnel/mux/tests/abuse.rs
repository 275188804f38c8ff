//! What brought other multiplexers down, and what their defences did to honest users: see `docs/wire.md`.

use std::{task::Poll, time::Duration};

use bytes::Bytes;

use super::{
    super::{
        code::{CloseCode, StreamCode},
        flow::MAX_OFFSET,
        frame::Frame,
        id::Role,
        simulation::Pair,
    },
    control, data, id, open,
    wire::Scripted,
};
use crate::ErrorKind;

#[test]
fn m05_ten_thousand_opens_with_resets_leave_nothing_behind() {
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
fn m07_frames_of_one_byte_cost_neither_memory_nor_the_session() {
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
        let mut slices = 0;
        while let Poll::Ready(Ok(Some(bytes))) = server.connection.read(stream, usize::MAX) {
            slices += 1;
            received += bytes.len();
        }
        assert!(slices <= 2, "one-byte frames behind the first are gathered");
        server.sent();
        assert!(server.connection.is_reading());
    }
    assert_eq!(received, 50 * 4096);
}

#[test]
fn m06_a_first_frame_above_the_window_creates_nothing() {
    // As it was sent elsewhere, and the longest that our frames can be.
    let header = [0x04, 0x00, 0x01, 0x11, 0, 0, 0, 1, 0, 0].to_vec();
    let longest = open(1, b"", &[0; 64 * 1024 - 10]);
    for (frame, code) in [
        (header, CloseCode::FRAME_SIZE),
        (longest, CloseCode::FLOW_CONTROL),
    ] {
        let mut server = Scripted::ready(Role::Server);
        server.feed(&frame);
        assert_eq!(server.connection.held_streams(), 0);
        assert_eq!(server.last_code(), code);
        assert!(matches!(server.connection.accept(), Poll::Ready(None)));
    }
}

#[test]
fn m07_one_byte_at_a_time_for_minutes() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    let start = pair.now;
    let mut received = 0;
    for round in 0..36_000 {
        assert_eq!(pair.client.write(stream, b"x"), 1);
        pair.advance(Duration::from_millis(5));
        // Read now and then: what waits is gathered.
        if round % 100 == 0 {
            received += pair.server.read(stream).len();
        }
        pair.client.events.clear();
        pair.server.events.clear();
        let reading = pair.client.connection.is_reading() && pair.server.connection.is_reading();
        assert!(reading, "honest, and slowed down");
    }
    pair.drive();
    received += pair.server.read(stream).len();
    assert_eq!(received, 36_000);
    assert!(pair.now - start >= Duration::from_secs(180));
}

#[test]
fn m08_answers_to_a_peer_that_does_not_read_do_not_pile_up() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    // Everything that is answered, over and over, while nothing can leave.
    for round in 0..4000 {
        let stream = id(1);
        server.feed(&control(Frame::Ping(round)));
        server.feed(&control(Frame::Stop {
            stream,
            code: StreamCode::CANCELLED,
        }));
        while server.connection.poll_event().is_some() {}
    }
    let answers = [
        control(Frame::Pong(3999)),
        control(Frame::Reset {
            stream: id(1),
            code: StreamCode::CANCELLED,
            final_size: 0,
        }),
        control(Frame::Credit {
            stream: id(1),
            limit: 256 * 1024,
        }),
    ]
    .concat();
    assert!(server.sent().len() <= answers.len());
    assert!(!server.connection.is_closing());
}

#[test]
fn m09_credit_can_not_overflow() {
    let credit = |limit| {
        control(Frame::Credit {
            stream: id(1),
            limit,
        })
    };
    for limit in [u64::MAX, u64::MAX - 1, 1 << 63, MAX_OFFSET + 1] {
        let mut server = Scripted::ready(Role::Server);
        server.feed(&[open(1, b"", b""), credit(limit)].concat());
        assert_eq!(server.last_code(), CloseCode::FLOW_CONTROL);
    }
    // The most that there is, on top of bytes that were sent.
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    assert!(server.connection.write(id(1), &[1; 20_000]).is_ready());
    server.sent();
    server.feed(&credit(MAX_OFFSET).repeat(3));
    assert!(server.connection.write(id(1), &[1; 20_000]).is_ready());
    server.sent();
    assert_eq!(server.connection.status().bytes_sent, 40_000);
    assert!(!server.connection.is_closing());
}

#[test]
fn m10_streams_reset_before_they_are_accepted_stay_within_the_limit() {
    let mut server = Scripted::ready(Role::Server);
    let mut opened = 0;
    while !server.connection.is_closing() {
        let stream = 2 * opened + 1;
        let reset = control(Frame::Reset {
            stream: id(stream),
            code: StreamCode::CANCELLED,
            final_size: 0,
        });
        let stop = control(Frame::Stop {
            stream: id(stream),
            code: StreamCode::CANCELLED,
        });
        server.feed(&[open(stream, b"", b""), reset, stop].concat());
        server.sent();
        opened += 1;
    }
    // Both directions of each have ended, and none makes room for another before it was looked at.
    assert_eq!(opened, 129);
    assert_eq!(server.ending().0, ErrorKind::Protocol);
    assert_eq!(server.connection.held_streams(), 0);
}

#[test]
fn m11_streams_that_this_side_resets_stay_within_the_limit() {
    let mut server = Scripted::ready(Role::Server);
    let mut opened = 0;
    while !server.connection.is_closing() {
        server.feed(&open(2 * opened + 1, b"", b"request"));
        // Nobody serves them, and the peer does not read that they are refused.
        server.connection.refuse_unaccepted();
        server.connection.assert_consistent();
        assert!(server.connection.held_streams() <= 1024);
        opened += 1;
    }
    assert_eq!(opened, 129, "refused, and not yet ended");
    assert_eq!(server.last_code(), CloseCode::STREAM_LIMIT);
}

#[test]
fn m13_who_types_and_cancels_a_lot_is_never_slowed() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    for _ in 0..60 {
        // A second: two hundred keystrokes in one packet, and two hundred requests that are cancelled.
        for _ in 0..200 {
            pair.client.write(stream, b"k");
            pair.drive();
        }
        assert_eq!(pair.server.read(stream).len(), 200);
        for _ in 0..4 {
            let requests: Vec<_> = (0..50).map(|_| pair.client.open()).collect();
            pair.drive();
            for request in &requests {
                assert_eq!(pair.server.accept(), *request);
                let client = &mut pair.client.connection;
                client.release(*request, StreamCode::CANCELLED);
            }
            pair.drive();
            for request in requests {
                let server = &mut pair.server.connection;
                server.release(request, StreamCode::CANCELLED);
            }
            pair.drive();
            assert!(pair.client.connection.is_reading() && pair.server.connection.is_reading());
        }
        pair.advance(Duration::from_millis(500));
        pair.client.events.clear();
        pair.server.events.clear();
    }
    assert!(!pair.client.connection.is_closing() && !pair.server.connection.is_closing());
}

#[test]
fn m22_a_full_accept_queue_stops_no_other_stream() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    while pair.client.connection.can_open() {
        let waiting = pair.client.open();
        pair.client.write(waiting, &[2; 20_000]);
    }
    pair.drive();
    let data = vec![3; 300_000];
    let mut written = 0;
    let mut received = 0;
    while received < data.len() {
        written += pair.client.write(stream, &data[written..]);
        pair.drive();
        let before = received;
        received += pair.server.read(stream).len();
        assert!(received > before, "at {received}");
    }
}
