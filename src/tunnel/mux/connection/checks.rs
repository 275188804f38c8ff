//! What tests and fuzz targets look at.

use std::collections::VecDeque;

use super::{
    super::{
        config::{RECEIVE_FLOOR, SEND_FLOOR},
        id::StreamId,
        schedule::Lane,
        state::{ReceiveState, SendState},
    },
    Connection,
};

impl Connection {
    /// Checks what must hold between any two calls.
    pub(in super::super) fn assert_consistent(&self) {
        let granted: u64 = self
            .streams
            .values()
            .map(|entry| entry.receive.window.held())
            .sum();
        assert!(
            granted <= self.limits.effective_receive_budget(),
            "granted {granted}"
        );
        self.assert_memory();
        assert!(self.remote.in_table <= self.limits.max_streams);
        assert!(self.local.in_table <= self.limits.max_opened);
        assert!(self.remote.unaccepted.len() <= self.limits.max_unaccepted);
        assert_eq!(
            self.local.in_table + self.remote.in_table,
            self.streams.len()
        );
        assert!(
            self.events.len() <= 3 * self.streams.len() + 16,
            "{:?}",
            self.events
        );
        assert!(self.is_closing() || self.scheduler.control.len() <= self.streams.len());
        let live = self
            .streams
            .values()
            .filter(|entry| !entry.end_booked)
            .count();
        assert_eq!(live, self.live);
        self.assert_books();
        if !self.is_closing() {
            self.assert_nobody_is_forgotten();
        }
    }

    /// What is kept for unread bytes is what was booked, and within the budget.
    fn assert_memory(&self) {
        let mut charge = 0;
        for (id, entry) in &self.streams {
            let (unread, held) = (&entry.receive.unread, entry.receive.window.held());
            let found = unread.recount();
            assert_eq!(found.length, unread.len(), "{id}");
            assert_eq!(found.charge, unread.charge(), "{id}");
            // Without what can be compacted there is nothing beside the credit.
            let compacted = found.charge - found.pinned_charge + found.pinned_length;
            assert!(compacted as u64 <= held, "{id}: {found:?} of {held}");
            assert!(
                found.pinned == 0 || entry.receive.in_pinning,
                "{id} pins blocks and nobody knows"
            );
            charge += found.charge;
        }
        self.memory.assert_consistent(charge, &self.streams);
    }

    /// What is booked in the shared budgets is what the streams hold.
    fn assert_books(&self) {
        let above = |held: u64, floor: u64| held.saturating_sub(floor);
        let granted: u64 = self
            .streams
            .values()
            .map(|entry| above(entry.receive.window.held(), RECEIVE_FLOOR))
            .sum();
        assert_eq!(granted, self.receive_budget.taken());
        if !self.is_closing() {
            let queued: u64 = self
                .streams
                .values()
                .map(|entry| above(entry.send.queue.len() as u64, SEND_FLOOR))
                .sum();
            assert_eq!(queued, self.send_budget.taken());
        }
    }

    /// Nobody waits who could go on, and nothing lies ready that no lane of the scheduler knows of.
    fn assert_nobody_is_forgotten(&self) {
        for (id, entry) in &self.streams {
            let (send, receive) = (&entry.send, &entry.receive);
            assert!(
                !receive.reader_waits
                    || (receive.unread.is_empty() && receive.state == ReceiveState::Open),
                "the reader of {id} waits"
            );
            assert!(
                !send.writer_waits || (send.failure().is_none() && !send.queue.is_empty()),
                "the writer of {id} waits"
            );
            assert!(
                !entry.abort_watched || !entry.is_aborted_by_peer(),
                "the watcher of {id} waits"
            );
            assert!(
                !send.is_ready()
                    || matches!(entry.lane, Lane::Sparse | Lane::Bulk | Lane::Background),
                "{id} has data and stands in no lane"
            );
            let opens = send.opening.is_some() == (entry.lane == Lane::Opening);
            assert!(opens, "{id} is not announced");
            let control = receive.credit_due
                || receive.stop_due.is_some()
                || matches!(send.state, SendState::Resetting(..));
            assert!(
                !control || entry.in_control || send.opening.is_some(),
                "{id} has a control frame and stands in no lane"
            );
            // A peer that has used all of its credit gets more as soon as everything is read.
            assert!(
                receive.state != ReceiveState::Open
                    || receive.window.held() > 0
                    || receive.credit_due,
                "{id} has no credit and none is on its way"
            );
        }
        let stands = |lane: &VecDeque<StreamId>, kind: Lane| {
            let there = lane
                .iter()
                .filter(|id| self.streams.get(id).is_some_and(|entry| entry.lane == kind));
            assert_eq!(there.count(), lane.len());
            let known = self.streams.values().filter(|entry| entry.lane == kind);
            assert_eq!(known.count(), lane.len());
        };
        stands(&self.scheduler.opening, Lane::Opening);
        stands(&self.scheduler.sparse, Lane::Sparse);
        stands(&self.scheduler.bulk, Lane::Bulk);
        stands(&self.scheduler.background, Lane::Background);
        let in_control = self.streams.values().filter(|entry| entry.in_control);
        assert_eq!(in_control.count(), self.scheduler.control.len());
        assert!(!self.local.opener_waits || !(self.can_open() || self.opens_nothing()));
        assert!(!self.remote.acceptor_waits || self.remote.unaccepted.is_empty());
        // Who has used up what it was told it may open hears of more, if there is more.
        let left = self.remote.allowed - self.remote.opened;
        assert!(
            left > 0
                || self.outbox.max_streams
                || self.stream_allowance() <= self.remote.allowed
                || self.local_leave.is_some(),
            "the peer can open nothing and is not told that it may"
        );
    }
}

#[cfg(any(test, fuzzing))]
impl Connection {
    pub(in super::super) fn held_streams(&self) -> usize {
        self.streams.len()
    }

    /// Written bytes that wait on all streams.
    pub(in super::super) fn queued(&self) -> u64 {
        self.streams
            .values()
            .map(|entry| entry.send.queue.len() as u64)
            .sum()
    }
}

#[cfg(test)]
impl Connection {
    /// What may be under way to this side.
    pub(in super::super) fn in_flight_target(&self) -> u64 {
        self.in_flight.target()
    }

    /// What a stream may have of it.
    pub(in super::super) fn in_flight_share(&self) -> u64 {
        self.in_flight.allotment().share
    }

    /// Slices of receive blocks that wait to be read.
    pub(in super::super) fn pinned(&self) -> usize {
        let unread = self.streams.values().map(|entry| &entry.receive.unread);
        unread.map(|unread| unread.recount().pinned).sum()
    }

    /// Memory of copied bytes that wait to be read.
    pub(in super::super) fn copied(&self) -> usize {
        let unread = self.streams.values().map(|entry| &entry.receive.unread);
        let copied = unread.map(|unread| {
            let found = unread.recount();
            found.charge - found.pinned_charge
        });
        copied.sum()
    }

    /// How much the peer may have sent on a stream since it began.
    pub(in super::super) fn granted(&self, id: StreamId) -> usize {
        let window = &self
            .streams
            .get(&id)
            .expect("an open stream")
            .receive
            .window;
        (window.received() + window.room()) as usize
    }

    /// As if `count` streams had been opened here and had ended.
    pub(in super::super) fn skip_streams(&mut self, count: u64) {
        self.local.opened = count;
        self.local.allowed = count + 1;
    }

    /// Buffers in one send queue.
    pub(in super::super) fn queued_slices(&self, id: StreamId) -> usize {
        let entry = self.streams.get(&id).expect("an open stream");
        entry.send.queue.slices()
    }
}
