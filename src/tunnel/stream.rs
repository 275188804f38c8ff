//! [`TunnelStream`]: the concrete stream that every tunnel hands out.

use std::{
    fmt,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{Refusal, mux::MuxStream};
use crate::{Error, ErrorKind, Result};

/// Room for one read from a wrapped byte pipe. One TLS record, which is what such a pipe yields at most at once.
const READ_SIZE: usize = 16 * 1024;

/// One stream through a tunnel: bytes both ways, each direction ending by itself.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends the write direction and leaves the read direction open. A
/// stream that is dropped before both ends were reached is aborted: the far end sees an error, never a clean end.
///
/// [`read_chunk`](Self::read_chunk) and [`write_chunk`](Self::write_chunk) copy nothing on a stream of the
/// [multiplexer](super::mux) but chunks below 512 bytes; the [`AsyncRead`] and [`AsyncWrite`] side copies once. Both may be mixed freely.
///
/// It is also a `hyper::rt::Read` and `hyper::rt::Write`, so that hyper's connections run on it without an adapter.
///
/// ```
/// use arc_cluster_connect::tunnel::TunnelStream;
/// use bytes::Bytes;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (near, mut far) = tokio::io::duplex(1024);
/// let mut stream = TunnelStream::from_io(near);
/// stream.write_chunk(Bytes::from_static(b"question")).await?;
/// stream.shutdown().await?;
/// let mut question = String::new();
/// far.read_to_string(&mut question).await?;
/// assert_eq!(question, "question");
/// // The other direction is open still.
/// far.write_all(b"answer").await?;
/// assert_eq!(stream.read_chunk().await?.unwrap(), "answer");
/// # Ok(())
/// # }
/// ```
pub struct TunnelStream {
    inner: Inner,
    /// Bytes that arrived and did not fit the reader's buffer.
    unread: Bytes,
}

enum Inner {
    Mux(MuxStream),
    Pipe(Box<Pipe>),
}

impl TunnelStream {
    /// Makes a stream of any byte pipe, for a [`Tunnel`](super::Tunnel) that does not use the multiplexer.
    pub fn from_io(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self::new(Inner::Pipe(Box::new(Pipe {
            io: Box::new(io),
            arriving: BytesMut::new(),
            unsent: Bytes::new(),
        })))
    }

    fn new(inner: Inner) -> Self {
        Self {
            inner,
            unread: Bytes::new(),
        }
    }

    /// The next bytes that arrived, never empty; `None` at the clean end of the far side's writing.
    ///
    /// # Errors
    /// When the stream was aborted or its connection was lost before the clean end.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future loses nothing.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// [`read_chunk`](Self::read_chunk) as a poll function.
    ///
    /// # Errors
    /// Those of [`read_chunk`](Self::read_chunk).
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.unread))));
        }
        match &mut self.inner {
            Inner::Mux(stream) => stream.poll_read_chunk(cx).map_err(explain),
            Inner::Pipe(pipe) => pipe.poll_read_chunk(cx).map_err(pipe_broke),
        }
    }

    /// Writes `chunk` whole, waiting for room.
    ///
    /// # Errors
    /// When the far end takes no more, the stream was aborted, or its connection was lost.
    ///
    /// # Cancel safety
    /// A dropped future has taken either the whole chunk or none of it, never a part; it is not told which. A chunk
    /// that was taken is sent ahead of what is written next, or by a flush or shutdown.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<()> {
        match &mut self.inner {
            Inner::Mux(stream) => stream.write_chunk(chunk).await.map_err(explain),
            Inner::Pipe(pipe) => {
                poll_fn(|cx| pipe.poll_send(cx)).await.map_err(pipe_broke)?;
                pipe.unsent = chunk;
                poll_fn(|cx| pipe.poll_send(cx)).await.map_err(pipe_broke)
            }
        }
    }

    /// Resolves once the far end has given the stream up before its end, or its connection is lost: also while nobody
    /// reads or writes, as when an upload waits for somebody else. It does not borrow the stream; once that is dropped it
    /// may never resolve.
    ///
    /// A stream [of a byte pipe](Self::from_io) can only tell by reading: there it never resolves. Of several for one
    /// stream only the one that was polled last is woken.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub fn aborted(&self) -> impl Future<Output = ()> + Send + use<> {
        let aborted = match &self.inner {
            Inner::Mux(stream) => Some(stream.aborted()),
            Inner::Pipe(_) => None,
        };
        async {
            match aborted {
                Some(aborted) => aborted.await,
                None => std::future::pending().await,
            }
        }
    }
}

