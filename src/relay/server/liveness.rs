//! [`Liveness`]: whether the other end of a socket is still there.

use std::time::Duration;

/// Counts silence, in ticks of [`TICK`]. Any input is a sign of life.
#[derive(Debug)]
pub(super) struct Liveness {
    silent_ticks: u32,
    dead_after: u32,
    /// An answer may be stuck behind what we sent and the other end has not read, or behind what we have not read.
    is_excused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Fine,
    /// Ask for a sign of life.
    Ping,
    /// Nothing came although it was asked for.
    Dead,
}

/// How often [`Liveness::tick`] is to be called.
pub(super) const TICK: Duration = Duration::from_secs(10);

/// A ping every 30 s of silence: below every idle cut that is known of this protocol and of load balancers.
const PING_EVERY: u32 = 3;

/// A listener that does not answer within 10 s is not offered to senders any longer.
const CONTROL_DEAD_AFTER: u32 = PING_EVERY + 1;

/// Azure drops data sockets after about 120 s of silence.
const DATA_DEAD_AFTER: u32 = 12;

impl Liveness {
    /// For a control channel, whose other end reads all the time.
    pub(super) fn of_control() -> Self {
        Self::new(CONTROL_DEAD_AFTER)
    }

    /// For a data socket, whose other end may stop reading for as long as it likes.
    pub(super) fn of_data() -> Self {
        Self::new(DATA_DEAD_AFTER)
    }

    fn new(dead_after: u32) -> Self {
        Self {
            silent_ticks: 0,
            dead_after,
            is_excused: false,
        }
    }

    /// Something arrived.
    pub(super) fn heard(&mut self) {
        self.silent_ticks = 0;
        self.is_excused = false;
    }

    /// Silence proves nothing until something arrives: back-pressure may hold the answer up. TCP itself finds out
    /// about a dead host then, because data is in flight.
    pub(super) fn excuse(&mut self) {
        self.is_excused = true;
    }

    pub(super) fn tick(&mut self) -> Pulse {
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        if self.silent_ticks >= self.dead_after && !self.is_excused {
            Pulse::Dead
        } else if self.silent_ticks.is_multiple_of(PING_EVERY) {
            Pulse::Ping
        } else {
            Pulse::Fine
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
