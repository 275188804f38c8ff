//! The way to the API server: HTTP/1.1 connections, a few of them kept for the next request.
//!
//! An [`Upstream`] owns no credential and no client certificate. Whatever a request proves, its headers prove.
//!
//! The pool is our own for one reason: who holds a response holds the connection. Dropping a response before its end
//! closes the socket at once, also while a watch is silent, and the API server stops watching.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    task::AbortHandle,
    time::Instant,
};

use super::{
    body::{RequestBody, UpstreamBody},
    early_answer::EarlyAnswer,
    request_headers::SealedHeaders,
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector, Endpoint},
};

/// How many idle connections are kept: a burst of discovery requests, not every client at once.
const MAX_IDLE: usize = 32;
/// How long an idle connection is kept. API servers close theirs after 90 s: we must be first, or a request is lost.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a connection whose response has ended may go on with its upload before it is closed. After an early
/// refusal (413, 401) there is no use in the rest.
const UPLOAD_GRACE: Duration = Duration::from_secs(5);
/// The most header lines of a response. Aggregated API servers behind meshes add many.
const MAX_RESPONSE_FIELDS: usize = 300;

/// A byte stream to the API server.
pub(super) trait UpstreamIo: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> UpstreamIo for T {}

/// Connects to the one API server. A trait so that tests need no socket.
pub(super) trait Dial: Send + Sync {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>>;
}

/// Dials over TCP, with TLS where the endpoint has it.
pub(super) struct NetDial {
    pub(super) connector: Connector,
    pub(super) endpoint: Endpoint,
}

impl Dial for NetDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>> {
        Box::pin(async {
            // An upgrade needs HTTP/1.1, so nothing else is offered.
            let stream = self.connector.connect(&self.endpoint, Alpn::Http1).await?;
            Ok(Box::new(stream) as Box<dyn UpstreamIo>)
        })
    }
}

pub(super) struct Upstream {
    dial: Box<dyn Dial>,
    idle: Arc<IdleConnections>,
}

/// A 101 that has not been passed on yet, with the connection it arrived on.
pub(super) struct UpgradeResponse {
    pub(super) response: Response<Incoming>,
    pub(super) connection: ConnectionTask,
}

impl Upstream {
    pub(super) fn new(dial: Box<dyn Dial>) -> Self {
        Self {
            dial,
            idle: Arc::default(),
        }
    }

    /// Connects once, for nothing but to see that it can be done.
    pub(super) async fn check(&self) -> Result<()> {
        self.dial.dial().await.map(drop)
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Cancel safety
    /// A dropped future closes the connection that the request went out on.
    pub(super) async fn send(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: SealedHeaders,
        body: RequestBody,
    ) -> Result<Response<UpstreamBody>> {
        let mut request = build(method, target, headers, body);
        while let Some(connection) = self.idle.take() {
            let again = repeatable(&request);
            let failure = match connection.send(request).await {
                Ok(response) => return Ok(response),
                Err(failure) => *failure,
            };
            // The API server may close an idle connection in the moment in which we use it.
            request = match (failure.unsent, again) {
                (Some(unsent), _) => unsent,
                (None, Some(again)) => again,
                (None, None) => return Err(broken_off(failure.error)),
            };
        }
        let connection = self.connect().await?;
        connection
            .send(request)
            .await
            .map_err(|failure| broken_off(failure.error))
    }

    /// Sends a request for a change of protocol, on a connection of its own that serves nothing else (one request's
    /// rights must never serve a second one).
    pub(super) async fn send_upgrade(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: SealedHeaders,
    ) -> Result<UpgradeResponse> {
        let io = self.dial.dial().await?;
        let (mut sender, connection) = handshake(io).await?;
        let task = ConnectionTask::spawn(async {
            let _ = connection.with_upgrades().await;
        });
        let request = build(method, target, headers, RequestBody::empty());
        let response = sender.send_request(request).await.map_err(broken_off)?;
        Ok(UpgradeResponse {
            response,
            connection: task,
        })
    }

    async fn connect(&self) -> Result<Lease> {
        let io = EarlyAnswer::new(self.dial.dial().await?);
        let (sender, connection) = handshake(io).await?;
        // The outcome reaches whoever waits for the response or reads its body.
        let task = ConnectionTask::spawn(async {
            let _ = connection.await;
        });
        Ok(Lease {
            connection: Connection {
                sender,
                _task: task,
            },
            idle: Arc::clone(&self.idle),
        })
    }
}

/// The task that drives one connection. Dropping it closes the socket.
pub(super) struct ConnectionTask(AbortHandle);

impl ConnectionTask {
    fn spawn(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(connection).abort_handle())
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Connection {
    sender: http1::SendRequest<RequestBody>,
    _task: ConnectionTask,
}

/// A connection in use by one request. Dropping it closes the connection.
pub(super) struct Lease {
    connection: Connection,
    idle: Arc<IdleConnections>,
}

impl Lease {
    async fn send(
        mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, Box<SendFailure>> {
        match self.connection.sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| UpstreamBody::new(body, self))),
            Err(mut error) => Err(Box::new(SendFailure {
                unsent: error.take_message(),
                error: error.into_error(),
            })),
        }
    }

    /// Keeps the connection for another request once it is free; to be called at the end of the response only.
    pub(super) fn give_back(self) {
        let Self {
            mut connection,
            idle,
        } = self;
        if connection.sender.is_ready() {
            idle.put(connection);
            return;
        }
        // Bodies may be dropped while the runtime goes down.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        // hyper frees the connection a moment after it has handed out the last byte.
        runtime.spawn(async move {
            let free = tokio::time::timeout(UPLOAD_GRACE, connection.sender.ready()).await;
            if matches!(free, Ok(Ok(()))) {
                idle.put(connection);
            }
        });
    }
}

struct SendFailure {
    unsent: Option<Request<RequestBody>>,
    error: hyper::Error,
}

#[derive(Default)]
struct IdleConnections(Mutex<Vec<IdleConnection>>);

struct IdleConnection {
    connection: Connection,
    since: Instant,
}

impl IdleConnections {
    /// The connection that was used last: the others may then age out.
    fn take(self: &Arc<Self>) -> Option<Lease> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(IdleConnection::is_usable);
        let connection = idle.pop()?.connection;
        Some(Lease {
            connection,
            idle: Arc::clone(self),
        })
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(IdleConnection::is_usable);
        if idle.len() < MAX_IDLE {
            idle.push(IdleConnection {
                connection,
                since: Instant::now(),
            });
        }
    }
}

impl IdleConnection {
    fn is_usable(&self) -> bool {
        self.connection.sender.is_ready() && self.since.elapsed() < IDLE_LIMIT
    }
}

async fn handshake<T: UpstreamIo>(
    io: T,
) -> Result<(
    http1::SendRequest<RequestBody>,
    http1::Connection<TokioIo<T>, RequestBody>,
)> {
    http1::Builder::new()
        .max_headers(MAX_RESPONSE_FIELDS)
        .handshake(TokioIo::new(io))
        .await
        .map_err(broken_off)
}

fn build(
    method: Method,
    target: PathAndQuery,
    headers: SealedHeaders,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers.into_map();
    request
}

/// The same request again, where sending it twice is as good as once.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_empty() {
        return None;
    }
    let mut again = Request::new(RequestBody::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

fn broken_off(error: hyper::Error) -> Error {
    let (kind, message) = if error.is_parse() {
        (ErrorKind::Protocol, "its answer is not HTTP/1.1")
    } else {
        (ErrorKind::Closed, "the connection ended before an answer")
    };
    Error::new(kind, message).with_source(error)
}
