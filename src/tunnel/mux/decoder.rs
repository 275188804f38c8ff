//! Cuts the incoming bytes into frames, however they arrive.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    code::{CloseCode, StreamCode},
    config::{MAX_METADATA, MAX_REASON},
    frame::{Flags, Frame, HEADER_LENGTH, Header, Kind, METADATA_LENGTH},
    id::StreamId,
    settings::{PREFACE, Settings},
    violation::Violation,
};

/// An incremental parser. Holds at most one control payload or one piece of metadata: DATA payloads go through it
/// as slices of the input, also where only a part of the frame has arrived.
#[derive(Debug)]
pub(super) struct Decoder {
    stage: Stage,
    /// The beginning of something that must be whole before it means anything. At most [`MAX_HELD`] bytes.
    held: BytesMut,
    /// The longest payload that our SETTINGS allow.
    max_payload: u32,
}

/// What came out of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Frame(Frame),
    /// A DATA frame begins; its payload follows in [`Decoded::Payload`] pieces, none when `length` is 0.
    Data(DataHeader),
    /// The next bytes of the DATA frame that began last.
    Payload(Bytes),
    /// A frame of an unknown kind that may be skipped.
    Ignored,
}

/// The beginning of a DATA frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DataHeader {
    pub(super) stream: StreamId,
    /// Of the payload, without the metadata.
    pub(super) length: u32,
    /// There where the frame opens the stream.
    pub(super) metadata: Option<Bytes>,
    pub(super) fin: bool,
    /// Whether the sender has more, and no credit for it.
    pub(super) waiting: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Preface,
    Header,
    Control(Kind, Header),
    MetadataLength(Header),
    Metadata(Header, usize),
    Payload(u32),
    Skip(u32),
}

/// The longest thing that is gathered: metadata, or a GOAWAY with its text.
const MAX_HELD: usize = if MAX_METADATA > MAX_REASON + 8 {
    MAX_METADATA
} else {
    MAX_REASON + 8
};

