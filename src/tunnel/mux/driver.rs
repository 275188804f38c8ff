//! [`Driver`]: moves bytes between the connection and the transport.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Instant as StdInstant,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{
    batch::{Batch, MAX_IO_SLICES},
    blocks::Blocks,
    connection::Ending,
    failure::session_ended,
    shared::Shared,
};
use crate::{Error, ErrorKind, Result};

/// The task of a session. Nothing moves unless it is polled: spawn it.
///
/// It resolves when the session has ended and the transport is closed: `Ok` when one of the sides wished it
/// ([`Session::close`](super::Session::close), [`Session::go_away`](super::Session::go_away)), else the reason.
/// Dropping it ends the session at once and every stream with an error.
///
/// Needs a tokio runtime with time enabled.
#[must_use = "a session stands still unless its driver is polled"]
pub struct Driver(Pin<Box<dyn Future<Output = Result<()>> + Send>>);

impl Driver {
    pub(super) fn new<T>(io: T, shared: Arc<Shared>) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self(Box::pin(Task {
            io,
            shared,
            batch: Batch::default(),
            blocks: Blocks::default(),
            flush: Flush::Done,
            reading: Reading::Open,
            writing: Writing::Open,
            timer: None,
        }))
    }
}

impl Future for Driver {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

struct Task<T> {
    io: T,
    shared: Arc<Shared>,
    batch: Batch,
    blocks: Blocks,
    flush: Flush,
    reading: Reading,
    writing: Writing,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Due,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Open,
    /// Shut down: the peer has all that it will get.
    Shut,
    /// Broken: nothing can be written.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Made,
    None,
}

/// Rounds of reading and writing in one poll, before other tasks get their turn.
const ROUNDS: usize = 32;

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Task<T> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.shared.with(|state| state.driver_runs());
        for _ in 0..ROUNDS {
            let now = Instant::now().into_std();
            this.check_time(now);
            // Neither direction waits for the other: two peers that only write would never meet a reader.
            let written = this.poll_write(cx, now);
            let read = this.poll_read(cx, now);
            if let Poll::Ready(result) = this.poll_end(cx) {
                return Poll::Ready(result);
            }
            if written == Progress::None
                && read == Progress::None
                && this.poll_sleep(cx).is_pending()
            {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Task<T> {
    fn check_time(&self, now: StdInstant) {
        self.shared.with(|state| {
            if state
                .connection
                .poll_timeout()
                .is_some_and(|due| now >= due)
            {
                state.connection.handle_timeout(now);
            }
        });
    }

    /// Writes one batch as far as the transport takes it; flushes when nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: StdInstant) -> Progress {
        if self.writing != Writing::Open {
            // Nothing can leave; the connection must not wait for it.
            self.shared
                .with(|state| state.connection.poll_transmit(now, &mut self.batch));
            self.batch = Batch::default();
            return Progress::None;
        }
        let batch = &mut self.batch;
        self.shared.with(|state| {
            // The last word joins what is stuck: from then on the connection counts the time that it may take.
            if batch.is_empty() || state.connection.is_closing() {
                state.connection.poll_transmit(now, batch);
            }
        });
        let mut progress = Progress::None;
        while !self.batch.is_empty() {
            match self.poll_write_some(cx) {
                Poll::Ready(Ok(0)) => {
                    self.write_failed(&io::ErrorKind::WriteZero.into());
                    return Progress::Made;
                }
                Poll::Ready(Ok(written)) => {
                    self.batch.advance(written);
                    self.flush = Flush::Due;
                    progress = Progress::Made;
                }
                Poll::Ready(Err(error)) => {
                    self.write_failed(&error);
                    return Progress::Made;
                }
                Poll::Pending => return progress,
            }
        }
        if self.flush == Flush::Due {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flush = Flush::Done,
                Poll::Ready(Err(error)) => {
                    self.write_failed(&error);
                    return Progress::Made;
                }
                Poll::Pending => {}
            }
        }
        progress
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.io.is_write_vectored() {
            self.batch.gather();
        }
        let mut slices = [IoSlice::new(&[]); MAX_IO_SLICES];
        let count = self.batch.io_slices(&mut slices);
        Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count])
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: StdInstant) -> Progress {
        let wanted = self.shared.with(|state| state.connection.is_reading());
        if self.reading == Reading::Ended || !wanted {
            return Progress::None;
        }
        let block = self.blocks.writable();
        // The future has no state of its own: dropping it loses nothing.
        match pin!(self.io.read_buf(block)).poll(cx) {
            Poll::Pending => return Progress::None,
            Poll::Ready(Ok(0)) => {
                self.reading = Reading::Ended;
                self.shared.with(|state| state.connection.handle_end());
            }
            Poll::Ready(Ok(_)) => {
                let input = block.split().freeze();
                self.shared
                    .with(|state| state.connection.handle_input(now, input));
            }
            Poll::Ready(Err(error)) => {
                self.reading = Reading::Ended;
                self.transport_failed("reading from", &error);
            }
        }
        Progress::Made
    }

    /// Closes the transport once the session has ended and its last word is out.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let ended = self.shared.with(|state| {
            let (error, ending) = state.connection.ended()?;
            let said = !state.connection.wants_transmit();
            Some((
                Arc::clone(error),
                ending,
                said,
                state.connection.is_expired(),
            ))
        });
        let Some((error, ending, said, expired)) = ended else {
            return Poll::Pending;
        };
        let written = said && self.batch.is_empty() && self.flush == Flush::Done;
        if self.writing == Writing::Open && written {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.writing = Writing::Shut,
                Poll::Ready(Err(_)) => self.writing = Writing::Broken,
                Poll::Pending => {}
            }
        }
        // Input is read to its end: closing a socket with unread input would destroy our last word on its way.
        let farewell = self.writing == Writing::Shut && self.reading == Reading::Ended;
        if !farewell && !expired && self.writing != Writing::Broken {
            return Poll::Pending;
        }
        tracing::debug!(reason = %error.report(), "tunnel session ended");
        Poll::Ready(match ending {
            Ending::Clean => Ok(()),
            Ending::Failed => Err(session_ended(&error)),
        })
    }

    /// Ready when there is something to do after all.
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let blocked = !self.batch.is_empty();
        let (sleeps, due) = self.shared.with(|state| {
            (
                state.driver_sleeps(cx, blocked),
                state.connection.poll_timeout(),
            )
        });
        if !sleeps {
            return Poll::Ready(());
        }
        let Some(due) = due.map(Instant::from_std) else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // Deadlines mostly move away with every input: a timer that goes off early costs less than moving it.
        if timer.deadline() > due || timer.is_elapsed() {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }

    fn write_failed(&mut self, error: &io::Error) {
        self.writing = Writing::Broken;
        self.batch = Batch::default();
        self.transport_failed("writing to", error);
    }

    fn transport_failed(&mut self, doing: &str, error: &io::Error) {
        let copy = io::Error::new(error.kind(), error.to_string());
        let error = Error::new(
            ErrorKind::Network,
            format!("{doing} the connection to the peer failed"),
        )
        .with_source(copy);
        self.shared
            .with(|state| state.connection.handle_failure(error));
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.shared.with(|state| {
            state.connection.handle_failure(Error::new(
                ErrorKind::Closed,
                "the driver of the session was dropped",
            ));
        });
    }
}
