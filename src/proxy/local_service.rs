//! [`LocalService`]: answers to paths of the endpoint that are no cluster's.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, Uri};

/// Answers requests at the local endpoint whose path lies outside `/proxies/` and `/-/`. Off unless
/// [`ProxyBuilder::local_service`](super::ProxyBuilder::local_service) is given one.
///
/// # The risk
/// Before it calls the service, the endpoint has checked that the request names a loopback address as its `Host` and
/// comes from no web page (`Origin`, `Sec-Fetch-*`). It has **not** asked for the secret of the run: that is what such
/// services exist for, and it means that **every process on the machine, of every user, can call them**. A service
/// that gives anything away, or changes anything, asks [`LocalRequest::shows_secret`] first, or finds out by other
/// means who calls.
///
/// ```
/// use arc_cluster_connect::proxy::{LocalRequest, LocalService};
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use http::{Method, Response, StatusCode};
///
/// /// Tells whoever knows the secret how many tills are open.
/// struct Tills;
///
/// #[async_trait]
/// impl LocalService for Tills {
///     fn takes(&self, method: &Method, path: &str) -> bool {
///         method == Method::GET && path == "/tills"
///     }
///
///     async fn answer(&self, request: LocalRequest) -> Response<Bytes> {
///         if !request.shows_secret() {
///             let mut refusal = Response::new(Bytes::new());
///             *refusal.status_mut() = StatusCode::UNAUTHORIZED;
///             return refusal;
///         }
///         Response::new(Bytes::from_static(b"7"))
///     }
/// }
/// ```
#[async_trait]
pub trait LocalService: Send + Sync {
    /// Whether a request is for this service. Every other one is treated as if there was none.
    fn takes(&self, method: &Method, path: &str) -> bool;

    /// The most that the body of a request may have, in bytes; a larger one is answered 413. 64 KiB unless told
    /// otherwise.
    fn max_body_bytes(&self) -> usize {
        64 * 1024
    }

    /// The answer. It has 20 seconds, its body's arrival included: then the client gets a 504, and the future is
    /// dropped.
    async fn answer(&self, request: LocalRequest) -> Response<Bytes>;
}

/// A request to a [`LocalService`], with its whole body.
///
/// The secret of the run is not in its headers, even if the client sent it.
#[derive(Debug)]
pub struct LocalRequest {
    request: Request<Bytes>,
    secret: SecretShown,
    connection: Option<LocalConnection>,
}

/// The two ends of a connection at the loopback port.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalConnection {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Whether a client has shown the secret of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretShown {
    Yes,
    No,
}

impl LocalRequest {
    pub(super) fn new(
        request: Request<Bytes>,
        secret: SecretShown,
        connection: Option<LocalConnection>,
    ) -> Self {
        Self {
            request,
            secret,
            connection,
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The path and query.
    pub fn uri(&self) -> &Uri {
        self.request.uri()
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        self.request.body()
    }

    /// Whether the client has shown the secret of the run, or came over the Unix socket, which is as good.
    pub fn shows_secret(&self) -> bool {
        self.secret == SecretShown::Yes
    }

    /// The address of the client: a port of the loopback interface. `None` over the Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.connection.map(|connection| connection.peer)
    }

    /// The address at which the client reached the endpoint. `None` over the Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.map(|connection| connection.local)
    }

    /// The request itself.
    pub fn into_request(self) -> Request<Bytes> {
        self.request
    }
}
