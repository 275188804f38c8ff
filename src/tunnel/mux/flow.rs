//! Credit in both directions, and the budgets that bound it.
//!
//! All numbers on the wire are offsets from the start of the stream: a repeated CREDIT changes nothing, and
//! "too much" is one comparison.
//!
//! How large a window is decided in one place, [`ReceiveWindow::next_limit`]: what [`InFlight`](super::in_flight)
//! allots to the stream, less where many streams use the budget.

use super::{
    activity::RoundMark,
    in_flight::{Allotment, InFlight},
    priority::Weight,
};

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
}

impl SharedBudget {
    pub(super) fn new(floor: u64, pool: u64) -> Self {
        Self {
            floor,
            pool,
            taken: 0,
        }
    }

    /// Books a change of what one stream holds.
    pub(super) fn change(&mut self, before: u64, after: u64) {
        self.taken = self.taken - self.above_floor(before) + self.above_floor(after);
    }

    /// The most that a stream may hold which holds `held` now.
    pub(super) fn ceiling(&self, held: u64) -> u64 {
        held.max(self.floor) + self.pool.saturating_sub(self.taken)
    }

    /// The same for one of many that may each want all of it: a part of what the others have left. However many come and
    /// then stand still, there is always something for the next.
    fn modest_ceiling(&self, held: u64) -> u64 {
        let left = self.pool - (self.taken - self.above_floor(held));
        held.max(self.floor + left / MODEST_PARTS.1 * MODEST_PARTS.0)
    }

    /// The same for a stream that has not used what it has: it leaves a part of the pool to those that do. Else a few
    /// dozen idle streams, opened first, would keep all others at the floor for as long as they last.
    fn advance_ceiling(&self, held: u64) -> u64 {
        let advance = self.pool - self.pool / RESERVED_PART;
        let left = advance.saturating_sub(self.taken - self.above_floor(held));
        held.max(self.floor + left / ADVANCE_PART)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn above_floor(&self, held: u64) -> u64 {
        held.saturating_sub(self.floor)
    }
}

/// Two thirds: one stream fills 1 Gbit/s at a round trip of 88 ms; with that one stopped, another fills a third of it.
const MODEST_PARTS: (u64, u64) = (2, 3);

/// A quarter of the pool is kept for streams that use what they have, beside any number of idle watches.
const RESERVED_PART: u64 = 4;

/// What one stream may be advanced of what is left for that: the first few dozen get all that they may, later ones
/// less and less.
const ADVANCE_PART: u64 = 8;

/// What the peer may send on one stream.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    limit: u64,
    received: u64,
    consumed: u64,
    largest: u64,
    /// `consumed` as it was when something was granted last.
    consumed_at_grant: u64,
    weight: Weight,
    /// The round of measuring the path in which the stream was last seen to use what it has.
    used_in_round: RoundMark,
    granted_in_round: RoundMark,
}

impl ReceiveWindow {
    /// A window of `initial` bytes that grows up to `largest`.
    pub(super) fn new(initial: u64, largest: u64) -> Self {
        Self {
            limit: initial,
            received: 0,
            consumed: 0,
            largest,
            consumed_at_grant: 0,
            weight: Weight::default(),
            used_in_round: RoundMark::NEVER,
            granted_in_round: RoundMark::NEVER,
        }
    }

