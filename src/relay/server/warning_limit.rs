//! [`WarningLimit`]: a log that a hot-looping client can not flood.

use std::time::Duration;

use tokio::time::Instant;

/// Lets a few events of each window through, and counts the rest.
#[derive(Debug)]
pub(super) struct WarningLimit {
    per_window: u32,
    window_start: Option<Instant>,
    allowed: u32,
    suppressed: u64,
}

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Log it, and say how many were suppressed since the last time.
    Log {
        suppressed: u64,
    },
    Suppress,
}

/// Enough to see who and why; a client without a pause of its own makes hundreds of attempts a second.
pub(super) const WARNINGS_PER_WINDOW: u32 = 5;
pub(super) const WINDOW: Duration = Duration::from_secs(10);

impl WarningLimit {
    pub(super) const fn new(per_window: u32) -> Self {
        Self {
            per_window,
            window_start: None,
            allowed: 0,
            suppressed: 0,
        }
    }

    pub(super) fn judge(&mut self, now: Instant) -> Verdict {
        if self.is_idle(now) {
            self.window_start = Some(now);
            self.allowed = 0;
        }
        if self.allowed == self.per_window {
            return self.suppress();
        }
        self.allowed += 1;
        Verdict::Log {
            suppressed: std::mem::take(&mut self.suppressed),
        }
    }

    /// Counts an event that is not to be logged for another reason.
    pub(super) fn suppress(&mut self) -> Verdict {
        self.suppressed += 1;
        Verdict::Suppress
    }

    /// Whether the next event finds what it would find in a new limit.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.window_start
            .is_none_or(|start| now.duration_since(start) >= WINDOW)
    }
}

impl Default for WarningLimit {
    fn default() -> Self {
        Self::new(WARNINGS_PER_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_five_lines_per_window() {
        let start = Instant::now();
        let mut limit = WarningLimit::default();
        let logged = (0..1000)
            .filter(|_| limit.judge(start) != Verdict::Suppress)
            .count();
        assert_eq!(logged, WARNINGS_PER_WINDOW as usize);
        assert_eq!(
            limit.judge(start + WINDOW),
            Verdict::Log { suppressed: 995 }
        );
        assert_eq!(limit.judge(start + WINDOW), Verdict::Log { suppressed: 0 });
    }
}
