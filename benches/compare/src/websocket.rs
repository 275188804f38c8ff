//! A byte stream over WebSocket messages: one write is one binary message.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_websockets::{
    ClientBuilder, Config, Error, Limits, Message, Payload, ServerBuilder, WebSocketStream,
};

/// A tunnel has no use for smaller messages than a batch of a multiplexer.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// One end.
pub struct WebSocket {
    inner: WebSocketStream<TcpStream>,
    /// What is left of the message that came last.
    unread: Bytes,
}

/// Both ends. The near one is the client, which masks what it sends.
pub fn open(near: TcpStream, far: TcpStream) -> (WebSocket, WebSocket) {
    let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE_BYTES));
    let config = Config::default().frame_size(MAX_MESSAGE_BYTES);
    let near = ClientBuilder::new()
        .config(config)
        .limits(limits)
        .take_over(near);
    let far = ServerBuilder::new()
        .config(config)
        .limits(limits)
        .serve(far);
    (WebSocket::new(near), WebSocket::new(far))
}

impl WebSocket {
    fn new(inner: WebSocketStream<TcpStream>) -> Self {
        Self {
            inner,
            unread: Bytes::new(),
        }
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(message)) if message.is_binary() => {
                    self.unread = Bytes::from(message.into_payload());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = Pin::new(&mut self.inner);
        ready!(inner.as_mut().poll_ready(cx)).map_err(failed)?;
        let mut message = Vec::with_capacity(
            slices
                .iter()
                .map(|slice| slice.len())
                .sum::<usize>()
                .min(MAX_MESSAGE_BYTES),
        );
        for slice in slices {
            let room = MAX_MESSAGE_BYTES - message.len();
            message.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let length = message.len();
        let message = Message::binary(Payload::from(message));
        inner.as_mut().start_send(message).map_err(failed)?;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(failed)
    }
}

fn failed(error: Error) -> io::Error {
    io::Error::other(error)
}
