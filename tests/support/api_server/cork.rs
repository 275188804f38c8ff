//! [`Cork`]: makes a 101 and the first bytes behind it leave in one segment, as a busy real server's do.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use arc_cluster_connect::net::NetStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The handle of a connection's cork. Clones are the same cork.
///
/// ```text
/// Open ──hold──► Holding ──join_next_write──► Joining ──a write──► Draining ──all written──► Open
/// ```
#[derive(Clone, Default)]
pub(super) struct Cork(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    /// Writes pass.
    #[default]
    Open,
    /// Writes are kept, and flushes do nothing.
    Holding(Vec<u8>),
    /// The next write goes out together with what was kept.
    Joining(Vec<u8>),
    /// What was kept goes out first; `usize` bytes of it are written.
    Draining(Vec<u8>, usize),
}

impl Cork {
    /// Keeps what is written from now on: the head of the 101.
    pub(super) fn hold(&self) {
        *self.state() = State::Holding(Vec::new());
    }

    /// Sends what was kept together with the next write.
    pub(super) fn join_next_write(&self) {
        let mut state = self.state();
        if let State::Holding(kept) = &mut *state {
            *state = State::Joining(std::mem::take(kept));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection with a cork in its write side.
pub(super) struct CorkedStream {
    stream: NetStream,
    cork: Cork,
}

impl CorkedStream {
    pub(super) fn new(stream: NetStream, cork: Cork) -> Self {
        Self { stream, cork }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.cork.state();
        if let State::Draining(kept, written) = &mut *state {
            while *written < kept.len() {
                let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &kept[*written..]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *written += count;
            }
            *state = State::Open;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for CorkedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CorkedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        {
            let mut state = self.cork.state();
            match &mut *state {
                State::Holding(kept) => {
                    kept.extend_from_slice(buf);
                    return Poll::Ready(Ok(buf.len()));
                }
                State::Joining(kept) => {
                    let mut kept = std::mem::take(kept);
                    kept.extend_from_slice(buf);
                    *state = State::Draining(kept, 0);
                    drop(state);
                    // The bytes are taken over whether or not the socket has room now: the flush sends the rest.
                    return match self.poll_drain(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ => Poll::Ready(Ok(buf.len())),
                    };
                }
                State::Open | State::Draining(..) => {}
            }
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(&*self.cork.state(), State::Holding(_) | State::Joining(_)) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
