//! One TCP connection: at first HTTP, then a WebSocket.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{newcomers::Place, service::Relay};
use crate::relay::websocket::{Role, WebSocket};

/// What a connection may run over.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A byte stream that counts as a connection as long as it lives, whatever it is used for.
pub(super) struct Io {
    stream: Box<dyn ByteStream>,
    _place: Arc<Place>,
}

/// A whole request head must arrive within this time, from the first byte that could have been sent. Far more than any
/// client needs, short enough that idle connections do not fill the relay.
pub(super) const HEADER_DEADLINE: Duration = Duration::from_secs(15);

/// Request line and headers. Azure takes 32 kB of headers; the request line holds a token in the worst case.
pub(super) const MAX_HEAD: usize = 40 * 1024;

/// Serves one connection until it ends or has become a WebSocket. One request per connection: every one of them is
/// either an upgrade or a refusal, and a refused client is made to think about it for the price of a new connection.
pub(super) async fn serve(
    relay: Arc<Relay>,
    stream: impl ByteStream,
    remote: SocketAddr,
    place: Arc<Place>,
) {
    let io = Io {
        stream: Box::new(stream),
        _place: Arc::clone(&place),
    };
    let service = service_fn(|request: Request<Incoming>| {
        place.settle();
        let relay = Arc::clone(&relay);
        async move { Ok::<Response<_>, std::convert::Infallible>(relay.answer(request, remote).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = place.evicted() => return,
        () = relay.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%remote, error = %error, "a relay connection ended early");
    }
}

/// The WebSocket that a request became, with what was read beyond its head. `None` when the client left before its
/// 101 was written.
pub(super) async fn upgraded(upgrade: OnUpgrade) -> Option<WebSocket<Io>> {
    let upgraded: Upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Io>>().ok()?;
    Some(WebSocket::new(
        parts.io.into_inner(),
        Role::Server,
        parts.read_buf,
    ))
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
