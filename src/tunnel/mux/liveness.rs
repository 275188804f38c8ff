//! Whether the peer is still there, and how far away.

use std::time::{Duration, Instant};

use super::config::{MAX_MISSES, PING_INTERVAL};

/// Pings and the clock behind them.
///
/// The peer is alive while bytes of any kind arrive. A PONG is only a way to make a silent peer send some: under
/// load it may be late behind data without anything being wrong.
#[derive(Debug)]
pub(super) struct Liveness {
    silence: Duration,
    silent_at: Instant,
    misses: u32,
    measure_at: Instant,
    ping_due: bool,
    next_token: u64,
    outstanding: Option<(u64, Instant)>,
    round_trip: Option<Duration>,
    /// Somebody wants to know now, and nothing has come since they asked.
    asked: bool,
}

/// What a look at the clock gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// Nothing was received since the last [`MAX_MISSES`] pings.
    Dead,
}

impl Liveness {
    /// The first ping is due at once, while the path is idle: the best sample of the round trip there is.
    pub(super) fn new(now: Instant, silence: Duration) -> Self {
        Self {
            silence,
            silent_at: now + silence,
            misses: 0,
            measure_at: now + PING_INTERVAL,
            ping_due: true,
            next_token: 1,
            outstanding: None,
            round_trip: None,
            asked: false,
        }
    }

    /// Pings now; [`is_asked`](Self::is_asked) until something was received.
    pub(super) fn ask(&mut self) {
        self.ping_due = true;
        self.asked = true;
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// Whether what was just received is the answer to [`ask`](Self::ask).
    pub(super) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn deadline(&self) -> Instant {
        self.silent_at.min(self.measure_at)
    }

    pub(super) fn on_received(&mut self, now: Instant) {
        self.misses = 0;
        self.silent_at = now + self.silence;
    }

    pub(super) fn on_time(&mut self, now: Instant) -> Verdict {
        if now >= self.silent_at {
            if self.misses == MAX_MISSES {
                return Verdict::Dead;
            }
            self.misses += 1;
            self.ping_due = true;
            self.silent_at = now + self.silence;
        }
        if now >= self.measure_at {
            self.ping_due = true;
            self.measure_at = now + PING_INTERVAL;
        }
        Verdict::Alive
    }

    /// Pings for the sake of the round trip.
    pub(super) fn measure(&mut self) {
        self.ping_due = true;
    }

    pub(super) fn is_ping_due(&self) -> bool {
        self.ping_due
    }

    /// The token of the ping that leaves now.
    pub(super) fn start_ping(&mut self, now: Instant) -> u64 {
        self.ping_due = false;
        let token = self.next_token;
        self.next_token += 1;
        self.outstanding = Some((token, now));
        token
    }

    /// Takes an answer; says whether it was asked for.
    pub(super) fn on_pong(&mut self, token: u64, now: Instant) -> bool {
        match self.outstanding {
            Some((asked, sent)) if asked == token => {
                self.outstanding = None;
                self.round_trip = Some(now.saturating_duration_since(sent));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_unanswered_pings_are_a_death() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut liveness = Liveness::new(start, 15 * second);
        liveness.start_ping(start);
        assert_eq!(liveness.on_time(start + 14 * second), Verdict::Alive);
        assert!(!liveness.is_ping_due());
        assert_eq!(liveness.on_time(start + 15 * second), Verdict::Alive);
        assert!(liveness.is_ping_due());
        assert_eq!(liveness.on_time(start + 30 * second), Verdict::Alive);
        assert_eq!(liveness.on_time(start + 45 * second), Verdict::Dead);
    }

    #[test]
    fn any_byte_counts_as_life() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut liveness = Liveness::new(start, 15 * second);
        for round in 1..20 {
            let now = start + round * 15 * second;
            assert_eq!(liveness.on_time(now), Verdict::Alive);
            liveness.on_received(now);
        }
    }

    #[test]
    fn a_foreign_pong_measures_nothing() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, Duration::from_secs(15));
        let token = liveness.start_ping(start);
        assert!(!liveness.on_pong(token + 1, start));
        assert_eq!(liveness.round_trip(), None);
        assert!(liveness.on_pong(token, start + Duration::from_millis(50)));
        assert!(!liveness.on_pong(token, start));
        assert_eq!(liveness.round_trip(), Some(Duration::from_millis(50)));
    }
}
