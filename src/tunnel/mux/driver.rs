//! [`Driver`]: moves bytes between the connection and the transport.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant as StdInstant,
};

use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep},
};

use super::{
    connection::{Connection, Ending},
    failure::{session_ended, transport_failure},
    link::{Input, Link, Written},
    shared::{IsWritten, Shared},
};
use crate::{Error, Result};

/// The task of a session. Nothing moves unless it is polled: spawn it.
///
/// It resolves when the session has ended and the transport is closed: `Ok` when one of the sides wished it
/// ([`Session::close`](super::Session::close), [`Session::go_away`](super::Session::go_away)), else the reason.
/// Dropping it ends the session at once and every stream with an error.
///
/// Needs a tokio runtime with time enabled.
#[must_use = "a session stands still unless its driver is polled"]
pub struct Driver {
    shared: Arc<Shared>,
    timer: Timer,
    gathering: Gathering,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            timer: Timer::default(),
            gathering: Gathering {
                seen: None,
                skips: 1,
            },
        }
    }
}

/// Rounds of reading and writing in one poll, before other tasks get their turn: readers find what was received while it
/// is in a cache, and its blocks come back before new ones are taken.
const ROUNDS: usize = 4;

impl Future for Driver {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Dropped after the lock: an old waker may take a task with it, and that task anything.
        let _spent: Option<Waker>;
        let mut link = this.shared.lock_link();
        let Some(link) = link.as_mut() else {
            // Only a dropped driver leaves nothing here.
            return Poll::Pending;
        };
        _spent = link.driver_runs(cx);
        let mut now = Instant::now().into_std();
        let mut input = None;
        let first = this.shared.with(|state| {
            let waits = this.gathering.waits(state.driver_wakes());
            (!waits).then(|| begin_round(&mut state.connection, link, None, now))
        });
        let Some(mut round) = first else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        for _ in 0..ROUNDS {
            // Neither direction waits for the other: two peers that only write would never meet a reader.
            let written = link.poll_write(cx);
            match &written {
                Written::Nothing => {}
                // The clock is asked where time may have passed.
                Written::Some => now = Instant::now().into_std(),
                Written::Failed(error) => this.shared.transport_failed("writing to", error),
            }
            if round.is_reading {
                input = link.poll_read(cx);
            }
            if let Some(end) = round.end
                && (end.expired || (end.said && link.poll_close(cx).is_ready()))
            {
                return Poll::Ready(end.into_result());
            }
            if matches!(written, Written::Nothing) && input.is_none() {
                if sleep(&this.shared, &mut this.timer, link, cx).is_pending() {
                    return Poll::Pending;
                }
                now = Instant::now().into_std();
            }
            round = this.shared.with(|state| {
                state.driver_runs();
                begin_round(&mut state.connection, link, input.take(), now)
            });
        }
        this.gathering.skip_one();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.driver_is_gone();
    }
}

/// What the connection wants after a look at it.
struct Round {
    is_reading: bool,
    end: Option<End>,
}

/// A session that has ended.
struct End {
    error: Arc<Error>,
    ending: Ending,
    /// Whether the last word is out of the connection.
    said: bool,
    /// Whether the time for farewells is over.
    expired: bool,
}

/// Gives the connection what came in, and takes what should leave.
fn begin_round(
    connection: &mut Connection,
    link: &mut Link,
    input: Option<Input>,
    now: StdInstant,
) -> Round {
    take_input(connection, input, now);
    if connection.poll_timeout().is_some_and(|due| now >= due) {
        connection.handle_timeout(now);
    }
    // The last word joins what is stuck: from then on the connection counts the time that it may take.
    if link.batch.is_empty() || connection.is_closing() {
        connection.poll_transmit(now, &mut link.batch);
    }
    if !link.can_write() {
        // Nothing can leave; the connection must not wait for it.
        link.batch.clear();
    }
    Round {
        is_reading: connection.is_reading(),
        end: connection.ended().map(|(error, ending)| End {
            error: Arc::clone(error),
            ending,
            said: !connection.wants_transmit(),
            expired: connection.is_expired(),
        }),
    }
}

