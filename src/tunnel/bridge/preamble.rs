//! The bytes that open a bridged connection, for both ends. Does no I/O.

use std::{error::Error as StdError, fmt};

use bytes::{Buf, Bytes};

/// The version that this crate speaks: 1.0, and the only one there is.
const VERSION: [u8; 2] = [1, 0];

/// The length of a reply, in bytes.
const REPLY_LENGTH: usize = 3;

/// What a listener from before port names answers to whatever it is sent. It has taken four bytes for the whole
/// preamble, so it hands the port's name to its target.
const OLD_REPLY: [u8; 4] = [1, 0, 0, 0];

/// What a bridged connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// Bytes, as TCP has them.
    Stream = 0,
    /// Datagrams, each behind its length.
    Datagram = 1,
}

/// What a client says first. The name is at most 255 bytes.
pub(super) fn hello(mode: Mode, port: &str) -> Vec<u8> {
    let length = u8::try_from(port.len()).expect("a port's name is checked when it is made");
    let mut bytes = Vec::with_capacity(4 + port.len());
    bytes.extend_from_slice(&[VERSION[0], VERSION[1], mode as u8, length]);
    bytes.extend_from_slice(port.as_bytes());
    bytes
}

/// A listener's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Accepted(Mode),
    UnknownVersion,
    /// A stream was asked for, and the port is one for datagrams.
    WantsDatagrams,
    /// Datagrams were asked for, and the port is one for streams.
    WantsStream,
    Unknown([u8; REPLY_LENGTH]),
}

impl Reply {
    fn from_bytes(bytes: [u8; REPLY_LENGTH]) -> Self {
        match bytes {
            [1, 0, 0] => Self::Accepted(Mode::Stream),
            [1, 0, 1] => Self::Accepted(Mode::Datagram),
            [0, 0, 0] => Self::UnknownVersion,
            [0, 0, 1] => Self::WantsDatagrams,
            [0, 0, 0xFF] => Self::WantsStream,
            other => Self::Unknown(other),
        }
    }
}

/// Why a listener gives no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tunnel) enum Refusal {
    /// It closed without a word, which is all that it does about a name that it does not know.
    UnknownPort,
    UnknownVersion,
    WantsDatagrams,
    /// It is from before September 2018 and knows no port names.
    TooOld,
    /// It closed within its reply.
    Truncated,
    /// It does not speak this protocol.
    Garbage([u8; REPLY_LENGTH]),
}

/// What is known of a reply so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The stream is open. What stays in the input are the target's first bytes.
    Accepted,
    Refused(Refusal),
}

/// Reads the answer to a [`hello`] that asked for a stream, however it is cut into pieces.
#[derive(Debug, Default)]
pub(super) struct ReplyDecoder {
    bytes: [u8; REPLY_LENGTH],
    length: usize,
}

impl ReplyDecoder {
    /// Takes the reply's bytes from `piece`, which is what arrived at once.
    pub(super) fn handle_input(&mut self, piece: &mut Bytes) -> Progress {
        // The one place where it matters what arrived together. A listener of today sends three bytes in a message of
        // their own; should a relay join it with a target's first byte, and that be a zero and alone, we refuse wrongly.
        if self.length == 0 && **piece == OLD_REPLY {
            return Progress::Refused(Refusal::TooOld);
        }
        let taken = piece.len().min(REPLY_LENGTH - self.length);
        self.bytes[self.length..self.length + taken].copy_from_slice(&piece[..taken]);
        self.length += taken;
        piece.advance(taken);
        if self.length < REPLY_LENGTH {
            return Progress::More;
        }
        match Reply::from_bytes(self.bytes) {
            Reply::Accepted(Mode::Stream) => Progress::Accepted,
            Reply::UnknownVersion => Progress::Refused(Refusal::UnknownVersion),
            Reply::WantsDatagrams => Progress::Refused(Refusal::WantsDatagrams),
            // No answer to what was asked.
            Reply::Accepted(Mode::Datagram) | Reply::WantsStream | Reply::Unknown(_) => {
                Progress::Refused(Refusal::Garbage(self.bytes))
            }
        }
    }

    /// The listener has closed in good order, and the reply is not there.
    pub(super) fn handle_end(&self) -> Refusal {
        match self.length {
            0 => Refusal::UnknownPort,
            _ => Refusal::Truncated,
        }
    }
}

impl StdError for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPort => f.write_str("it closed without an answer"),
            Self::UnknownVersion => f.write_str("it does not know version 1.0 of the protocol"),
            Self::WantsDatagrams => f.write_str("the port is one for datagrams"),
            Self::TooOld => f.write_str("it is from before September 2018"),
            Self::Truncated => f.write_str("it closed within its answer"),
            Self::Garbage([a, b, c]) => {
                write!(f, "its answer {a:02x} {b:02x} {c:02x} means nothing")
            }
        }
    }
}

/// The listener's half: what a [`hello`] asks for. This crate serves no bridge clients; the tests and the fuzz target
/// hold the client's half against it.
#[cfg(any(test, fuzzing))]
pub(super) mod listener {
    use super::*;

    impl Mode {
        fn from_byte(byte: u8) -> Option<Self> {
            match byte {
                0 => Some(Self::Stream),
                1 => Some(Self::Datagram),
                _ => None,
            }
        }
    }

    /// What is known of a hello so far.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(in super::super) enum Asked {
        More,
        /// What stays in the input are the client's first bytes.
        Port {
            mode: Mode,
            name: String,
        },
        /// To be answered with [`Reply::UnknownVersion`], without reading on.
        UnknownVersion,
    }

    /// Reads a hello, however it is cut into pieces.
    #[derive(Debug, Default)]
    pub(in super::super) struct HelloDecoder {
        bytes: Vec<u8>,
    }

    impl HelloDecoder {
        pub(in super::super) fn handle_input(&mut self, input: &mut Bytes) -> Asked {
            loop {
                let needed = match self.bytes[..] {
                    [a, b, mode, ..] if [a, b] != VERSION || Mode::from_byte(mode).is_none() => {
                        return Asked::UnknownVersion;
                    }
                    [_, _, _, length, ..] => 4 + usize::from(length),
                    [_, _, _] => 4,
                    _ => 3,
                };
                if self.bytes.len() == needed && needed >= 4 {
                    let [_, _, mode, _, name @ ..] = &self.bytes[..] else {
                        unreachable!("it is at least four bytes long");
                    };
                    // As .NET reads it: what is no UTF-8 becomes the replacement character.
                    return Asked::Port {
                        mode: Mode::from_byte(*mode).expect("looked at above"),
                        name: String::from_utf8_lossy(name).into_owned(),
                    };
                }
                if input.is_empty() {
                    return Asked::More;
                }
                let taken = input.len().min(needed - self.bytes.len());
                self.bytes.extend_from_slice(&input.split_to(taken));
            }
        }
    }
}

#[cfg(test)]
mod tests;
