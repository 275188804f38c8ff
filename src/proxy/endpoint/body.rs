//! The two bodies of an exchange: streamed frame by frame, and aware of how they end.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::agent::AgentConnection;

/// The client's body on its way to the agent.
///
/// Clones are handles of one body. As long as nothing of it was sent it can be taken back, to send the same request
/// once more under another token.
#[derive(Clone)]
pub(super) struct RequestBody(Arc<Mutex<Upload>>);

struct Upload {
    incoming: Option<Incoming>,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Untouched,
    Started,
    Ended,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Upload {
            incoming: Some(incoming),
            progress: Progress::Untouched,
        })))
    }

    /// The body again, for another request, unless something of it was sent. This handle is then without one, and
    /// whoever still sends it fails.
    pub(super) fn take_back(&self) -> Option<Self> {
        let mut upload = self.lock();
        if !upload.is_repeatable() {
            return None;
        }
        upload.incoming.take().map(Self::new)
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

/// Why a request body did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the client broke off the request body")]
    Client(#[source] hyper::Error),
    #[error("the request body was taken back to be sent again")]
    TakenBack,
}

/// What the client gets: a body of our own, or the agent's as it comes.
pub(super) enum ResponseBody {
    Whole(Full<Bytes>),
    Streamed(Download),
}

impl ResponseBody {
    pub(super) fn empty() -> Self {
        Self::Whole(Full::default())
    }
}

/// The agent's body on its way to the client. Dropped before its end it resets the tunnel stream, which is how the
/// API server learns that nobody watches any more.
pub(super) struct Download {
    incoming: Incoming,
    connection: Option<AgentConnection>,
    upload: RequestBody,
    /// Held for as long as the exchange lasts.
    _permit: OwnedSemaphorePermit,
}

impl Download {
    pub(super) fn new(
        incoming: Incoming,
        connection: AgentConnection,
        upload: RequestBody,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            incoming,
            connection: Some(connection),
            upload,
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
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole)
                .poll_frame(cx)
                .map_err(|never: Infallible| match never {}),
            Self::Streamed(download) => {
                let frame = ready!(Pin::new(&mut download.incoming).poll_frame(cx));
                match &frame {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        // The HTTP library then breaks the client's connection or stream: no complete-looking answer.
                        tracing::debug!(%error, "the response broke off in the tunnel");
                        download.connection = None;
                    }
                    None => download.settle(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Streamed(download) => download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Streamed(download) => download.incoming.size_hint(),
        }
    }
}