impl Decoder {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            stage: Stage::Preface,
            held: BytesMut::new(),
            max_payload: max_frame - HEADER_LENGTH as u32,
        }
    }

    /// The bytes of the preface that have arrived, while it is not whole.
    pub(super) fn partial_preface(&self) -> Option<&[u8]> {
        matches!(self.stage, Stage::Preface).then_some(self.held.as_ref())
    }

    /// Takes the next thing off `input`; `None` when all of `input` was used up.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Option<Decoded>, Violation> {
        loop {
            match self.stage {
                Stage::Preface => {
                    let Some(seen) = self.gather_array::<4>(input) else {
                        return Ok(None);
                    };
                    if seen != PREFACE {
                        return Err(Violation::Preface(seen));
                    }
                    self.stage = Stage::Header;
                }
                Stage::Header => {
                    let Some(header) = self.gather_array::<HEADER_LENGTH>(input) else {
                        return Ok(None);
                    };
                    let header = Header::decode(header);
                    self.stage = self.check_header(header)?;
                    if let Stage::Payload(length) = self.stage {
                        return Ok(Some(self.begin_data(header, length, None)?));
                    }
                }
                Stage::Control(kind, header) => {
                    let Some(payload) = self.gather(input, header.length as usize) else {
                        return Ok(None);
                    };
                    self.stage = Stage::Header;
                    return control_frame(kind, header, payload)
                        .map(Decoded::Frame)
                        .map(Some);
                }
                Stage::MetadataLength(header) => {
                    let Some(length) = self.gather_array::<METADATA_LENGTH>(input) else {
                        return Ok(None);
                    };
                    let length = usize::from(u16::from_be_bytes(length));
                    if length > MAX_METADATA || length + METADATA_LENGTH > header.length as usize {
                        return Err(Violation::Metadata { length });
                    }
                    self.stage = Stage::Metadata(header, length);
                }
                Stage::Metadata(header, length) => {
                    let Some(metadata) = self.gather(input, length) else {
                        return Ok(None);
                    };
                    // A copy: a few bytes must not pin the block that they arrived in for the stream's life.
                    let metadata = Bytes::copy_from_slice(&metadata);
                    let payload = header.length - (METADATA_LENGTH + length) as u32;
                    return Ok(Some(self.begin_data(header, payload, Some(metadata))?));
                }
                Stage::Payload(remaining) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let piece = input.split_to(input.len().min(remaining as usize));
                    self.stage = match remaining - piece.len() as u32 {
                        0 => Stage::Header,
                        remaining => Stage::Payload(remaining),
                    };
                    return Ok(Some(Decoded::Payload(piece)));
                }
                Stage::Skip(remaining) => {
                    let skipped = input.len().min(remaining as usize);
                    input.advance(skipped);
                    let remaining = remaining - skipped as u32;
                    if remaining > 0 {
                        self.stage = Stage::Skip(remaining);
                        return Ok(None);
                    }
                    self.stage = Stage::Header;
                    return Ok(Some(Decoded::Ignored));
                }
            }
        }
    }

    /// Refuses by the header alone what can be refused by it, before a byte of the payload is kept.
    fn check_header(&self, header: Header) -> Result<Stage, Violation> {
        let length = header.length;
        if length > self.max_payload {
            return Err(Violation::FrameTooLong {
                length: length.saturating_add(HEADER_LENGTH as u32),
                limit: self.max_payload + HEADER_LENGTH as u32,
            });
        }
        let Some(kind) = Kind::from_bits(header.kind) else {
            if header.flags.contains(Flags::IGNORABLE) {
                return Ok(Stage::Skip(length));
            }
            return Err(Violation::UnknownKind(header.kind));
        };
        let known_flags = match kind {
            Kind::Data => Flags::OPEN.with(Flags::FIN).with(Flags::WAITING),
            _ => Flags::NONE,
        };
        let ends_and_waits = Flags::FIN.with(Flags::WAITING);
        if !known_flags.contains(header.flags) || header.flags.contains(ends_and_waits) {
            return Err(Violation::UnknownFlags {
                kind,
                flags: header.flags.0,
            });
        }
        if kind.is_about_stream() != (header.stream != 0) {
            return Err(Violation::StreamField {
                kind,
                stream: header.stream,
            });
        }
        let opens = header.flags.contains(Flags::OPEN);
        let fits = match kind {
            Kind::Data => !opens || length as usize >= METADATA_LENGTH,
            Kind::Credit | Kind::MaxStreams | Kind::Ping | Kind::Pong => length == 8,
            Kind::Reset => length == 12,
            Kind::Stop => length == 4,
            Kind::GoAway => (8..=8 + MAX_REASON).contains(&(length as usize)),
            Kind::Settings => length as usize == Settings::LENGTH,
        };
        if !fits {
            return Err(Violation::FrameLength { kind, length });
        }
        Ok(match kind {
            Kind::Data if opens => Stage::MetadataLength(header),
            Kind::Data => Stage::Payload(length),
            kind => Stage::Control(kind, header),
        })
    }

    fn begin_data(
        &mut self,
        header: Header,
        length: u32,
        metadata: Option<Bytes>,
    ) -> Result<Decoded, Violation> {
        self.stage = match length {
            0 => Stage::Header,
            length => Stage::Payload(length),
        };
        Ok(Decoded::Data(DataHeader {
            stream: stream_id(Kind::Data, header)?,
            length,
            metadata,
            fin: header.flags.contains(Flags::FIN),
            waiting: header.flags.contains(Flags::WAITING),
        }))
    }

    /// The next `length` bytes once all have arrived. Copies only what straddles two inputs.
    fn gather(&mut self, input: &mut Bytes, length: usize) -> Option<Bytes> {
        debug_assert!(length <= MAX_HELD);
        if self.held.is_empty() && input.len() >= length {
            return Some(input.split_to(length));
        }
        let missing = length - self.held.len();
        let taken = input.split_to(input.len().min(missing));
        self.held.extend_from_slice(&taken);
        (self.held.len() == length).then(|| self.held.split().freeze())
    }

    fn gather_array<const N: usize>(&mut self, input: &mut Bytes) -> Option<[u8; N]> {
        if self.held.is_empty()
            && let Some(array) = input.first_chunk().copied()
        {
            input.advance(N);
            return Some(array);
        }
        let bytes = self.gather(input, N)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Some(array)
    }
}

fn stream_id(kind: Kind, header: Header) -> Result<StreamId, Violation> {
    StreamId::from_wire(header.stream).ok_or(Violation::StreamField { kind, stream: 0 })
}