impl From<MuxStream> for TunnelStream {
    fn from(stream: MuxStream) -> Self {
        Self::new(Inner::Mux(stream))
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream").finish_non_exhaustive()
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() > 0 && !this.unread.is_empty() {
            let taken = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        match &mut this.inner {
            Inner::Mux(stream) => Pin::new(stream).poll_read(cx, buffer).map_err(explain_io),
            Inner::Pipe(pipe) => Pin::new(&mut pipe.io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Mux(stream) => Pin::new(stream).poll_write(cx, bytes).map_err(explain_io),
            Inner::Pipe(pipe) => {
                ready!(pipe.poll_send(cx))?;
                Pin::new(&mut pipe.io).poll_write(cx, bytes)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Mux(stream) => Pin::new(stream)
                .poll_write_vectored(cx, slices)
                .map_err(explain_io),
            Inner::Pipe(pipe) => {
                ready!(pipe.poll_send(cx))?;
                Pin::new(&mut pipe.io).poll_write_vectored(cx, slices)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Mux(stream) => stream.is_write_vectored(),
            Inner::Pipe(pipe) => pipe.io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Mux(stream) => Pin::new(stream).poll_flush(cx).map_err(explain_io),
            Inner::Pipe(pipe) => {
                ready!(pipe.poll_send(cx))?;
                Pin::new(&mut pipe.io).poll_flush(cx)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Mux(stream) => Pin::new(stream).poll_shutdown(cx).map_err(explain_io),
            Inner::Pipe(pipe) => {
                ready!(pipe.poll_send(cx))?;
                Pin::new(&mut pipe.io).poll_shutdown(cx)
            }
        }
    }
}

impl hyper::rt::Read for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // hyper's buffer has no safe way to be filled but by a copy; a chunk is what to copy from.
        if this.unread.is_empty() {
            match ready!(this.poll_read_chunk(cx))? {
                Some(chunk) => this.unread = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, slices)
    }
}

// What hyper-util's pooled client asks of a connection.
impl hyper_util::client::legacy::connect::Connection for TunnelStream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}

/// Puts the reason of a [`Refusal`] where the multiplexer knows only its number.
fn explain(error: Error) -> Error {
    match Refusal::of(&error) {
        Some(refusal) => refusal.into_error(error),
        None => error,
    }
}

/// As [`explain`].
fn explain_io(error: io::Error) -> io::Error {
    match Refusal::of(&error) {
        Some(refusal) => refusal.into_error(error).into(),
        None => error,
    }
}

fn pipe_broke(error: io::Error) -> Error {
    Error::new(ErrorKind::Network, "the connection under a stream broke").with_source(error)
}

/// A byte pipe of any kind.
pub(super) trait BytePipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> BytePipe for T {}

/// A wrapped byte pipe with what chunks need around it.
struct Pipe {
    io: Box<dyn BytePipe>,
    arriving: BytesMut,
    /// What is left of a chunk whose writing was cancelled. It goes out before anything else.
    unsent: Bytes,
}

impl Pipe {
    fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        // What is left of the last block is used up first, unless it would make for many tiny reads.
        if self.arriving.capacity() < READ_SIZE / 4 {
            self.arriving.reserve(READ_SIZE);
        }
        // `read_buf` is cancel-safe, so a future per poll loses nothing.
        let read = ready!(pin!(self.io.read_buf(&mut self.arriving)).poll(cx))?;
        Poll::Ready(Ok((read > 0).then(|| self.arriving.split().freeze())))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.unsent.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
