//! [`KeepAlive`]: when to ask a silent peer for a sign of life, and when to give it up.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::websocket::WebSocket;

/// Judges a connection by what was heard from it. Does no I/O; time is passed in.
///
/// ```text
///            silent for PING_AFTER              no answer for PONG_LIMIT
///   ┌───────┐ ───────────────────► ┌───────┐ ──────────────────────────► dead
///   │ Quiet │                      │ Asked │ ─┐
///   └───────┘ ◄─────────────────── └───────┘ ◄┘ the ping could not leave yet, for at most STALL_LIMIT
///                 anything heard
/// ```
#[derive(Debug)]
pub(super) struct KeepAlive {
    state: State,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Quiet,
    Asked { at: Instant, output: Output },
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before [`KeepAlive::deadline`].
    Wait,
    /// Send a ping.
    Ask,
    /// The peer is gone.
    Dead,
}

/// Whether what was sent, the ping with it, has left this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The socket took all of it.
    Drained,
    /// Some of it waits for the socket.
    Blocked,
}

impl Output {
    pub(super) fn of<T: AsyncRead + AsyncWrite + Unpin>(socket: &WebSocket<T>) -> Self {
        if socket.is_drained() {
            Self::Drained
        } else {
            Self::Blocked
        }
    }
}

impl KeepAlive {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Quiet,
            deadline: now + PING_AFTER,
        }
    }

    /// Something arrived: a piece of data counts as much as the answer to a ping.
    pub(super) fn handle_input(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// When to call [`poll_verdict`](Self::poll_verdict) next.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Judges at `now`. Call it only after all input that is there was read.
    pub(super) fn poll_verdict(&mut self, now: Instant, output: Output) -> Verdict {
        if now < self.deadline {
            return Verdict::Wait;
        }
        let (at, before) = match self.state {
            // A caller that came late did not read in time either, and may have missed the answer: it asks once more.
            State::Asked { at, output } if now < self.deadline + LATE => (at, output),
            _ => {
                self.state = State::Asked {
                    at: now,
                    output: Output::Drained,
                };
                self.deadline = now + PONG_LIMIT;
                return Verdict::Ask;
            }
        };
        match (before, output) {
            (Output::Drained, Output::Drained) => Verdict::Dead,
            (_, Output::Blocked) if now >= at + STALL_LIMIT => Verdict::Dead,
            _ => {
                self.state = State::Asked { at, output };
                self.deadline = now + PONG_LIMIT;
                Verdict::Wait
            }
        }
    }
}

/// Well under the two minutes after which the relay drops an idle data socket, and the four of Azure's load balancer.
pub(super) const PING_AFTER: Duration = Duration::from_secs(30);

/// Many round trips around the world.
pub(super) const PONG_LIMIT: Duration = Duration::from_secs(10);

/// How long a socket may take nothing, because the other party does not read, before it counts as lost: after two
/// minutes without traffic the relay drops it anyway.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(120);

/// By how much a caller may miss a deadline and still be judged by it. A timer wakes within milliseconds.
const LATE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_silent_peer_is_asked_then_given_up() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(start);
        assert_eq!(keep_alive.deadline(), start + PING_AFTER);
        let early = start + PING_AFTER - MOMENT;
        assert_eq!(
            keep_alive.poll_verdict(early, Output::Drained),
            Verdict::Wait
        );

        let asked = start + PING_AFTER;
        assert_eq!(
            keep_alive.poll_verdict(asked, Output::Drained),
            Verdict::Ask
        );
        assert_eq!(keep_alive.deadline(), asked + PONG_LIMIT);
        let answered_by = asked + PONG_LIMIT;
        assert_eq!(
            keep_alive.poll_verdict(answered_by, Output::Drained),
            Verdict::Dead
        );
    }

    #[test]
    fn anything_heard_starts_again() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(start);
        let asked = start + PING_AFTER;
        keep_alive.poll_verdict(asked, Output::Drained);
        let heard = asked + PONG_LIMIT - MOMENT;
        keep_alive.handle_input(heard);
        assert_eq!(keep_alive.deadline(), heard + PING_AFTER);
        assert_eq!(
            keep_alive.poll_verdict(asked + PONG_LIMIT, Output::Drained),
            Verdict::Wait
        );
    }

    #[test]
    fn a_late_caller_asks_again() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(start);
        keep_alive.poll_verdict(start + PING_AFTER, Output::Drained);
        let late = keep_alive.deadline() + LATE;
        assert_eq!(keep_alive.poll_verdict(late, Output::Drained), Verdict::Ask);
        assert_eq!(
            keep_alive.poll_verdict(late + PONG_LIMIT, Output::Drained),
            Verdict::Dead
        );
    }

    #[test]
    fn a_blocked_ping_gets_its_time_once_it_has_left() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(start);
        keep_alive.poll_verdict(start + PING_AFTER, Output::Blocked);
        let at = keep_alive.deadline();
        assert_eq!(keep_alive.poll_verdict(at, Output::Blocked), Verdict::Wait);
        let at = keep_alive.deadline();
        assert_eq!(keep_alive.poll_verdict(at, Output::Drained), Verdict::Wait);
        let at = keep_alive.deadline();
        assert_eq!(keep_alive.poll_verdict(at, Output::Drained), Verdict::Dead);
    }

    #[test]
    fn a_socket_that_takes_nothing_is_given_up() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(start);
        let asked = keep_alive.deadline();
        keep_alive.poll_verdict(asked, Output::Blocked);
        let dead_at = std::iter::repeat_with(|| {
            let at = keep_alive.deadline();
            (at, keep_alive.poll_verdict(at, Output::Blocked))
        })
        .take(100)
        .find(|(_, verdict)| *verdict == Verdict::Dead)
        .map(|(at, _)| at);
        assert_eq!(dead_at, Some(asked + STALL_LIMIT));
    }

    proptest! {
        /// Whatever a caller does, it is never told to wait past its deadline, and never given up while it hears.
        #[test]
        fn a_verdict_follows_what_was_heard(steps in proptest::collection::vec((0..45_u64, 0..3), 1..60)) {
            let mut now = Instant::now();
            let mut keep_alive = KeepAlive::new(now);
            let mut last_heard = now;
            for (seconds, action) in steps {
                now += Duration::from_secs(seconds);
                let output = match action {
                    0 => {
                        keep_alive.handle_input(now);
                        last_heard = now;
                        continue;
                    }
                    1 => Output::Blocked,
                    _ => Output::Drained,
                };
                match keep_alive.poll_verdict(now, output) {
                    Verdict::Dead => {
                        prop_assert!(now >= last_heard + PING_AFTER + PONG_LIMIT);
                        return Ok(());
                    }
                    Verdict::Ask => prop_assert!(now >= last_heard + PING_AFTER),
                    Verdict::Wait => {}
                }
                prop_assert!(keep_alive.deadline() > now);
            }
        }
    }
}
