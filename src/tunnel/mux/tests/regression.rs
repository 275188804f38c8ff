//! What other multiplexers got wrong.

use std::{task::Poll, time::Duration};

use bytes::Bytes;

use super::{
    super::{
        code::StreamCode, config::Config, connection::Event, failure::StreamFailure, frame::Frame,
        id::Role, id::StreamId,
    },
    control, data, fin, id, open,
    pair::Pair,
    wire::Scripted,
};

/// A stream that both ends hold.
fn established(pair: &mut Pair) -> StreamId {
    let stream = pair.client.open();
    pair.drive();
    assert_eq!(pair.server.accept(), stream);
    stream
}

#[test]
fn both_sides_write_more_than_a_window_without_reading() {
    let mut pair = Pair::ready();
    let stream = established(&mut pair);
    let data: Vec<u8> = (0..1_000_000u32).map(|index| index as u8).collect();
    let mut written = [0, 0];
    // Until both are stopped by their windows.
    loop {
        let more = [
            pair.client.write(stream, &data[written[0]..]),
            pair.server.write(stream, &data[written[1]..]),
        ];
        pair.drive();
        written[0] += more[0];
        written[1] += more[1];
        if more == [0, 0] {
            break;
        }
    }
    assert!(written[0] < data.len() && written[1] < data.len());
    // Another stream does not notice.
    let other = established(&mut pair);
    pair.client.write(other, b"through");
    pair.drive();
    assert_eq!(pair.server.read(other), b"through");
    // Reading resolves it.
    let mut received = [Vec::new(), Vec::new()];
    while received.iter().any(|all| all.len() < data.len()) {
        received[0].extend(pair.server.read(stream));
        received[1].extend(pair.client.read(stream));
        written[0] += pair.client.write(stream, &data[written[0]..]);
        written[1] += pair.server.write(stream, &data[written[1]..]);
        pair.drive();
    }
    assert!(received.iter().all(|all| *all == data));
}

#[test]
fn a_task_that_only_writes_is_woken_by_credit() {
    let mut pair = Pair::ready();
    let stream = established(&mut pair);
    let data = vec![5; 4 * 1024 * 1024];
    let mut written = 0;
    let mut received = 0;
    while received < data.len() {
        if written < data.len() {
            written += pair.client.write(stream, &data[written..]);
        }
        pair.client.events.clear();
        pair.drive();
        let blocked = written < data.len();
        received += pair.server.read(stream).len();
        pair.drive();
        let woken = pair.client.events.contains(&Event::Writable(stream));
        assert!(
            woken || !blocked,
            "a writer that was told to wait must be woken"
        );
    }
}

#[test]
fn an_end_of_file_beside_credit_wakes_the_reader() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("a stream");
    };
    assert!(server.connection.read(stream, 10).is_pending());
    let credit = Frame::Credit {
        stream,
        limit: 50_000,
    };
    server.feed(&[control(credit), fin(1, b"")].concat());
    let events: Vec<_> = std::iter::from_fn(|| server.connection.poll_event()).collect();
    assert!(events.contains(&Event::Readable(stream)), "{events:?}");
    assert!(matches!(
        server.connection.read(stream, 10),
        Poll::Ready(Ok(None))
    ));
}

#[test]
fn one_stopped_reader_of_many_stops_nobody() {
    let mut pair = Pair::ready();
    let mut streams = Vec::new();
    while streams.len() < 256 {
        streams.push(established(&mut pair));
    }
    let (stopped, others) = streams.split_first().expect("streams");
    let chunk = vec![1; 12 * 1024];
    let mut received = vec![0; others.len()];
    for _ in 0..20 {
        pair.client.write(*stopped, &[2; 64 * 1024]);
        for stream in others {
            assert_eq!(pair.client.write(*stream, &chunk), chunk.len());
        }
        for _ in 0..4 {
            pair.drive();
            for (stream, received) in others.iter().zip(&mut received) {
                *received += pair.server.read(*stream).len();
            }
        }
    }
    assert!(
        received
            .iter()
            .all(|received| *received == 20 * chunk.len())
    );
    let unread = pair.server.read(*stopped).len();
    assert!(unread <= 256 * 1024, "{unread}");
}

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
    let stream = established(&mut pair);
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

