//! One stream as the connection knows it.

use bytes::Bytes;

use super::{
    code::StreamCode,
    failure::StreamFailure,
    flow::{ReceiveWindow, SendWindow},
    id::StreamId,
    priority::{Priority, Weight},
    queue::ByteQueue,
    schedule::{Lane, Scheduler},
    state::{ReceiveState, ResetCause, SendState},
    unread::Unread,
};

/// An entry of the stream table. It stays until both directions have ended on the wire, the application has let go,
/// and no lane of the scheduler names it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: StreamId,
    pub(super) send: SendSide,
    pub(super) receive: ReceiveSide,
    pub(super) owner: Owner,
    pub(super) lane: Lane,
    pub(super) priority: Priority,
    pub(super) weight: Weight,
    pub(super) in_control: bool,
    /// Whether the end on the wire was booked.
    pub(super) end_booked: bool,
    /// Whether somebody waits to hear that the peer gives the stream up.
    pub(super) abort_watched: bool,
}

/// Who holds the application's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody yet: the stream waits to be accepted, with its metadata.
    Waiting(Bytes),
    /// A handle.
    Handle,
    /// Nobody any more.
    Released,
}

#[derive(Debug)]
pub(super) struct SendSide {
    pub(super) state: SendState,
    pub(super) queue: ByteQueue,
    pub(super) window: SendWindow,
    /// The metadata, while the peer has not been told of the stream.
    pub(super) opening: Option<Bytes>,
    /// Whether a writer waits for an event.
    pub(super) writer_waits: bool,
}

#[derive(Debug)]
pub(super) struct ReceiveSide {
    pub(super) state: ReceiveState,
    pub(super) unread: Unread,
    /// Whether the list of those that may pin receive blocks names the stream.
    pub(super) in_pinning: bool,
    pub(super) window: ReceiveWindow,
    pub(super) stop_due: Option<StreamCode>,
    pub(super) credit_due: bool,
    /// Whether a reader waits for an event.
    pub(super) reader_waits: bool,
}

impl Entry {
    pub(super) fn new(
        id: StreamId,
        owner: Owner,
        opening: Option<Bytes>,
        send: SendWindow,
        receive: ReceiveWindow,
    ) -> Self {
        Self {
            id,
            send: SendSide {
                state: SendState::Open,
                queue: ByteQueue::default(),
                window: send,
                opening,
                writer_waits: false,
            },
            receive: ReceiveSide {
                state: ReceiveState::Open,
                unread: Unread::default(),
                in_pinning: false,
                window: receive,
                stop_due: None,
                credit_due: false,
                reader_waits: false,
            },
            owner,
            lane: Lane::Idle,
            priority: Priority::default(),
            weight: Weight::default(),
            in_control: false,
            end_booked: false,
            abort_watched: false,
        }
    }

    /// Whether both directions have ended and both sides know.
    pub(super) fn is_ended(&self) -> bool {
        self.send.state.is_ended() && self.receive.state.is_ended()
    }

    /// Whether the peer has given up one of the directions before its end.
    pub(super) fn is_aborted_by_peer(&self) -> bool {
        let cause = match self.send.state {
            SendState::Resetting(_, cause) | SendState::Reset(cause) => Some(cause),
            _ => None,
        };
        matches!(self.receive.state, ReceiveState::Reset(_))
            || matches!(cause, Some(ResetCause::Stopped(_) | ResetCause::Refused))
    }

    pub(super) fn is_removable(&self) -> bool {
        self.is_ended()
            && self.owner == Owner::Released
            && self.lane == Lane::Idle
            && !self.in_control
    }

    /// Puts the stream into a lane if it has something to send and stands in none.
    pub(super) fn schedule(&mut self, scheduler: &mut Scheduler) {
        if self.lane == Lane::Idle && self.send.is_ready() {
            self.lane = scheduler.enter(self.id, self.priority, self.send.sendable());
        }
    }

    /// Puts the stream into the control lane if it has a control frame to send.
    pub(super) fn schedule_control(&mut self, scheduler: &mut Scheduler) {
        // Nothing about a stream may come before its OPEN.
        let announced = self.send.opening.is_none();
        let wanted = self.receive.credit_due
            || self.receive.stop_due.is_some()
            || matches!(self.send.state, SendState::Resetting(..));
        if announced && wanted && !self.in_control {
            self.in_control = true;
            scheduler.control.push_back(self.id);
        }
    }
}

impl SendSide {
    /// How many bytes may leave now.
    pub(super) fn sendable(&self) -> usize {
        (self.queue.len() as u64).min(self.window.room()) as usize
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state.is_sending()
            && self.opening.is_none()
            && (self.sendable() > 0
                || (self.state == SendState::Finishing && self.queue.is_empty()))
    }

    /// Why nothing can be written, if nothing can.
    pub(super) fn failure(&self) -> Option<StreamFailure> {
        Some(match self.state {
            SendState::Open => return None,
            SendState::Finishing | SendState::Finished => StreamFailure::EndedHere,
            SendState::Resetting(_, cause) | SendState::Reset(cause) => match cause {
                ResetCause::Local => StreamFailure::EndedHere,
                ResetCause::Stopped(code) => StreamFailure::Stopped(code),
                ResetCause::Refused => StreamFailure::NotTaken,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_leaves_room_below_400_bytes_a_stream() {
        assert!(size_of::<Entry>() <= 340, "{}", size_of::<Entry>());
    }
}
