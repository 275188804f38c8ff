//! Credit in both directions, and the budgets that bound it.
//!
//! All numbers on the wire are offsets from the start of the stream: a repeated CREDIT changes nothing, and
//! "too much" is one comparison.
//!
//! How large a window is decided in one place, [`ReceiveWindow::next_limit`]: a fixed size per stream, less where
//! many streams use the budget. A target that follows rate and round-trip time belongs there.

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
    /// Streams that hold something of the pool.
    takers: u64,
}

impl SharedBudget {
    pub(super) fn new(floor: u64, pool: u64) -> Self {
        Self {
            floor,
            pool,
            taken: 0,
            takers: 0,
        }
    }

    /// Books a change of what one stream holds.
    pub(super) fn change(&mut self, before: u64, after: u64) {
        self.taken = self.taken - self.above_floor(before) + self.above_floor(after);
        self.takers = self.takers - u64::from(before > self.floor) + u64::from(after > self.floor);
    }

    /// The most that a stream may hold which holds `held` now.
    pub(super) fn ceiling(&self, held: u64) -> u64 {
        held.max(self.floor) + self.pool.saturating_sub(self.taken)
    }

    /// The same for a stream that has not used what it has: it leaves a part of the pool to those that do. Else a few
    /// dozen idle streams, opened first, would keep all others at the floor for as long as they last.
    fn advance_ceiling(&self, held: u64) -> u64 {
        let advance = self.pool - self.pool / RESERVED_PART;
        held.max(self.floor) + advance.saturating_sub(self.taken)
    }

    /// What a stream that holds `held` would have if all that hold more than the floor had the same.
    fn share(&self, held: u64) -> u64 {
        let takers = self.takers + u64::from(held <= self.floor);
        self.floor + self.pool / takers.max(1)
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn above_floor(&self, held: u64) -> u64 {
        held.saturating_sub(self.floor)
    }
}

/// A quarter of the pool is kept for streams that use what they have: a full window for each of sixteen big answers,
/// beside any number of idle watches.
const RESERVED_PART: u64 = 4;

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
        let ceiling = if self.consumed < budget.floor / 4 {
            budget.advance_ceiling(held)
        } else {
            budget.ceiling(held)
        };
        let window = self.largest.min(budget.share(held)).min(ceiling);
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
        use_up(&mut windows[0], &mut budget);
        assert_eq!(windows[0].grant(&mut budget), FLOOR + 64);
        assert_eq!(budget.taken(), 48);
        for window in &mut windows[1..] {
            assert_eq!(window.grant(&mut budget), FLOOR);
            for round in 1..50 {
                use_up(window, &mut budget);
                assert!(window.is_credit_due(&budget));
                assert_eq!(window.grant(&mut budget), FLOOR * (round + 1));
            }
        }
        assert_eq!(budget.taken(), 48);
    }

    #[test]
    fn a_large_window_shrinks_as_others_come() {
        let mut budget = SharedBudget::new(FLOOR, 120);
        let mut window = ReceiveWindow::new(FLOOR, 60);
        assert_eq!(window.grant(&mut budget), 60);
        let mut others = [(); 2].map(|()| ReceiveWindow::new(FLOOR, 40));
        for other in &mut others {
            use_up(other, &mut budget);
            other.grant(&mut budget);
        }
        assert_eq!(budget.takers, 3);
        use_up(&mut window, &mut budget);
        assert_eq!(window.grant(&mut budget), 60 + FLOOR + 120 / 3);
    }

    #[test]
    fn idle_streams_leave_room_for_one_that_is_used() {
        let mut budget = SharedBudget::new(FLOOR, 400);
        for _ in 0..1000 {
            ReceiveWindow::new(FLOOR, 64).grant(&mut budget);
        }
        assert_eq!(budget.taken(), 300);
        let mut late = ReceiveWindow::new(FLOOR, 64);
        assert_eq!(late.grant(&mut budget), FLOOR);
        late.receive(FLOOR);
        late.consume(FLOOR / 4, &mut budget);
        assert!(late.is_credit_due(&budget));
        assert_eq!(late.grant(&mut budget), FLOOR / 4 + 64);
    }

    #[test]
    fn an_ended_stream_gives_everything_back() {
        let mut budget = SharedBudget::new(FLOOR, 80);
        let mut window = ReceiveWindow::new(FLOOR, 76);
        window.grant(&mut budget);
        window.receive(40);
        window.freeze(&mut budget);
        assert_eq!((window.held(), budget.taken()), (40, 24));
        window.consume(40, &mut budget);
        assert_eq!((budget.taken(), budget.takers), (0, 0));
    }

    /// Fills a window and reads all of it.
    fn use_up(window: &mut ReceiveWindow, budget: &mut SharedBudget) {
        let room = window.limit - window.received;
        window.receive(room);
        window.consume(room, budget);
    }
}
