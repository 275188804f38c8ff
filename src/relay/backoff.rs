//! [`Backoff`]: how long a listener waits before it dials again.

use std::time::Duration;

use crate::crypto;

/// The delays 0, 1, 2, 5, 10 and 30 s of Microsoft's clients, for ever, each a little longer by chance.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: usize,
}

/// Whether trying again by itself can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It may pass.
    Transient,
    /// Somebody has to change something first. It is tried at the slow end, so that the change is noticed.
    Persistent,
}

impl Backoff {
    /// The delay after a registration that stood for `lived` (zero when it was never reached) ended.
    pub(super) fn next_delay(&mut self, lived: Duration, outlook: Outlook) -> Duration {
        if lived >= STABLE_AFTER {
            self.failures = 0;
        }
        let index = match outlook {
            Outlook::Transient => self.failures.min(DELAYS.len() - 1),
            Outlook::Persistent => DELAYS.len() - 1,
        };
        self.failures = self.failures.saturating_add(1);
        let delay = DELAYS[index];
        delay + (delay / 4).max(MIN_SPREAD).mul_f64(chance())
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(u16::from_be_bytes(crypto::random())) / f64::from(u16::MAX)
}

const DELAYS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// The least spread: when a relay restarts, its listeners must not all come back in the same instant.
const MIN_SPREAD: Duration = Duration::from_millis(250);

/// A registration that stood this long was sound; one that ends sooner, again and again, is a failure like any other.
const STABLE_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_about(delay: Duration, seconds: u64) {
        let base = Duration::from_secs(seconds);
        let most = base + (base / 4).max(MIN_SPREAD);
        assert!((base..=most).contains(&delay), "{delay:?} for {base:?}");
    }

    #[test]
    fn delays_grow_to_thirty_seconds_and_stay() {
        let mut backoff = Backoff::default();
        for seconds in [0, 1, 2, 5, 10, 30, 30, 30] {
            assert_about(
                backoff.next_delay(Duration::ZERO, Outlook::Transient),
                seconds,
            );
        }
    }

    #[test]
    fn only_a_stable_registration_starts_over() {
        let mut backoff = Backoff::default();
        let short = STABLE_AFTER - Duration::from_millis(1);
        for seconds in [0, 1, 2] {
            assert_about(backoff.next_delay(short, Outlook::Transient), seconds);
        }
        assert_about(backoff.next_delay(STABLE_AFTER, Outlook::Transient), 0);
    }

    #[test]
    fn what_does_not_pass_by_itself_is_tried_slowly_at_once() {
        let mut backoff = Backoff::default();
        assert_about(backoff.next_delay(Duration::ZERO, Outlook::Persistent), 30);
    }

    #[test]
    fn the_spread_differs() {
        let mut backoff = Backoff::default();
        let delays: std::collections::HashSet<_> = (0..20)
            .map(|_| backoff.next_delay(Duration::ZERO, Outlook::Persistent))
            .collect();
        assert!(delays.len() > 1);
    }
}