#[test]
fn one_byte_fragments_deliver_the_same() {
    let mut pair = Pair::ready();
    pair.fragment = 1;
    let stream = established(&mut pair);
    let data: Vec<u8> = (0..100_000u32).map(|index| (index % 251) as u8).collect();
    pair.client.write(stream, &data);
    pair.client.connection.finish(stream).unwrap();
    pair.drive();
    let mut received = Vec::new();
    while received.len() < data.len() {
        received.extend(pair.server.read(stream));
        pair.drive();
    }
    assert_eq!(received, data);
    assert!(matches!(pair.server.outcome(stream), Poll::Ready(Ok(None))));
}

#[test]
fn part_of_a_frame_is_read_before_the_rest_comes() {
    let mut server = Scripted::ready(Role::Server);
    server.feed(&open(1, b"", b""));
    let Poll::Ready(Some((stream, _))) = server.connection.accept() else {
        panic!("a stream");
    };
    let frame = fin(1, b"first second");
    server.feed(&frame[..13]);
    let Poll::Ready(Ok(Some(bytes))) = server.connection.read(stream, 100) else {
        panic!("a part is there");
    };
    assert_eq!(&bytes[..], b"first");
    assert!(server.connection.read(stream, 100).is_pending());
    server.feed(&frame[13..]);
    assert!(matches!(
        server.connection.read(stream, 100),
        Poll::Ready(Ok(Some(_)))
    ));
    assert!(matches!(
        server.connection.read(stream, 100),
        Poll::Ready(Ok(None))
    ));
}

#[test]
fn a_lost_connection_is_never_an_end_of_file() {
    let mut pair = Pair::ready();
    let cut = established(&mut pair);
    let finished = established(&mut pair);
    pair.server.write(cut, b"half");
    pair.server.write(finished, b"whole");
    pair.server.connection.finish(finished).unwrap();
    pair.drive();
    pair.client.connection.handle_end();
    assert_eq!(pair.client.read(cut), b"half");
    assert!(matches!(
        pair.client.outcome(cut),
        Poll::Ready(Err(StreamFailure::Session(_)))
    ));
    assert_eq!(pair.client.read(finished), b"whole");
    assert!(matches!(
        pair.client.outcome(finished),
        Poll::Ready(Ok(None))
    ));
    assert!(matches!(
        pair.client.connection.write(finished, b"x"),
        Poll::Ready(Err(StreamFailure::Session(_)))
    ));
}

#[test]
fn a_reset_drops_what_was_unread_and_an_end_of_file_does_not() {
    let mut pair = Pair::ready();
    let stream = established(&mut pair);
    pair.client.write(stream, b"truncated");
    pair.drive();
    pair.client.connection.reset(stream, StreamCode::INTERNAL);
    pair.drive();
    assert!(matches!(
        pair.server.outcome(stream),
        Poll::Ready(Err(StreamFailure::Reset(StreamCode::INTERNAL)))
    ));
    // The other direction goes on.
    pair.server.write(stream, b"answer");
    pair.drive();
    assert_eq!(pair.client.read(stream), b"answer");
}

#[test]
fn a_finished_stream_is_sent_after_its_handle_is_gone() {
    let mut pair = Pair::ready();
    let stream = established(&mut pair);
    let data = vec![8; 200_000];
    assert_eq!(pair.client.write(stream, &data), data.len());
    pair.client.connection.finish(stream).unwrap();
    pair.client
        .connection
        .release(stream, StreamCode::CANCELLED);
    let mut received = 0;
    for _ in 0..10 {
        pair.drive();
        received += pair.server.read(stream).len();
    }
    assert_eq!(received, data.len());
    assert!(matches!(pair.server.outcome(stream), Poll::Ready(Ok(None))));
}

