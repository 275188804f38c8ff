//! The stream table: what comes in, what goes, and who is told.

use std::collections::VecDeque;

use super::super::{
    code::StreamCode,
    entry::{Entry, Owner},
    id::{MAX_STREAM_COUNT, StreamId},
    state::{ReceiveState, ResetCause, SendState},
};
use super::{Connection, Event};

/// The most that a stream's writer sends itself. More is better written by the driver, in one batch with what comes
/// meanwhile.
const BRIEF_LENGTH: usize = 16 * 1024;

impl Connection {
    pub(super) fn wake_acceptor(&mut self) {
        if std::mem::take(&mut self.remote.acceptor_waits) {
            self.events.push_back(Event::Incoming);
        }
    }

    pub(super) fn wake_opener(&mut self) {
        if std::mem::take(&mut self.local.opener_waits) {
            self.events.push_back(Event::CanOpen);
        }
    }

    /// Puts a new stream into the table.
    pub(super) fn insert(&mut self, entry: Entry) {
        let id = entry.id;
        self.live += 1;
        if id.opener() == self.role {
            self.local.in_table += 1;
        } else {
            self.remote.in_table += 1;
        }
        self.streams.insert(id, Box::new(entry));
    }

    /// Books what has ended of a stream, and forgets it when nothing is left.
    pub(super) fn settle(&mut self, id: StreamId) {
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        if entry.is_ended() && !entry.end_booked {
            entry.end_booked = true;
            self.live -= 1;
        }
        let removable =
            entry.is_removable() || (self.closing.is_some() && entry.owner == Owner::Released);
        if !removable {
            return;
        }
        self.drop_unread(id);
        if let Some(entry) = self.streams.remove(&id) {
            self.live -= usize::from(!entry.end_booked);
            self.memory.forget_removed(&self.streams);
        }
        if id.opener() == self.role {
            self.local.in_table -= 1;
            if self.can_open() {
                self.wake_opener();
            }
        } else {
            self.remote.in_table -= 1;
            self.offer_streams();
        }
    }

    /// Whether a stream could be opened now.
    pub(in super::super) fn can_open(&self) -> bool {
        self.local.opened < self.local.allowed && self.local.in_table < self.limits.max_opened
    }

    /// How many streams the peer may have opened, all in all, by what is in use now.
    pub(super) fn stream_allowance(&self) -> u64 {
        let table = self.limits.max_streams - self.remote.in_table;
        let queue = self.limits.max_unaccepted - self.remote.unaccepted.len();
        (self.remote.opened + table.min(queue) as u64).min(MAX_STREAM_COUNT)
    }

    /// Makes a MAX_STREAMS due when the peer has used half of what it could have.
    pub(super) fn offer_streams(&mut self) {
        let allowance = self.stream_allowance();
        let left = self.remote.allowed - self.remote.opened;
        if allowance > self.remote.allowed && left * 2 <= allowance - self.remote.opened {
            self.outbox.max_streams = true;
        }
    }

    /// Drops what was received and not read, and gives its credit back to the budget.
    pub(super) fn drop_unread(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id) {
            self.memory.change(entry.receive.unread.charge(), 0);
            entry.receive.unread.clear();
            entry.receive.credit_due = false;
            entry.receive.window.abandon(&mut self.receive_budget);
        }
    }

    /// Drops what was written and has not left.
    pub(super) fn drop_unsent(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id) {
            let before = entry.send.queue.len() as u64;
            entry.send.queue.clear();
            self.send_budget.change(before, 0);
        }
    }

    /// How many streams have something to send: control frames, such as credit for what was read, or data.
    pub(in super::super) fn ready_streams(&self) -> usize {
        let scheduler = &self.scheduler;
        [
            &scheduler.control,
            &scheduler.opening,
            &scheduler.sparse,
            &scheduler.bulk,
            &scheduler.background,
        ]
        .map(VecDeque::len)
        .into_iter()
        .sum()
    }

    /// Whether what a stream has to send is little, and not its first: a keystroke, a request, an answer.
    pub(in super::super) fn is_brief(&self, id: StreamId) -> bool {
        // How a session ends is the driver's.
        let entry = self.streams.get(&id).filter(|_| !self.is_closing());
        entry.is_some_and(|entry| {
            entry.send.window.sent() > 0 && entry.send.queue.len() <= BRIEF_LENGTH
        })
    }

    pub(super) fn wake_reader(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id)
            && std::mem::take(&mut entry.receive.reader_waits)
        {
            self.events.push_back(Event::Readable(id));
        }
    }

    pub(super) fn wake_writer(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id)
            && std::mem::take(&mut entry.send.writer_waits)
        {
            self.events.push_back(Event::Writable(id));
        }
    }

    /// Tells who watches a stream, once the peer has given it up.
    pub(super) fn wake_watcher(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id)
            && entry.is_aborted_by_peer()
            && std::mem::take(&mut entry.abort_watched)
        {
            self.events.push_back(Event::Aborted(id));
        }
    }

    /// Ends the sending direction of a stream early, unless it has ended.
    pub(super) fn begin_reset(&mut self, id: StreamId, code: StreamCode, cause: ResetCause) {
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        if !entry.send.state.is_sending() {
            return;
        }
        entry.send.state = SendState::Resetting(code, cause);
        entry.schedule_control(&mut self.scheduler);
        self.drop_unsent(id);
        self.wake_writer(id);
        self.wake_watcher(id);
    }

    /// Ends the receiving direction of a stream early, unless it has ended.
    pub(super) fn begin_stop(&mut self, id: StreamId, code: StreamCode) {
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        match entry.receive.state {
            ReceiveState::Open => {
                entry.receive.state = ReceiveState::Stopped;
                entry.receive.stop_due = Some(code);
                entry.schedule_control(&mut self.scheduler);
            }
            // The peer has nothing more to stop, but what it sent is not wanted.
            ReceiveState::Finished => entry.receive.state = ReceiveState::Discarded,
            ReceiveState::Reset(_) | ReceiveState::Stopped | ReceiveState::Discarded => {}
        }
        self.drop_unread(id);
        self.wake_reader(id);
    }
}
