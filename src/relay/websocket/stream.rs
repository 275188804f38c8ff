//! [`WebSocket`]: the decoder and the encoder over a byte stream.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    Event, MessageEnd, MessageKind, Outgoing, Role, WebSocketError,
    decoder::{Decoded, Decoder, MAX_UNDECODED},
    encoder::Encoder,
    outbox::Outbox,
};

/// A WebSocket after its handshake.
///
/// Reading and writing may be driven by two different tasks: both are woken when either can go on.
///
/// # Limits
/// Input is held in blocks of [`READ_BLOCK`] bytes, output up to [`OUT_BUFFER`] bytes plus one piece of the caller's
/// and one answer to a ping. A message's or frame's length is not limited: it passes in pieces.
pub(crate) struct WebSocket<T> {
    io: T,
    decoder: Decoder,
    input: BytesMut,
    /// The read side ended or failed, and that was reported.
    is_read_done: bool,
    encoder: Encoder,
    out: Outbox,
    /// Something was handed to `io` since its last flush.
    needs_flush: bool,
    /// The peer's last ping. Only the newest needs an answer (RFC 6455 section 5.5.3), which bounds a flood of them.
    pong: Option<Bytes>,
    /// A failed write that the reading side noticed; it is reported to the writing side, so that what was received
    /// before is not lost to the reader.
    write_error: Option<io::Error>,
    is_write_failed: bool,
    wakers: Arc<Wakers>,
    write_waker: Waker,
}

/// Read at a time. Two TLS records' worth. An idle WebSocket holds none.
pub(crate) const READ_BLOCK: usize = 32 * 1024;

/// A block with less room than this is replaced by a new one. More than an undecoded rest, and enough for a read to be
/// worth its system call.
const MIN_READ: usize = 4 * 1024;
const _: () = assert!(MIN_READ > MAX_UNDECODED && MIN_READ < READ_BLOCK);

