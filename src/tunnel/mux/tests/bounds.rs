//! Every bound on streams and memory is reached.

use std::{sync::Arc, task::Poll};

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
    control, data, hello, id, open, raw,
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
    assert_eq!(server.connection.queued_slices(id(1)), 2);
    let mut chunk = Bytes::from(vec![b'x'; 1000]);
    let written = server.connection.write_chunk(id(1), &mut chunk);
    assert!(matches!(written, Poll::Ready(Ok(()))));
    assert_eq!(server.connection.queued_slices(id(1)), 3);
}

/// A peer that fills receive blocks as a transport would, and sees how many of them are alive.
struct Filling {
    server: Scripted,
    sent: Vec<usize>,
    block: Vec<u8>,
    /// Each block has one, too.
    alive: Arc<()>,
    highest: usize,
}

struct Block {
    bytes: Vec<u8>,
    _alive: Arc<()>,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Filling {
    /// The streams are open and accepted, and have the credit that streams begin with.
    fn new(config: Config, streams: u32) -> Self {
        let mut server = Scripted::new(Role::Server, config);
        server.feed(&hello(Settings::INITIAL));
        for index in 0..streams {
            server.feed(&open(2 * index + 1, b"", b""));
            assert!(server.connection.accept().is_ready());
            server.sent();
        }
        Self {
            server,
            sent: vec![0; streams as usize],
            block: Vec::with_capacity(RECEIVE_BLOCK),
            alive: Arc::default(),
            highest: 0,
        }
    }

    fn streams(&self) -> std::ops::Range<u32> {
        0..self.sent.len() as u32
    }

    fn credit(&self, index: u32) -> usize {
        let granted = self.server.connection.granted(id(2 * index + 1));
        granted - self.sent[index as usize]
    }

    fn send(&mut self, index: u32, length: usize) {
        let sent = &mut self.sent[index as usize];
        let payload = pattern(index, *sent..*sent + length);
        *sent += length;
        self.write(&data(2 * index + 1, &payload));
    }

    /// Fills the block with what nobody keeps.
    fn use_up(&mut self) {
        while !self.block.is_empty() {
            let room = RECEIVE_BLOCK - self.block.len();
            let skipped = room.min(60_000).saturating_sub(8);
            self.write(&raw(0xa, 0x8, 0, &vec![0; skipped]));
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = RECEIVE_BLOCK - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == RECEIVE_BLOCK {
                self.deliver();
            }
        }
    }

    fn deliver(&mut self) {
        let block = Block {
            bytes: std::mem::replace(&mut self.block, Vec::with_capacity(RECEIVE_BLOCK)),
            _alive: Arc::clone(&self.alive),
        };
        let connection = &mut self.server.connection;
        connection.handle_input(self.server.now, Bytes::from_owner(block));
        connection.assert_consistent();
        assert!(!connection.is_closing(), "{:?}", connection.ended());
        while connection.poll_event().is_some() {}
        self.highest = self.highest.max(self.kept());
    }

    /// The memory of unread bytes, as it is.
    fn kept(&self) -> usize {
        let blocks = Arc::strong_count(&self.alive) - 1;
        blocks * RECEIVE_BLOCK + self.server.connection.copied()
    }

    /// Reads up to `length` bytes and checks them. Returns how many there were.
    fn read(&mut self, index: u32, from: usize, length: usize) -> usize {
        let mut read = from;
        while read < from + length
            && let Poll::Ready(Ok(Some(bytes))) = self
                .server
                .connection
                .read(id(2 * index + 1), from + length - read)
        {
            assert!(bytes == pattern(index, read..read + bytes.len()), "{index}");
            read += bytes.len();
        }
        read - from
    }
}

/// What is sent on a stream.
fn pattern(index: u32, range: std::ops::Range<usize>) -> Vec<u8> {
    let period: Vec<u8> = (0..251).collect();
    let start = (range.start + 7 * index as usize) % period.len();
    let mut bytes = period.repeat(range.len() / period.len() + 2);
    bytes.drain(..start);
    bytes.truncate(range.len());
    bytes
}

#[test]
fn blocks_pinned_by_tiny_slices_and_the_rest_of_the_credit_stay_within_the_budget_together() {
    let budget = 32 * 1024 * 1024;
    let mut peer = Filling::new(Config::default(), 1024);
    // As many blocks as the budget has, by 2 KiB in each.
    for index in 0..(budget / RECEIVE_BLOCK) as u32 {
        peer.send(index, 2048);
        peer.use_up();
    }
    assert_eq!(peer.kept(), budget);
    for index in peer.streams() {
        // Copied as they come; moved, and each as dear as a block; and longer ones.
        let length = [1000, 2048, 15_000][index as usize % 3];
        while peer.credit(index) > 0 {
            peer.send(index, length.min(peer.credit(index)));
            if peer.block.len() > RECEIVE_BLOCK / 2 {
                peer.deliver();
            }
        }
    }
    peer.deliver();
    assert!(peer.highest <= budget, "{} of {budget}", peer.highest);
    let unread: usize = peer.sent.iter().sum();
    assert!(unread > budget / 4 * 3, "{unread} could be sent");
    for index in peer.streams() {
        let sent = peer.sent[index as usize];
        assert_eq!(peer.read(index, 0, sent / 3), sent / 3);
        if index % 64 == 0 {
            peer.server.connection.assert_consistent();
        }
        assert_eq!(peer.read(index, sent / 3, sent), sent - sent / 3);
    }
    peer.server.connection.assert_consistent();
    assert_eq!(peer.kept(), 0);
}

#[test]
fn bytes_come_in_order_whatever_was_read_before_they_were_copied_out_of_their_blocks() {
    let config = Config::default()
        .with_max_streams(16)
        .with_max_opened(16)
        .with_receive_budget(1024 * 1024);
    let mut peer = Filling::new(config, 16);
    let mut read = [0; 16];
    for round in 0..200 {
        for index in peer.streams() {
            let length = [2048, 1, 5000, 300, 16_000][(round + index as usize) % 5];
            let length = length.min(peer.credit(index));
            if length > 0 {
                peer.send(index, length);
            }
            if (round + index as usize).is_multiple_of(3) {
                peer.use_up();
            }
        }
        peer.deliver();
        for index in peer.streams() {
            let limit = [0, 1, 700, 9000][(round / 3 + index as usize) % 4];
            let from = read[index as usize];
            read[index as usize] += peer.read(index, from, limit);
            peer.server.connection.assert_consistent();
        }
        peer.server.sent();
    }
    assert!(peer.server.connection.pinned() > 0 && peer.server.connection.copied() > 0);
    assert!(peer.highest > 512 * 1024, "{}", peer.highest);
    assert!(peer.highest <= 1024 * 1024, "{}", peer.highest);
    for index in peer.streams() {
        let from = read[index as usize];
        let left = peer.sent[index as usize] - from;
        assert_eq!(peer.read(index, from, usize::MAX / 2), left);
    }
}

#[test]
fn nothing_is_copied_while_readers_keep_up() {
    let mut peer = Filling::new(Config::default(), 256);
    // Sixteen frames fill a block, and each stream has one that was not read yet.
    let length = RECEIVE_BLOCK / 16 - 8;
    for round in 0..20 {
        for index in peer.streams() {
            peer.send(index, length);
        }
        assert_eq!(peer.server.connection.pinned(), 256);
        assert_eq!(peer.server.connection.copied(), 0);
        for index in peer.streams() {
            assert_eq!(peer.read(index, round * length, length), length);
        }
        peer.server.sent();
    }
}

#[test]
fn a_reader_that_stands_still_is_copied_for_and_those_that_go_on_are_not() {
    let mut peer = Filling::new(Config::default(), 64);
    let length = RECEIVE_BLOCK / 8 - 8;
    let mut read = vec![0; 64];
    let mut copied = Vec::new();
    for _ in 0..60 {
        for index in peer.streams() {
            let length = length.min(peer.credit(index));
            if length >= 2048 {
                peer.send(index, length);
            }
        }
        peer.use_up();
        copied.push(peer.server.connection.copied());
        // Half of them are never read.
        for index in 32..64 {
            let from = read[index as usize];
            read[index as usize] += peer.read(index, from, usize::MAX / 2);
        }
        peer.server.sent();
    }
    let standing: usize = peer.sent[..32].iter().sum();
    assert!(standing > 3 * 1024 * 1024, "{standing}");
    assert!(copied.last().is_some_and(|copied| *copied > 0));
    assert!(
        copied
            .iter()
            .all(|copied| *copied <= standing + 32 * length)
    );
    // Once they are copied, the blocks are there for the others.
    assert_eq!(copied[20..], [copied[20]; 40]);
}

#[test]
fn streams_that_have_pinned_blocks_and_ended_leave_nothing_behind() {
    let mut peer = Filling::new(Config::default(), 1);
    peer.send(0, 2048);
    peer.deliver();
    for index in 1..2000 {
        let stream = 2 * index + 1;
        peer.write(&open(stream, b"", &[1; 4096]));
        peer.deliver();
        assert!(peer.server.connection.accept().is_ready());
        let connection = &mut peer.server.connection;
        connection.release(id(stream), StreamCode::CANCELLED);
        let reset = Frame::Reset {
            stream: id(stream),
            code: StreamCode::CANCELLED,
            final_size: 4096,
        };
        peer.write(&control(reset));
        peer.server.sent();
    }
    peer.deliver();
    assert_eq!(peer.server.connection.held_streams(), 1);
    assert_eq!(peer.kept(), RECEIVE_BLOCK);
    assert_eq!(peer.read(0, 0, 2048), 2048);
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
