//! [`Backoff`]: how long to wait before the next dial, whoever dials.

use std::time::Duration;

use crate::crypto;

/// The waits in seconds, those of Microsoft's clients. The first dial after a loss is immediate, because most losses are
/// a restart of one side or a relay that moves the connection; the last wait repeats, short enough that a relay which is
/// back is found soon.
const DELAYS: [u64; 6] = [0, 1, 2, 5, 10, 30];

/// The share of a wait that jitter adds at most: 1/4, so that the parties of a restarted relay spread out.
const JITTER_DIVISOR: u32 = 4;

/// The jitter on the immediate dial, and the least on any. All parties of a relay lose it in the same instant.
const LEAST_JITTER: Duration = Duration::from_millis(250);

/// A connection that lived this long was a success: what lost it is a new failure, not the old one again.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// A source of jitter: 0 is none, 255 the most.
pub(crate) type Jitter = fn() -> u8;

/// The state of the waits of one party.
#[derive(Debug)]
pub(crate) struct Backoff {
    step: usize,
    jitter: Jitter,
}

impl Backoff {
    pub(crate) fn new(jitter: Jitter) -> Self {
        Self { step: 0, jitter }
    }

    /// A connection that lived for `lifetime` was lost; zero where it was never reached and may be there at once.
    pub(crate) fn after_loss(&mut self, lifetime: Duration) -> Duration {
        if lifetime >= STABLE_AFTER {
            self.step = 0;
        }
        self.next()
    }

    /// A dial failed in a way that passes. The immediate dial is for a loss: what failed just now is not repeated at
    /// once.
    pub(crate) fn after_failure(&mut self) -> Duration {
        self.step = self.step.max(1);
        self.next()
    }

    /// A dial was refused in a way that will not pass by itself, such as a wrong key. A peer that said no is not
    /// asked again every second.
    pub(crate) fn after_refusal(&mut self) -> Duration {
        self.step = DELAYS.len() - 1;
        self.next()
    }

    fn next(&mut self) -> Duration {
        let delay = Duration::from_secs(DELAYS[self.step]);
        self.step = (self.step + 1).min(DELAYS.len() - 1);
        let most = (delay / JITTER_DIVISOR).max(LEAST_JITTER);
        delay + most * u32::from((self.jitter)()) / u32::from(u8::MAX)
    }
}

/// Jitter from the operating system's random source.
pub(crate) fn random_jitter() -> u8 {
    let [jitter] = crypto::random();
    jitter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(delays: impl IntoIterator<Item = Duration>) -> Vec<f64> {
        delays
            .into_iter()
            .map(|delay| delay.as_secs_f64())
            .collect()
    }

    fn loss_and_failures(backoff: &mut Backoff) -> Vec<f64> {
        let loss = [backoff.after_loss(STABLE_AFTER)];
        let failures = (0..7).map(|_| backoff.after_failure());
        seconds(loss.into_iter().chain(failures))
    }

    #[test]
    fn a_loss_is_followed_by_the_table_which_stays_at_its_end() {
        assert_eq!(
            loss_and_failures(&mut Backoff::new(|| 0)),
            [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]
        );
    }

    #[test]
    fn a_failed_first_dial_is_not_repeated_at_once() {
        let mut backoff = Backoff::new(|| 0);
        assert_eq!(
            seconds([backoff.after_failure(), backoff.after_failure()]),
            [1.0, 2.0]
        );
    }

    #[test]
    fn jitter_adds_a_quarter_at_most_and_spreads_the_immediate_dial_too() {
        assert_eq!(
            loss_and_failures(&mut Backoff::new(|| u8::MAX)),
            [0.25, 1.25, 2.5, 6.25, 12.5, 37.5, 37.5, 37.5]
        );
    }

    #[test]
    fn only_a_connection_that_lived_long_enough_starts_the_table_anew() {
        let mut backoff = Backoff::new(|| 0);
        let short = STABLE_AFTER - Duration::from_millis(1);
        let delays: Vec<_> = [short, short, short, STABLE_AFTER, short]
            .map(|lifetime| backoff.after_loss(lifetime))
            .to_vec();
        assert_eq!(seconds(delays), [0.0, 1.0, 2.0, 0.0, 1.0]);
    }

    #[test]
    fn a_refusal_waits_longest_at_once() {
        let mut backoff = Backoff::new(|| 0);
        assert_eq!(
            seconds([backoff.after_refusal(), backoff.after_refusal()]),
            [30.0, 30.0]
        );
    }
}
