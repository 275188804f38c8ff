//! How much work a peer may ask for besides moving data.

use std::time::{Duration, Instant};

use super::{config::MAX_STREAMS, violation::Violation};

/// A bucket of tokens. A control frame takes one; data in either direction, new streams and time bring them.
///
/// A session whose bucket is empty is not read from for a while, which an honest peer that cancels a lot feels as
/// latency and a hostile one as a wall. Only who sends three buckets in one breath is cut off.
#[derive(Debug)]
pub(super) struct ControlBudget {
    tokens: i64,
    /// Data that has not yet made a token.
    data: u64,
    refilled: Instant,
}

/// A burst that is free: every stream of a full session may be cancelled at once, as when a controller with all its
/// watches stops, and the requests beside them do not wait for that.
const BURST: i64 = MAX_STREAMS as i64 * TOKENS_OF_CANCEL;

/// A RESET that was not asked for, and the STOP of the other direction.
const TOKENS_OF_CANCEL: i64 = TOKENS_OF_RESET + 1;

/// What a new stream of either side pays in: its first CREDIT, a STOP, and a spare.
pub(super) const TOKENS_FOR_STREAM: i64 = 3;

/// What a RESET costs that was not asked for: more than the stream brought, so that opening and resetting in a
/// loop, which costs this side the most for the fewest bytes, runs into the budget.
pub(super) const TOKENS_OF_RESET: i64 = TOKENS_FOR_STREAM + 1;

/// Data that pays for one control frame: a quarter of the smallest window, after which a CREDIT is due.
const DATA_PER_TOKEN: u64 = 4 * 1024;

/// What a session may ask for without moving data. The work behind a token is some microseconds.
const TOKENS_PER_SECOND: i64 = 1000;

/// How far below empty the bucket may go before the peer is cut off.
const KILL_FACTOR: i64 = 2;

impl ControlBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            data: 0,
            refilled: now,
        }
    }

    pub(super) fn earn(&mut self, tokens: i64) {
        self.tokens = (self.tokens + tokens).min(BURST);
    }

    pub(super) fn earn_data(&mut self, length: u64) {
        self.data += length;
        self.earn((self.data / DATA_PER_TOKEN) as i64);
        self.data %= DATA_PER_TOKEN;
    }

    pub(super) fn spend(&mut self, tokens: i64) -> Result<(), Violation> {
        self.tokens -= tokens;
        if self.tokens < -KILL_FACTOR * BURST {
            return Err(Violation::ControlFlood);
        }
        Ok(())
    }

    pub(super) fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled);
        let tokens = elapsed.as_millis() as i64 * TOKENS_PER_SECOND / 1000;
        if tokens > 0 {
            self.earn(tokens);
            self.refilled = now;
        }
    }

    /// When reading may go on; `None` when it may now.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        (self.tokens < 0).then(|| {
            let missing = self.tokens.unsigned_abs() * 1000 / TOKENS_PER_SECOND as u64;
            self.refilled + Duration::from_millis(missing + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_pauses_and_time_fills_it() {
        let start = Instant::now();
        let mut budget = ControlBudget::new(start);
        budget.spend(BURST).unwrap();
        assert_eq!(budget.paused_until(), None);
        budget.spend(500).unwrap();
        let resume = budget.paused_until().unwrap();
        assert_eq!(resume, start + Duration::from_millis(501));
        budget.refill(resume);
        assert_eq!(budget.paused_until(), None);
    }

    #[test]
    fn data_pays_for_control_frames() {
        let mut budget = ControlBudget::new(Instant::now());
        for _ in 0..100 * BURST {
            budget.spend(1).unwrap();
            for _ in 0..4 {
                budget.earn_data(DATA_PER_TOKEN / 4);
            }
        }
        assert_eq!(budget.paused_until(), None);
    }

    #[test]
    fn three_buckets_in_one_breath_are_a_flood() {
        let mut budget = ControlBudget::new(Instant::now());
        for _ in 0..(KILL_FACTOR + 1) * BURST {
            budget.spend(1).unwrap();
        }
        assert_eq!(budget.spend(1), Err(Violation::ControlFlood));
    }
}
