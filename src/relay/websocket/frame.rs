//! The frame header (RFC 6455 section 5.2), as pure functions.

use super::{Role, error::Violation};

/// Control frames carry at most this many bytes, so their length is one byte and they are never split.
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

/// Two bytes, eight of length, four of mask.
pub(super) const MAX_HEADER: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) opcode: Opcode,
    /// The FIN bit: the frame is its message's last.
    pub(super) is_final: bool,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) length: u64,
}

impl Opcode {
    fn parse(value: u8) -> Result<Self, Violation> {
        Ok(match value {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return Err(Violation::ReservedOpcode(value)),
        })
    }

    fn value(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl FrameHeader {
    /// Reads the header at the start of `input`, with its length in bytes; `None` when more input is needed.
    ///
    /// A header that can not become valid is refused at its first wrong byte, not when it is complete: a peer that
    /// sends nonsense and waits is told.
    pub(super) fn parse(input: &[u8], role: Role) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        if first & RESERVED_BITS != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = Opcode::parse(first & OPCODE_BITS)?;
        let is_final = first & FINAL_BIT != 0;
        if opcode.is_control() && !is_final {
            return Err(Violation::FragmentedControl);
        }

        let Some(&second) = input.get(1) else {
            return Ok(None);
        };
        let is_masked = second & MASK_BIT != 0;
        match role {
            Role::Server if !is_masked => return Err(Violation::Unmasked),
            Role::Client if is_masked => return Err(Violation::Masked),
            _ => {}
        }
        let short_length = second & !MASK_BIT;
        if opcode.is_control() && usize::from(short_length) > MAX_CONTROL_PAYLOAD {
            return Err(Violation::LongControl);
        }

        let rest = &input[2..];
        let (length, rest) = match short_length {
            LENGTH_IN_2_BYTES => {
                let Some((bytes, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let length = u64::from(u16::from_be_bytes(*bytes));
                if length < u64::from(LENGTH_IN_2_BYTES) {
                    return Err(Violation::NonMinimalLength);
                }
                (length, rest)
            }
            LENGTH_IN_8_BYTES => {
                let Some((bytes, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let length = u64::from_be_bytes(*bytes);
                if length <= u64::from(u16::MAX) {
                    return Err(Violation::NonMinimalLength);
                }
                if length > i64::MAX as u64 {
                    return Err(Violation::LengthTooLarge);
                }
                (length, rest)
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if is_masked {
            let Some((mask, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (Some(*mask), rest)
        } else {
            (None, rest)
        };

        let header = Self {
            opcode,
            is_final,
            mask,
            length,
        };
        Ok(Some((header, input.len() - rest.len())))
    }

    /// Appends the header in its shortest form.
    pub(super) fn encode(&self, out: &mut impl Extend<u8>) {
        let first = self.opcode.value() | if self.is_final { FINAL_BIT } else { 0 };
        let mask_bit = if self.mask.is_some() { MASK_BIT } else { 0 };
        match self.length {
            length @ 0..=125 => out.extend([first, mask_bit | length as u8]),
            length @ 126..=0xffff => {
                out.extend([first, mask_bit | LENGTH_IN_2_BYTES]);
                out.extend((length as u16).to_be_bytes());
            }
            length => {
                out.extend([first, mask_bit | LENGTH_IN_8_BYTES]);
                out.extend(length.to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            out.extend(mask);
        }
    }
}

const FINAL_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;
const MASK_BIT: u8 = 0x80;
const LENGTH_IN_2_BYTES: u8 = 126;
const LENGTH_IN_8_BYTES: u8 = 127;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(input: &[u8], role: Role) -> Result<Option<(FrameHeader, usize)>, Violation> {
        FrameHeader::parse(input, role)
    }

    #[test]
    fn headers_of_rfc_6455_section_5_7() {
        let cases: [(&[u8], Role, Opcode, bool, u64); 6] = [
            (b"\x81\x05", Role::Client, Opcode::Text, true, 5),
            (
                b"\x81\x85\x37\xfa\x21\x3d",
                Role::Server,
                Opcode::Text,
                true,
                5,
            ),
            (b"\x01\x03", Role::Client, Opcode::Text, false, 3),
            (b"\x80\x02", Role::Client, Opcode::Continuation, true, 2),
            (b"\x82\x7e\x01\x00", Role::Client, Opcode::Binary, true, 256),
            (
                b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
                Role::Client,
                Opcode::Binary,
                true,
                65536,
            ),
        ];
        for (bytes, role, opcode, is_final, length) in cases {
            let (header, used) = parse(bytes, role).unwrap().unwrap();
            assert_eq!(
                (header.opcode, header.is_final, header.length),
                (opcode, is_final, length)
            );
            assert_eq!(used, bytes.len());
            let mut again = Vec::new();
            header.encode(&mut again);
            assert_eq!(again, bytes);
        }
    }

    #[test]
    fn every_refusal() {
        let cases: [(&[u8], Role, Violation); 12] = [
            (b"\xc1", Role::Client, Violation::ReservedBit),
            (b"\xa1", Role::Client, Violation::ReservedBit),
            (b"\x91", Role::Client, Violation::ReservedBit),
            (b"\x83", Role::Client, Violation::ReservedOpcode(3)),
            (b"\x8b", Role::Client, Violation::ReservedOpcode(0xb)),
            (b"\x09", Role::Client, Violation::FragmentedControl),
            (b"\x89\x7e", Role::Client, Violation::LongControl),
            (b"\x81\x05", Role::Server, Violation::Unmasked),
            (b"\x81\x85", Role::Client, Violation::Masked),
            (
                b"\x81\x7e\x00\x7d",
                Role::Client,
                Violation::NonMinimalLength,
            ),
            (
                b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
                Role::Client,
                Violation::NonMinimalLength,
            ),
            (
                b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
                Role::Client,
                Violation::LengthTooLarge,
            ),
        ];
        for (bytes, role, violation) in cases {
            assert_eq!(parse(bytes, role), Err(violation), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_and_every_prefix_asks_for_more(
            opcode in prop::sample::select(vec![Opcode::Continuation, Opcode::Text, Opcode::Binary]),
            is_final: bool,
            mask: Option<[u8; 4]>,
            length in prop_oneof![0u64..300, 65_000u64..66_000, 0u64..=i64::MAX as u64],
        ) {
            let header = FrameHeader { opcode, is_final, mask, length };
            let role = if mask.is_some() { Role::Server } else { Role::Client };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert!(bytes.len() <= MAX_HEADER);
            prop_assert_eq!(parse(&bytes, role), Ok(Some((header, bytes.len()))));
            for end in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..end], role), Ok(None));
            }
        }

        #[test]
        fn no_input_panics(bytes: [u8; 16], end in 0usize..=16) {
            for role in [Role::Client, Role::Server] {
                let _ = parse(&bytes[..end], role);
            }
        }
    }
}
