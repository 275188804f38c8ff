//! [`bridge`]: passes messages between a sender and a listener.

mod delayed;

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{
    emulation::{Conditions, DelayLine, Lines},
    farewell,
    liveness::{Liveness, Pulse},
};
use crate::relay::websocket::{CloseReason, Event, Outgoing, WebSocket, WebSocketError};

/// How a bridge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both directions were closed by their senders.
    Closed,
    /// One leg was lost or broke the protocol; the other was dropped without a Close, so that its end sees an error
    /// and not a clean end.
    Aborted,
    /// The relay is shutting down, or the hybrid connection was removed.
    Shutdown,
}

/// Passes messages both ways until both directions are closed or one leg is lost.
///
/// Pieces are passed on as they arrive, with the type and the end of their message: a message may be of any size. Each
/// direction has its own bounded buffer, and its own back-pressure: a reader that stops only stops what is sent to it.
/// A Close is passed on with code and reason and ends its direction only. Pings are answered here and not passed on.
/// `end` ends both directions, with its reason.
pub(super) async fn bridge<T>(
    sender: WebSocket<T>,
    listener: WebSocket<T>,
    conditions: Conditions,
    end: impl Future<Output = CloseReason>,
) -> Ending
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut bridge = Bridge::new(sender, listener, conditions);
    bridge
        .tick
        .set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = tokio::select! {
        result = poll_fn(|cx| bridge.poll(cx)) => result,
        reason = end => {
            bridge.close(Some(&reason)).await;
            return Ending::Shutdown;
        }
    };
    match result {
        Ok(()) => {
            bridge.close(None).await;
            Ending::Closed
        }
        Err(lost) => {
            bridge.abort(lost).await;
            Ending::Aborted
        }
    }
}

struct Bridge<T> {
    sender: Leg<T>,
    listener: Leg<T>,
    /// What is between the two, if anything is emulated.
    lines: Option<Lines>,
    /// What the listener is told when its sender is lost.
    sender_gone: Option<CloseReason>,
    tick: Interval,
}

struct Leg<T> {
    socket: WebSocket<T>,
    incoming: Incoming,
    needs_flush: bool,
    liveness: Liveness,
    /// It can not be written to or read from any more, and what it had sent before is still on its way.
    is_lost: bool,
    /// The close code that tells this leg's peer what it did wrong.
    violation: Option<u16>,
}

/// What still comes from a leg.
///
/// ```text
///  Open ──Close──► Closed ──socket end──► Ended
/// ```
///
/// The socket's end without a Close is a loss, and ends the bridge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Incoming {
    Open,
    /// Its Close was passed on; only signs of life come.
    Closed,
    Ended,
}

/// A leg is of no more use.
struct Lost;

