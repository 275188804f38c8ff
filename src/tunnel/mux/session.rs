//! [`Session`]: opening streams and watching over them.

use std::{fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;

use super::{code::StreamCode, failure::session_ended, shared::Shared, stream::MuxStream};
use crate::{Error, Result};

/// A handle of a session: opens streams, tells how it goes, ends it.
///
/// Clones are handles of the same session. When the last one and [`Incoming`](super::Incoming) are dropped, the
/// session goes away as by [`go_away`](Self::go_away).
#[derive(Clone)]
pub struct Session(Arc<Handle>);

/// A snapshot of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Streams that have not ended in both directions.
    pub live_streams: usize,
    /// Bytes of stream payload that were sent.
    pub bytes_sent: u64,
    /// Bytes of stream payload that were received.
    pub bytes_received: u64,
    /// The last measured round trip to the peer.
    pub round_trip_time: Option<Duration>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Handle { shared }))
    }

    /// Opens a stream; the peer receives `metadata` with it.
    ///
    /// Costs no round trip: the stream can be written at once, and the peer learns of it with the first bytes.
    /// Waits while as many streams are open as the peer allows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for metadata above 1 KiB,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the session is going away, or why it ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future opens no stream and takes nobody's turn.
    pub async fn open(&self, metadata: Bytes) -> Result<MuxStream> {
        let shared = &self.0.shared;
        loop {
            let mut waiting = pin!(shared.can_open.notified());
            // Before the look, so that nothing is missed between the look and the wait.
            waiting.as_mut().enable();
            if let Poll::Ready(opened) = shared.with(|state| state.connection.open(&metadata)) {
                // One event wakes one opener, who wakes the next: that one opens too, or makes known to the
                // connection that somebody still waits.
                shared.can_open.notify_one();
                return opened
                    .map(|id| MuxStream::new(Arc::clone(shared), id, StreamCode::CANCELLED));
            }
            waiting.await;
        }
    }

    /// Waits until the peer has introduced itself: proof that somebody who speaks this protocol is there.
    ///
    /// # Errors
    /// Why the session ended before.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ready(&self) -> Result<()> {
        self.until(|state| {
            if state.connection.is_ready() {
                return Some(Ok(()));
            }
            let (error, _) = state.connection.ended()?;
            Some(Err(session_ended(error)))
        })
        .await
    }

    /// Pings the peer and waits until anything is heard from it: proof that it is still there, for whoever has a reason
    /// to doubt it and no time to wait for the silence to be noticed. How long is for the caller to say.
    ///
    /// # Errors
    /// Why the session ended before.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is undone, and the session goes on.
    pub async fn probe(&self) -> Result<()> {
        self.0.shared.with(|state| state.connection.probe());
        self.until(|state| {
            if let Some((error, _)) = state.connection.ended() {
                return Some(Err(session_ended(error)));
            }
            (!state.connection.is_probing()).then_some(Ok(()))
        })
        .await
    }

    /// How it goes.
    pub fn status(&self) -> SessionStatus {
        self.0.shared.with(|state| state.connection.status())
    }

    /// Asks the peer to open no new streams here, and goes on as before: what the peer opens until it has heard of it
    /// is taken. So a session is left without failing a stream: [`go_away`](Self::go_away) comes a round trip later,
    /// or not at all, since a peer that was asked ends the session with its last stream. This side opens nothing new
    /// either: [`open`](Self::open) fails from then on. The peer is told `reason`, of which the first 1 KiB counts.
    pub fn announce_go_away(&self, reason: &str) {
        self.0
            .shared
            .with(|state| state.connection.announce_go_away(reason));
    }

    /// Takes no new streams, either way. The session ends when its last stream has ended. The peer is told
    /// `reason`, of which the first 1 KiB counts.
    pub fn go_away(&self, reason: &str) {
        self.0.shared.with(|state| state.connection.go_away(reason));
    }

    /// Ends the session now: every stream fails. The peer is told `reason`, of which the first 1 KiB counts.
    pub fn close(&self, reason: &str) {
        self.0.shared.with(|state| state.connection.close(reason));
    }

    /// Waits until the session has ended, and says why. The driver may need a moment more to tell the peer.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> Arc<Error> {
        self.until(|state| {
            let (error, _) = state.connection.ended()?;
            Some(Arc::clone(error))
        })
        .await
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.0.shared.with(|state| state.connection.is_closing())
    }

    /// Whether one of the sides has said that it takes no new streams, or the session has ended.
    pub fn is_going_away(&self) -> bool {
        self.0
            .shared
            .with(|state| state.connection.is_going_away() || state.connection.is_closing())
    }

    /// Waits until [`is_going_away`](Self::is_going_away): time to start another session for new streams.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn going_away(&self) {
        self.until(|state| {
            let connection = &state.connection;
            (connection.is_going_away() || connection.is_closing()).then_some(())
        })
        .await;
    }

    /// Waits until `look` finds something. Only for what is announced by `changed`.
    async fn until<R>(&self, look: impl Fn(&super::shared::State) -> Option<R>) -> R {
        let shared = &self.0.shared;
        loop {
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = shared.with(|state| look(state)) {
                return found;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_sessions());
    }
}

/// The streams that the peer opens.
///
/// When it is dropped, the streams in it and all later ones are refused.
pub struct Incoming {
    shared: Arc<Shared>,
}

impl Incoming {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next stream, or `None` when the session has ended.
    ///
    /// A peer whose streams are not accepted is kept from opening more of them.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future takes no stream.
    pub async fn accept(&mut self) -> Option<IncomingStream> {
        let (id, metadata) = poll_fn(|cx| self.shared.with(|state| state.poll_accept(cx))).await?;
        Some(IncomingStream {
            metadata,
            stream: MuxStream::new(Arc::clone(&self.shared), id, StreamCode::REFUSED),
        })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_incoming());
    }
}

/// A stream that the peer has opened. Dropped as it is, it is refused.
pub struct IncomingStream {
    metadata: Bytes,
    stream: MuxStream,
}

impl IncomingStream {
    /// What the peer sent along: at most 1 KiB of its choosing.
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// Takes the stream.
    pub fn into_stream(mut self) -> MuxStream {
        self.stream.release_with(StreamCode::CANCELLED);
        self.stream
    }

    /// Ends both directions with `code`.
    pub fn refuse(mut self, code: impl Into<StreamCode>) {
        self.stream.release_with(code.into());
    }
}

/// Without the metadata: it is the application's.
impl fmt::Debug for IncomingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream")
            .field("id", &self.stream.id())
            .finish_non_exhaustive()
    }
}
