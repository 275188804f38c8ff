//! [`Refusal`]: why the serving side refused a stream.

use std::{error::Error as StdError, fmt, io};

use super::{
    bridge::BridgeRefusal,
    mux::{StreamCode, StreamFailure},
};
use crate::{Error, ErrorKind};

/// Why the serving side of a tunnel refused a stream. Its code travels in the RESET frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The stream was opened by the side that serves.
    WrongDirection,
    /// The target's name is not UTF-8, or not a name that [`Target`](super::Target) accepts.
    BadName,
    /// Nothing of that name is served.
    UnknownTarget,
}

impl Refusal {
    const ALL: [Self; 3] = [Self::WrongDirection, Self::BadName, Self::UnknownTarget];

    /// The code on the wire.
    pub fn code(self) -> StreamCode {
        let number = match self {
            Self::WrongDirection => 0,
            Self::BadName => 1,
            Self::UnknownTarget => 2,
        };
        StreamCode::new(FIRST_CODE + number)
    }

    /// The refusal that made reading or writing a [`TunnelStream`](super::TunnelStream) fail, or opening one through a
    /// [`BridgeTunnel`](super::BridgeTunnel), if that is why. `error` is an [`io::Error`] or an [`Error`].
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(StreamFailure::Reset(code) | StreamFailure::Stopped(code)) =
                error.downcast_ref()
            {
                return Self::ALL
                    .into_iter()
                    .find(|refusal| refusal.code() == *code);
            }
            if let Some(BridgeRefusal::UnknownPort) = error.downcast_ref() {
                return Some(Self::UnknownTarget);
            }
            // The source of an `io::Error` is not what it carries but the source of that.
            cause = match error.downcast_ref::<io::Error>() {
                Some(error) => error.get_ref().map(|inner| inner as _),
                None => error.source(),
            };
        }
        None
    }

    /// The refusal as an error; `failure` is how it was noticed.
    pub(super) fn into_error(self, failure: impl StdError + Send + Sync + 'static) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("the far end of the tunnel refused the stream: {self}"),
        )
        .with_source(failure)
        .with_help("check what the agent serves, and that its version fits")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongDirection => "streams are opened by the side that dialled only",
            Self::BadName => "the target's name is malformed",
            Self::UnknownTarget => "nothing of that name is served",
        })
    }
}

/// The first of the codes that the multiplexer leaves to those above it.
const FIRST_CODE: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_every_other_failure() {
        for refusal in Refusal::ALL {
            for failure in [
                StreamFailure::Reset(refusal.code()),
                StreamFailure::Stopped(refusal.code()),
            ] {
                let error = io::Error::from(failure);
                assert_eq!(Refusal::of(&error), Some(refusal));
                let error = refusal.into_error(error);
                assert_eq!(Refusal::of(&error), Some(refusal));
                assert_eq!(Refusal::of(&io::Error::other(error)), Some(refusal));
            }
        }
        let other = StreamFailure::Reset(StreamCode::CANCELLED);
        assert_eq!(Refusal::of(&io::Error::from(other)), None);
        assert_eq!(
            Refusal::of(&io::Error::from(io::ErrorKind::BrokenPipe)),
            None
        );
    }
}
