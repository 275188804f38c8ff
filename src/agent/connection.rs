//! One HTTP/1.1 connection: a caller's stream in, the API server out.
//!
//! A stream carries one request. Opening a stream costs no round trip, so nothing is gained by reusing one, and much
//! is lost: where requests follow each other on a stream, a wrong idea of where one ends lets the next be forged.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::{
    Core,
    body::{RequestBody, ResponseBody},
    chunked::{Asked, OpenEnded, Trailers},
    correlation::CorrelationId,
    exchange::{Exchange, Switched},
    identity::TunnelId,
    metered::Metered,
    metrics::Direction,
    record,
    request_head::{self, Head, MAX_FIELDS, MAX_HEAD, RequestHead},
    response_headers,
    stall::{StallClock, Timed},
    status::Refusal,
    upgrade::UpgradeProtocol,
};
use crate::tunnel::{self, Rewind};

/// How long a request's head may take to arrive. A slow link needs a second; who needs longer is holding a place.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long an answer that is written around hyper may take: a peer that does not read must not hold a stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How much a caller may send ahead of a 101. SPDY clients open their streams at once, in a few hundred bytes.
const MAX_EARLY: usize = 64 * 1024;

/// What the requests of one tunnel connection share.
#[derive(Clone)]
pub(super) struct Scope {
    /// Ends everything in the scope at once.
    pub(super) closing: CancellationToken,
    /// The places for requests.
    pub(super) places: Arc<Semaphore>,
    /// From where the tunnel came. For the record: nothing is decided by it.
    pub(super) remote: Option<SocketAddr>,
    /// What must not move to another tunnel connection is tied to it.
    pub(super) tunnel: TunnelId,
}

/// Serves one stream, from its first byte to the end of its response or of what it was upgraded to. Failures end the
/// stream and are logged; there is nobody else to tell.
///
/// `left` resolves when the caller is known to have left. While an upload waits for the API server nobody reads the
/// stream, which would tell it otherwise.
///
/// # Cancel safety
/// A dropped future aborts the stream and what was asked of the API server.
pub(super) async fn serve<T>(
    core: Arc<Core>,
    scope: Scope,
    stream: T,
    left: impl Future<Output = ()> + Send,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = scope.closing.clone();
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        result = serve_request(core, scope, stream) => {
            if let Err(error) = result {
                tracing::debug!(error = &*error, "a stream was aborted");
            }
        }
        () = left => tracing::debug!("the caller has given its stream up"),
    }
}

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve_request<T>(core: Arc<Core>, scope: Scope, stream: T) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let clock = StallClock::new(Arc::clone(&core), Direction::ToCaller);
    let mut stream = Timed::new(stream, clock);
    let head = match tokio::time::timeout(HEAD_LIMIT, request_head::read(&mut stream)).await {
        Ok(head) => head?,
        Err(_) => Head::Refused(Refusal::header_time_out()),
    };
    let (head, rest) = match head {
        Head::Complete(head, rest) => (head, rest),
        Head::Nothing => return Ok(stream.shutdown().await?),
        Head::Refused(refusal) => return Ok(refuse(&core, &scope, stream, refusal).await?),
    };
    let framing = head.framing();
    let exchange = Exchange::new(core, scope, head);
    let end = exchange.end();
    let served = serve_exchange(exchange, framing, stream, rest);
    tokio::select! {
        biased;
        result = served => result,
        () = end.reached() => Err("the token that opened the stream has expired".into()),
    }
}

async fn serve_exchange<T>(
    exchange: Exchange,
    framing: Vec<u8>,
    stream: T,
    rest: Bytes,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some(protocol) = exchange.upgrade() {
        // Boxed, as the request below: an idle watch should not hold the room that an upgrade would need.
        return Box::pin(serve_upgrade(exchange, protocol, stream, rest)).await;
    }
    if let Asked::Alone(trailers) = exchange.asked() {
        return serve_alone(exchange, trailers, framing, stream, rest).await;
    }
    let stream = Rewind::new([&framing[..], &rest].concat().into(), stream);
    // The block that the head arrived in goes, before a watch that may last for hours.
    drop((framing, rest));
    let exchange = Mutex::new(Some(exchange));
    serve_http(stream, move |body| {
        let exchange = exchange
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Boxed, so that what it takes to get an answer is freed when there is one: hyper keeps the room of this future
        // for as long as the answer lasts.
        async { Some(Box::pin(exchange?.forward(RequestBody::new(body))).await) }
    })
    .await
}

