//! One HTTP/1.1 connection: a caller's stream in, the API server out.
//!
//! A stream carries one request. Opening a stream costs no round trip, so nothing is gained by reusing one, and much
//! is lost: where requests follow each other on a stream, a wrong idea of where one ends lets the next be forged.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header, uri::PathAndQuery};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{
    Core,
    body::{RequestBody, ResponseBody},
    correlation::{AuditId, CorrelationId},
    record::{self, Places, RequestRecord},
    request_head::{self, Head, MAX_FIELDS, MAX_HEAD},
    request_headers, response_headers,
    rewind::Rewind,
    splice::splice,
    status::Refusal,
    upgrade::UpgradeProtocol,
};

/// How long a request's head may take to arrive. A slow link needs a second; who needs longer is holding a place.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a refusal may take to be written to a peer that does not read.
const REFUSAL_WRITE_LIMIT: Duration = Duration::from_secs(5);

/// What the requests of one tunnel connection share.
#[derive(Clone)]
pub(super) struct Scope {
    /// Ends everything in the scope at once.
    pub(super) closing: CancellationToken,
    /// Every request and every upgraded stream.
    pub(super) tasks: TaskTracker,
    /// The places for requests.
    pub(super) places: Arc<Semaphore>,
}

/// Serves one stream, from its first byte to the end of its response. An upgraded stream goes on as a task of the
/// scope. Failures end the stream and are logged; there is nobody else to tell.
pub(super) async fn serve<T>(core: Arc<Core>, scope: Scope, stream: T)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = scope.closing.clone();
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = serve_request(core, scope, stream) => {}
    }
}

async fn serve_request<T>(core: Arc<Core>, scope: Scope, mut stream: T)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head = match tokio::time::timeout(HEAD_LIMIT, request_head::read(&mut stream)).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a stream ended inside a request's head");
            return;
        }
        Err(_) => Head::Refused(Refusal::header_time_out()),
    };
    let prefix = match head {
        Head::Complete(prefix) => prefix,
        Head::Nothing => {
            let _ = stream.shutdown().await;
            return;
        }
        Head::Refused(refusal) => {
            refuse(stream, refusal).await;
            return;
        }
    };
    let service = service_fn(move |request| respond(Arc::clone(&core), scope.clone(), request));
    let connection = http1::Builder::new()
        // One request a stream, as said above.
        .keep_alive(false)
        // The end of what the caller sends, while the response is awaited, is the caller leaving.
        .half_close(false)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(Rewind::new(prefix, stream)), service)
        .with_upgrades();
    // On an error hyper drops the stream without shutting it down: the caller sees it aborted, never a clean end.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a stream was aborted");
    }
}

/// Answers on a stream that hyper has not taken over.
async fn refuse(mut stream: impl AsyncWrite + Unpin, refusal: Refusal) {
    let correlation = CorrelationId::generate();
    tracing::info!(
        status = refusal.code().as_u16(),
        correlation_id = correlation.as_str(),
        "a malformed request was refused"
    );
    let wire = refusal.into_wire(&correlation);
    let write = pin!(async {
        stream.write_all(&wire).await?;
        stream.shutdown().await
    });
    let _ = tokio::time::timeout(REFUSAL_WRITE_LIMIT, write).await;
}

async fn respond(
    core: Arc<Core>,
    scope: Scope,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let correlation = CorrelationId::of(request.headers());
    let audit = AuditId::generate();
    let span = record::span(&request, &correlation, audit);
    let answer = async {
        let places = take_places(&core, &scope)?;
        let record = RequestRecord::new(span.clone(), places);
        let exchange = Exchange {
            core: &core,
            scope: &scope,
            audit,
            correlation: &correlation,
        };
        exchange.run(request, record).await
    };
    let answer = answer.instrument(span.clone()).await;
    Ok(answer.unwrap_or_else(|refusal| {
        span.record("status", refusal.code().as_u16());
        span.in_scope(|| tracing::info!(?refusal, "request refused"));
        refusal.into_response(&correlation).map(ResponseBody::whole)
    }))
}

/// Requests beyond a limit are refused, not queued: a queue would only add to the wait of everybody in it.
fn take_places(core: &Core, scope: &Scope) -> Result<Places, Refusal> {
    let of_connection = Arc::clone(&scope.places).try_acquire_owned().map_err(|_| {
        Refusal::too_many_requests("this tunnel connection has too many requests in flight")
    })?;
    let of_agent = Arc::clone(&core.places)
        .try_acquire_owned()
        .map_err(|_| Refusal::too_many_requests("the agent has too many requests in flight"))?;
    Ok(Places {
        _of_agent: of_agent,
        _of_connection: of_connection,
    })
}

/// One request on its way through.
struct Exchange<'a> {
    core: &'a Core,
    scope: &'a Scope,
    audit: AuditId,
    correlation: &'a CorrelationId,
}

