//! The frames and their bytes.

use bytes::{BufMut, BytesMut};

use super::{
    code::{CloseCode, StreamCode},
    id::StreamId,
    settings::Settings,
};

/// Length of a frame header.
pub(super) const HEADER_LENGTH: usize = 8;

/// What a frame is. The number is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data = 1,
    Credit = 2,
    Reset = 3,
    Stop = 4,
    MaxStreams = 5,
    Ping = 6,
    Pong = 7,
    GoAway = 8,
    Settings = 9,
}

impl Kind {
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Data,
            2 => Self::Credit,
            3 => Self::Reset,
            4 => Self::Stop,
            5 => Self::MaxStreams,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::GoAway,
            9 => Self::Settings,
            _ => return None,
        })
    }

    /// Whether a frame of this kind is about one stream, as opposed to the session.
    pub(super) fn is_about_stream(self) -> bool {
        matches!(self, Self::Data | Self::Credit | Self::Reset | Self::Stop)
    }
}

/// The four flag bits of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u8);

impl Flags {
    pub(super) const NONE: Self = Self(0);
    /// DATA: the first frame of a stream; the payload starts with the metadata.
    pub(super) const OPEN: Self = Self(0x1);
    /// DATA: the last frame of this direction.
    pub(super) const FIN: Self = Self(0x2);
    /// DATA: the sender has more, and no credit for it.
    pub(super) const WAITING: Self = Self(0x4);
    /// Unknown kinds: who does not know the kind may skip the frame.
    pub(super) const IGNORABLE: Self = Self(0x8);

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The eight bytes before every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the payload.
    pub(super) length: u32,
    /// Four bits: not every number is a [`Kind`].
    pub(super) kind: u8,
    pub(super) flags: Flags,
    /// Zero for the session.
    pub(super) stream: u32,
}

impl Header {
    pub(super) fn encode(self, out: &mut BytesMut) {
        debug_assert!(self.length < 1 << 24, "lengths have 24 bits");
        out.put_u32((self.length << 8) | (u32::from(self.kind) << 4) | u32::from(self.flags.0));
        out.put_u32(self.stream);
    }

    pub(super) fn decode(bytes: [u8; HEADER_LENGTH]) -> Self {
        let [l0, l1, l2, bits, s0, s1, s2, s3] = bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind: bits >> 4,
            flags: Flags(bits & 0xf),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
        }
    }
}

/// Every frame but DATA, whose payload never stands in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The stream may be sent on up to this offset.
    Credit {
        stream: StreamId,
        limit: u64,
    },
    /// The sender's direction of the stream ends here, without an end of file.
    Reset {
        stream: StreamId,
        code: StreamCode,
        final_size: u64,
    },
    /// The sender will not read the stream any more.
    Stop {
        stream: StreamId,
        code: StreamCode,
    },
    /// This many streams may be opened, counted from the start of the session.
    MaxStreams(u64),
    Ping(u64),
    Pong(u64),
    /// No streams after `last_stream` are taken.
    GoAway {
        last_stream: u32,
        code: CloseCode,
        reason: String,
    },
    Settings(Settings),
}

impl Frame {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Credit { stream, limit } => {
                control_header(out, Kind::Credit, 8, stream.value());
                out.put_u64(*limit);
            }
            Self::Reset {
                stream,
                code,
                final_size,
            } => {
                control_header(out, Kind::Reset, 12, stream.value());
                out.put_u32(code.value());
                out.put_u64(*final_size);
            }
            Self::Stop { stream, code } => {
                control_header(out, Kind::Stop, 4, stream.value());
                out.put_u32(code.value());
            }
            Self::MaxStreams(count) => {
                control_header(out, Kind::MaxStreams, 8, 0);
                out.put_u64(*count);
            }
            Self::Ping(token) => {
                control_header(out, Kind::Ping, 8, 0);
                out.put_u64(*token);
            }
            Self::Pong(token) => {
                control_header(out, Kind::Pong, 8, 0);
                out.put_u64(*token);
            }
            Self::GoAway {
                last_stream,
                code,
                reason,
            } => {
                control_header(out, Kind::GoAway, 8 + reason.len(), 0);
                out.put_u32(*last_stream);
                out.put_u32(code.0);
                out.put_slice(reason.as_bytes());
            }
            Self::Settings(settings) => {
                control_header(out, Kind::Settings, Settings::LENGTH, 0);
                settings.encode(out);
            }
        }
    }
}