    pub(super) fn set_weight(&mut self, weight: Weight) {
        self.weight = weight;
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Granted and not consumed: what the peer can make this side keep.
    pub(super) fn held(&self) -> u64 {
        self.limit.saturating_sub(self.consumed)
    }

    /// What the peer may still send.
    pub(super) fn room(&self) -> u64 {
        self.limit - self.received
    }

    /// Whether `length` more bytes are covered by the credit.
    pub(super) fn allows(&self, length: u64) -> bool {
        length <= self.room()
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

    /// Whether a CREDIT is worth a frame: it gives a quarter of the window, or a step.
    pub(super) fn is_credit_due(&self, budget: &SharedBudget, allotment: Allotment) -> bool {
        let next = self.next_limit(budget, allotment);
        let window = next - self.consumed;
        next > self.limit && next - self.limit >= (window / 4).min(allotment.step)
    }

    /// The sender has more than it was granted.
    pub(super) fn handle_waiting(&mut self, in_flight: &mut InFlight) {
        in_flight.handle_waiting();
        in_flight.handle_use(&mut self.used_in_round, self.weight);
    }

    /// Tells the rule, before a grant, if the stream needs it because it has used what it had, and has not taken for
    /// ever to do so.
    pub(super) fn report_use(&mut self, in_flight: &mut InFlight) {
        let allotment = in_flight.allotment();
        let used = self.consumed - self.consumed_at_grant;
        let soon = allotment.round.is_near(self.granted_in_round);
        if soon && used >= (self.held() / 4).min(allotment.step) {
            in_flight.handle_use(&mut self.used_in_round, self.weight);
        }
        self.granted_in_round.put(allotment.round);
    }

    /// Raises the limit and returns it.
    pub(super) fn grant(&mut self, budget: &mut SharedBudget, allotment: Allotment) -> u64 {
        let before = self.held();
        self.consumed_at_grant = self.consumed;
        self.limit = self.next_limit(budget, allotment);
        budget.change(before, self.held());
        self.limit
    }

    fn next_limit(&self, budget: &SharedBudget, allotment: Allotment) -> u64 {
        let held = self.held();
        let (allotted, ceiling) = if allotment.round.is_near(self.used_in_round) {
            let share = allotment
                .share
                .saturating_mul(u64::from(self.weight.value()));
            (share, budget.modest_ceiling(held))
        } else {
            (allotment.advance, budget.advance_ceiling(held))
        };
        let window = allotted.clamp(budget.floor, self.largest).min(ceiling);
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
    use super::{super::activity::CurrentRound, *};

    const FLOOR: u64 = 16;
    /// The path sets no limit.
    const PLENTY: Allotment = Allotment {
        share: u64::MAX,
        advance: u64::MAX,
        step: u64::MAX,
        round: CurrentRound::FIRST,
    };

    #[test]
    fn credit_comes_after_a_quarter() {
        let mut budget = SharedBudget::new(FLOOR, 1000);
        let mut window = ReceiveWindow::new(FLOOR, 64);
        assert!(
            window.is_credit_due(&budget, PLENTY),
            "the first grant is large"
        );
        assert_eq!(window.grant(&mut budget, PLENTY), 64);
        window.receive(64);
        window.consume(15, &mut budget);
        assert!(!window.is_credit_due(&budget, PLENTY));
        window.consume(1, &mut budget);
        assert!(window.is_credit_due(&budget, PLENTY));
        assert_eq!(window.grant(&mut budget, PLENTY), 80);
    }

    #[test]
    fn those_who_stand_still_leave_something_to_the_next() {
        let mut budget = SharedBudget::new(FLOOR, 900);
        let mut before = u64::MAX;
        for _ in 0..5 {
            let mut window = ReceiveWindow::new(FLOOR, 10_000);
            use_up(&mut window, &mut budget);
            window.used_in_round.put(PLENTY.round);
            // Again and again: nobody comes to more by asking often.
            for _ in 0..10 {
                window.grant(&mut budget, PLENTY);
            }
            assert!(window.held() > FLOOR && window.held() < before);
            before = window.held();
        }
        assert!(budget.taken() < 900);
    }

    #[test]
    fn a_dry_pool_leaves_the_floor() {
        let mut budget = SharedBudget::new(FLOOR, 0);
        let mut windows = [(); 3].map(|()| ReceiveWindow::new(FLOOR, 64));
        for window in &mut windows {
            assert_eq!(window.grant(&mut budget, PLENTY), FLOOR);
            for round in 1..50 {
                use_up(window, &mut budget);
                assert!(window.is_credit_due(&budget, PLENTY));
                assert_eq!(window.grant(&mut budget, PLENTY), FLOOR * (round + 1));
            }
        }
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn idle_streams_leave_room_for_one_that_is_used() {
        let mut budget = SharedBudget::new(FLOOR, 4000);
        for _ in 0..1000 {
            ReceiveWindow::new(FLOOR, 640).grant(&mut budget, PLENTY);
        }
        assert!(budget.taken() <= 3000);
        let mut late = ReceiveWindow::new(FLOOR, 640);
        late.receive(FLOOR);
        late.consume(FLOOR / 4, &mut budget);
        late.used_in_round.put(PLENTY.round);
        assert!(late.is_credit_due(&budget, PLENTY));
        assert_eq!(late.grant(&mut budget, PLENTY), FLOOR / 4 + 640);
    }

    #[test]
    fn an_ended_stream_gives_everything_back() {
        let mut budget = SharedBudget::new(FLOOR, 80);
        let mut window = ReceiveWindow::new(FLOOR, 76);
        window.used_in_round.put(PLENTY.round);
        window.grant(&mut budget, PLENTY);
        window.receive(40);
        window.freeze(&mut budget);
        assert_eq!((window.held(), budget.taken()), (40, 24));
        window.consume(40, &mut budget);
        assert_eq!(budget.taken(), 0);
    }

    /// Fills a window and reads all of it.
    fn use_up(window: &mut ReceiveWindow, budget: &mut SharedBudget) {
        let room = window.limit - window.received;
        window.receive(room);
        window.consume(room, budget);
    }
}
