//! [`BridgeStream`]: a bridged connection as a tunnel's stream: counted, and cut off by a shutdown that took too long.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::shared::Lease;
use crate::tunnel::{Rewind, stream::BytePipe};

pub(super) struct BridgeStream {
    io: Box<dyn BytePipe>,
    lease: Lease,
    /// One for each direction, because the two may be driven by different tasks.
    read_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    write_cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl BridgeStream {
    pub(super) fn new(io: Box<dyn BytePipe>, lease: Lease) -> Self {
        Self {
            io,
            read_cut: Box::pin(lease.cut()),
            write_cut: Box::pin(lease.cut()),
            lease,
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.lease.is_cut() {
            return Err(self.lease.cut_error().into());
        }
        Ok(())
    }

    /// `outcome`, or the end of a stream that waits.
    fn or_cut<T>(
        cut: &mut Pin<Box<WaitForCancellationFutureOwned>>,
        lease: &Lease,
        outcome: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            return outcome;
        }
        ready!(cut.as_mut().poll(cx));
        Poll::Ready(Err(lease.cut_error().into()))
    }

    fn poll_out<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut dyn BytePipe>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.check()?;
        let outcome = poll(Pin::new(&mut *self.io), cx);
        Self::or_cut(&mut self.write_cut, &self.lease, outcome, cx)
    }
}

impl AsyncRead for BridgeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.io).poll_read(cx, buffer);
        ready!(Self::or_cut(&mut this.read_cut, &this.lease, outcome, cx))?;
        this.lease.count_received(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BridgeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.poll_out(cx, |io, cx| io.poll_write(cx, bytes)))?;
        self.lease.count_sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.poll_out(cx, |io, cx| io.poll_write_vectored(cx, slices)))?;
        self.lease.count_sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx, |io, cx| io.poll_shutdown(cx))
    }
}

/// `io` with bytes put back that were read from it already.
pub(super) fn put_back(first: Bytes, io: Box<dyn BytePipe>) -> Box<dyn BytePipe> {
    if first.is_empty() {
        io
    } else {
        Box::new(Rewind::new(first, io))
    }
}
