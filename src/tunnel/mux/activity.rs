//! [`Activity`]: how many streams use what they are granted.

use super::priority::Weight;

/// The weights of the streams that were seen to use what they have, over the last few rounds of measuring the path.
#[derive(Debug)]
pub(super) struct Activity {
    round: CurrentRound,
    current: u32,
    recent: [u32; RECENT_ROUNDS],
}

/// A number that changes with each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CurrentRound(u32);

/// The round in which something was last seen of a stream, if ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoundMark(u32);

/// A round may miss a stream or two that are busy.
const RECENT_ROUNDS: usize = 3;

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            round: CurrentRound::FIRST,
            current: 0,
            recent: [0; RECENT_ROUNDS],
        }
    }

    pub(super) fn round(&self) -> CurrentRound {
        self.round
    }

    /// At least 1.
    pub(super) fn weights(&self) -> u32 {
        self.recent
            .iter()
            .fold(self.current, |most, weights| most.max(*weights))
            .max(1)
    }

    /// Counts a stream once a round; `seen` is where it keeps when that was. Whether that changes
    /// [`weights`](Self::weights).
    pub(super) fn count(&mut self, seen: &mut RoundMark, weight: Weight) -> bool {
        if !seen.put(self.round) {
            return false;
        }
        let before = self.weights();
        self.current = self.current.saturating_add(weight.value().into());
        self.weights() != before
    }

    pub(super) fn end_round(&mut self) {
        self.recent.rotate_right(1);
        self.recent[0] = self.current;
        self.current = 0;
        self.round = CurrentRound(self.round.0.checked_add(1).unwrap_or(CurrentRound::FIRST.0));
    }
}

impl CurrentRound {
    /// 0 is what stands for "never".
    pub(super) const FIRST: Self = Self(1);

    /// Whether `mark` was put in this round or not long before.
    pub(super) fn is_near(self, mark: RoundMark) -> bool {
        mark != RoundMark::NEVER && self.0.wrapping_sub(mark.0) <= RECENT_ROUNDS as u32
    }
}

impl RoundMark {
    pub(super) const NEVER: Self = Self(0);

    /// Whether the mark was put in another round until now.
    pub(super) fn put(&mut self, round: CurrentRound) -> bool {
        std::mem::replace(&mut self.0, round.0) != round.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_once_a_round_and_for_a_few_rounds() {
        let mut activity = Activity::new();
        let mut marks = [RoundMark::NEVER; 3];
        assert!(!activity.round().is_near(marks[0]));
        for mark in &mut marks {
            activity.count(mark, Weight::NORMAL);
            assert!(!activity.count(mark, Weight::NORMAL), "once a round");
        }
        assert_eq!(activity.weights(), 3);
        for _ in 0..RECENT_ROUNDS {
            activity.end_round();
            assert_eq!(activity.weights(), 3);
            assert!(activity.round().is_near(marks[0]));
        }
        activity.end_round();
        assert_eq!(activity.weights(), 1, "at least one");
        assert!(!activity.round().is_near(marks[0]));
        activity.count(&mut marks[0], Weight::new(16));
        assert_eq!(activity.weights(), 16);
    }
}