/// [`WebSocket::poll_ready`] waits while at least this much is unsent. Twice a block, so that a forwarder can fill one
/// while the other is written.
pub(crate) const OUT_BUFFER: usize = 2 * READ_BLOCK;

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// Takes over `io` after the handshake; `already_read` is what the HTTP layer read beyond it.
    pub(crate) fn new(io: T, role: Role, already_read: Bytes) -> Self {
        let wakers = Arc::new(Wakers::default());
        Self {
            io,
            decoder: Decoder::new(role),
            input: already_read.into(),
            is_read_done: false,
            encoder: Encoder::new(role),
            out: Outbox::default(),
            needs_flush: false,
            pong: None,
            write_error: None,
            is_write_failed: false,
            write_waker: Waker::from(Arc::clone(&wakers)),
            wakers,
        }
    }

    /// The next thing that arrives. Answers pings; sends what is unsent as far as that does not wait.
    ///
    /// # Errors
    /// Once, when the socket or the peer failed; [`Event::Ended`] from then on.
    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, WebSocketError>> {
        self.write_aside(cx);
        loop {
            if self.is_read_done {
                return Poll::Ready(Ok(Event::Ended));
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Some(decoded)) => return Poll::Ready(Ok(self.event(decoded, cx))),
                Ok(None) => {}
                Err(violation) => {
                    self.is_read_done = true;
                    return Poll::Ready(Err(violation.into()));
                }
            }

            if self.input.capacity() - self.input.len() < MIN_READ {
                self.input.reserve(READ_BLOCK - self.input.len());
            }
            // The future holds no state of its own, so a new one per poll loses nothing.
            match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
                Poll::Pending => {
                    self.shrink();
                    return Poll::Pending;
                }
                Poll::Ready(result) => match result {
                    Ok(0) => {
                        self.is_read_done = true;
                        self.input = BytesMut::new();
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.is_read_done = true;
                        return Poll::Ready(Err(error.into()));
                    }
                },
            }
        }
    }

    /// Waits until one more piece may be given to [`WebSocket::start_send`].
    ///
    /// # Errors
    /// When the socket failed or a Close was sent.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if self.encoder.is_closed() {
            return Poll::Ready(Err(WebSocketError::SendAfterClose));
        }
        self.wakers.writer.register(cx.waker());
        self.poll_write_until(OUT_BUFFER - 1).map_err(Into::into)
    }

    /// Copies a piece into the out buffer. Nothing is sent before the next poll.
    ///
    /// Call it after [`WebSocket::poll_ready`] was ready; otherwise the buffer grows by the piece's size. After a Close
    /// only pings and pongs are taken, the rest is dropped.
    pub(crate) fn start_send(&mut self, piece: Outgoing<'_>) {
        self.encoder.encode(piece, self.out.tail());
    }

    /// As [`WebSocket::start_send`], for a piece of data that is not copied if it is long and nothing is masked.
    #[cfg_attr(
        not(any(test, feature = "relay-server")),
        expect(
            dead_code,
            reason = "only the embedded relay passes on what it received"
        )
    )]
    pub(crate) fn start_forward(&mut self, kind: MessageKind, payload: Bytes, end: MessageEnd) {
        self.encoder
            .encode_shared(kind, payload, end, &mut self.out);
    }

    /// Asks the peer for a sign of life, which comes as [`Event::Pong`].
    pub(crate) fn start_ping(&mut self, payload: &[u8]) {
        self.start_send(Outgoing::Ping(payload));
    }

    /// Sends everything, down to the socket.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.wakers.writer.register(cx.waker());
        self.take_pong();
        ready!(self.poll_write_until(0))?;
        self.poll_flush_io().map_err(Into::into)
    }

    /// Sends everything, then ends the socket's write side.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WebSocketError>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx).map_err(Into::into)
    }

    /// Whether everything that was given has left for the socket. [`WebSocket::poll_event`] sends on its way, so after
    /// it a `false` means that the socket takes nothing at the moment.
    pub(crate) fn is_drained(&self) -> bool {
        self.out.is_empty() && !self.needs_flush
    }

    /// What is under it.
    #[cfg(test)]
    pub(crate) fn io(&self) -> &T {
        &self.io
    }

    /// How much waits to be written.
    #[cfg(test)]
    pub(super) fn unsent(&self) -> usize {
        self.out.len()
    }

    /// How much memory it holds for what comes.
    #[cfg(test)]
    pub(super) fn block(&self) -> usize {
        self.input.capacity()
    }

    /// [`WebSocket::poll_event`] as a future. Cancel safe: no event is lost.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn next_event(&mut self) -> Result<Event, WebSocketError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Waits for room, takes the piece and sends it. Not cancel safe: a dropped call may or may not have taken it.
    ///
    /// # Errors
    /// When the socket failed or a Close was sent.
    pub(crate) async fn send(&mut self, piece: Outgoing<'_>) -> Result<(), WebSocketError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(piece);
        self.flush().await
    }

    /// [`WebSocket::poll_flush`] as a future. Cancel safe.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn flush(&mut self) -> Result<(), WebSocketError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn event(&mut self, decoded: Decoded, cx: &mut Context<'_>) -> Event {
        match decoded {
            Decoded::Data { kind, payload, end } => Event::Data { kind, payload, end },
            Decoded::Close(reason) => Event::Close(reason),
            Decoded::Pong => Event::Pong,
            Decoded::Ping(payload) => {
                self.pong = Some(payload);
                // Now, because the caller need not poll again soon.
                self.write_aside(cx);
                Event::Ping
            }
        }
    }

    /// Nothing is there to be read. Whoever waits for long holds no memory meanwhile: there may be thousands.
    fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.out.shrink();
    }

    fn take_pong(&mut self) {
        if self.out.len() < OUT_BUFFER
            && let Some(payload) = self.pong.take()
        {
            self.encoder
                .encode(Outgoing::Pong(&payload), self.out.tail());
        }
    }

    /// Writes what goes without waiting, on behalf of the reading side.
    fn write_aside(&mut self, cx: &mut Context<'_>) {
        if (self.out.is_empty() && self.pong.is_none() && !self.needs_flush) || self.is_write_failed
        {
            return;
        }
        self.wakers.reader.register(cx.waker());
        let unsent = self.out.len();
        self.take_pong();
        let result = match self.poll_write_until(0) {
            Poll::Ready(Ok(())) => self.poll_flush_io(),
            other => other,
        };
        if let Poll::Ready(Err(error)) = result {
            self.write_error = Some(error);
        }
        if self.out.len() < unsent || self.is_write_failed {
            self.wakers.writer.wake();
        }
    }

    /// Writes until at most `rest` bytes are unsent. The caller has registered its waker in [`Wakers`].
    fn poll_write_until(&mut self, rest: usize) -> Poll<io::Result<()>> {
        if self.is_write_failed {
            let error = self.write_error.take();
            return Poll::Ready(Err(
                error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
            ));
        }
        let mut cx = Context::from_waker(&self.write_waker);
        while self.out.len() > rest {
            let result = match ready!(self.out.poll_write(&mut self.io, &mut cx)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            match result {
                Ok(_) => self.needs_flush = true,
                Err(error) => return Poll::Ready(Err(self.write_failed(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush_io(&mut self) -> Poll<io::Result<()>> {
        if self.needs_flush {
            let mut cx = Context::from_waker(&self.write_waker);
            if let Err(error) = ready!(Pin::new(&mut self.io).poll_flush(&mut cx)) {
                return Poll::Ready(Err(self.write_failed(error)));
            }
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn write_failed(&mut self, error: io::Error) -> io::Error {
        self.is_write_failed = true;
        self.out = Outbox::default();
        self.pong = None;
        error
    }
}

/// Who waits for the write side of the socket.
///
/// A socket remembers one waker per direction. The reading task writes too (it answers pings), so if each used its own
/// waker, one would push the other's out and leave it asleep.
#[derive(Default)]
struct Wakers {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}
