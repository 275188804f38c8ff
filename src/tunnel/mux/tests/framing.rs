//! How bytes become frames, and frames bytes: in pieces, in turns.

use std::task::Poll;

use super::{
    super::{batch::Batch, id::Role, simulation::Pair},
    data, fin, open,
    wire::Scripted,
};

#[test]
fn m21_one_byte_fragments_deliver_the_same() {
    let mut pair = Pair::ready();
    pair.fragment = 1;
    let stream = pair.established();
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
fn m23_small_writes_pass_bulk() {
    let mut pair = Pair::ready();
    let bulk: Vec<_> = (0..8).map(|_| pair.established()).collect();
    let small = pair.established();
    let chunk = vec![0; 256 * 1024];
    for stream in &bulk {
        pair.client.write(*stream, &chunk);
    }
    pair.client.write(small, b"keystroke");
    let mut batch = Batch::default();
    pair.client.connection.poll_transmit(pair.now, &mut batch);
    let first = batch.take();
    assert!(first.starts_with(&data(small.value(), b"keystroke")));
}

#[test]
fn m24_bulk_streams_take_turns() {
    let mut pair = Pair::ready();
    let streams: Vec<_> = (0..4).map(|_| pair.established()).collect();
    for stream in &streams {
        pair.client.write(*stream, &[0; 128 * 1024]);
    }
    let mut batch = Batch::default();
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
    let stream = pair.established();
    pair.client.write(stream, &[0; 128 * 1024]);
    let mut batch = Batch::default();
    pair.client.connection.poll_transmit(pair.now, &mut batch);
    let sent = batch.take();
    assert_eq!(&sent[..3], &[0, 0xff, 0xf8]);
}

#[test]
fn what_is_a_little_longer_than_a_frame_becomes_two_halves() {
    let mut pair = Pair::ready();
    let stream = pair.established();
    pair.client.write(stream, &[0; 64 * 1024]);
    let mut batch = Batch::default();
    pair.client.connection.poll_transmit(pair.now, &mut batch);
    let half = data(stream.value(), &[0; 32 * 1024]);
    assert_eq!(batch.take(), [half.clone(), half].concat());
}
