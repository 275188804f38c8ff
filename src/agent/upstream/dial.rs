//! How a connection to the API server is made.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::trust::{Trust, TrustFile};
use crate::{
    Result,
    net::{Alpn, Connector, Endpoint, TrustRoots},
};

/// A byte stream to the API server.
pub(in crate::agent) trait UpstreamIo:
    AsyncRead + AsyncWrite + Unpin + Send
{
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> UpstreamIo for T {}

/// A connection, by what the server chose to speak on it.
pub(in crate::agent) enum Dialled {
    Http1(Box<dyn UpstreamIo>),
    Http2(Box<dyn UpstreamIo>),
}

/// Connects to the one API server. A trait so that tests need no socket.
pub(in crate::agent) trait Dial: Send + Sync {
    /// Connects for HTTP/1.1 and nothing else, as an upgrade needs it.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>>;

    /// Connects for HTTP/2 where the server speaks it. Without an implementation it never does.
    fn dial_any(&self) -> BoxFuture<'_, Result<Dialled>> {
        Box::pin(async { Ok(Dialled::Http1(self.dial().await?)) })
    }
}

/// Dials over TCP, with TLS where the endpoint has it. Plain endpoints are spoken to in HTTP/1.1.
pub(in crate::agent) struct NetDial {
    endpoint: Endpoint,
    server_name: Option<String>,
    trust_file: Option<TrustFile>,
    connector: Mutex<Connector>,
}

impl NetDial {
    /// # Errors
    /// [`ErrorKind::Tls`](crate::ErrorKind::Tls) when the roots can not be used,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when `server_name` is no name.
    pub(in crate::agent) fn new(
        endpoint: Endpoint,
        server_name: Option<String>,
        trust: &Trust,
    ) -> Result<Self> {
        let connector = connector(trust.roots().clone(), server_name.as_deref())?;
        Ok(Self {
            endpoint,
            server_name,
            trust_file: trust.trust_file(),
            connector: Mutex::new(connector),
        })
    }

    /// The connector, with the roots that the trust file holds now.
    async fn connector(&self) -> Connector {
        if let Some(file) = &self.trust_file {
            file.refresh(|roots| {
                *self.current() = connector(roots, self.server_name.as_deref())?;
                Ok(())
            })
            .await;
        }
        self.current().clone()
    }

    fn current(&self) -> MutexGuard<'_, Connector> {
        self.connector
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dial for NetDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>> {
        Box::pin(async {
            let connector = self.connector().await;
            let stream = connector.connect(&self.endpoint, Alpn::Http1).await?;
            Ok(Box::new(stream) as Box<dyn UpstreamIo>)
        })
    }

    fn dial_any(&self) -> BoxFuture<'_, Result<Dialled>> {
        Box::pin(async {
            let connector = self.connector().await;
            let stream = connector
                .connect(&self.endpoint, Alpn::Http2OrHttp1)
                .await?;
            Ok(match stream.alpn() {
                Some(Alpn::Http2) => Dialled::Http2(Box::new(stream)),
                _ => Dialled::Http1(Box::new(stream)),
            })
        })
    }
}

/// Another way of dialling, and the number of its connections that live.
pub(in crate::agent) struct CountingDial {
    dial: Box<dyn Dial>,
    live: Arc<AtomicU64>,
}

impl CountingDial {
    pub(in crate::agent) fn new(dial: Box<dyn Dial>, live: Arc<AtomicU64>) -> Self {
        Self { dial, live }
    }

    fn count(&self, io: Box<dyn UpstreamIo>) -> Box<dyn UpstreamIo> {
        self.live.fetch_add(1, Ordering::Relaxed);
        Box::new(CountedIo {
            io,
            live: Arc::clone(&self.live),
        })
    }
}

impl Dial for CountingDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>> {
        Box::pin(async { Ok(self.count(self.dial.dial().await?)) })
    }

    fn dial_any(&self) -> BoxFuture<'_, Result<Dialled>> {
        Box::pin(async {
            Ok(match self.dial.dial_any().await? {
                Dialled::Http1(io) => Dialled::Http1(self.count(io)),
                Dialled::Http2(io) => Dialled::Http2(self.count(io)),
            })
        })
    }
}

/// A connection that takes itself out of the count at its end.
struct CountedIo {
    io: Box<dyn UpstreamIo>,
    live: Arc<AtomicU64>,
}

impl Drop for CountedIo {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for CountedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CountedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn connector(roots: TrustRoots, server_name: Option<&str>) -> Result<Connector> {
    let connector = Connector::new(roots)?;
    match server_name {
        Some(name) => connector.with_server_name(name),
        None => Ok(connector),
    }
}
