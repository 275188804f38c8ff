//! [`Liveness`]: whether the other end of a socket is still there.

use std::time::Duration;

/// Counts silence, in ticks of [`Liveness::period`]. Any input is a sign of life.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    silent_ticks: u32,
    policy: Policy,
    /// An answer may be stuck behind what we sent and the other end has not read, or behind what we have not read.
    is_excused: bool,
}

/// What silence means.
#[derive(Clone, Copy, Debug)]
enum Policy {
    /// The other end is asked for a sign of life, and is dead when it gives none.
    Ask { dead_after: u32 },
    /// Nobody is asked, and silence is the end, as on Azure. What we sent counts too.
    Cut { period: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Fine,
    /// Ask for a sign of life.
    Ping,
    /// Nothing came although it was asked for.
    Dead,
    /// Nothing passed in either direction for as long as is allowed.
    Idle,
}

/// How often it is looked whether a peer is there.
pub(super) const TICK: Duration = Duration::from_secs(10);

/// How often it is looked within the time that an idle socket has. It lasts up to a 24th longer, never shorter: on Azure
/// a control channel is cut 10 s to 15 s after its 240 s.
const LOOKS_UNTIL_CUT: u32 = 24;

/// No timer is finer.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// A ping every 30 s of silence: below every idle cut that is known of this protocol and of load balancers.
const PING_EVERY: u32 = 3;

/// A listener that does not answer within 10 s is not offered to senders any longer.
const CONTROL_DEAD_AFTER: u32 = PING_EVERY + 1;

/// Azure drops data sockets after about 120 s of silence.
const DATA_DEAD_AFTER: u32 = 12;

impl Liveness {
    /// For a control channel, whose other end reads all the time.
    pub(super) fn of_control() -> Self {
        Self::new(Policy::Ask {
            dead_after: CONTROL_DEAD_AFTER,
        })
    }

    /// For a data socket, whose other end may stop reading for as long as it likes.
    pub(super) fn of_data() -> Self {
        Self::new(Policy::Ask {
            dead_after: DATA_DEAD_AFTER,
        })
    }

    /// For a socket that ends when nothing passes for so long.
    pub(super) fn cut_after(idle: Duration) -> Self {
        Self::new(Policy::Cut {
            period: (idle / LOOKS_UNTIL_CUT).max(MIN_PERIOD),
        })
    }

    fn new(policy: Policy) -> Self {
        Self {
            silent_ticks: 0,
            policy,
            is_excused: false,
        }
    }

    /// How often [`Liveness::tick`] is to be called.
    pub(super) fn period(&self) -> Duration {
        match self.policy {
            Policy::Ask { .. } => TICK,
            Policy::Cut { period } => period,
        }
    }

    /// Something arrived.
    pub(super) fn heard(&mut self) {
        self.silent_ticks = 0;
        self.is_excused = false;
    }

    /// Something was sent. It proves nothing about the other end, but the socket is not idle.
    pub(super) fn said(&mut self) {
        if matches!(self.policy, Policy::Cut { .. }) {
            self.heard();
        }
    }

    /// Silence proves nothing until something arrives: back-pressure may hold the answer up. TCP itself finds out
    /// about a dead host then, because data is in flight.
    pub(super) fn excuse(&mut self) {
        self.is_excused = true;
        self.said();
    }

    pub(super) fn tick(&mut self) -> Pulse {
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        match self.policy {
            Policy::Ask { dead_after } if self.silent_ticks >= dead_after && !self.is_excused => {
                Pulse::Dead
            }
            Policy::Ask { .. } if self.silent_ticks.is_multiple_of(PING_EVERY) => Pulse::Ping,
            // The first tick may come right behind what was heard.
            Policy::Cut { .. } if self.silent_ticks > LOOKS_UNTIL_CUT => Pulse::Idle,
            Policy::Ask { .. } | Policy::Cut { .. } => Pulse::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_listener_is_pinged_after_30_seconds_and_dead_after_40() {
        let mut liveness = Liveness::of_control();
        let pulses: Vec<_> = (0..4).map(|_| liveness.tick()).collect();
        assert_eq!(pulses, [Pulse::Fine, Pulse::Fine, Pulse::Ping, Pulse::Dead]);
    }

    #[test]
    fn what_is_idle_is_cut_a_moment_late_and_never_asked() {
        let mut liveness = Liveness::cut_after(Duration::from_secs(240));
        assert_eq!(liveness.period(), Duration::from_secs(10));
        let cut_at = |liveness: &mut Liveness| {
            (1..100).find(|_| match liveness.tick() {
                Pulse::Fine => false,
                Pulse::Idle => true,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(cut_at(&mut liveness), Some(25));
        for activity in [Liveness::heard, Liveness::said, Liveness::excuse] {
            activity(&mut liveness);
            assert_eq!(cut_at(&mut liveness), Some(25));
        }
        assert!(
            !Liveness::cut_after(Duration::from_nanos(1))
                .period()
                .is_zero()
        );
    }

    #[test]
    fn any_input_starts_over() {
        let mut liveness = Liveness::of_control();
        for _ in 0..100 {
            assert_ne!(liveness.tick(), Pulse::Dead);
            assert_ne!(liveness.tick(), Pulse::Dead);
            assert_eq!(liveness.tick(), Pulse::Ping);
            liveness.heard();
        }
    }

    #[test]
    fn an_excuse_holds_until_something_arrives() {
        let mut liveness = Liveness::of_data();
        liveness.excuse();
        for _ in 0..1000 {
            assert_ne!(liveness.tick(), Pulse::Dead);
        }
        liveness.heard();
        let dead = (1..100).find(|_| liveness.tick() == Pulse::Dead);
        assert_eq!(dead, Some(DATA_DEAD_AFTER));
    }
}
