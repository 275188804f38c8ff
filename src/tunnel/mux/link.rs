//! [`Link`]: the transport, and the bytes that are on their way to it and from it.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    batch::{Batch, MAX_IO_SLICES},
    blocks::Blocks,
    wakers::remember,
};

/// What the driver moves bytes over, and in its absence who has just written.
///
/// Whoever polls it, the transport knows one waker only: the driver's.
pub(super) struct Link {
    io: Box<dyn Transport>,
    pub(super) batch: Batch,
    blocks: Blocks,
    flush: Flush,
    reading: Reading,
    writing: Writing,
    /// The driver's, once it has been polled.
    driver: Option<Waker>,
}

pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

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

/// What a look at the transport gave.
#[derive(Debug)]
pub(super) enum Input {
    Bytes(Bytes),
    End,
    Failed(io::Error),
}

/// How far a batch went.
#[derive(Debug)]
pub(super) enum Written {
    /// There was nothing to write, or the transport takes nothing.
    Nothing,
    Some,
    Failed(io::Error),
}

impl Link {
    pub(super) fn new(io: impl Transport + 'static) -> Self {
        Self {
            io: Box::new(io),
            batch: Batch::default(),
            blocks: Blocks::default(),
            flush: Flush::Done,
            reading: Reading::Open,
            writing: Writing::Open,
            driver: None,
        }
    }

    /// Keeps the driver's waker. Returns an older one, to be dropped outside of every lock.
    pub(super) fn driver_runs(&mut self, cx: &Context<'_>) -> Option<Waker> {
        remember(&mut self.driver, cx)
    }

    pub(super) fn can_write(&self) -> bool {
        self.writing == Writing::Open
    }

    /// Nothing can be written any more.
    pub(super) fn break_off(&mut self) {
        self.writing = Writing::Broken;
        self.batch.clear();
    }

    /// Whether all that was put into the batch has left.
    pub(super) fn is_written(&self) -> bool {
        self.batch.is_empty() && self.flush == Flush::Done
    }

    /// The driver's waker, when somebody else may write for it: nothing is stuck, and the driver has been here.
    pub(super) fn writer(&self) -> Option<Waker> {
        if self.can_write() && self.is_written() {
            self.driver.clone()
        } else {
            None
        }
    }

    /// Writes the batch as far as the transport takes it; flushes when nothing is left.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Written {
        let mut result = Written::Nothing;
        while !self.batch.is_empty() {
            match self.poll_write_some(cx) {
                Poll::Ready(Ok(0)) => {
                    self.break_off();
                    return Written::Failed(io::ErrorKind::WriteZero.into());
                }
                Poll::Ready(Ok(written)) => {
                    self.batch.advance(written);
                    self.flush = Flush::Due;
                    result = Written::Some;
                }
                Poll::Ready(Err(error)) => {
                    self.break_off();
                    return Written::Failed(error);
                }
                Poll::Pending => return result,
            }
        }
        if self.flush == Flush::Due {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flush = Flush::Done,
                Poll::Ready(Err(error)) => {
                    self.break_off();
                    return Written::Failed(error);
                }
                Poll::Pending => {}
            }
        }
        result
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.io.is_write_vectored() {
            self.batch.gather();
        }
        let mut slices = [IoSlice::new(&[]); MAX_IO_SLICES];
        let count = self.batch.io_slices(&mut slices);
        match &slices[..count] {
            // Cheaper for most transports than a list of one.
            [slice] => Pin::new(&mut self.io).poll_write(cx, slice),
            slices => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Option<Input> {
        if self.reading == Reading::Ended {
            return None;
        }
        let block = self.blocks.writable();
        // The future has no state of its own: dropping it loses nothing.
        match pin!(self.io.read_buf(block)).poll(cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(0)) => {
                self.reading = Reading::Ended;
                Some(Input::End)
            }
            Poll::Ready(Ok(_)) => Some(Input::Bytes(block.split().freeze())),
            Poll::Ready(Err(error)) => {
                self.reading = Reading::Ended;
                Some(Input::Failed(error))
            }
        }
    }

    /// Closes the transport once all has left. Ready when the peer has closed it too, or nothing can be written.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.writing == Writing::Open && self.is_written() {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.writing = Writing::Shut,
                Poll::Ready(Err(_)) => self.writing = Writing::Broken,
                Poll::Pending => {}
            }
        }
        // Input is read to its end: closing a socket with unread input would destroy our last word on its way.
        match (self.writing, self.reading) {
            (Writing::Broken, _) | (Writing::Shut, Reading::Ended) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("batch", &self.batch.len())
            .finish_non_exhaustive()
    }
}
