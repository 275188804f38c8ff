//! What a peer can do wrong.

use std::fmt;

use super::{
    code::CloseCode,
    frame::Kind,
    id::StreamId,
    settings::{PREFACE, VERSION},
};
use crate::{Error, ErrorKind};

/// One way of breaking the protocol. Every one of them ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// A RESET or DATA frame for a direction that had ended.
    AfterEnd(StreamId),
    /// More control frames than the data beside them explains.
    ControlFlood,
    /// A CREDIT below an earlier one.
    CreditDecreased(StreamId),
    /// A limit above [`MAX_OFFSET`](super::flow::MAX_OFFSET) or above the ids that exist.
    LimitOverflow,
    /// A RESET whose final size is not what was received.
    FinalSize {
        stream: StreamId,
        claimed: u64,
        received: u64,
    },
    /// A length that this kind of frame can not have.
    FrameLength { kind: Kind, length: u32 },
    /// A frame above our SETTINGS.
    FrameTooLong { length: u32, limit: u32 },
    /// A second GOAWAY that takes more streams in than the first.
    GoAwayIncreased,
    /// More discarded data after our GOAWAY than a peer can have had under way.
    IgnoredData,
    /// A MAX_STREAMS below an earlier one.
    MaxStreamsDecreased,
    /// Metadata above [`MAX_METADATA`](super::config::MAX_METADATA), or longer than its frame.
    Metadata { length: usize },
    /// The peer speaks something else.
    Preface([u8; 4]),
    /// Feature bits that must be understood and are not (shifted down by 32).
    RequiredFeatures(u64),
    /// A value in SETTINGS below what the protocol starts with.
    SettingTooLow {
        name: &'static str,
        value: u32,
        least: u32,
    },
    /// The first frame was not SETTINGS.
    SettingsMissing,
    /// SETTINGS came twice.
    SettingsRepeated,
    /// A frame about the session with a stream id, or one about a stream without.
    StreamField { kind: Kind, stream: u32 },
    /// A frame for a stream that nobody opened.
    StreamNotOpen(u32),
    /// An OPEN out of order, with a used id, or with an id of the other side's.
    StreamOrder { found: u32, expected: u32 },
    /// An OPEN above MAX_STREAMS.
    TooManyStreams { limit: u64 },
    /// A flag that this kind of frame does not have.
    UnknownFlags { kind: Kind, flags: u8 },
    /// A kind of frame that is neither known nor marked as ignorable.
    UnknownKind(u8),
    /// A version that is not ours.
    Version(u32),
    /// More data than credit.
    WindowExceeded(StreamId),
}

impl Violation {
    /// What the peer is told in GOAWAY.
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::AfterEnd(_) | Self::FinalSize { .. } | Self::StreamNotOpen(_) => {
                CloseCode::STREAM_STATE
            }
            Self::ControlFlood | Self::IgnoredData => CloseCode::EXCESSIVE_LOAD,
            Self::CreditDecreased(_) | Self::LimitOverflow | Self::WindowExceeded(_) => {
                CloseCode::FLOW_CONTROL
            }
            Self::FrameLength { .. } | Self::FrameTooLong { .. } | Self::Metadata { .. } => {
                CloseCode::FRAME_SIZE
            }
            Self::Preface(_)
            | Self::RequiredFeatures(_)
            | Self::UnknownFlags { .. }
            | Self::UnknownKind(_)
            | Self::Version(_) => CloseCode::UNSUPPORTED,
            Self::TooManyStreams { .. } => CloseCode::STREAM_LIMIT,
            Self::GoAwayIncreased
            | Self::MaxStreamsDecreased
            | Self::SettingTooLow { .. }
            | Self::SettingsMissing
            | Self::SettingsRepeated
            | Self::StreamField { .. }
            | Self::StreamOrder { .. } => CloseCode::PROTOCOL,
        }
    }

    pub(super) fn into_error(self) -> Error {
        let error = Error::new(ErrorKind::Protocol, self.to_string());
        match self {
            Self::Preface(_) => error.with_help(
                "check that the address leads to an agent, or to a relay behind which one listens",
            ),
            Self::Version(_) | Self::RequiredFeatures(_) => {
                error.with_help("update the older of the two ends")
            }
            _ => error,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AfterEnd(stream) => write!(f, "stream {stream} went on after its end"),
            Self::ControlFlood => f.write_str("too many control frames for the data beside them"),
            Self::CreditDecreased(stream) => {
                write!(f, "the credit of stream {stream} was taken back")
            }
            Self::LimitOverflow => f.write_str("a limit is too large"),
            Self::FinalSize {
                stream,
                claimed,
                received,
            } => write!(
                f,
                "stream {stream} was reset at {claimed} bytes, but {received} arrived"
            ),
            Self::FrameLength { kind, length } => {
                write!(f, "a {kind:?} frame can not be {length} bytes long")
            }
            Self::FrameTooLong { length, limit } => {
                write!(f, "a frame of {length} bytes is above the limit of {limit}")
            }
            Self::GoAwayIncreased => f.write_str("GOAWAY took back an earlier one"),
            Self::IgnoredData => f.write_str("too much data on streams that were refused"),
            Self::MaxStreamsDecreased => f.write_str("the stream limit was lowered"),
            Self::Metadata { length } => write!(f, "metadata of {length} bytes is not allowed"),
            Self::Preface(seen) => {
                f.write_str("the peer does not speak this tunnel protocol: first bytes")?;
                for byte in seen {
                    write!(f, " {byte:02x}")?;
                }
                f.write_str(", expected")?;
                for byte in PREFACE {
                    write!(f, " {byte:02x}")?;
                }
                Ok(())
            }
            Self::RequiredFeatures(bits) => write!(
                f,
                "the peer requires features that this side does not have: {bits:#x}"
            ),
            Self::SettingTooLow { name, value, least } => {
                write!(f, "{name} of {value} in SETTINGS is below {least}")
            }
            Self::SettingsMissing => f.write_str("the first frame is not SETTINGS"),
            Self::SettingsRepeated => f.write_str("SETTINGS came twice"),
            Self::StreamField { kind, stream } => {
                write!(f, "a {kind:?} frame can not have stream id {stream}")
            }
            Self::StreamNotOpen(stream) => write!(f, "stream {stream} was never opened"),
            Self::StreamOrder { found, expected } => {
                write!(f, "stream {found} was opened where {expected} is next")
            }
            Self::TooManyStreams { limit } => {
                write!(f, "a stream was opened above the limit of {limit}")
            }
            Self::UnknownFlags { kind, flags } => {
                write!(f, "a {kind:?} frame can not have flags {flags:#x}")
            }
            Self::UnknownKind(kind) => write!(f, "frame kind {kind} is unknown"),
            Self::Version(version) => write!(
                f,
                "the peer speaks version {version} of the tunnel protocol, this side {VERSION}"
            ),
            Self::WindowExceeded(stream) => {
                write!(f, "stream {stream} sent more than its credit")
            }
        }
    }
}
