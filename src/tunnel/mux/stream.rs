//! [`MuxStream`]: one stream of a session.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    code::StreamCode,
    failure::StreamFailure,
    id::StreamId,
    priority::{Priority, Weight},
    shared::{Shared, State},
};
use crate::Result;

/// One stream of a session: bytes in both directions, each of which ends on its own.
///
/// * [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends the sending direction with an end of file. What was
///   written is sent also when the stream is dropped right after.
/// * Dropping a stream that was not shut down resets its sending direction: the peer's reader fails. Dropping one
///   that was not read to its end asks the peer to stop: its writer fails.
/// * When the session ends, reading fails unless the end of file had arrived: what was read is never taken for all.
///
/// The directions may be used from different tasks, as by [`tokio::io::split`]. A flush does nothing: what
/// was written leaves as soon as the transport takes it.
///
/// A writer waits once 256 KiB (by default) wait in the stream. A reader takes credit back by reading: a stream that
/// is not read stops its own sender and nobody else's.
///
/// The [`io::Error`]s have a [`StreamFailure`] inside.
pub struct MuxStream {
    shared: Arc<Shared>,
    id: StreamId,
    release_code: StreamCode,
}

impl MuxStream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId, release_code: StreamCode) -> Self {
        Self {
            shared,
            id,
            release_code,
        }
    }

    /// The number of the stream within its session.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The next bytes that arrived, `None` at the end of file. Copies nothing: the bytes are a slice of what the
    /// transport delivered, of any length above 0.
    ///
    /// # Errors
    /// When the peer has reset the stream or the session has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future takes no bytes.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// Queues `chunk`, waiting for room. Copies nothing, unless `chunk` is shorter than 512 bytes.
    ///
    /// The chunk is queued whole, as soon as there is any room: large chunks make the queue longer than its limit.
    ///
    /// # Errors
    /// When the peer has stopped reading, this side has finished the stream, or the session has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future has queued all of the chunk or nothing. To keep the chunk, poll with
    /// [`poll_write_chunk`](Self::poll_write_chunk).
    pub async fn write_chunk(&mut self, mut chunk: Bytes) -> Result<()> {
        poll_fn(|cx| self.poll_write_chunk(cx, &mut chunk)).await
    }

    /// The polling form of [`read_chunk`](Self::read_chunk).
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.poll_read_up_to(cx, usize::MAX).map_err(Into::into)
    }

    /// The polling form of [`write_chunk`](Self::write_chunk): takes all of `chunk` and leaves it empty, or nothing.
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<()>> {
        let id = self.id;
        self.shared
            .with_sending(id, |state| {
                state.poll_write(id, cx, |connection| connection.write_chunk(id, chunk))
            })
            .map_err(Into::into)
    }

    /// Whose turn it is when several streams of this side have something to send. Counts from the stream's next turn on.
    pub fn set_priority(&mut self, priority: Priority) {
        let id = self.id;
        self.shared
            .with(|state| state.connection.set_priority(id, priority));
    }

    /// The stream's share beside streams of the same priority: of what this side sends, and of what the peer may have
    /// under way to it.
    pub fn set_weight(&mut self, weight: Weight) {
        let id = self.id;
        self.shared
            .with(|state| state.connection.set_weight(id, weight));
    }

    /// Ends the sending direction without an end of file; what was written and not sent is dropped. Does nothing to
    /// a direction that has ended.
    pub fn reset(&mut self, code: impl Into<StreamCode>) {
        let code = code.into();
        self.shared
            .with(|state| state.connection.reset(self.id, code));
    }

    /// Reads no more: drops what arrived and asks the peer to send nothing. Does nothing to a direction that has
    /// ended.
    pub fn stop(&mut self, code: impl Into<StreamCode>) {
        let code = code.into();
        self.shared
            .with(|state| state.connection.stop(self.id, code));
    }

    /// Resolves once the peer has given the stream up, by a RESET or a STOP ahead of the end, or the session has ended;
    /// also while nobody reads or writes. After the stream itself was dropped it may never resolve.
    ///
    /// Of several for one stream only the one that was polled last is woken.
    pub fn aborted(&self) -> impl Future<Output = ()> + Send + use<> {
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        poll_fn(move |cx| shared.with(|state| state.poll_aborted(id, cx)))
    }

    /// Sets with which code a drop ends what had not ended.
    pub(super) fn release_with(&mut self, code: StreamCode) {
        self.release_code = code;
    }

    fn poll_read_up_to(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, StreamFailure>> {
        self.shared
            .with(|state| state.poll_read(self.id, cx, limit))
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(bytes) = ready!(self.poll_read_up_to(cx, buffer.remaining()))? {
            buffer.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let id = self.id;
        self.shared
            .with_sending(id, |state| write_slices(state, id, cx, slices))
            .map_err(Into::into)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let id = self.id;
        let finished = self
            .shared
            .with_sending(id, |state| state.connection.finish(id));
        Poll::Ready(finished.map_err(Into::into))
    }
}

impl fmt::Debug for MuxStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxStream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        self.shared
            .with(|state| state.release(self.id, self.release_code));
    }
}

/// Copies slice after slice, as far as there is room; waits only when nothing was taken.
fn write_slices(
    state: &mut State,
    id: StreamId,
    cx: &Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<Result<usize, StreamFailure>> {
    let mut written = 0;
    for slice in slices.iter().filter(|slice| !slice.is_empty()) {
        match state.poll_write(id, cx, |connection| connection.write(id, slice)) {
            Poll::Ready(Ok(taken)) => {
                written += taken;
                if taken < slice.len() {
                    break;
                }
            }
            _ if written > 0 => break,
            other => return other,
        }
    }
    Poll::Ready(Ok(written))
}
