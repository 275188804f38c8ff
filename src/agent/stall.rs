//! How long bytes wait on their way: for a caller who does not read, or an API server that does not.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{Core, metrics::Direction};

/// What counts as a wait where nobody says so, and only the time between two pieces is known. A loaded machine takes
/// a millisecond or two for no reason.
const SHORTEST: Duration = Duration::from_millis(5);

/// One direction of one request.
pub(super) struct StallClock {
    core: Arc<Core>,
    direction: Direction,
    since: Option<Instant>,
}

impl StallClock {
    pub(super) fn new(core: Arc<Core>, direction: Direction) -> Self {
        Self {
            core,
            direction,
            since: None,
        }
    }

    /// Takes the outcome of a write: one that waits starts a stall, the next that does not ends it.
    fn note<R>(&mut self, written: Poll<R>) -> Poll<R> {
        if written.is_pending() {
            self.since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.since.take() {
            self.core.metrics.stalled(self.direction, since.elapsed());
        }
        written
    }

    /// Somebody has taken a piece, and will ask for another when there is room for it.
    pub(super) fn piece_taken(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Another piece is asked for.
    pub(super) fn piece_wanted(&mut self) {
        if let Some(since) = self.since.take() {
            self.observe_if_long(since);
        }
    }

    fn observe_if_long(&self, since: Instant) {
        let waited = since.elapsed();
        if waited >= SHORTEST {
            self.core.metrics.stalled(self.direction, waited);
        }
    }
}

impl Drop for StallClock {
    fn drop(&mut self) {
        // Who gives up has waited too.
        if let Some(since) = self.since.take() {
            self.observe_if_long(since);
        }
    }
}

/// A stream whose writes that wait are counted.
pub(super) struct Timed<T> {
    stream: T,
    clock: StallClock,
}

impl<T> Timed<T> {
    pub(super) fn new(stream: T, clock: StallClock) -> Self {
        Self { stream, clock }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.clock
            .note(Pin::new(&mut this.stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.clock
            .note(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
