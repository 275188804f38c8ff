//! Every bound on streams and memory is reached.

use std::task::Poll;

use bytes::Bytes;

use super::{
    super::{
        code::{CloseCode, StreamCode},
        config::{Config, MAX_METADATA, RECEIVE_BLOCK},
        frame::Frame,
        id::Role,
        settings::Settings,
        simulation::Pair,
    },
    control, data, hello, id, open,
    wire::Scripted,
};
use crate::ErrorKind;

#[test]
fn opening_above_the_stream_limit_ends_the_session() {
    let mut server = Scripted::ready(Role::Server);
    for index in 0..128 {
        server.feed(&open(2 * index + 1, b"", b""));
    }
    assert!(!server.connection.is_closing());
    server.feed(&open(257, b"", b""));
    assert_eq!(server.last_code(), CloseCode::STREAM_LIMIT);
}

#[test]
fn opening_above_the_limit_of_either_side_ends_the_session_however_fast_streams_are_accepted() {
    for (role, first, limit) in [(Role::Server, 1, 1024), (Role::Client, 2, 16)] {
        let mut end = Scripted::ready(role);
        for index in 0..limit {
            end.feed(&open(first + 2 * index, b"", b""));
            assert!(end.connection.accept().is_ready(), "{role:?} {index}");
            end.sent();
        }
        assert!(!end.connection.is_closing());
        end.feed(&open(first + 2 * limit, b"", b""));
        assert_eq!(end.connection.held_streams(), limit as usize);
        assert_eq!(end.last_code(), CloseCode::STREAM_LIMIT);
    }
}

#[test]
fn each_side_keeps_to_its_own_limit_and_to_its_peers() {
    let config = Config::default().with_max_opened(20).with_max_streams(30);
    let mut pair = Pair::with(config.clone(), config.with_max_opened(1000));
    pair.drive();
    let mut opened = [0, 0];
    for _ in 0..4 {
        while pair.client.connection.can_open() {
            pair.client.open();
            opened[0] += 1;
        }
        while pair.server.connection.can_open() {
            pair.server.open();
            opened[1] += 1;
        }
        pair.drive();
        while pair.client.connection.accept().is_ready() {}
        while pair.server.connection.accept().is_ready() {}
        pair.drive();
    }
    assert_eq!(opened, [20, 30]);
    assert!(!pair.client.connection.is_closing() && !pair.server.connection.is_closing());
}

#[test]
fn metadata_above_its_limit_is_the_callers_error() {
    let mut pair = Pair::ready();
    let metadata = Bytes::from(vec![0; MAX_METADATA + 1]);
    let Poll::Ready(Err(error)) = pair.client.connection.open(&metadata) else {
        panic!("too long");
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn m17_unaccepted_streams_hold_the_opener_back() {
    let mut pair = Pair::ready();
    for _ in 0..128 {
        pair.client.open();
    }
    pair.drive();
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
    for _ in 0..64 {
        pair.server.accept();
    }
    pair.drive();
    for _ in 0..64 {
        pair.client.open();
    }
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
}

#[test]
fn open_streams_are_limited_however_fast_they_are_accepted() {
    let mut pair = Pair::ready();
    let mut opened = Vec::new();
    let mut waits = 0;
    loop {
        match pair.client.connection.open(&Bytes::new()) {
            Poll::Ready(stream) => opened.push(stream.unwrap()),
            Poll::Pending => {
                let before = opened.len();
                waits += 1;
                pair.drive();
                while pair.server.connection.accept().is_ready() {}
                pair.drive();
                if !pair.client.connection.can_open() {
                    assert_eq!(opened.len(), before);
                    break;
                }
            }
        }
    }
    assert_eq!(opened.len(), 1024);
    // 128 at a time: at 50 ms a thousand watches are open in less than half a second.
    assert!(waits <= 1024 / 128 + 1, "{waits} round trips");
    // One that ends makes room for another.
    pair.client
        .connection
        .release(opened[0], StreamCode::CANCELLED);
    pair.drive();
    assert!(pair.client.connection.open(&Bytes::new()).is_pending());
    pair.server
        .connection
        .release(opened[0], StreamCode::CANCELLED);
    pair.drive();
    pair.client.open();
}

#[test]
fn send_queues_are_bounded_one_by_one_and_together() {
    let mut pair = Pair::ready();
    let first = pair.client.open();
    let data = vec![1; 1024 * 1024];
    assert_eq!(pair.client.write(first, &data), 256 * 1024);
    let mut streams = vec![first];
    while pair.client.connection.can_open() {
        let stream = pair.client.open();
        let written = pair.client.write(stream, &data);
        assert!(written >= 4 * 1024, "every stream has its floor");
        streams.push(stream);
    }
    assert!(pair.client.connection.queued() <= 8 * 1024 * 1024);
    // A chunk goes in whole or not at all.
    let mut chunk = Bytes::from(data);
    assert!(
        pair.client
            .connection
            .write_chunk(first, &mut chunk)
            .is_pending()
    );
    assert_eq!(chunk.len(), 1024 * 1024);
}

#[test]
fn a_queue_of_tiny_chunks_holds_no_slice_for_each() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    for _ in 0..1000 {
        let mut chunk = Bytes::from_static(b"x");
        let written = server.connection.write_chunk(id(1), &mut chunk);
        assert!(matches!(written, Poll::Ready(Ok(()))));
    }
    assert_eq!(server.connection.queued_slices(id(1)), 0);
    let mut chunk = Bytes::from(vec![b'x'; 1000]);
    let written = server.connection.write_chunk(id(1), &mut chunk);
    assert!(matches!(written, Poll::Ready(Ok(()))));
    assert_eq!(server.connection.queued_slices(id(1)), 1);
}

#[test]
fn slices_that_pin_blocks_are_bounded() {
    let config = Config::default()
        .with_max_streams(16)
        .with_max_opened(16)
        .with_receive_budget(2 * 16 * 16 * 1024);
    let budget = config.limits(Role::Server).effective_receive_budget();
    let mut server = Scripted::new(Role::Server, config);
    server.feed(&hello(Settings::INITIAL));
    for index in 0..16 {
        server.feed(&open(2 * index + 1, b"", &[1; 4096]));
        server.feed(&data(2 * index + 1, &[2; 4096]));
    }
    let limit = budget as usize / RECEIVE_BLOCK;
    assert_eq!(server.connection.pinned(), limit);
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("a stream");
    };
    let mut read = Vec::new();
    while let Poll::Ready(Ok(Some(bytes))) = server.connection.read(stream, 1000) {
        read.extend_from_slice(&bytes);
    }
    assert_eq!(read, [[1; 4096], [2; 4096]].concat());
    assert!(server.connection.pinned() < limit);
}

#[test]
fn room_that_was_too_little_to_tell_of_is_told_when_the_last_allowed_stream_comes() {
    let mut client = Scripted::ready(Role::Client);
    let reset = |stream| {
        control(Frame::Reset {
            stream: id(stream),
            code: StreamCode::CANCELLED,
            final_size: 0,
        })
    };
    client.feed(&[open(2, b"", b""), reset(2)].concat());
    client.connection.refuse_unaccepted();
    client.sent();
    assert_eq!(client.connection.held_streams(), 0);
    for stream in 2..=16 {
        client.feed(&open(2 * stream, b"", b""));
    }
    // One of sixteen has ended: a seventeenth may come, whether or not anybody accepts the others.
    let more = control(Frame::MaxStreams(17));
    let sent = client.sent();
    assert!(sent.windows(more.len()).any(|bytes| bytes == more));
}
