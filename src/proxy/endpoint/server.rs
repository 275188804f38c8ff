//! [`Server`]: accepts connections, agrees on TLS and HTTP version, serves.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{
    Client, Endpoint, Limits,
    body::ResponseBody,
    framing::FramingGuard,
    limits::{
        HEADER_READ_LIMIT, HTTP2_CONNECTION_WINDOW, HTTP2_SEND_BUFFER, HTTP2_STREAM_WINDOW,
        MAX_HEADER_BYTES, MAX_HEADERS, MAX_HTTP2_STREAMS, PROOF_LIMIT,
    },
};
#[cfg(unix)]
use crate::proxy::unix_socket::UnixSocket;
use crate::{
    net::{Alpn, NetStream, TlsAcceptor},
    proxy::lifetime::Lifetime,
};

/// How long to wait when the system has no descriptor for another connection: until some have been closed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The accept loop. It owns the listening socket, which closes as soon as the proxy drains.
pub(in crate::proxy) struct Server {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    shared: Shared,
}

/// The same for the Unix socket, with which it shares the places for connections.
#[cfg(unix)]
pub(in crate::proxy) struct UnixServer {
    socket: UnixSocket,
    connections: Arc<Semaphore>,
    shared: Shared,
}

/// What each connection gets.
#[derive(Clone)]
struct Shared {
    acceptor: TlsAcceptor,
    endpoint: Arc<Endpoint>,
    lifetime: Lifetime,
}

impl Server {
    pub(in crate::proxy) fn new(
        listener: TcpListener,
        acceptor: TlsAcceptor,
        endpoint: Arc<Endpoint>,
        limits: &Limits,
        lifetime: Lifetime,
    ) -> Self {
        Self {
            listener,
            connections: Arc::new(Semaphore::new(limits.connections)),
            shared: Shared {
                acceptor,
                endpoint,
                lifetime,
            },
        }
    }

    pub(in crate::proxy) async fn run(self) {
        let lifetime = self.shared.lifetime.clone();
        tokio::select! {
            () = lifetime.draining() => {}
            () = self.accept_all() => {}
        }
    }

    /// A second server, on `socket`.
    #[cfg(unix)]
    pub(in crate::proxy) fn beside(&self, socket: UnixSocket) -> UnixServer {
        UnixServer {
            socket,
            connections: Arc::clone(&self.connections),
            shared: self.shared.clone(),
        }
    }

    async fn accept_all(&self) {
        // The place comes first: without one the connection waits in the system's backlog.
        while let Ok(place) = Arc::clone(&self.connections).acquire_owned().await {
            let (tcp, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "can not accept a local connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let shared = self.shared.clone();
            self.shared.lifetime.spawn(async move {
                if let Err(error) = shared.connection(tcp, peer).await {
                    tracing::debug!(%error, "a local connection ended early");
                }
                drop(place);
            });
        }
    }
}

#[cfg(unix)]
impl UnixServer {
    pub(in crate::proxy) async fn run(self) {
        let lifetime = self.shared.lifetime.clone();
        tokio::select! {
            () = lifetime.draining() => {}
            () = self.accept_all() => {}
        }
    }

    async fn accept_all(&self) {
        while let Ok(place) = Arc::clone(&self.connections).acquire_owned().await {
            let stream = match self.socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "can not accept a connection at the Unix socket");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let shared = self.shared.clone();
            self.shared.lifetime.spawn(async move {
                let client = Arc::new(Client::at_unix_socket());
                if let Err(error) = shared.http1(stream, client).await {
                    tracing::debug!(%error, "a connection at the Unix socket ended early");
                }
                drop(place);
            });
        }
    }
}

impl Shared {
    async fn connection(self, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
        // Keystrokes and watch events are small: Nagle's algorithm would hold them.
        tcp.set_nodelay(true)?;
        let stream = self.acceptor.accept(tcp).await?;
        let client = Arc::new(Client::at_port(peer));
        match stream.alpn() {
            Some(Alpn::Http2) => self.http2(stream, client).await,
            // Clients without ALPN speak HTTP/1.1.
            _ => self.http1(stream, client).await,
        }
        .map_err(io::Error::other)
    }

    async fn http1<S>(self, stream: S, client: Arc<Client>) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_LIMIT)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_BYTES)
            .serve_connection(
                TokioIo::new(FramingGuard::new(stream)),
                self.requests(&client),
            )
            .with_upgrades();
        self.drive(
            connection,
            |connection| connection.graceful_shutdown(),
            &client,
        )
        .await
    }

    async fn http2(self, stream: NetStream, client: Arc<Client>) -> hyper::Result<()> {
        let connection = http2::Builder::new(self.lifetime.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_HTTP2_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES as u32)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .serve_connection(TokioIo::new(stream), self.requests(&client));
        self.drive(
            connection,
            |connection| connection.graceful_shutdown(),
            &client,
        )
        .await
    }

    fn requests(&self, client: &Arc<Client>) -> Requests {
        Requests {
            endpoint: Arc::clone(&self.endpoint),
            client: Arc::clone(client),
        }
    }

    /// Runs a connection of either protocol to its end.
    async fn drive<C>(
        &self,
        connection: C,
        shut_down: impl FnOnce(Pin<&mut C>),
        client: &Client,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            end = &mut connection => return end,
            () = self.lifetime.draining() => {}
            () = unproven(client) => {
                tracing::debug!("a local connection did not show the secret in time");
                return Ok(());
            }
        }
        shut_down(connection.as_mut());
        connection.await
    }
}

/// The requests of one connection.
struct Requests {
    endpoint: Arc<Endpoint>,
    client: Arc<Client>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let endpoint = Arc::clone(&self.endpoint);
        let client = Arc::clone(&self.client);
        Box::pin(async move { Ok(endpoint.serve(request, &client).await) })
    }
}

/// Resolves when the time to show the secret is over and it was not shown.
async fn unproven(client: &Client) {
    tokio::time::sleep(PROOF_LIMIT).await;
    if client.is_proven() {
        std::future::pending::<()>().await;
    }
}