fn take_input(connection: &mut Connection, input: Option<Input>, now: StdInstant) {
    match input {
        None => {}
        Some(Input::Bytes(bytes)) => connection.handle_input(now, bytes),
        Some(Input::End) => connection.handle_end(),
        Some(Input::Failed(error)) => {
            connection.handle_failure(transport_failure("reading from", &error));
        }
    }
}

/// Ready when there is something to do after all.
fn sleep(shared: &Shared, timer: &mut Timer, link: &Link, cx: &mut Context<'_>) -> Poll<()> {
    let is_written = if link.batch.is_empty() {
        IsWritten::Yes
    } else {
        IsWritten::No
    };
    let (sleeps, due) = shared.with(|state| {
        (
            state.driver_sleeps(cx, is_written),
            state.connection.poll_timeout(),
        )
    });
    match due {
        _ if !sleeps => Poll::Ready(()),
        Some(due) => timer.poll(cx, Instant::from_std(due)),
        None => Poll::Pending,
    }
}

impl End {
    fn into_result(self) -> Result<()> {
        tracing::debug!(reason = %self.error.report(), "tunnel session ended");
        match self.ending {
            Ending::Clean => Ok(()),
            Ending::Failed => Err(session_ended(&self.error)),
        }
    }
}

/// Lets other tasks write and read before a batch is filled.
///
/// A runtime with several workers runs the driver right behind the first task that has written, or read and so has
/// credit to give: each would have a write to the transport of its own. So the driver goes to the end of the queue once,
/// for as long as that makes batches longer.
#[derive(Debug)]
struct Gathering {
    /// Streams that had something to send when it began to wait.
    seen: Option<usize>,
    /// Polls until it tries again.
    skips: u32,
}

/// How often the driver writes at once after waiting was for nothing: the vain attempts cost little then.
const SKIPS: u32 = 16;

impl Gathering {
    /// Whether the driver should wait. `ready` is how many streams have something to send, if that is why it was woken.
    fn waits(&mut self, ready: Option<usize>) -> bool {
        match (ready, self.seen.take()) {
            (Some(ready), Some(seen)) => {
                self.skips = if ready > seen { 0 } else { SKIPS };
                false
            }
            (Some(ready), None) if self.skips == 0 => {
                self.seen = Some(ready);
                true
            }
            (Some(_), None) => {
                self.skips -= 1;
                false
            }
            (None, _) => false,
        }
    }

    /// The driver has just waited for another reason.
    fn skip_one(&mut self) {
        self.skips = self.skips.max(1);
    }
}

/// Wakes the driver at the connection's next deadline, or before.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who will be woken by it as it is set now.
    armed_for: Option<Waker>,
}

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // Deadlines mostly move away with every input: a timer that goes off early costs less than moving it.
        if sleep.deadline() > due || sleep.is_elapsed() {
            sleep.as_mut().reset(due);
            self.armed_for = None;
        }
        let armed = self.armed_for.as_ref();
        if armed.is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        // A timer that a spent budget kept from remembering the waker would never be asked again.
        let polled = pin!(unconstrained(sleep.as_mut())).poll(cx);
        if polled.is_pending() {
            self.armed_for = Some(cx.waker().clone());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_waits_for_others_while_they_come() {
        let mut gathering = Gathering {
            seen: None,
            skips: 0,
        };
        for _ in 0..3 {
            assert!(gathering.waits(Some(1)));
            assert!(!gathering.waits(Some(2)), "once in a row");
        }
        assert!(gathering.waits(Some(1)));
        assert!(!gathering.waits(Some(1)));
        for _ in 0..SKIPS {
            assert!(!gathering.waits(Some(1)), "nobody came");
        }
        assert!(!gathering.waits(None), "input does not wait");
        assert!(gathering.waits(Some(1)));
    }
}