impl<T: AsyncRead + AsyncWrite + Unpin> Bridge<T> {
    fn new(sender: WebSocket<T>, listener: WebSocket<T>, conditions: Conditions) -> Self {
        let Conditions {
            lines,
            liveness,
            sender_gone,
        } = conditions;
        let period = liveness.period();
        Self {
            sender: Leg::new(sender, liveness.clone()),
            listener: Leg::new(listener, liveness),
            lines,
            sender_gone,
            tick: interval_at(Instant::now() + period, period),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        while self.tick.poll_tick(cx).is_ready() {
            self.sender.pulse()?;
            self.listener.pulse()?;
        }
        let (to_listener, to_sender) = match &mut self.lines {
            Some(lines) => (Some(&mut lines.to_listener), Some(&mut lines.to_sender)),
            None => (None, None),
        };
        let turns = [
            poll_direction(&mut self.sender, &mut self.listener, to_listener, cx)?,
            poll_direction(&mut self.listener, &mut self.sender, to_sender, cx)?,
        ];
        if turns.contains(&Turn::Used) {
            cx.waker().wake_by_ref();
        }
        let mut is_done = self.lines.as_ref().is_none_or(Lines::are_empty);
        // Both are asked, because asking also sends.
        for leg in [&mut self.sender, &mut self.listener] {
            match leg.poll_done(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Lost)) if self.lines.is_some() => {
                    leg.is_lost = true;
                    is_done = false;
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Err(Lost)) => return Poll::Ready(Err(Lost)),
                Poll::Pending => is_done = false,
            }
        }
        if is_done {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    async fn close(&mut self, reason: Option<&CloseReason>) {
        tokio::join!(
            farewell::close(&mut self.sender.socket, reason),
            farewell::close(&mut self.listener.socket, reason)
        );
    }

    /// What a leg had sent before it was lost still goes to the other, without a Close behind it.
    async fn abort(&mut self, Lost: Lost) {
        if let Some(reason) = &self.sender_gone
            && self.sender.is_lost
        {
            let listener = &mut self.listener.socket;
            tokio::join!(self.sender.abort(), farewell::close(listener, Some(reason)));
        } else {
            tokio::join!(self.sender.abort(), self.listener.abort());
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Leg<T> {
    fn new(socket: WebSocket<T>, liveness: Liveness) -> Self {
        Self {
            socket,
            incoming: Incoming::Open,
            needs_flush: false,
            liveness,
            is_lost: false,
            violation: None,
        }
    }

    fn pulse(&mut self) -> Result<(), Lost> {
        if self.is_lost {
            return Ok(());
        }
        match self.liveness.tick() {
            Pulse::Fine => {}
            // Behind unsent data a ping says nothing, and would pile up.
            Pulse::Ping if self.needs_flush => {}
            Pulse::Ping => {
                self.socket.start_ping(b"");
                self.needs_flush = true;
            }
            // Who has closed its direction owes no sign of life: many do not read on.
            Pulse::Dead if self.incoming != Incoming::Open => {}
            Pulse::Dead | Pulse::Idle => return Err(Lost),
        }
        Ok(())
    }

    /// Sends what is unsent. Ready when there is no more to do for this leg in either direction.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.needs_flush && !self.is_lost {
            ready!(self.socket.poll_flush(cx)).map_err(|_| Lost)?;
            self.needs_flush = false;
        }
        match self.incoming {
            Incoming::Open => Poll::Pending,
            Incoming::Closed | Incoming::Ended => Poll::Ready(Ok(())),
        }
    }

    fn failed(&mut self, error: &WebSocketError) -> Lost {
        self.violation = error.close_code();
        Lost
    }

    async fn abort(&mut self) {
        if let Some(code) = self.violation {
            let reason = CloseReason::new(code, "The WebSocket protocol was violated");
            farewell::close(&mut self.socket, Some(&reason)).await;
        } else {
            farewell::leave(&mut self.socket).await;
        }
    }
}

/// How a direction's turn ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is nothing to do; the direction's wakers are set.
    Idle,
    /// There may be more to do: the other direction's turn comes first.
    Used,
}

/// Pieces of one direction in one turn. A piece is at most a block of input, so this is half a MiB; and each costs a
/// read and a write at most, so that both directions' turns fit into the 128 operations that tokio lets a task do
/// before it makes it wait.
const PIECES_PER_TURN: usize = 16;

fn poll_direction<T: AsyncRead + AsyncWrite + Unpin>(
    from: &mut Leg<T>,
    to: &mut Leg<T>,
    line: Option<&mut DelayLine>,
    cx: &mut Context<'_>,
) -> Result<Turn, Lost> {
    match line {
        Some(line) => delayed::poll_forward(from, to, line, cx),
        None => poll_forward(from, to, cx),
    }
}

/// Passes on what `from` sent, as long as `to` has room, for one turn.
fn poll_forward<T: AsyncRead + AsyncWrite + Unpin>(
    from: &mut Leg<T>,
    to: &mut Leg<T>,
    cx: &mut Context<'_>,
) -> Result<Turn, Lost> {
    for _ in 0..PIECES_PER_TURN {
        if from.incoming == Incoming::Ended {
            return Ok(Turn::Idle);
        }
        if from.incoming == Incoming::Open {
            match to.socket.poll_ready(cx) {
                Poll::Ready(result) => result.map_err(|_| Lost)?,
                Poll::Pending => {
                    // Its signs of life are behind data that is not read now.
                    from.liveness.excuse();
                    return Ok(Turn::Idle);
                }
            }
        }
        let event = match from.socket.poll_event(cx) {
            Poll::Ready(result) => result.map_err(|error| from.failed(&error))?,
            Poll::Pending => return Ok(Turn::Idle),
        };
        from.liveness.heard();
        match event {
            Event::Data { kind, payload, end } => {
                to.socket.start_forward(kind, payload, end);
                to.needs_flush = true;
                to.liveness.excuse();
            }
            Event::Close(reason) => {
                to.socket.start_send(Outgoing::Close(reason.as_ref()));
                to.needs_flush = true;
                from.incoming = Incoming::Closed;
            }
            Event::Ping | Event::Pong => {}
            Event::Ended if from.incoming == Incoming::Open => return Err(Lost),
            Event::Ended => from.incoming = Incoming::Ended,
        }
    }
    Ok(Turn::Used)
}

#[cfg(test)]
mod tests;
