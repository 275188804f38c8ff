//! The health port: `/livez`, `/readyz`, `/metrics`, and never anything else (CVE-2019-11248 was a profiler on a
//! health port).

mod readiness;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub(super) use self::readiness::{Readiness, Serving};

use self::readiness::Report;
use super::{Agent, AgentCredential, Core, metrics::Surroundings};
use crate::{Error, ErrorKind, Result};

/// Connections at a time: kubelet and Prometheus have one each. More are closed at once.
const MAX_CONNECTIONS: usize = 32;
/// From accept to the last byte of the answer. A probe gives up long before.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// The most bytes of a request's head, and the smallest limit that hyper takes.
const MAX_HEAD: usize = 8 * 1024;
/// The most header lines of a request.
const MAX_FIELDS: usize = 64;
/// How often the API server's reachability is checked: one TCP and TLS handshake.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The same while it can not be reached, so that the agent is soon ready again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long one such check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed `accept`, which fails again at once when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Agent {
    /// Serves the agent's health on `listener`, until `shutdown` is ready: for a pod's probes and for Prometheus.
    ///
    /// | path | answer |
    /// |---|---|
    /// | `/livez` | 200 while the process answers at all |
    /// | `/readyz` | 200 when callers reach the API server through this agent, else 503 with the reasons; `?verbose` lists every check |
    /// | `/metrics` | the metrics that [`telemetry`](crate::telemetry) names, in Prometheus' text form |
    ///
    /// The agent is not ready before it serves a relay or socket, while it is shutting down, when a registration at
    /// a relay is lost for more than 15 seconds, and when no connection to the API server can be made (tried every 10
    /// seconds, while this runs). Only GET and HEAD are answered. Nothing here is secret, and nothing asks who is
    /// there: reasons name hosts, so let nobody but the cluster reach the port.
    ///
    /// Let it run until [`serve_relay`](Self::serve_relay) has returned: a shutdown is seen here first.
    ///
    /// # Errors
    /// None at present: a failed accept is logged and tried again.
    ///
    /// # Cancel safety
    /// A dropped future closes the socket and its connections.
    pub async fn serve_health(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        let shutdown = pin!(shutdown);
        tokio::select! {
            biased;
            () = shutdown => {}
            () = accept(Arc::clone(&self.core), listener) => {}
            () = watch_api_server(self) => {}
        }
        Ok(())
    }
}

async fn accept(core: Arc<Core>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _): (TcpStream, SocketAddr) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the health port could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let core = Arc::clone(&core);
        connections.spawn(async move {
            let _place = place;
            serve(core, tcp).await;
        });
    }
}

async fn serve(core: Arc<Core>, tcp: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&core, &request);
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(tcp), service);
    match timeout(CONNECTION_LIMIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the health port broke off"),
        Err(_) => tracing::debug!("a connection to the health port took too long"),
    }
}

async fn watch_api_server(agent: &Agent) {
    loop {
        let outcome = timeout(CHECK_LIMIT, agent.check_api_server())
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "no connection to the API server at {} within {CHECK_LIMIT:?}",
                        agent.core.authority
                    ),
                ))
            });
        let pause = if outcome.is_ok() {
            CHECK_INTERVAL
        } else {
            RETRY_INTERVAL
        };
        agent
            .core
            .readiness
            .set_api_server(outcome.as_ref().copied());
        sleep(pause).await;
    }
}

fn answer<B>(core: &Core, request: &Request<B>) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics");
    if !known {
        return text(StatusCode::NOT_FOUND, "not found\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD\n".to_owned(),
        );
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => {
            let verbose = request.uri().query().is_some_and(|query| {
                query
                    .split('&')
                    .any(|pair| pair == "verbose" || pair.starts_with("verbose="))
            });
            ready(&core.readiness.report(Instant::now()), verbose)
        }
        _ => {
            let mut response = text(StatusCode::OK, core.metrics_text());
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
    }
}

impl Core {
    /// The metrics as Prometheus reads them.
    pub(super) fn metrics_text(&self) -> String {
        let (relays_online, relays_offline) = self.readiness.registrations();
        self.metrics.render(Surroundings {
            draining: self.readiness.is_draining(),
            relays_online,
            relays_offline,
            audit_lost: self.audit.lost(),
            key_refreshes: self.callers.key_refreshes(),
            token_refreshes: self
                .agent_credential
                .as_ref()
                .map(AgentCredential::refreshes)
                .unwrap_or_default(),
        })
    }
}

/// In the form of the API server's own `/readyz`. Reasons are always told: they are what the port is for.
fn ready(report: &Report, verbose: bool) -> Response<Full<Bytes>> {
    if report.is_ready() && !verbose {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    let mut body = String::new();
    for check in &report.checks {
        match &check.problem {
            None => body.push_str(&format!("[+]{} ok\n", check.name)),
            Some(problem) => body.push_str(&format!("[-]{} failed: {problem}\n", check.name)),
        }
    }
    if report.is_ready() {
        body.push_str("readyz check passed\n");
        text(StatusCode::OK, body)
    } else {
        body.push_str("readyz check failed\n");
        text(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