/// Reads a control payload, whose length `check_header` has seen to.
fn control_frame(kind: Kind, header: Header, mut payload: Bytes) -> Result<Frame, Violation> {
    Ok(match kind {
        Kind::Credit => Frame::Credit {
            stream: stream_id(kind, header)?,
            limit: payload.get_u64(),
        },
        Kind::Reset => Frame::Reset {
            stream: stream_id(kind, header)?,
            code: StreamCode::new(payload.get_u32()),
            final_size: payload.get_u64(),
        },
        Kind::Stop => Frame::Stop {
            stream: stream_id(kind, header)?,
            code: StreamCode::new(payload.get_u32()),
        },
        Kind::MaxStreams => Frame::MaxStreams(payload.get_u64()),
        Kind::Ping => Frame::Ping(payload.get_u64()),
        Kind::Pong => Frame::Pong(payload.get_u64()),
        Kind::GoAway => Frame::GoAway {
            last_stream: payload.get_u32(),
            code: CloseCode(payload.get_u32()),
            reason: printable(&payload),
        },
        Kind::Settings => Frame::Settings(Settings::decode(payload)?),
        // Its payload is never gathered: `check_header` makes no `Stage::Control` of it.
        Kind::Data => {
            return Err(Violation::FrameLength {
                kind,
                length: header.length,
            });
        }
    })
}