#[test]
fn a_stream_dropped_before_it_was_announced_is_announced_and_reset() {
    let mut pair = Pair::ready();
    let stream = pair.client.open();
    pair.client
        .connection
        .release(stream, StreamCode::CANCELLED);
    pair.drive();
    let next = pair.client.open();
    pair.drive();
    assert_eq!(pair.server.accept(), next, "the dropped one is not offered");
    pair.drive();
    assert_eq!(pair.client.connection.held_streams(), 1);
    assert_eq!((stream, next), (id(1), id(3)));
}

#[test]
fn small_writes_pass_bulk() {
    let mut pair = Pair::ready();
    let bulk: Vec<_> = (0..8).map(|_| established(&mut pair)).collect();
    let small = established(&mut pair);
    let chunk = vec![0; 256 * 1024];
    for stream in &bulk {
        pair.client.write(*stream, &chunk);
    }
    pair.client.write(small, b"keystroke");
    let mut batch = super::super::batch::Batch::default();
    pair.client.connection.poll_transmit(pair.now, &mut batch);
    let first = batch.take();
    assert!(first.starts_with(&data(small.value(), b"keystroke")));
}

#[test]
fn bulk_streams_take_turns() {
    let mut pair = Pair::ready();
    let streams: Vec<_> = (0..4).map(|_| established(&mut pair)).collect();
    for stream in &streams {
        pair.client.write(*stream, &[0; 128 * 1024]);
    }
    let mut batch = super::super::batch::Batch::default();
    pair.client.connection.poll_transmit(pair.now, &mut batch);
    let mut sent = batch.take();
    let mut order = Vec::new();
    while sent.len() >= 8 {
        let length = u32::from_be_bytes([0, sent[0], sent[1], sent[2]]) as usize;
        order.push(u32::from_be_bytes([sent[4], sent[5], sent[6], sent[7]]));
        assert!(
            length <= 16 * 1024,
            "short frames while several streams have data"
        );
        let _ = sent.split_to(8 + length);
    }
    let turn: Vec<_> = streams.iter().map(|stream| stream.value()).collect();
    assert_eq!(order[..8], [turn.clone(), turn].concat());
}

#[test]
fn a_stream_alone_has_long_frames() {
    let mut pair = Pair::ready();
    let stream = established(&mut pair);
    pair.client.write(stream, &[0; 128 * 1024]);
    let mut batch = super::super::batch::Batch::default();
    pair.client.connection.poll_transmit(pair.now, &mut batch);
    let sent = batch.take();
    assert_eq!(&sent[..3], &[0, 0xff, 0xf8]);
}

#[test]
fn draining_ends_both_sides_once_the_last_stream_has_ended() {
    let mut pair = Pair::ready();
    let stream = established(&mut pair);
    pair.client.connection.go_away("enough");
    pair.drive();
    assert!(pair.server.connection.is_going_away());
    assert!(!pair.client.connection.is_closing() && !pair.server.connection.is_closing());
    pair.client.write(stream, b"last");
    pair.client.connection.finish(stream).unwrap();
    pair.drive();
    assert_eq!(pair.server.read(stream), b"last");
    pair.server.connection.finish(stream).unwrap();
    pair.drive();
    assert!(pair.client.connection.is_closing() && pair.server.connection.is_closing());
}

#[test]
fn a_stream_opened_just_before_going_away_is_served() {
    let mut pair = Pair::ready();
    let stream = pair.client.open();
    pair.client.write(stream, b"in time");
    pair.client.connection.go_away("enough");
    pair.drive();
    assert_eq!(pair.server.accept(), stream);
    assert_eq!(pair.server.read(stream), b"in time");
}

#[test]
fn credit_follows_the_number_of_streams() {
    let config = Config::default().with_receive_budget(32 << 20);
    let mut pair = Pair::with(config.clone(), config);
    pair.drive();
    let streams: Vec<_> = (0..128).map(|_| pair.client.open()).collect();
    pair.drive();
    for stream in &streams {
        pair.server.accept();
        pair.client.write(*stream, &[0; 300_000]);
    }
    for _ in 0..20 {
        pair.drive();
        for stream in &streams {
            pair.server.read(*stream);
        }
    }
    pair.server.connection.assert_consistent();
}