/// The header of a DATA frame, and its metadata where it opens a stream.
pub(super) fn encode_data_header(
    out: &mut BytesMut,
    stream: StreamId,
    flags: Flags,
    metadata: Option<&[u8]>,
    payload: usize,
) {
    let opening = metadata.map_or(0, |metadata| METADATA_LENGTH + metadata.len());
    Header {
        length: (opening + payload) as u32,
        kind: Kind::Data as u8,
        flags,
        stream: stream.value(),
    }
    .encode(out);
    if let Some(metadata) = metadata {
        out.put_u16(metadata.len() as u16);
        out.put_slice(metadata);
    }
}

/// Length of the number that stands before the metadata.
pub(super) const METADATA_LENGTH: usize = 2;

fn control_header(out: &mut BytesMut, kind: Kind, length: usize, stream: u32) {
    Header {
        length: length as u32,
        kind: kind as u8,
        flags: Flags::NONE,
        stream,
    }
    .encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(frame: Frame) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        out.to_vec()
    }

    #[test]
    fn every_kind_has_its_exact_bytes() {
        let stream = StreamId::from_wire(0x0102_0305).unwrap();
        #[rustfmt::skip]
        let vectors: Vec<(Frame, Vec<u8>)> = vec![
            (Frame::Credit { stream, limit: 0x4000 },
             vec![0,0,8, 0x20, 1,2,3,5, 0,0,0,0,0,0,0x40,0]),
            (Frame::Reset { stream, code: StreamCode::REFUSED, final_size: 7 },
             vec![0,0,12, 0x30, 1,2,3,5, 0,0,0,1, 0,0,0,0,0,0,0,7]),
            (Frame::Stop { stream, code: StreamCode::new(0x0100) },
             vec![0,0,4, 0x40, 1,2,3,5, 0,0,1,0]),
            (Frame::MaxStreams(130), vec![0,0,8, 0x50, 0,0,0,0, 0,0,0,0,0,0,0,130]),
            (Frame::Ping(1), vec![0,0,8, 0x60, 0,0,0,0, 0,0,0,0,0,0,0,1]),
            (Frame::Pong(u64::MAX), vec![0,0,8, 0x70, 0,0,0,0, 255,255,255,255,255,255,255,255]),
            (Frame::GoAway { last_stream: 5, code: CloseCode::PROTOCOL, reason: "no".into() },
             vec![0,0,10, 0x80, 0,0,0,0, 0,0,0,5, 0,0,0,1, b'n', b'o']),
            (Frame::Settings(Settings::INITIAL),
             vec![0,0,24, 0x90, 0,0,0,0, 0,0,0,1, 0,0,0x40,0, 0,0,0,16, 0,0,0x40,0, 0,0,0,0,0,0,0,0]),
        ];
        for (frame, bytes) in vectors {
            assert_eq!(encoded(frame.clone()), bytes, "{frame:?}");
        }
    }

    #[test]
    fn a_data_header_counts_its_metadata() {
        let mut out = BytesMut::new();
        let stream = StreamId::from_wire(3).unwrap();
        let flags = Flags::OPEN.with(Flags::FIN);
        encode_data_header(&mut out, stream, flags, Some(b"api"), 0x010203);
        assert_eq!(
            out.to_vec(),
            [1, 2, 8, 0x13, 0, 0, 0, 3, 0, 3, b'a', b'p', b'i']
        );
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = Header {
            length: 0xff_ffff,
            kind: 0xf,
            flags: Flags(0xf),
            stream: u32::MAX,
        };
        let mut out = BytesMut::new();
        header.encode(&mut out);
        let bytes: [u8; HEADER_LENGTH] = out.as_ref().try_into().unwrap();
        assert_eq!(Header::decode(bytes), header);
    }
}
