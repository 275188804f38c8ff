//! Two ends against each other, and one end against scripted bytes.

mod abuse;
mod async_io;
mod bounds;
mod endings;
mod flood;
mod framing;
mod hostile;
mod model;
mod paths;
mod pipes;
mod priorities;
mod probe;
mod progress;
mod rules;
mod sending;
mod silence;
mod vectors;
mod wakers;
mod wire;

use bytes::{BufMut, BytesMut};

use super::{
    frame::{Flags, Frame, Header, Kind, encode_data_header},
    id::StreamId,
    settings::{PREFACE, Settings},
};

/// The preface and SETTINGS of a scripted peer.
fn hello(settings: Settings) -> Vec<u8> {
    [PREFACE.to_vec(), control(Frame::Settings(settings))].concat()
}

fn control(frame: Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.to_vec()
}

fn open(stream: u32, metadata: &[u8], payload: &[u8]) -> Vec<u8> {
    data_frame(stream, Flags::OPEN, Some(metadata), payload)
}

fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    data_frame(stream, Flags::NONE, None, payload)
}

fn fin(stream: u32, payload: &[u8]) -> Vec<u8> {
    data_frame(stream, Flags::FIN, None, payload)
}

fn data_frame(stream: u32, flags: Flags, metadata: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_data_header(&mut out, id(stream), flags, metadata, payload.len());
    out.put_slice(payload);
    out.to_vec()
}

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    Header {
        length: payload.len() as u32,
        kind,
        flags: Flags(flags),
        stream,
    }
    .encode(&mut out);
    out.put_slice(payload);
    out.to_vec()
}

fn id(stream: u32) -> StreamId {
    StreamId::from_wire(stream).expect("not zero")
}

#[test]
fn kinds_are_numbered_as_documented() {
    let kinds = [
        Kind::Data,
        Kind::Credit,
        Kind::Reset,
        Kind::Stop,
        Kind::MaxStreams,
        Kind::Ping,
        Kind::Pong,
        Kind::GoAway,
        Kind::Settings,
    ];
    for (number, kind) in (1..).zip(kinds) {
        assert_eq!(Kind::from_bits(number), Some(kind));
    }
}
