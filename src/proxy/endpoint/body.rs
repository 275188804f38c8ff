//! The two bodies of an exchange: streamed frame by frame, and aware of how they end.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    agent::AgentConnection,
    exchange::{ByteCount, Exchange},
};
use crate::proxy::{lifetime::Lifetime, request_log::RequestEnd};

/// The client's body on its way to the agent.
///
/// Clones are handles of one body. As long as nothing of it was sent it can be taken back, to send the same request
/// once more under another token.
#[derive(Clone)]
pub(super) struct RequestBody(Arc<Mutex<Upload>>);

struct Upload {
    incoming: Option<Incoming>,
    progress: Progress,
    bytes: Arc<ByteCount>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Untouched,
    Started,
    Ended,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, bytes: Arc<ByteCount>) -> Self {
        Self(Arc::new(Mutex::new(Upload {
            incoming: Some(incoming),
            progress: Progress::Untouched,
            bytes,
        })))
    }

    /// The body again, for another request, unless something of it was sent. This handle is then without one, and
    /// whoever still sends it fails.
    pub(super) fn take_back(&self) -> Option<Self> {
        let mut upload = self.lock();
        if !upload.is_repeatable() {
            return None;
        }
        let incoming = upload.incoming.take()?;
        Some(Self::new(incoming, Arc::clone(&upload.bytes)))
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.lock().is_repeatable()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().is_ended()
    }

    fn lock(&self) -> MutexGuard<'_, Upload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    fn is_ended(&self) -> bool {
        self.progress == Progress::Ended || self.incoming.as_ref().is_some_and(Body::is_end_stream)
    }

    fn is_repeatable(&self) -> bool {
        // No body at all stays untouched: nobody asks for its frames.
        self.progress == Progress::Untouched
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut upload = self.lock();
        let Some(incoming) = upload.incoming.as_mut() else {
            return Poll::Ready(Some(Err(BodyError::TakenBack)));
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        upload.progress = match &frame {
            Some(_) => Progress::Started,
            None => Progress::Ended,
        };
        if let Some(Ok(frame)) = &frame {
            upload.bytes.sent(data_length(frame));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock()
            .incoming
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// Why a body did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the client broke off the request body")]
    Client(#[source] hyper::Error),
    #[error("the request body was taken back to be sent again")]
    TakenBack,
    #[error("the response broke off in the tunnel")]
    Agent(#[source] hyper::Error),
    #[error("the cluster was removed from the local proxy")]
    Removed,
}

/// What the client gets, and the exchange that ends with it.
pub(super) struct ResponseBody {
    content: Content,
    exchange: Option<Arc<Exchange>>,
}

/// A body of our own, or the agent's as it comes.
enum Content {
    Whole(Full<Bytes>),
    Streamed(Download),
}

impl ResponseBody {
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(super) fn whole(content: Bytes) -> Self {
        Self {
            content: Content::Whole(Full::new(content)),
            exchange: None,
        }
    }

    pub(super) fn streamed(download: Download) -> Self {
        Self {
            content: Content::Streamed(download),
            exchange: None,
        }
    }

    /// From now on `exchange` counts what passes, and ends when this does.
    pub(super) fn account_to(&mut self, exchange: Arc<Exchange>) {
        self.exchange = Some(exchange);
    }

    fn end(&self, end: RequestEnd) {
        if let Some(exchange) = &self.exchange {
            exchange.end(end);
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body of known length is not polled beyond its last byte.
        if self.is_end_stream() {
            self.end(RequestEnd::Complete);
        }
    }
}

/// The agent's body on its way to the client. Dropped before its end it resets the tunnel stream, which is how the
/// API server learns that nobody watches any more.
pub(super) struct Download {
    incoming: Incoming,
    connection: Option<AgentConnection>,
    upload: RequestBody,
    cluster: Lifetime,
    removed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Held for as long as the exchange lasts.
    _permit: OwnedSemaphorePermit,
}

impl Download {
    pub(super) fn new(
        incoming: Incoming,
        connection: AgentConnection,
        upload: RequestBody,
        cluster: Lifetime,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            incoming,
            connection: Some(connection),
            upload,
            removed: Box::pin(cluster.stopped()),
            cluster,
            _permit: permit,
        }
    }

    /// The response is whole. What is left of the upload has no reader any more.
    fn settle(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.upload.is_ended()
        {
            connection.finish();
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            // The connection was dropped. The HTTP library may report that as the end of its body; what the cluster's
            // removal cut off must not look whole.
            Poll::Ready(None | Some(Err(_))) if self.cluster.is_stopped() => {
                Some(Err(BodyError::Removed))
            }
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(BodyError::Agent)),
            Poll::Pending => {
                ready!(self.removed.as_mut().poll(cx));
                Some(Err(BodyError::Removed))
            }
        };
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                // The HTTP library then breaks the client's connection or stream: no complete-looking answer.
                tracing::debug!(%error, "a response broke off");
                self.connection = None;
            }
            None => self.settle(),
        }
        Poll::Ready(frame)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body of known length is not polled beyond its last byte.
        if self.incoming.is_end_stream() {
            self.settle();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.content {
            Content::Whole(whole) => ready!(Pin::new(whole).poll_frame(cx))
                .map(|frame| frame.map_err(|never: Infallible| match never {})),
            Content::Streamed(download) => ready!(download.poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(exchange) = &this.exchange {
                    exchange.bytes().received(data_length(frame));
                }
            }
            Some(Err(BodyError::Removed)) => this.end(RequestEnd::Cut),
            Some(Err(_)) => this.end(RequestEnd::Broken),
            None => this.end(RequestEnd::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(whole) => whole.is_end_stream(),
            Content::Streamed(download) => download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(whole) => whole.size_hint(),
            Content::Streamed(download) => download.incoming.size_hint(),
        }
    }
}

fn data_length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}