/// Serves a request that has no body. What a caller sends behind it is no request and is not looked at.
async fn serve_alone<T>(
    exchange: Exchange,
    trailers: Trailers,
    framing: Vec<u8>,
    mut stream: T,
    rest: Bytes,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut ignored = BytesMut::from(&rest[..]);
    drop(rest);
    let response = tokio::select! {
        biased;
        gone = gone(&mut stream, &mut ignored) => return Err(gone.into()),
        // Boxed, so that what it takes to get an answer is freed when there is one.
        response = Box::pin(exchange.forward(RequestBody::empty())) => response,
    };
    drop(ignored);
    if OpenEnded::fits(&response, trailers) {
        OpenEnded::new(response).write(stream).await
    } else {
        let stream = Rewind::new(framing.into(), stream);
        Box::pin(respond(stream, response)).await
    }
}

/// Lets hyper write an answer that is there already, to a request that ends with its head.
async fn respond<T>(stream: Rewind<T>, response: Response<ResponseBody>) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let response = Mutex::new(Some(response));
    serve_http(stream, move |_| {
        let response = response
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        async { response }
    })
    .await
}

/// Lets hyper carry the bodies. `respond` is called once: connections are not kept alive.
///
/// # Errors
/// When a body broke off. hyper then drops the stream without shutting it down, and so the caller sees an abort and
/// never a clean end.
async fn serve_http<T, F, R>(stream: T, respond: F) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Incoming) -> R,
    R: Future<Output = Option<Response<ResponseBody>>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.into_body());
        async {
            let response = response.await;
            Ok::<_, Infallible>(response.unwrap_or_else(|| {
                Refusal::malformed("a second request on a stream")
                    .into_response(&CorrelationId::generate())
                    .map(ResponseBody::whole)
            }))
        }
    });
    http1::Builder::new()
        .keep_alive(false)
        // The end of what the caller sends, while the response is awaited, is the caller leaving.
        .half_close(false)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

/// Serves a request for a change of protocol. Not by hyper: it may give a stream up with the 101 still unwritten.
async fn serve_upgrade<T>(
    exchange: Exchange,
    protocol: UpgradeProtocol,
    mut stream: T,
    rest: Bytes,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let core = exchange.core();
    let mut early = BytesMut::from(&rest[..]);
    let answer = tokio::select! {
        biased;
        answer = exchange.switch(protocol) => answer,
        gone = gone(&mut stream, &mut early) => return Err(gone.into()),
    };
    match answer {
        Ok(Switched {
            response,
            server,
            held,
        }) => {
            let wire = response_headers::wire(&response);
            tokio::time::timeout(ANSWER_LIMIT, write(&mut stream, &wire)).await??;
            let (_connection, record) = &held;
            let stream = Metered::new(
                Rewind::new(early.freeze(), stream),
                Arc::clone(record.traffic()),
            );
            let clock = StallClock::new(Arc::clone(&core), Direction::ToApiServer);
            Ok(join(stream, server, clock).await?)
        }
        Err(response) => {
            let framing = RequestHead {
                method: Method::POST,
                target: http::Uri::default(),
                headers: http::HeaderMap::new(),
            }
            .framing();
            respond(Rewind::new(framing.into(), stream), response).await
        }
    }
}

/// Keeps what the caller sends early, and is ready when the caller is gone.
async fn gone(stream: &mut (impl AsyncRead + Unpin), early: &mut BytesMut) -> io::Error {
    while early.len() < MAX_EARLY {
        match stream.read_buf(early).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    // Enough: the rest waits in the stream.
    std::future::pending().await
}

/// Carries raw bytes both ways. What either side sent early is still in front of its stream.
async fn join<T>(caller: T, server: OnUpgrade, clock: StallClock) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let server = server.await.map_err(io::Error::other)?;
    tunnel::splice(caller, Timed::new(TokioIo::new(server), clock)).await
}

/// Answers a request that has no usable head.
async fn refuse(
    core: &Core,
    scope: &Scope,
    mut stream: impl AsyncWrite + Unpin,
    refusal: Refusal,
) -> io::Result<()> {
    let correlation = CorrelationId::generate();
    record::malformed(core, &refusal, &correlation, scope.remote);
    tracing::info!(
        status = refusal.code().as_u16(),
        correlation_id = correlation.as_str(),
        "a malformed request was refused"
    );
    let wire = refusal.into_wire(&correlation);
    tokio::time::timeout(ANSWER_LIMIT, async {
        write(&mut stream, &wire).await?;
        stream.shutdown().await
    })
    .await?
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), wire: &[u8]) -> io::Result<()> {
    stream.write_all(wire).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests;
