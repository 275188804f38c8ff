//! [`RelayStream`]: the byte stream between two parties that met at a relay.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    keep_alive::{KeepAlive, Output, Verdict},
    websocket::{CloseReason, Event, MessageEnd, MessageKind, Outgoing, WebSocket},
};
use crate::{Error, ErrorKind, net::NetStream};

/// A byte stream through a relay.
///
/// # Ends
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends the own direction only: it sends Close 1000, and reading goes
/// on until the other party has closed too. The read side ends cleanly when the other party closed with code 1000 or
/// with none. Everything else is an error, because bytes may be missing: a Close with another code (1001 is what the
/// relay sends when the other party went away, or the hybrid connection was deleted), and a socket that was lost
/// without a Close. Dropping the stream without `shutdown` is such a loss for the other party.
///
/// # Signs of life
/// A silent relay is pinged after 30 s and has 10 s to answer, so that a dead one becomes an error of kind
/// [`TimedOut`](io::ErrorKind::TimedOut). Where the socket takes nothing at all it has 120 s. This happens while
/// somebody reads: it needs a pending [`poll_read`](AsyncRead::poll_read), and tokio's timers. After `shutdown` no
/// ping is sent (many peers take nothing after a Close); then the silence may last five minutes.
///
/// # Limits
/// One write becomes one binary message of at most 64 KiB; up to 128 KiB may wait for the socket. Received messages
/// may be of any length and type; they are not gathered.
pub struct RelayStream(ByteStream<NetStream>);

impl RelayStream {
    pub(super) fn new(socket: WebSocket<NetStream>, peer: Option<SocketAddr>) -> Self {
        Self(ByteStream::new(socket, peer))
    }
}

impl AsyncRead for RelayStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for RelayStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayStream")
            .field("relay", &self.0.peer)
            .field("read", &self.0.read_side)
            .field("is_shut_down", &self.0.is_shut_down)
            .finish_non_exhaustive()
    }
}

