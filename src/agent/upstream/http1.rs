//! HTTP/1.1 connections: a few of them kept for the next request, and those that are upgraded.
//!
//! Who holds a response holds the connection. Dropping a response before its end closes the socket at once, also while
//! a watch is silent, and the API server stops watching.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{runtime::Handle, task::AbortHandle, time::Instant};

use super::{
    UpstreamBody,
    dial::UpstreamIo,
    early_answer::EarlyAnswer,
    failure::{self, SendFailure, http1_failed},
    places::IDLE_LIMIT,
    replay_body::ReplayBody,
};
use crate::{Result, agent::body::RequestBody};

/// How many idle connections are kept: a burst of discovery requests, not every client at once.
const MAX_IDLE: usize = 32;
/// How long a connection whose response has ended may go on with its upload before it is closed. After an early
/// refusal (413, 401) there is no use in the rest.
const UPLOAD_GRACE: Duration = Duration::from_secs(5);
/// The most header lines of a response. Aggregated API servers behind meshes add many.
const MAX_RESPONSE_FIELDS: usize = 300;

/// A 101 that has not been passed on yet, with the connection it arrived on.
pub(in crate::agent) struct UpgradeResponse {
    pub(in crate::agent) response: Response<Incoming>,
    pub(in crate::agent) connection: ConnectionTask,
}

/// Sends a request for a change of protocol on a new connection.
pub(super) async fn send_upgrade(
    io: Box<dyn UpstreamIo>,
    request: Request<ReplayBody>,
) -> Result<UpgradeResponse> {
    let (mut sender, connection) = handshake(io).await?;
    let task = ConnectionTask::spawn(async {
        let _ = connection.with_upgrades().await;
    });
    let response = sender.send_request(request).await.map_err(http1_failed)?;
    Ok(UpgradeResponse {
        response,
        connection: task,
    })
}

/// The task that drives one connection. Dropping it closes the socket.
pub(in crate::agent) struct ConnectionTask(AbortHandle);

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
    sender: http1::SendRequest<ReplayBody>,
    _task: ConnectionTask,
}

/// A connection in use by one request. Dropping it closes the connection.
pub(in crate::agent) struct Lease {
    connection: Connection,
    idle: Arc<IdleConnections>,
    age: Age,
}

#[derive(Clone, Copy)]
enum Age {
    New,
    /// It has served a request, and the API server may close it in the moment in which it gets the next one.
    Kept,
}

impl Lease {
    /// Starts HTTP/1.1 on a new connection, which goes to `idle` once its request is over.
    pub(super) async fn start(io: Box<dyn UpstreamIo>, idle: Arc<IdleConnections>) -> Result<Self> {
        let (sender, connection) = handshake(EarlyAnswer::new(io)).await?;
        // The outcome reaches whoever waits for the response or reads its body.
        let task = ConnectionTask::spawn(async {
            let _ = connection.await;
        });
        Ok(Self {
            connection: Connection {
                sender,
                _task: task,
            },
            idle,
            age: Age::New,
        })
    }

    pub(super) async fn send(
        mut self,
        request: Request<ReplayBody>,
    ) -> Result<Response<UpstreamBody>, Box<SendFailure>> {
        let repeatable = match self.age {
            Age::New => None,
            Age::Kept => repeatable(&request),
        };
        match self.connection.sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| UpstreamBody::http1(body, self))),
            Err(mut failed) => {
                let unsent = failed.take_message();
                Err(SendFailure::repeatable(
                    http1_failed(failed.into_error()),
                    unsent.or(repeatable),
                ))
            }
        }
    }

    /// Leaves a new connection to whichever request comes first.
    pub(super) fn offer(self) {
        let Self {
            connection,
            idle,
            age,
        } = self;
        idle.put(connection, age);
    }

    /// Keeps the connection for another request once it is free; to be called at the end of the response only.
    pub(super) fn give_back(self) {
        let Self {
            mut connection,
            idle,
            ..
        } = self;
        if connection.sender.is_ready() {
            idle.put(connection, Age::Kept);
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
                idle.put(connection, Age::Kept);
            }
        });
    }
}

/// The connections that wait for a request.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<Vec<IdleConnection>>);

struct IdleConnection {
    connection: Connection,
    age: Age,
    since: Instant,
}

impl IdleConnections {
    /// The connection that was used last: the others may then age out.
    pub(super) fn take(self: &Arc<Self>) -> Option<Lease> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(IdleConnection::is_usable);
        let IdleConnection {
            connection, age, ..
        } = idle.pop()?;
        Some(Lease {
            connection,
            idle: Arc::clone(self),
            age,
        })
    }

    /// Closes what was not used for long.
    pub(super) fn expire(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(IdleConnection::is_usable);
    }

    fn put(&self, connection: Connection, age: Age) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(IdleConnection::is_usable);
        if idle.len() < MAX_IDLE {
            idle.push(IdleConnection {
                connection,
                age,
                since: Instant::now(),
            });
        }
    }
}

impl IdleConnection {
    fn is_usable(&self) -> bool {
        let alive = match self.age {
            // Not ready before its task has run once, and good all the same.
            Age::New => !self.connection.sender.is_closed(),
            Age::Kept => self.connection.sender.is_ready(),
        };
        alive && self.since.elapsed() < IDLE_LIMIT
    }
}

async fn handshake<T: UpstreamIo>(
    io: T,
) -> Result<(
    http1::SendRequest<ReplayBody>,
    http1::Connection<TokioIo<T>, ReplayBody>,
)> {
    http1::Builder::new()
        .max_headers(MAX_RESPONSE_FIELDS)
        .handshake(TokioIo::new(io))
        .await
        .map_err(http1_failed)
}

/// The same request again, where sending it twice is as good as once.
fn repeatable(request: &Request<ReplayBody>) -> Option<Request<ReplayBody>> {
    if !failure::is_idempotent(request) {
        return None;
    }
    let mut again = Request::new(ReplayBody::new(RequestBody::empty()));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}
