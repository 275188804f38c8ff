//! The tunnel and the identity behind the proxy, played by the test.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture, stream};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
};

use super::support::{TestBody, ok};
use crate::{
    AuthProvider, Error, Result, Tunnel,
    auth::{AccessToken, Freshness, TokenRequest},
    tunnel::{OpenOptions, StateStream, Target, TunnelState, TunnelStatus, TunnelStream},
};

/// The caller's token, which no client of the proxy ever sees.
pub(super) const TOKEN: &str = "real-token-of-the-caller";

type Handler = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<TestBody>> + Send + Sync;
type OpenError = dyn Fn() -> Error + Send + Sync;

/// A tunnel to an agent in the same process: each stream is served by hyper with the test's handler.
pub(super) struct FakeTunnel {
    behaviour: Behaviour,
    opened: AtomicUsize,
    ends: mpsc::UnboundedSender<StreamEnd>,
    ended: tokio::sync::Mutex<mpsc::UnboundedReceiver<StreamEnd>>,
    raw: Mutex<Vec<DuplexStream>>,
    shutdown: Shutdown,
    states: Mutex<Vec<TunnelState>>,
}

/// What a stream of the tunnel does when it is to be closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    Works,
    Hangs,
}

enum Behaviour {
    Serve(Arc<Handler>),
    /// The agent's ends are for the test to take.
    Raw,
    Fail(Box<OpenError>),
    Hang,
}

/// How the proxy let go of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// Its write side had been shut down before.
    Closed,
    Reset,
}

impl FakeTunnel {
    pub(super) fn serving<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<TestBody>> + Send + 'static,
    {
        Self::new(Behaviour::Serve(Arc::new(move |request| {
            handler(request).boxed()
        })))
    }

    pub(super) fn raw() -> Self {
        Self::new(Behaviour::Raw)
    }

    pub(super) fn failing(error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self::new(Behaviour::Fail(Box::new(error)))
    }

    pub(super) fn hanging() -> Self {
        Self::new(Behaviour::Hang)
    }

    /// As [`serving`](Self::serving) with a plain answer, but its streams never finish closing.
    pub(super) fn that_does_not_close() -> Self {
        Self {
            shutdown: Shutdown::Hangs,
            ..Self::serving(|_| async { ok("pods") })
        }
    }

    fn new(behaviour: Behaviour) -> Self {
        let (ends, ended) = mpsc::unbounded_channel();
        Self {
            behaviour,
            opened: AtomicUsize::new(0),
            ends,
            ended: tokio::sync::Mutex::new(ended),
            raw: Mutex::default(),
            shutdown: Shutdown::Works,
            states: Mutex::new(vec![TunnelState::Connected]),
        }
    }

    /// The same with other states than to be connected from the start.
    pub(super) fn with_states(self, states: impl IntoIterator<Item = TunnelState>) -> Self {
        *self.states.lock().expect("not poisoned") = states.into_iter().collect();
        self
    }

    /// How many streams were asked for.
    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Waits until the proxy lets go of a stream.
    pub(super) async fn next_end(&self) -> StreamEnd {
        self.ended
            .lock()
            .await
            .recv()
            .await
            .expect("the tunnel lives")
    }

    /// The agent's end of the stream that was opened last.
    pub(super) async fn raw_stream(&self) -> DuplexStream {
        loop {
            if let Some(stream) = self.raw.lock().expect("not poisoned").pop() {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Tunnel for FakeTunnel {
    async fn open(&self, target: &Target, _: OpenOptions) -> Result<TunnelStream> {
        assert_eq!(*target, Target::api_server());
        self.opened.fetch_add(1, Ordering::SeqCst);
        let (near, far) = duplex(16 * 1024);
        match &self.behaviour {
            Behaviour::Fail(error) => return Err(error()),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Raw => self.raw.lock().expect("not poisoned").push(far),
            Behaviour::Serve(handler) => {
                let handler = Arc::clone(handler);
                let service = hyper::service::service_fn(move |request| {
                    handler(request).map(Ok::<_, Infallible>)
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .max_headers(1000)
                        .serve_connection(TokioIo::new(far), service)
                        .with_upgrades(),
                );
            }
        }
        Ok(TunnelStream::from_io(WatchedStream {
            stream: near,
            shutdown: self.shutdown,
            end: StreamEnd::Reset,
            ends: self.ends.clone(),
        }))
    }

    fn status(&self) -> TunnelStatus {
        TunnelStatus::new(TunnelState::Connected, "fake")
    }

    fn states(&self) -> StateStream {
        let states = self.states.lock().expect("not poisoned").clone();
        StateStream::new(stream::iter(states))
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

/// Reports whether it was shut down before it was dropped.
struct WatchedStream {
    stream: DuplexStream,
    shutdown: Shutdown,
    end: StreamEnd,
    ends: mpsc::UnboundedSender<StreamEnd>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedStream {
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
        if self.shutdown == Shutdown::Hangs {
            return Poll::Pending;
        }
        self.end = StreamEnd::Closed;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        let _ = self.ends.send(self.end);
    }
}

type TokenSource = dyn Fn(Freshness) -> BoxFuture<'static, Result<AccessToken>> + Send + Sync;

/// Gives what the test says.
pub(super) struct FakeAuth(Box<TokenSource>);

impl FakeAuth {
    pub(super) fn fixed() -> Self {
        Self::new(|_| Ok(AccessToken::new(TOKEN, None)))
    }

    pub(super) fn new(
        source: impl Fn(Freshness) -> Result<AccessToken> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(move |freshness| {
            std::future::ready(source(freshness)).boxed()
        }))
    }

    pub(super) fn hanging() -> Self {
        Self(Box::new(|_| std::future::pending().boxed()))
    }
}

#[async_trait]
impl AuthProvider for FakeAuth {
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        (self.0)(request.freshness()).await
    }
}
