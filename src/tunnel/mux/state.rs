//! The states of a stream's two directions.

use super::code::StreamCode;

/// The direction that this side sends in.
///
/// ```text
///            finish            FIN leaves
///   Open ───────────► Finishing ───────► Finished
///    │                    │
///    │  reset, drop, STOP │
///    └─────────┬──────────┘
///              ▼     RESET leaves
///          Resetting ───────────► Reset
/// ```
///
/// `Finished` and `Reset` are ends: the peer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    Finishing,
    Finished,
    Resetting(StreamCode, ResetCause),
    Reset(ResetCause),
}

/// Who wanted a RESET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetCause {
    /// This side.
    Local,
    /// The peer, by a STOP with this code.
    Stopped(StreamCode),
    /// The peer did not take the stream at all: it was going away.
    Refused,
}

impl SendState {
    /// Whether bytes or a FIN may still leave.
    pub(super) fn is_sending(self) -> bool {
        matches!(self, Self::Open | Self::Finishing)
    }

    /// Whether the peer knows that nothing follows.
    pub(super) fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Reset(_))
    }
}

/// The direction that this side receives in.
///
/// ```text
///             FIN
///   Open ───────────► Finished      what had arrived is read, then the end of file
///    │        RESET
///    ├──────────────► Reset         what had arrived is dropped, reading fails
///    │  stop, drop        FIN, RESET
///    └──────────────► Stopped ─────► Discarded
///                     what arrives is dropped and counted
/// ```
///
/// `Finished`, `Reset` and `Discarded` are ends: nothing may follow on the wire. `Stopped` is the tombstone of a
/// reader that left; it stays within the stream limits until the peer has ended its direction too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveState {
    Open,
    Finished,
    Reset(StreamCode),
    Stopped,
    Discarded,
}

impl ReceiveState {
    /// Whether nothing may follow on the wire.
    pub(super) fn is_ended(self) -> bool {
        !matches!(self, Self::Open | Self::Stopped)
    }
}
