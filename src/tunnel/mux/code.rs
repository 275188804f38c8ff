//! The numbers that say why a stream or a session ended.

use std::fmt;

/// Why one direction of a stream ended early. Travels in RESET and STOP.
///
/// The multiplexer itself sends [`CANCELLED`](Self::CANCELLED) and [`REFUSED`](Self::REFUSED); numbers from 256 on
/// are free for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamCode(u32);

impl StreamCode {
    /// The stream was dropped before it was finished or read to its end.
    pub const CANCELLED: Self = Self(0);
    /// The stream was never looked at: it may be opened again elsewhere.
    pub const REFUSED: Self = Self(1);
    /// Whoever served the stream failed.
    pub const INTERNAL: Self = Self(2);

    /// A code of the application's own.
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// The number on the wire.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl From<u32> for StreamCode {
    fn from(code: u32) -> Self {
        Self(code)
    }
}

impl fmt::Display for StreamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CANCELLED => f.write_str("cancelled"),
            Self::REFUSED => f.write_str("refused"),
            Self::INTERNAL => f.write_str("internal failure"),
            Self(code) => write!(f, "code {code}"),
        }
    }
}

/// Why a session ended. Travels in GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CloseCode(pub(super) u32);

impl CloseCode {
    /// No new streams; the live ones may end in peace.
    pub(super) const DRAIN: Self = Self(0);
    /// A frame that the rules of the protocol do not allow.
    pub(super) const PROTOCOL: Self = Self(1);
    /// Preface, version, feature or frame kind that this side does not know.
    pub(super) const UNSUPPORTED: Self = Self(2);
    /// More data than credit.
    pub(super) const FLOW_CONTROL: Self = Self(3);
    /// More streams than allowed.
    pub(super) const STREAM_LIMIT: Self = Self(4);
    /// A frame for a stream that can not take it.
    pub(super) const STREAM_STATE: Self = Self(5);
    /// A frame of a length that its kind does not have.
    pub(super) const FRAME_SIZE: Self = Self(6);
    /// Too much work for too little data.
    pub(super) const EXCESSIVE_LOAD: Self = Self(7);
    /// Nothing was heard for too long.
    pub(super) const TIMEOUT: Self = Self(8);
    /// The application closed the session.
    pub(super) const CLOSED: Self = Self(9);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::DRAIN => "drain",
            Self::PROTOCOL => "protocol",
            Self::UNSUPPORTED => "unsupported",
            Self::FLOW_CONTROL => "flow control",
            Self::STREAM_LIMIT => "stream limit",
            Self::STREAM_STATE => "stream state",
            Self::FRAME_SIZE => "frame size",
            Self::EXCESSIVE_LOAD => "excessive load",
            Self::TIMEOUT => "timeout",
            Self::CLOSED => "closed",
            Self(code) => return write!(f, "code {code}"),
        };
        f.write_str(name)
    }
}
