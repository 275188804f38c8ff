//! What tests and fuzz targets look at.

use super::Connection;

impl Connection {
    /// Checks what must hold between any two calls.
    pub(in super::super) fn assert_consistent(&self) {
        let granted: u64 = self
            .streams
            .values()
            .map(|entry| entry.receive.window.held())
            .sum();
        let unread: u64 = self
            .streams
            .values()
            .map(|entry| entry.receive.queue.len() as u64)
            .sum();
        let pinned: usize = self
            .streams
            .values()
            .map(|entry| entry.receive.queue.moved_slices())
            .sum();
        assert!(
            granted <= self.limits.effective_receive_budget(),
            "granted {granted}"
        );
        assert!(unread <= granted, "unread {unread} of {granted}");
        assert_eq!(pinned, self.pinned);
        assert!(pinned <= self.limits.max_pinning_slices());
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
    }
}

#[cfg(test)]
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

    /// What may be under way to this side.
    pub(in super::super) fn in_flight_target(&self) -> u64 {
        self.in_flight.target()
    }

    pub(in super::super) fn pinned(&self) -> usize {
        self.pinned
    }

    /// As if `count` streams had been opened here and had ended.
    pub(in super::super) fn skip_streams(&mut self, count: u64) {
        self.local.opened = count;
        self.local.allowed = count + 1;
    }

    /// Slices of somebody else's buffers in one send queue.
    #[cfg(test)]
    pub(in super::super) fn queued_slices(&self, id: super::super::id::StreamId) -> usize {
        let entry = self.streams.get(&id).expect("an open stream");
        entry.send.queue.moved_slices()
    }
}
