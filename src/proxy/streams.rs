//! [`Streams`]: the tunnel streams of one cluster, which can be reset whoever holds them.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::tunnel::TunnelStream;

/// The streams of a cluster that are open. Cheap to clone.
///
/// A client that does not read holds its response, and with it the stream, where nobody asks for more: the HTTP library
/// would notice the end of the cluster only when the client goes on.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Slots>>);

#[derive(Default)]
struct Slots {
    streams: HashMap<u64, Weak<Slot>>,
    next_key: u64,
    reset: bool,
}

type Slot = Mutex<Option<TunnelStream>>;

impl Streams {
    /// Keeps an eye on `stream`.
    pub(super) fn keep(&self, stream: TunnelStream) -> KeptStream {
        let mut slots = lock(&self.0);
        // A cluster that has left takes no stream any more.
        let slot = Arc::new(Mutex::new((!slots.reset).then_some(stream)));
        let key = slots.next_key;
        slots.next_key += 1;
        slots.streams.insert(key, Arc::downgrade(&slot));
        KeptStream {
            slot,
            streams: self.clone(),
            key,
        }
    }

    /// Resets all streams, those to come too.
    pub(super) fn reset(&self) {
        let streams = {
            let mut slots = lock(&self.0);
            slots.reset = true;
            std::mem::take(&mut slots.streams)
        };
        for slot in streams.into_values().filter_map(|slot| slot.upgrade()) {
            // Dropped outside of all locks but its own.
            let stream = lock(&slot).take();
            drop(stream);
        }
    }
}

/// A stream that its cluster may take away.
pub(super) struct KeptStream {
    slot: Arc<Slot>,
    streams: Streams,
    key: u64,
}

impl KeptStream {
    fn with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TunnelStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match lock(&self.slot).as_mut() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the cluster was removed from the local proxy",
            ))),
        }
    }
}

impl Drop for KeptStream {
    fn drop(&mut self) {
        lock(&self.streams.0).streams.remove(&self.key);
    }
}

impl Read for KeptStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|stream| Read::poll_read(stream, cx, buf))
    }
}

impl Write for KeptStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| Write::poll_write(stream, cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| Write::poll_write_vectored(stream, cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.slot)
            .as_ref()
            .is_some_and(Write::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| Write::poll_flush(stream, cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| Write::poll_shutdown(stream, cx))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_reset_takes_every_stream_away_and_those_to_come() {
        let streams = Streams::default();
        let (near, mut far) = duplex(16);
        let mut kept = streams.keep(TunnelStream::from_io(near));
        let (other, _far) = duplex(16);
        drop(streams.keep(TunnelStream::from_io(other)));
        assert_eq!(lock(&streams.0).streams.len(), 1);

        streams.reset();
        assert_eq!(far.read(&mut [0; 1]).await.expect("an end"), 0);
        let written = std::future::poll_fn(|cx| Pin::new(&mut kept).poll_write(cx, b"x")).await;
        let error = written.expect_err("it is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let (near, mut far) = duplex(16);
        let _late = streams.keep(TunnelStream::from_io(near));
        assert_eq!(far.read(&mut [0; 1]).await.expect("an end"), 0);
    }
}
