//! [`AgentConnection`]: one tunnel stream as one HTTP/1.1 connection to the agent.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    rt::{Read, ReadBufCursor, Write},
};
use tokio::sync::oneshot;

use super::{
    body::RequestBody,
    limits::{MAX_HEADER_BYTES, MAX_HEADERS},
    status::{Failure, Reason},
};
use crate::{
    Error, ErrorKind, Tunnel,
    proxy::{
        lifetime::Lifetime,
        streams::{KeptStream, Streams},
    },
    tunnel::{OpenOptions, Target},
};

/// How long opening a stream may take, dialling included. The tunnels of this crate give up sooner and say why; this
/// is for those from elsewhere.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// How long a finished exchange may take to close its stream in good order before it is reset.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Keeps a tunnel stream alive. Dropping it resets the stream at once, whatever its state; that is how a client that
/// goes away cancels its request at the API server.
///
/// One request per connection: streams cost nothing to open, and a reset then stops exactly one request.
pub(super) struct AgentConnection {
    closing: Arc<Closing>,
    /// Without it the HTTP library would close the stream as soon as the response has arrived.
    sender: SendRequest<RequestBody>,
    finish: oneshot::Sender<Finish>,
}

/// The exchange came to its regular end.
struct Finish;

impl AgentConnection {
    /// The stream is one of the cluster's `streams`, which may all be reset at once; then `cluster` stops too.
    pub(super) async fn open(
        tunnel: &dyn Tunnel,
        cluster: &Lifetime,
        streams: &Streams,
    ) -> Result<Self, Failure> {
        let target = Target::api_server();
        let open = tunnel.open(&target, OpenOptions::new());
        let stream = tokio::time::timeout(OPEN_LIMIT, open)
            .await
            .map_err(|_| open_timeout())?
            .map_err(|error| Failure::tunnel(&error))?;
        let closing = Arc::new(Closing::default());
        let stream = AgentStream {
            stream: streams.keep(stream),
            closing: Arc::clone(&closing),
        };
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_BYTES)
            .handshake(stream)
            .await
            .map_err(no_answer)?;

        let (finish, finished) = oneshot::channel();
        cluster.spawn(async move {
            let mut connection = std::pin::pin!(connection.with_upgrades());
            tokio::select! {
                end = finished => {
                    if let Ok(Finish) = end {
                        let _ = tokio::time::timeout(CLOSE_LIMIT, connection).await;
                    }
                }
                // Errors reach whoever waits for the response or reads its body.
                _ = &mut connection => {}
            }
        });
        Ok(Self {
            closing,
            sender,
            finish,
        })
    }

    /// Sends the only request.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Failure> {
        self.sender.send_request(request).await.map_err(no_answer)
    }

    /// Closes the stream in good order.
    pub(super) fn finish(self) {
        self.closing.allow();
        // The connection may have ended by itself.
        let _ = self.finish.send(Finish);
    }

    /// Lets half-closes through, which mean something after an upgrade.
    pub(super) fn allow_half_close(&self) {
        self.closing.allow();
    }
}

/// Whether shutting the stream down is passed on.
#[derive(Default)]
struct Closing(AtomicBool);

impl Closing {
    fn allow(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_allowed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A tunnel stream that is closed in good order only when the exchange said so.
///
/// The HTTP library closes its connection in good order even when the request was given up half-way; the far end must
/// not take that for a regular end, so here it becomes the reset that dropping the stream means.
///
/// And it forgets a response that has arrived when the request's body can not be written to its end. But a server that
/// has seen enough, of a body that is too large or of a caller without rights, answers and stops reading. So here a
/// write to somebody who does not read waits: the response still comes, or the read side tells that none will.
struct AgentStream {
    stream: KeptStream,
    closing: Arc<Closing>,
}

impl AgentStream {
    fn or_wait(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            // After an upgrade nothing is left to wait for: a reader who has gone is the end of that direction.
            Poll::Ready(Err(error))
                if error.kind() == io::ErrorKind::BrokenPipe && !self.closing.is_allowed() =>
            {
                Poll::Pending
            }
            other => other,
        }
    }
}

impl Read for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut self.stream), cx, buf)
    }
}

impl Write for AgentStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Write::poll_write(Pin::new(&mut self.stream), cx, buf);
        self.or_wait(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Write::poll_write_vectored(Pin::new(&mut self.stream), cx, bufs);
        self.or_wait(written)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.stream)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_allowed() {
            Write::poll_shutdown(Pin::new(&mut self.stream), cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

fn open_timeout() -> Failure {
    Failure::new(
        Reason::Timeout,
        format!(
            "the tunnel to the cluster did not open within {} seconds; check the network, then that the agent beside \
             the cluster runs",
            OPEN_LIMIT.as_secs()
        ),
    )
}

/// The stream broke before there was a response head.
fn no_answer(error: hyper::Error) -> Failure {
    let error = Error::new(
        ErrorKind::Network,
        "the agent beside the cluster gave no answer",
    )
    .with_source(error);
    Failure::new(
        Reason::BadGateway,
        format!(
            "{}; the request may or may not have been carried out: look at the cluster before you try again",
            error.report()
        ),
    )
}
