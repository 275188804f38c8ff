//! Why an operation on a stream failed.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use super::code::StreamCode;
use crate::{Error, ErrorKind};

/// Why a stream can not be read or written any more.
///
/// The [`io::Error`]s of a [`MuxStream`](super::MuxStream) carry one of these as their inner error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The peer ended its direction without an end of file: what was read is not all.
    Reset(StreamCode),
    /// The peer does not read any more.
    Stopped(StreamCode),
    /// The peer was going away and never looked at the stream: it may be opened again elsewhere.
    NotTaken,
    /// This side had finished, reset or stopped this direction before.
    EndedHere,
    /// The whole session ended.
    Session(Arc<Error>),
}

impl fmt::Display for StreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "the peer reset the stream ({code})"),
            Self::Stopped(code) => write!(f, "the peer stopped reading the stream ({code})"),
            Self::NotTaken => f.write_str("the peer was going away and did not take the stream"),
            Self::EndedHere => f.write_str("this side had ended the stream"),
            Self::Session(_) => f.write_str("the tunnel session ended"),
        }
    }
}

impl StdError for StreamFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Session(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StreamFailure> for io::Error {
    fn from(failure: StreamFailure) -> Self {
        let kind = match failure {
            StreamFailure::Reset(_) | StreamFailure::NotTaken => io::ErrorKind::ConnectionReset,
            StreamFailure::Stopped(_) | StreamFailure::EndedHere => io::ErrorKind::BrokenPipe,
            StreamFailure::Session(_) => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, failure)
    }
}

impl From<StreamFailure> for Error {
    fn from(failure: StreamFailure) -> Self {
        if let StreamFailure::Session(error) = failure {
            return session_ended(&error);
        }
        Error::new(ErrorKind::Closed, failure.to_string()).with_source(failure)
    }
}

/// An error of its own for one of the many that a session's end concerns.
pub(super) fn session_ended(error: &Arc<Error>) -> Error {
    let own = Error::new(error.kind(), "the tunnel session ended").with_source(Arc::clone(error));
    match error.help() {
        Some(help) => own.with_help(help.to_owned()),
        None => own,
    }
}

/// Why a session ends whose transport fails; `doing` is "reading from" or "writing to".
pub(super) fn transport_failure(doing: &str, error: &io::Error) -> Error {
    let copy = io::Error::new(error.kind(), error.to_string());
    Error::new(
        ErrorKind::Network,
        format!("{doing} the connection to the peer failed"),
    )
    .with_source(copy)
}