/// [`RelayStream`] over any byte stream, so that it can be tested without sockets.
struct ByteStream<T> {
    socket: WebSocket<T>,
    peer: Option<SocketAddr>,
    /// The rest of the piece that arrived last.
    unread: Bytes,
    read_side: ReadSide,
    is_shut_down: bool,
    keep_alive: KeepAlive,
    timer: Pin<Box<Sleep>>,
    /// Where a vectored write is made one message.
    gathered: BytesMut,
    /// A writer that waits for room learns from the reader that the peer is dead.
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadSide {
    Open,
    /// The other party closed.
    Ended,
    /// It failed, and that was reported with the full text.
    Failed(io::ErrorKind),
    /// It failed because the peer gave no sign of life, which is the end of the write side too.
    Dead,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream<T> {
    fn new(socket: WebSocket<T>, peer: Option<SocketAddr>) -> Self {
        let keep_alive = KeepAlive::new(Instant::now());
        Self {
            socket,
            peer,
            unread: Bytes::new(),
            read_side: ReadSide::Open,
            is_shut_down: false,
            timer: Box::pin(sleep_until(keep_alive.deadline())),
            keep_alive,
            gathered: BytesMut::new(),
            writer: None,
        }
    }

    fn handle_event(&mut self, event: Event) -> io::Result<()> {
        self.keep_alive.handle_input(Instant::now());
        match event {
            Event::Data { payload, .. } => self.unread = payload,
            Event::Ping | Event::Pong => {}
            Event::Close(reason) => match reason {
                None => self.read_side = ReadSide::Ended,
                Some(reason) if reason.code == CloseReason::NORMAL => {
                    self.read_side = ReadSide::Ended;
                }
                Some(reason) => return Err(self.fail(closed_early(&reason).into())),
            },
            Event::Ended => {
                return Err(self.fail(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    Error::new(
                        ErrorKind::Closed,
                        "the relay connection was lost: it ended without a Close",
                    ),
                )));
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.read_side = ReadSide::Failed(error.kind());
        error
    }

    /// Ready when there is a reason to look at the socket again, or the peer is dead.
    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.is_shut_down {
                let silent_until = self.keep_alive.deadline() + SILENCE_AFTER_SHUTDOWN;
                if now >= silent_until {
                    return Poll::Ready(Err(self.dead()));
                }
                self.timer.as_mut().reset(silent_until);
                continue;
            }

            let output = Output::of(&self.socket);
            let verdict = self.keep_alive.poll_verdict(now, output);
            self.timer.as_mut().reset(self.keep_alive.deadline());
            match verdict {
                Verdict::Wait => {}
                Verdict::Ask => {
                    self.socket.start_ping(b"");
                    return Poll::Ready(Ok(()));
                }
                Verdict::Dead => return Poll::Ready(Err(self.dead())),
            }
        }
    }

    fn dead(&mut self) -> io::Error {
        self.read_side = ReadSide::Dead;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Error::new(
            ErrorKind::Timeout,
            "the relay connection is dead: it gave no sign of life",
        )
        .into()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        fill: impl FnOnce(&mut Self) -> usize,
    ) -> Poll<io::Result<usize>> {
        self.check_alive()?;
        match self.socket.poll_ready(cx) {
            Poll::Ready(result) => result?,
            Poll::Pending => {
                self.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let sent = fill(self);
        // On its way at once, as with TCP: not every caller flushes. What the socket does not take now goes out with
        // the next read, write or flush.
        if let Poll::Ready(result) = self.socket.poll_flush(cx) {
            result?;
        }
        Poll::Ready(Ok(sent))
    }

    fn check_alive(&self) -> io::Result<()> {
        match self.read_side {
            ReadSide::Dead => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !this.unread.is_empty() {
                let size = this.unread.len().min(buf.remaining());
                buf.put_slice(&this.unread[..size]);
                this.unread.advance(size);
                return Poll::Ready(Ok(()));
            }
            match this.read_side {
                ReadSide::Open => {}
                ReadSide::Ended => return Poll::Ready(Ok(())),
                ReadSide::Failed(kind) => return Poll::Ready(Err(kind.into())),
                ReadSide::Dead => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            }
            match this.socket.poll_event(cx) {
                Poll::Ready(Ok(event)) => this.handle_event(event)?,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(this.fail(error.into()))),
                Poll::Pending => ready!(this.poll_keep_alive(cx))?,
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_send(cx, |this| {
            let payload = &buf[..buf.len().min(MAX_MESSAGE)];
            this.socket.start_send(message(payload));
            payload.len()
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        let (Some(first), second) = (filled.next(), filled.next()) else {
            return Poll::Ready(Ok(0));
        };
        if second.is_none() || first.len() >= MAX_MESSAGE {
            return self.poll_write(cx, first);
        }
        self.get_mut().poll_send(cx, |this| {
            // A second copy, so that a header and its payload travel in one frame and not in two.
            this.gathered.clear();
            for buf in bufs {
                let room = MAX_MESSAGE - this.gathered.len();
                this.gathered.extend_from_slice(&buf[..buf.len().min(room)]);
            }
            this.socket.start_send(message(&this.gathered));
            this.gathered.len()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_alive()?;
        this.writer = Some(cx.waker().clone());
        this.socket.poll_flush(cx).map_err(Into::into)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut_down {
            this.is_shut_down = true;
            // The text of Microsoft's clients.
            let reason = CloseReason::new(CloseReason::NORMAL, "Shutdown");
            this.socket.start_send(Outgoing::Close(Some(&reason)));
        }
        this.check_alive()?;
        this.writer = Some(cx.waker().clone());
        if this.read_side == ReadSide::Ended {
            // Both directions are over, and with them the socket's.
            this.socket.poll_shutdown(cx).map_err(Into::into)
        } else {
            this.socket.poll_flush(cx).map_err(Into::into)
        }
    }
}

fn message(payload: &[u8]) -> Outgoing<'_> {
    Outgoing::Data {
        kind: MessageKind::Binary,
        payload,
        end: MessageEnd::Last,
    }
}

fn closed_early(reason: &CloseReason) -> Error {
    let text: String = reason
        .reason
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    Error::new(
        ErrorKind::Closed,
        format!(
            "the relay connection was closed early: {} {text}",
            reason.code
        ),
    )
}

/// Large enough that a message costs little over raw TCP, small enough that a keystroke does not wait long behind one
/// on the slowest link that is used interactively.
const MAX_MESSAGE: usize = 64 * 1024;

/// Beyond [`KeepAlive::deadline`], which is half a minute after the last sign of life. The relay cuts an idle data
/// socket after two minutes and Azure's load balancer after four: a socket that was silent this long is gone.
const SILENCE_AFTER_SHUTDOWN: Duration = Duration::from_secs(270);

#[cfg(test)]
mod tests;