/// A peer's text as it may stand in a log: no control characters, no line breaks.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_FRAME: u32 = 64 * 1024;

    fn decoder_after_preface() -> Decoder {
        let mut decoder = Decoder::new(MAX_FRAME);
        let mut preface = Bytes::from_static(&PREFACE);
        assert_eq!(decoder.decode(&mut preface), Ok(None));
        decoder
    }

    fn decode_all(mut decoder: Decoder, inputs: Vec<Bytes>) -> Result<Vec<Decoded>, Violation> {
        let mut decoded = Vec::new();
        for mut input in inputs {
            while let Some(item) = decoder.decode(&mut input)? {
                decoded.push(item);
            }
            assert!(input.is_empty());
            assert!(decoder.held.len() <= MAX_HELD);
        }
        Ok(decoded)
    }

    fn refused(bytes: &[u8]) -> Violation {
        decode_all(decoder_after_preface(), vec![Bytes::copy_from_slice(bytes)]).unwrap_err()
    }

    #[test]
    fn another_protocol_is_named_by_its_first_bytes() {
        let mut input = Bytes::from_static(b"HTTP/1.1 400 Bad Request");
        let violation = Decoder::new(MAX_FRAME).decode(&mut input).unwrap_err();
        assert!(
            violation.to_string().starts_with(
                "the peer does not speak this tunnel protocol: first bytes 48 54 54 50"
            ),
            "{violation}"
        );
    }

    #[test]
    fn the_part_of_a_payload_that_arrived_is_delivered_without_a_copy() {
        let mut decoder = decoder_after_preface();
        let block = Bytes::from(vec![0, 0, 5, 0x12, 0, 0, 0, 1, b'a', b'b']);
        let mut input = block.clone();
        let Ok(Some(Decoded::Data(data))) = decoder.decode(&mut input) else {
            panic!("expected DATA");
        };
        assert_eq!((data.length, data.fin), (5, true));
        let Ok(Some(Decoded::Payload(part))) = decoder.decode(&mut input) else {
            panic!("expected a payload");
        };
        assert_eq!(&part[..], b"ab");
        assert_eq!(part.as_ptr(), block[8..].as_ptr());
        let mut rest = Bytes::from_static(b"cde");
        assert_eq!(
            decoder.decode(&mut rest),
            Ok(Some(Decoded::Payload(Bytes::from_static(b"cde"))))
        );
    }

    #[test]
    fn what_a_header_gives_away_is_refused_by_the_header() {
        let too_long = [0xff, 0xff, 0xff, 0x10, 0, 0, 0, 1];
        assert!(matches!(refused(&too_long), Violation::FrameTooLong { .. }));
        let data_without_stream = [0, 0, 1, 0x10, 0, 0, 0, 0];
        assert!(matches!(
            refused(&data_without_stream),
            Violation::StreamField { .. }
        ));
        let ping_with_stream = [0, 0, 8, 0x60, 0, 0, 0, 1];
        assert!(matches!(
            refused(&ping_with_stream),
            Violation::StreamField { .. }
        ));
        let short_credit = [0, 0, 7, 0x20, 0, 0, 0, 1];
        assert!(matches!(
            refused(&short_credit),
            Violation::FrameLength { .. }
        ));
        let open_without_metadata_length = [0, 0, 1, 0x11, 0, 0, 0, 1];
        assert!(matches!(
            refused(&open_without_metadata_length),
            Violation::FrameLength { .. }
        ));
        let long_reason = [0, 4, 9, 0x80, 0, 0, 0, 0];
        assert!(matches!(
            refused(&long_reason),
            Violation::FrameLength { .. }
        ));
        let ping_with_fin = [0, 0, 8, 0x62, 0, 0, 0, 0];
        assert!(matches!(
            refused(&ping_with_fin),
            Violation::UnknownFlags { .. }
        ));
        let unknown = [0, 0, 0, 0xa0, 0, 0, 0, 0];
        assert_eq!(refused(&unknown), Violation::UnknownKind(10));
    }

    #[test]
    fn metadata_must_fit_its_limit_and_its_frame() {
        let above_limit = [0, 8, 0, 0x11, 0, 0, 0, 1, 4, 1];
        assert_eq!(refused(&above_limit), Violation::Metadata { length: 1025 });
        let above_frame = [0, 0, 4, 0x11, 0, 0, 0, 1, 0, 3];
        assert_eq!(refused(&above_frame), Violation::Metadata { length: 3 });
    }

    #[test]
    fn an_ignorable_frame_is_skipped_whole() {
        let bytes = [
            &[0, 0, 3, 0xa8, 9, 9, 9, 9, 1, 2, 3][..],
            &[0, 0, 8, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
        ]
        .concat();
        let decoded = decode_all(decoder_after_preface(), vec![Bytes::from(bytes)]).unwrap();
        assert_eq!(decoded, [Decoded::Ignored, Decoded::Frame(Frame::Ping(7))]);
    }

    #[test]
    fn a_reason_can_not_forge_log_lines() {
        let bytes = [
            0, 0, 11, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, b'a', b'\n', b'b',
        ];
        let decoded = decode_all(
            decoder_after_preface(),
            vec![Bytes::copy_from_slice(&bytes)],
        )
        .unwrap();
        let [Decoded::Frame(Frame::GoAway { reason, .. })] = &decoded[..] else {
            panic!("{decoded:?}");
        };
        assert_eq!(reason, "a b");
    }

    proptest! {
        /// Any split of the input gives the same frames and the same payload bytes.
        #[test]
        fn splits_change_nothing(
            frames in proptest::collection::vec((0u8..4, 0usize..40), 1..12),
            cuts in proptest::collection::vec(1usize..30, 1..40),
        ) {
            let mut bytes = BytesMut::new();
            for (choice, size) in frames {
                let stream = StreamId::from_wire(1).expect("not zero");
                match choice {
                    0 => Frame::Ping(size as u64).encode(&mut bytes),
                    1 => Frame::GoAway {
                        last_stream: 0,
                        code: CloseCode::DRAIN,
                        reason: "x".repeat(size),
                    }.encode(&mut bytes),
                    2 => {
                        super::super::frame::encode_data_header(
                            &mut bytes, stream, Flags::OPEN, Some(&vec![b'm'; size]), size,
                        );
                        bytes.extend_from_slice(&vec![b'p'; size]);
                    }
                    _ => {
                        super::super::frame::encode_data_header(
                            &mut bytes, stream, Flags::NONE, None, size,
                        );
                        bytes.extend_from_slice(&vec![b'q'; size]);
                    }
                }
            }
            let whole = bytes.freeze();
            let mut pieces = Vec::new();
            let mut rest = whole.clone();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                pieces.push(rest.split_to((*cut).min(rest.len())));
            }
            let once = decode_all(decoder_after_preface(), vec![whole]).map(joined);
            let split = decode_all(decoder_after_preface(), pieces).map(joined);
            prop_assert_eq!(once, split);
        }

        /// Arbitrary bytes never panic and never make the decoder hold more than its bound.
        #[test]
        fn arbitrary_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = decode_all(decoder_after_preface(), vec![Bytes::from(bytes)]);
        }
    }

    /// Joins neighbouring payload pieces, which depend on the splits by design.
    fn joined(items: Vec<Decoded>) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for item in items {
            match item {
                Decoded::Payload(piece) => {
                    let text = String::from_utf8_lossy(&piece).into_owned();
                    match out.last_mut() {
                        Some(last) if last.starts_with("payload ") => last.push_str(&text),
                        _ => out.push(format!("payload {text}")),
                    }
                }
                other => out.push(format!("{other:?}")),
            }
        }
        out
    }
}
