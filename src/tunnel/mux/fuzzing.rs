//! Entry points of the fuzz targets. Not part of the API.

use std::{collections::VecDeque, task::Poll, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{
    batch::Batch,
    blocks::Blocks,
    code::StreamCode,
    config::{Config, MAX_FRAME},
    connection::Connection,
    decoder::Decoder,
    frame::Frame,
    id::Role,
    settings::{PREFACE, Settings},
    simulation::{Step, World},
};

/// Feeds `input` to the frame decoder in pieces whose length the first byte gives.
pub fn decode_frames(input: &[u8]) {
    let Some((step, rest)) = input.split_first() else {
        return;
    };
    let mut decoder = Decoder::new(MAX_FRAME as u32);
    for piece in rest.chunks(usize::from(*step) + 1) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Plays a peer that says `input` after a proper introduction, against an application that reads and answers a
/// little; checks the bounds after every step. Returns the receive budget of the end that was played against.
///
/// The first byte says how much one read of the transport gives. Where its highest bit is set that is much, in multiples of
/// 64 bytes, with tight limits, and what else was in each receive block is kept by nobody.
pub fn hostile_peer(input: &[u8]) -> u64 {
    let Some((&setup, rest)) = input.split_first() else {
        return 0;
    };
    let is_tight = setup & 0x80 != 0;
    let step = usize::from(setup & 0x7f) + 1;
    let (step, config) = if is_tight {
        (step * 64, tight(1))
    } else {
        (step, Config::default())
    };
    let budget = config.limits(Role::Server).effective_receive_budget();
    let now = Instant::now();
    let mut connection = Connection::new(Role::Server, config, now);
    let mut hello = BytesMut::from(&PREFACE[..]);
    Frame::Settings(Settings::INITIAL).encode(&mut hello);
    connection.handle_input(now, hello.freeze());
    let own = match connection.open(&Bytes::new()) {
        Poll::Ready(opened) => opened.ok(),
        Poll::Pending => None,
    };
    let mut blocks = Blocks::default();
    let mut accepted = VecDeque::new();
    for piece in rest.chunks(step) {
        let block = blocks.writable();
        block.extend_from_slice(piece);
        if is_tight {
            drop(block.split_off(block.len()));
        }
        connection.handle_input(now, block.split().freeze());
        connection.assert_consistent();
        if let Poll::Ready(Some((id, _))) = connection.accept() {
            let _ = connection.read(id, 3);
            let _ = connection.write(id, b"answer");
            if piece.ends_with(b"\0") {
                connection.release(id, StreamCode::CANCELLED);
            } else {
                accepted.push_back(id);
            }
        }
        if let Some(id) = own {
            let _ = connection.write(id, b"question");
            let _ = connection.read(id, 1);
        }
        accepted.rotate_left(accepted.len().min(1));
        if let Some(id) = accepted.front() {
            let _ = connection.read(*id, usize::from(piece[0]) * 8 + 1);
        }
        let mut batch = Batch::default();
        connection.poll_transmit(now, &mut batch);
        let _ = batch.take();
        connection.assert_consistent();
        while connection.poll_event().is_some() {}
    }
    budget
}

/// Runs `input` as operations on both ends of a session, beside the model that says what must come out.
///
/// The first byte chooses the limits and who leaves at the end, every four after it are a step.
pub fn operate(input: &[u8]) {
    let Some((setup, rest)) = input.split_first() else {
        return;
    };
    let config = |is_tight: bool| {
        if is_tight {
            tight(usize::from(setup >> 4) + 1)
        } else {
            Config::default()
        }
    };
    let mut world = World::new(config(setup & 1 != 0), config(setup & 2 != 0));
    for bytes in rest
        .as_chunks::<{ Step::LENGTH }>()
        .0
        .iter()
        .take(MAX_STEPS)
    {
        world.run(Step::from_bytes(*bytes));
    }
    match setup & 0xc {
        4 => world.leave(Role::Client),
        8 => world.leave(Role::Server),
        _ => {}
    }
    world.settle();
}

/// Limits that short inputs reach.
fn tight(max_opened: usize) -> Config {
    Config::default()
        .with_max_streams(16)
        .with_max_opened(max_opened)
        .with_max_unaccepted(16)
        .with_receive_budget(0)
        .with_send_queue(10_000)
}

/// Keeps a run within milliseconds.
const MAX_STEPS: usize = 400;
