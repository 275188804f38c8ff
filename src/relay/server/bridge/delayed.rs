//! One direction of a bridge with a [`DelayLine`] in it.

use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Incoming, Leg, Lost, PIECES_PER_TURN, Turn};
use crate::relay::{
    server::emulation::{Cargo, DelayLine},
    websocket::{Event, Outgoing},
};

/// As [`poll_forward`](super::poll_forward), with a line between the two.
///
/// What a leg had sent before it was lost is still on its way then: the loss travels behind it and ends the bridge when
/// it is there.
pub(super) fn poll_forward<T: AsyncRead + AsyncWrite + Unpin>(
    from: &mut Leg<T>,
    to: &mut Leg<T>,
    line: &mut DelayLine,
    cx: &mut Context<'_>,
) -> Result<Turn, Lost> {
    if from.is_lost {
        from.incoming = Incoming::Ended;
        line.push(Cargo::Loss);
    }
    if to.is_lost {
        return if from.is_lost {
            Err(Lost)
        } else {
            Ok(Turn::Idle)
        };
    }
    let delivered = deliver(to, line, cx)?;
    let taken = take(from, line, cx);
    Ok(if delivered == Turn::Used || taken == Turn::Used {
        Turn::Used
    } else {
        Turn::Idle
    })
}

fn deliver<T: AsyncRead + AsyncWrite + Unpin>(
    to: &mut Leg<T>,
    line: &mut DelayLine,
    cx: &mut Context<'_>,
) -> Result<Turn, Lost> {
    let mut turn = Turn::Idle;
    for _ in 0..PIECES_PER_TURN {
        match line.poll_due(cx) {
            Poll::Ready(Cargo::Loss) => return Err(Lost),
            Poll::Ready(_) => {}
            Poll::Pending => break,
        }
        match to.socket.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                to.is_lost = true;
                return Ok(Turn::Used);
            }
            Poll::Pending => {
                line.blocked();
                break;
            }
        }
        match line.pop() {
            Some(Cargo::Data { kind, payload, end }) => {
                to.socket.start_send(Outgoing::Data {
                    kind,
                    payload: &payload,
                    end,
                });
            }
            Some(Cargo::Close(reason)) => {
                to.socket.start_send(Outgoing::Close(reason.as_ref()));
            }
            Some(Cargo::Loss) | None => return Err(Lost),
        }
        to.needs_flush = true;
        to.liveness.excuse();
        turn = Turn::Used;
    }
    Ok(turn)
}

fn take<T: AsyncRead + AsyncWrite + Unpin>(
    from: &mut Leg<T>,
    line: &mut DelayLine,
    cx: &mut Context<'_>,
) -> Turn {
    let mut turn = Turn::Idle;
    for _ in 0..PIECES_PER_TURN {
        if from.incoming == Incoming::Ended {
            break;
        }
        if from.incoming == Incoming::Open && !line.has_room() {
            // Its signs of life are behind data that is not read now.
            from.liveness.excuse();
            break;
        }
        let event = match from.socket.poll_event(cx) {
            Poll::Ready(event) => event,
            Poll::Pending => break,
        };
        turn = Turn::Used;
        from.liveness.heard();
        match event {
            Ok(Event::Data { kind, payload, end }) => line.push(Cargo::data(kind, &payload, end)),
            Ok(Event::Close(reason)) => {
                line.push(Cargo::Close(reason));
                from.incoming = Incoming::Closed;
            }
            Ok(Event::Ping | Event::Pong) => {}
            Ok(Event::Ended) if from.incoming == Incoming::Closed => {
                from.incoming = Incoming::Ended;
            }
            Ok(Event::Ended) => from.is_lost = true,
            Err(error) => {
                from.failed(&error);
                from.is_lost = true;
            }
        }
        if from.is_lost {
            from.incoming = Incoming::Ended;
            line.push(Cargo::Loss);
        }
    }
    turn
}
