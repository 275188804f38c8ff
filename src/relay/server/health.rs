//! The health port: `/livez`, `/readyz`, `/metrics`, and never anything else.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{RelayServer, service::Relay};

/// Connections at a time: a kubelet and a Prometheus have one each. More are closed at once.
const MAX_CONNECTIONS: usize = 32;

/// From accept to the last byte of the answer. A probe gives up long before.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// The smallest limit that hyper takes.
const MAX_HEAD: usize = 8 * 1024;

/// After a failed accept, which fails again at once when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl RelayServer {
    /// Serves the relay's health on `listener` until `shutdown` is ready: for probes and for Prometheus.
    ///
    /// | path | answer |
    /// |---|---|
    /// | `/livez` | 200 while the process answers at all |
    /// | `/readyz` | 200 while new connections are taken; 503 with the reason at a shutdown and at the limit of connections |
    /// | `/metrics` | counts in Prometheus' text form |
    ///
    /// Only GET and HEAD are answered. Nothing asks who is there, and the names of the hybrid connections are shown: let
    /// nobody but the operator reach the port. The future does not borrow the relay, so that a shutdown is seen here;
    /// let it run until [`shutdown`](Self::shutdown) has returned.
    ///
    /// # Cancel safety
    /// A dropped future closes the socket and its connections.
    pub fn serve_health<F: Future<Output = ()>>(
        &self,
        listener: TcpListener,
        shutdown: F,
    ) -> impl Future<Output = ()> + use<F> {
        let relay = Arc::clone(&self.relay);
        async move {
            let shutdown = pin!(shutdown);
            tokio::select! {
                () = shutdown => {}
                () = accept(relay, listener) => {}
            }
        }
    }
}

async fn accept(relay: Arc<Relay>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Ends its tasks when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((tcp, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let relay = Arc::clone(&relay);
                    connections.spawn(async move {
                        // Whether the answer arrives is the client's concern.
                        let _ = timeout(CONNECTION_LIMIT, serve(relay, tcp)).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "can not take a connection for health");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(relay: Arc<Relay>, tcp: TcpStream) -> Result<(), hyper::Error> {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(&relay, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), service)
        .await
}

fn answer<B>(relay: &Relay, request: &Request<B>) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if relay.shutdown.is_cancelled() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the relay is shutting down\n",
        ),
        "/readyz" if relay.connections.available_permits() == 0 => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the limit of connections is reached\n",
        ),
        "/readyz" => text(StatusCode::OK, "ok\n"),
        "/metrics" => {
            let mut response = text(StatusCode::OK, relay.metrics.exposition(relay));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz or /metrics\n"),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
