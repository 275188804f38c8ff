//! SPDY/3.1 frames: bytes to frames and back, header blocks still compressed.
//!
//! ```text
//! control: 1 version(15) | type(16) | flags(8) length(24) | payload        data: 0 stream(31) | flags(8) length(24) | payload
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest frame taken; kubectl's pieces are 32 KiB.
const MAX_FRAME_BYTES: usize = 1 << 20;

const HEADER_BYTES: usize = 8;
const CONTROL: u32 = 1 << 31;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// A frame from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream is opened.
    Open { stream: u32, end: End, block: Bytes },
    /// More headers: only their compression state matters.
    Headers { block: Bytes },
    /// Bytes of a stream.
    Data {
        stream: u32,
        end: End,
        payload: Bytes,
    },
    /// A stream is given up.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// No more streams will come.
    GoAway,
    /// SETTINGS, WINDOW_UPDATE and the like, which need no answer.
    Other,
}

/// Whether the sender ends its half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Closed,
}

/// The bytes are not SPDY/3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Frame {
    /// Takes the next whole frame off `input`; `None` when more bytes are needed.
    pub(super) fn take(input: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        if input.len() < HEADER_BYTES {
            return Ok(None);
        }
        let mut head = &input[..HEADER_BYTES];
        let first = head.get_u32();
        let second = head.get_u32();
        let length = (second & 0x00ff_ffff) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(Malformed);
        }
        if input.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        input.advance(HEADER_BYTES);
        let payload = input.split_to(length).freeze();
        let end = if second.to_be_bytes()[0] & FLAG_FIN == 0 {
            End::Open
        } else {
            End::Closed
        };
        if first & CONTROL == 0 {
            return Ok(Some(Self::Data {
                stream: first,
                end,
                payload,
            }));
        }
        let [_, _, high, low] = first.to_be_bytes();
        let version = (first >> 16) & 0x7fff;
        if version != u32::from(VERSION) {
            return Err(Malformed);
        }
        Self::control(u16::from_be_bytes([high, low]), end, payload).map(Some)
    }

    fn control(kind: u16, end: End, mut payload: Bytes) -> Result<Self, Malformed> {
        let mut number = || payload.try_get_u32().map_err(|_| Malformed);
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()? & !CONTROL;
                let _associated = number()?;
                if payload.len() < 2 {
                    return Err(Malformed);
                }
                // Priority and credential slot.
                payload.advance(2);
                Self::Open {
                    stream,
                    end,
                    block: payload,
                }
            }
            HEADERS => {
                number()?;
                Self::Headers { block: payload }
            }
            RST_STREAM => Self::Reset {
                stream: number()? & !CONTROL,
            },
            PING => Self::Ping { id: number()? },
            GOAWAY => Self::GoAway,
            // The server opens no streams, so nobody can reply to one.
            SYN_REPLY => return Err(Malformed),
            _ => Self::Other,
        })
    }
}

pub(super) fn put_reply(out: &mut BytesMut, stream: u32, block: &[u8]) {
    put_control(out, SYN_REPLY, 4 + block.len());
    out.put_u32(stream);
    out.put_slice(block);
}

pub(super) fn put_data(out: &mut BytesMut, stream: u32, end: End, payload: &[u8]) {
    out.put_u32(stream);
    let flags = if end == End::Closed { FLAG_FIN } else { 0 };
    put_length(out, flags, payload.len());
    out.put_slice(payload);
}

pub(super) fn put_ping(out: &mut BytesMut, id: u32) {
    put_control(out, PING, 4);
    out.put_u32(id);
}

/// Says that the connection ends, all being well.
pub(super) fn put_go_away(out: &mut BytesMut, last_stream: u32) {
    put_control(out, GOAWAY, 8);
    out.put_u32(last_stream);
    out.put_u32(0);
}

fn put_control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u16(VERSION | 0x8000);
    out.put_u16(kind);
    put_length(out, 0, length);
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u8(flags);
    let length = u32::try_from(length).expect("frames are made from pieces far below 4 GiB");
    out.put_uint(u64::from(length), 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whole_and_byte_by_byte() {
        let mut wire = BytesMut::new();
        put_data(&mut wire, 5, End::Closed, b"payload");
        put_ping(&mut wire, 9);
        put_go_away(&mut wire, 5);
        let expected = [
            Frame::Data {
                stream: 5,
                end: End::Closed,
                payload: Bytes::from_static(b"payload"),
            },
            Frame::Ping { id: 9 },
            Frame::GoAway,
        ];
        let mut input = BytesMut::new();
        let mut frames = Vec::new();
        for byte in wire {
            input.put_u8(byte);
            while let Some(frame) = Frame::take(&mut input).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, expected);
        assert!(input.is_empty());
    }

    #[test]
    fn what_is_not_spdy_is_refused() {
        let refused: [&[u8]; 5] = [
            // Version 2.
            b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01",
            // Longer than the limit.
            b"\x00\x00\x00\x01\x00\xff\xff\xff",
            // SYN_REPLY from a client.
            b"\x80\x03\x00\x02\x00\x00\x00\x04\x00\x00\x00\x01",
            // SYN_STREAM and PING that end too early.
            b"\x80\x03\x00\x01\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x00\x00",
            b"\x80\x03\x00\x06\x00\x00\x00\x02\x00\x00",
        ];
        for bytes in refused {
            let mut input = BytesMut::from(bytes);
            assert_eq!(Frame::take(&mut input), Err(Malformed), "{bytes:?}");
        }
    }
}
