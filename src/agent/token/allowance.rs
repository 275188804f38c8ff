//! [`Allowance`]: so many at once, and no more than one in a while.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: holds `burst` permits at most, and gets a new one every `pause`.
///
/// Kept as the time at which it is full again, which is all that there is to know of it.
#[derive(Debug)]
pub(super) struct Allowance {
    burst: u32,
    pause: Duration,
    full_at: Option<Instant>,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(burst: u32, pause: Duration) -> Self {
        Self {
            burst,
            pause,
            full_at: None,
        }
    }

    /// Takes a permit, and says whether there was one.
    #[must_use]
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.pause;
        if full_at - now > self.pause * self.burst {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn taken(allowance: &mut Allowance, tries: usize) -> usize {
        let now = Instant::now();
        (0..tries).filter(|_| allowance.take(now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_one_gives_its_burst_and_then_one_in_each_pause() {
        let mut allowance = Allowance::new(3, PAUSE);
        assert_eq!(taken(&mut allowance, 100), 3);
        tokio::time::advance(PAUSE - Duration::from_millis(1)).await;
        assert_eq!(taken(&mut allowance, 100), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(taken(&mut allowance, 100), 1);
        for _ in 0..100 {
            tokio::time::advance(PAUSE).await;
            assert_eq!(taken(&mut allowance, 100), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn permits_that_nobody_takes_do_not_add_up_beyond_the_burst() {
        let mut allowance = Allowance::new(3, PAUSE);
        assert_eq!(taken(&mut allowance, 2), 2);
        tokio::time::advance(PAUSE).await;
        assert_eq!(taken(&mut allowance, 100), 2);
        tokio::time::advance(PAUSE * 1_000_000).await;
        assert_eq!(taken(&mut allowance, 100), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_costs_nothing() {
        let mut allowance = Allowance::new(2, PAUSE);
        assert_eq!(taken(&mut allowance, 1_000_000), 2);
        tokio::time::advance(PAUSE * 2).await;
        assert_eq!(taken(&mut allowance, 1_000_000), 2);
    }
}
