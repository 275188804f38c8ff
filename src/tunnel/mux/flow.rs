//! Credit in both directions, and the budgets that bound it.
//!
//! All numbers on the wire are offsets from the start of the stream: a repeated CREDIT changes nothing, and
//! "too much" is one comparison.
//!
//! How large a window is decided in one place, [`ReceiveWindow::next_limit`]: a fixed size per stream, less where
//! many streams share the budget. A target that follows rate and round-trip time belongs there.

/// The largest offset. Leaves room so that no sum of two valid numbers overflows.
pub(super) const MAX_OFFSET: u64 = 1 << 62;

/// A number of bytes that the streams of a session share: a floor that each has for itself, and a pool.
///
/// The floor is what keeps one slow stream from stopping another: a stream never waits for the pool, it only gets
/// more from it.
#[derive(Debug)]
pub(super) struct SharedBudget {
    floor: u64,
    pool: u64,
    taken: u64,
    streams: u64,
}

impl SharedBudget {
    pub(super) fn new(floor: u64, pool: u64) -> Self {
        Self {
            floor,
            pool,
            taken: 0,
            streams: 0,
        }
    }

    pub(super) fn join(&mut self) {
        self.streams += 1;
    }

    pub(super) fn leave(&mut self) {
        self.streams -= 1;
    }

    /// Books a change of what one stream holds.
    pub(super) fn change(&mut self, before: u64, after: u64) {
        self.taken = self.taken - self.above_floor(before) + self.above_floor(after);
    }

    /// The most that a stream may hold which holds `held` now.
    pub(super) fn ceiling(&self, held: u64) -> u64 {
        held.max(self.floor) + self.pool.saturating_sub(self.taken)
    }

    /// The part of the budget that is one stream's when all have the same.
    pub(super) fn share(&self) -> u64 {
        self.floor + self.pool / self.streams.max(1)
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn above_floor(&self, held: u64) -> u64 {
        held.saturating_sub(self.floor)
    }
}

/// What the peer may send on one stream.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    limit: u64,
    received: u64,
    consumed: u64,
    largest: u64,
}

impl ReceiveWindow {
    /// A window of `initial` bytes that grows up to `largest`.
    pub(super) fn new(initial: u64, largest: u64) -> Self {
        Self {
            limit: initial,
            received: 0,
            consumed: 0,
            largest,
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Granted and not consumed: what the peer can make this side keep.
    pub(super) fn held(&self) -> u64 {
        self.limit.saturating_sub(self.consumed)
    }

    /// Whether `length` more bytes are covered by the credit.
    pub(super) fn allows(&self, length: u64) -> bool {
        length <= self.limit - self.received
    }

    /// Books arrived bytes. The caller has asked [`allows`](Self::allows).
    pub(super) fn receive(&mut self, length: u64) {
        debug_assert!(self.allows(length));
        self.received += length;
    }

    /// Books bytes that left the receive queue.
    pub(super) fn consume(&mut self, length: u64, budget: &mut SharedBudget) {
        debug_assert!(self.consumed + length <= self.received);
        let before = self.held();
        self.consumed += length;
        budget.change(before, self.held());
    }

    /// Nothing more will be granted: gives back what the peer has not used.
    pub(super) fn freeze(&mut self, budget: &mut SharedBudget) {
        let before = self.held();
        self.limit = self.received;
        budget.change(before, self.held());
    }

    /// Nothing is kept any more: gives everything back. What the peer still sends within its credit is dropped.
    pub(super) fn abandon(&mut self, budget: &mut SharedBudget) {
        budget.change(self.held(), 0);
        self.consumed = self.consumed.max(self.limit);
    }

    /// Whether a CREDIT is worth a frame: a quarter of the window was consumed.
    pub(super) fn is_credit_due(&self, budget: &SharedBudget) -> bool {
        let next = self.next_limit(budget);
        let window = next - self.consumed;
        next > self.limit && next - self.limit >= window / 4
    }

    /// Raises the limit and returns it.
    pub(super) fn grant(&mut self, budget: &mut SharedBudget) -> u64 {
        let before = self.held();
        self.limit = self.next_limit(budget);
        budget.change(before, self.held());
        self.limit
    }

    fn next_limit(&self, budget: &SharedBudget) -> u64 {
        let held = self.held();
        let window = self.largest.min(budget.share()).min(budget.ceiling(held));
        // Credit is never taken back: a window shrinks by not being renewed.
        self.consumed + window.max(held)
    }
}

/// What may be sent on one stream.
#[derive(Debug)]
pub(super) struct SendWindow {
    limit: u64,
    sent: u64,
}

impl SendWindow {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, sent: 0 }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn room(&self) -> u64 {
        self.limit - self.sent
    }

    /// Takes the larger limit.
    pub(super) fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    pub(super) fn send(&mut self, length: u64) {
        debug_assert!(length <= self.room());
        self.sent += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 16;

    #[test]
    fn credit_comes_after_a_quarter() {
        let mut budget = SharedBudget::new(FLOOR, 1000);
        budget.join();
        let mut window = ReceiveWindow::new(FLOOR, 64);
        assert!(window.is_credit_due(&budget), "the first grant is large");
        assert_eq!(window.grant(&mut budget), 64);
        window.receive(64);
        window.consume(15, &mut budget);
        assert!(!window.is_credit_due(&budget));
        window.consume(1, &mut budget);
        assert!(window.is_credit_due(&budget));
        assert_eq!(window.grant(&mut budget), 80);
    }

    #[test]
    fn a_dry_pool_leaves_the_floor() {
        let mut budget = SharedBudget::new(FLOOR, 48);
        let mut windows = [(); 3].map(|()| ReceiveWindow::new(FLOOR, 64));
        budget.join();
        windows[0].grant(&mut budget);
        assert_eq!(budget.taken(), 48);
        for _ in 0..2 {
            budget.join();
        }
        for window in &mut windows[1..] {
            assert_eq!(window.grant(&mut budget), FLOOR);
            for round in 1..50 {
                window.receive(FLOOR);
                window.consume(FLOOR, &mut budget);
                assert!(window.is_credit_due(&budget));
                assert_eq!(window.grant(&mut budget), FLOOR * (round + 1));
            }
        }
        assert_eq!(budget.taken(), 48);
    }

    #[test]
    fn a_large_window_shrinks_as_others_come() {
        let mut budget = SharedBudget::new(FLOOR, 80);
        budget.join();
        let mut window = ReceiveWindow::new(FLOOR, 96);
        assert_eq!(window.grant(&mut budget), 96);
        for _ in 0..9 {
            budget.join();
        }
        window.receive(96);
        window.consume(96, &mut budget);
        assert_eq!(window.grant(&mut budget), 96 + FLOOR + 80 / 10);
    }

    #[test]
    fn an_ended_stream_gives_everything_back() {
        let mut budget = SharedBudget::new(FLOOR, 80);
        budget.join();
        let mut window = ReceiveWindow::new(FLOOR, 96);
        window.grant(&mut budget);
        window.receive(40);
        window.freeze(&mut budget);
        assert_eq!((window.held(), budget.taken()), (40, 24));
        window.consume(40, &mut budget);
        assert_eq!(budget.taken(), 0);
    }
}