impl Exchange<'_> {
    async fn run(
        &self,
        mut request: Request<Incoming>,
        record: RequestRecord,
    ) -> Result<Response<ResponseBody>, Refusal> {
        // First of all, for every method and target: who is asking? The body stays unread until that is known.
        let decision = self.core.authenticator.decide(request.headers()).await?;
        refuse_browsers(request.headers())?;
        let target = self.target(&request)?;
        let upgrade = UpgradeProtocol::requested(request.method(), request.headers());
        // Taken before the request is taken apart, as the other half of a 101.
        let caller = upgrade.map(|_| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let headers = request_headers::clean(parts.headers, &self.core.header_policy)?.seal(
            &decision,
            &self.core.host,
            self.audit,
            self.correlation,
            upgrade,
        );
        match upgrade.zip(caller) {
            Some((protocol, caller)) => {
                let upstream = self
                    .core
                    .upstream
                    .send_upgrade(parts.method, target, headers)
                    .await
                    .map_err(|error| self.upstream_failed(&error))?;
                self.switch(protocol, caller, upstream, record)
            }
            None => {
                let response = self
                    .core
                    .upstream
                    .send(parts.method, target, headers, RequestBody::new(body))
                    .await
                    .map_err(|error| self.upstream_failed(&error))?;
                self.pass_on(response, record)
            }
        }
    }

    /// Path and query, byte for byte, behind the path that the API server's own URL may have.
    fn target<B>(&self, request: &Request<B>) -> Result<PathAndQuery, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::method_not_allowed(
                "CONNECT is refused: the agent reaches the API server and nothing else",
            ));
        }
        let target = request
            .uri()
            .path_and_query()
            .filter(|target| target.as_str().starts_with('/'))
            .ok_or_else(|| Refusal::malformed("the request's target is not a path"))?;
        if self.core.path_prefix.is_empty() {
            return Ok(target.clone());
        }
        PathAndQuery::from_maybe_shared(format!("{}{target}", self.core.path_prefix))
            .map_err(|_| Refusal::malformed("the request's target is not a path"))
    }

    fn pass_on(
        &self,
        mut response: Response<super::body::UpstreamBody>,
        mut record: RequestRecord,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if response.status().is_informational() {
            return Err(Refusal::upstream_misbehaved(format!(
                "the API server answered {} to a request that asked for no change of protocol",
                response.status()
            )));
        }
        response_headers::clean(response.headers_mut());
        record.set_answered(response.status());
        Ok(response.map(|body| ResponseBody::upstream(body).with_record(record)))
    }

    /// Joins both sides after a 101; passes an error on with its body; takes anything else for a broken upstream.
    fn switch(
        &self,
        protocol: UpgradeProtocol,
        caller: hyper::upgrade::OnUpgrade,
        upstream: super::upstream::UpgradeResponse,
        mut record: RequestRecord,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let super::upstream::UpgradeResponse {
            mut response,
            connection,
        } = upstream;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            response_headers::clean(response.headers_mut());
            record.set_answered(status);
            return Ok(
                response.map(|body| ResponseBody::last(body, connection).with_record(record))
            );
        }
        if status != StatusCode::SWITCHING_PROTOCOLS
            || !protocol.is_confirmed_by(response.headers())
        {
            return Err(Refusal::upstream_misbehaved(format!(
                "the API server answered {status} to a request for a change of protocol"
            )));
        }
        record.set_answered(status);
        let server = hyper::upgrade::on(&mut response);
        let closing = self.scope.closing.clone();
        self.scope.tasks.spawn(async move {
            // Both live as long as the stream: one drives nothing any more, the other holds the stream's places.
            let (_connection, _record) = (connection, record);
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                () = join(caller, server) => {}
            }
        });
        let (parts, _) = response.into_parts();
        let mut headers = parts.headers;
        response_headers::clean_switching(&mut headers, protocol);
        let mut answer = Response::new(ResponseBody::whole(bytes::Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    fn upstream_failed(&self, error: &crate::Error) -> Refusal {
        Refusal::upstream_failed(&self.core.authority, error)
    }
}

/// Carries raw bytes both ways. What either side sent early is still in front of its stream.
async fn join(caller: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    let ended = match tokio::try_join!(caller, server) {
        Ok((caller, server)) => splice(&mut TokioIo::new(caller), &mut TokioIo::new(server)).await,
        Err(error) => Err(std::io::Error::other(error)),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an upgraded stream was aborted");
    }
}

/// A browser sends `Origin` where a page of another site makes it call. No Kubernetes tool does.
fn refuse_browsers(headers: &http::HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::forbidden(
            "requests from web pages (with an Origin header) are refused",
            "use kubectl or another program outside the browser",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
