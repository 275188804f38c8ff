//! What can go wrong with framing.

use std::io;

use thiserror::Error;

use crate::{Error, ErrorKind};

/// Why a WebSocket is of no more use.
#[derive(Debug, Error)]
pub(crate) enum WebSocketError {
    /// The socket failed.
    #[error("the WebSocket's connection failed")]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Violation(#[from] Violation),
    /// A Close was already sent: this direction is over.
    #[error("this direction of the WebSocket is closed")]
    SendAfterClose,
}

/// How the peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error("a reserved bit is set, but no extension was agreed on")]
    ReservedBit,
    #[error("unknown opcode {0:#x}")]
    ReservedOpcode(u8),
    #[error("a control frame is fragmented")]
    FragmentedControl,
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    #[error("a client must mask its frames")]
    Unmasked,
    #[error("a server must not mask its frames")]
    Masked,
    #[error("a length is not in its shortest form")]
    NonMinimalLength,
    #[error("a length does not fit in 63 bits")]
    LengthTooLarge,
    #[error("a continuation without a message to continue")]
    StrayContinuation,
    #[error("a new message inside an unfinished one")]
    InterruptedMessage,
    #[error("a Close with half a status code")]
    TruncatedCloseCode,
    #[error("{0} is not a status code that may be sent")]
    InvalidCloseCode(u16),
    #[error("a Close reason is not UTF-8")]
    CloseReasonNotUtf8,
}

#[cfg(any(test, feature = "relay-server"))]
impl WebSocketError {
    /// The status code (RFC 6455 section 7.4.1) that tells the peer, when there is still somebody to tell.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match self {
            Self::Io(_) | Self::SendAfterClose => None,
            Self::Violation(Violation::CloseReasonNotUtf8) => Some(1007),
            Self::Violation(_) => Some(1002),
        }
    }
}

impl From<WebSocketError> for io::Error {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::Io(error) => error,
            WebSocketError::Violation(_) => Self::new(io::ErrorKind::InvalidData, error),
            WebSocketError::SendAfterClose => Self::new(io::ErrorKind::BrokenPipe, error),
        }
    }
}

impl From<WebSocketError> for Error {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::Io(cause) => {
                Self::new(ErrorKind::Network, "the relay connection failed").with_source(cause)
            }
            WebSocketError::Violation(violation) => Self::new(
                ErrorKind::Protocol,
                "the relay peer broke the WebSocket protocol",
            )
            .with_source(violation),
            WebSocketError::SendAfterClose => Self::new(
                ErrorKind::Closed,
                "this direction of the relay connection is closed",
            ),
        }
    }
}
