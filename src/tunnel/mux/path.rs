//! What is known of the way to the peer: how long it takes, and what it carries.

use std::time::{Duration, Instant};

/// Bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rate(u64);

impl Rate {
    /// `bytes` that came in `time`; `None` where that says nothing.
    pub(super) fn of(bytes: u64, time: Duration) -> Option<Self> {
        let nanoseconds = time.as_nanos();
        let rate = (u128::from(bytes) * NANOSECONDS).checked_div(nanoseconds)?;
        Some(Self(u64::try_from(rate).unwrap_or(u64::MAX)))
    }

    /// What comes in `time`.
    pub(super) fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0).saturating_mul(time.as_nanos()) / NANOSECONDS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long `bytes` take; no time at all where the rate is not known.
    pub(super) fn time_for(self, bytes: u64) -> Duration {
        let time = (u128::from(bytes) * NANOSECONDS).checked_div(u128::from(self.0));
        Duration::from_nanos(time.and_then(|time| u64::try_from(time).ok()).unwrap_or(0))
    }
}

const NANOSECONDS: u128 = 1_000_000_000;

/// The shortest round trip of the last five to ten seconds: what the path takes when nothing waits on it.
#[derive(Debug)]
pub(super) struct ShortestRoundTrip {
    previous: Option<Duration>,
    current: Option<(Duration, Instant)>,
}

/// Whether a sample closed a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    GoesOn,
    /// The period that ended has not seen the shortest round trip again: queues may have hidden it all the time.
    EndedUnconfirmed,
}

/// Routes change; a look at the empty path every few seconds costs next to nothing.
const ROUND_TRIP_PERIOD: Duration = Duration::from_secs(5);

/// A round trip that is longer by less than a part of this many is the same round trip.
const SAME_ROUND_TRIP: u32 = 64;

impl ShortestRoundTrip {
    pub(super) fn new() -> Self {
        Self {
            previous: None,
            current: None,
        }
    }

    /// What was known is no longer true.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }

    pub(super) fn get(&self) -> Option<Duration> {
        let current = self.current.map(|(shortest, _)| shortest);
        self.previous.into_iter().chain(current).min()
    }

    pub(super) fn observe(&mut self, now: Instant, sample: Duration) -> Period {
        let Some((shortest, since)) = &mut self.current else {
            self.current = Some((sample, now));
            return Period::GoesOn;
        };
        *shortest = sample.min(*shortest);
        if now.saturating_duration_since(*since) < ROUND_TRIP_PERIOD {
            return Period::GoesOn;
        }
        let ended = *shortest;
        let confirmed = self
            .previous
            .is_none_or(|before| ended <= before + before / SAME_ROUND_TRIP);
        self.previous = Some(ended);
        self.current = Some((sample, now));
        if confirmed {
            Period::GoesOn
        } else {
            Period::EndedUnconfirmed
        }
    }
}

/// The highest rate of the last one to two seconds in which something came.
#[derive(Debug, Default)]
pub(super) struct HighestRate {
    previous: Rate,
    current: Rate,
    since: Option<Instant>,
}

/// Short, so that a path that became slower is believed soon.
const RATE_PERIOD: Duration = Duration::from_secs(1);

impl HighestRate {
    pub(super) fn get(&self) -> Rate {
        self.previous.max(self.current)
    }

    pub(super) fn observe(&mut self, now: Instant, sample: Rate) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= RATE_PERIOD {
            self.previous = self.current;
            self.current = sample;
            self.since = Some(now);
        } else {
            self.current = self.current.max(sample);
        }
    }
}

/// Bytes that arrive one behind the other: their spacing is the pace of the narrowest part of the path, long before
/// a round trip is over.
#[derive(Debug, Default)]
pub(super) struct Train {
    began: Option<Instant>,
    last: Option<Instant>,
    bytes: u64,
}

/// Less says more about the clock than about the path.
const SHORTEST_TRAIN: Duration = Duration::from_millis(2);

/// A few segments that a card or a kernel has put together are no train.
const LIGHTEST_TRAIN: u64 = 64 * 1024;

impl Train {
    /// Books arrived bytes; gives the rate once the train is long enough, and begins the next.
    pub(super) fn observe(&mut self, now: Instant, bytes: u64) -> Option<Rate> {
        let gap = self
            .last
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        if gap.is_none_or(|gap| gap >= SHORTEST_TRAIN) {
            // What began now has been under way together for nobody knows how long.
            self.began = Some(now);
            self.bytes = 0;
            return None;
        }
        self.bytes += bytes;
        let took = now.saturating_duration_since(self.began?);
        if took < SHORTEST_TRAIN || self.bytes < LIGHTEST_TRAIN {
            return None;
        }
        self.began = Some(now);
        Rate::of(std::mem::take(&mut self.bytes), took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_rate_counts_both_ways() {
        let rate = Rate::of(3000, 2 * MILLISECOND).unwrap();
        assert_eq!(rate.bytes_in(10 * MILLISECOND), 15_000);
        assert_eq!(rate.time_for(15_000), 10 * MILLISECOND);
        assert_eq!(Rate::of(1, Duration::ZERO), None);
        assert_eq!(Rate::default().time_for(1), Duration::ZERO);
        assert_eq!(Rate(u64::MAX).bytes_in(Duration::MAX), u64::MAX);
    }

    #[test]
    fn the_shortest_round_trip_lasts_five_to_ten_seconds() {
        let start = Instant::now();
        let mut shortest = ShortestRoundTrip::new();
        shortest.observe(start, 50 * MILLISECOND);
        for second in 1..=15 {
            let now = start + Duration::from_secs(second);
            let period = shortest.observe(now, 80 * MILLISECOND);
            // The first period knew no better, the second has not seen the 50 again.
            assert_eq!(period == Period::EndedUnconfirmed, second == 10, "{second}");
        }
        assert_eq!(shortest.get(), Some(80 * MILLISECOND));
    }

    #[test]
    fn the_highest_rate_is_forgotten_within_two_seconds() {
        let start = Instant::now();
        let mut highest = HighestRate::default();
        highest.observe(start, Rate(900));
        highest.observe(start + RATE_PERIOD, Rate(100));
        assert_eq!(highest.get(), Rate(900));
        highest.observe(start + 2 * RATE_PERIOD, Rate(100));
        assert_eq!(highest.get(), Rate(100));
    }

    #[test]
    fn a_train_has_the_pace_of_the_narrowest_part() {
        let start = Instant::now();
        let mut train = Train::default();
        // 100 KiB every millisecond, after whatever has been waiting.
        assert_eq!(train.observe(start, 900 * 1024), None);
        assert_eq!(train.observe(start + MILLISECOND, 100 * 1024), None);
        let rate = train.observe(start + 2 * MILLISECOND, 100 * 1024).unwrap();
        assert_eq!(rate.bytes_in(MILLISECOND), 100 * 1024);
        // A pause ends the train.
        assert_eq!(train.observe(start + 9 * MILLISECOND, 900 * 1024), None);
        assert_eq!(train.observe(start + 10 * MILLISECOND, 100), None);
    }
}
