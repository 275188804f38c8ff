//! [`Outbox`]: what waits to be written to a socket.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Bytes in their order, partly copied and partly shared with whoever received them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Before `tail`. None is empty.
    front: VecDeque<Bytes>,
    front_len: usize,
    tail: BytesMut,
}

/// Payloads of at least this length are shared. Each holds on to the block that it was read into, which is a few times as
/// long at most; and a shorter one is copied sooner than it is kept track of.
pub(super) const MIN_SHARED: usize = 8 * 1024;

/// Slices of one system call: more than wait in an outbox as a rule, headers and all.
const MAX_SLICES: usize = 16;

/// What the tail may keep when nothing waits: headers and small messages. The rest would be held by each of thousands of
/// idle sockets.
const MAX_KEPT: usize = 4 * 1024;

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.front_len + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where bytes are appended.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends without a copy.
    pub(super) fn share(&mut self, bytes: Bytes) {
        for slice in [self.tail.split().freeze(), bytes] {
            if !slice.is_empty() {
                self.front_len += slice.len();
                self.front.push_back(slice);
            }
        }
    }

    /// Gives memory back that only a busy socket needs, if nothing waits.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() && self.tail.capacity() > MAX_KEPT {
            self.tail = BytesMut::new();
        }
    }

    /// Writes what `io` takes at once, and forgets it. There must be something to write.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        let written = match self.front.front() {
            None => ready!(io.poll_write(cx, &self.tail))?,
            Some(_) if io.is_write_vectored() => {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let waiting = self.front.iter().map(|slice| &slice[..]);
                let mut count = 0;
                for (slot, slice) in slices.iter_mut().zip(waiting.chain([&self.tail[..]])) {
                    *slot = IoSlice::new(slice);
                    count += 1;
                }
                ready!(io.poll_write_vectored(cx, &slices[..count]))?
            }
            Some(first) => ready!(io.poll_write(cx, first))?,
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.front.front_mut() {
            let part = written.min(first.len());
            first.advance(part);
            self.front_len -= part;
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.front.pop_front();
        }
        self.tail.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes a few bytes at a time, vectored or not.
    struct Sink {
        taken: Vec<u8>,
        at_once: usize,
        is_vectored: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.at_once);
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<_> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.poll_write(cx, &all)
        }

        fn is_write_vectored(&self) -> bool {
            self.is_vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..50)), 0..40),
            at_once in 1usize..200,
            is_vectored: bool,
        ) {
            let mut sink = Sink { taken: Vec::new(), at_once, is_vectored };
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for (index, (is_shared, piece)) in pieces.into_iter().enumerate() {
                expected.extend_from_slice(&piece);
                if is_shared {
                    outbox.share(piece.into());
                } else {
                    outbox.tail().extend_from_slice(&piece);
                }
                if index % 3 == 0 && !outbox.is_empty() {
                    prop_assert!(matches!(outbox.poll_write(&mut sink, &mut cx), Poll::Ready(Ok(1..))));
                }
                prop_assert_eq!(sink.taken.len() + outbox.len(), expected.len());
            }
            while !outbox.is_empty() {
                prop_assert!(matches!(outbox.poll_write(&mut sink, &mut cx), Poll::Ready(Ok(1..))));
            }
            prop_assert_eq!(sink.taken, expected);
        }
    }

    #[test]
    fn an_empty_outbox_keeps_little() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(&[0; 2 * MAX_KEPT]);
        outbox.shrink();
        assert_eq!(outbox.len(), 2 * MAX_KEPT, "it waits");
        outbox.advance(2 * MAX_KEPT);
        outbox.shrink();
        assert_eq!(outbox.tail.capacity(), 0);
    }
}
