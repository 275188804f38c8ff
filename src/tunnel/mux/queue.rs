//! Bytes of one direction of one stream that wait.

use std::{collections::VecDeque, fmt};

use bytes::{Bytes, BytesMut};

/// A queue of slices. What is pushed as `Bytes` is moved; what is pushed as a slice is copied once, next to its
/// neighbours, so that a queue of one-byte writes is one buffer.
///
/// One slice needs no memory but its own: most streams have no more at a time, and most have none.
#[derive(Default)]
pub(super) struct ByteQueue {
    /// Empty only if there is nothing in `rest` either.
    first: Chunk,
    rest: Option<Box<Rest>>,
    length: usize,
    moved: usize,
}

/// What came while there was a first slice.
#[derive(Default)]
struct Rest {
    chunks: VecDeque<Chunk>,
    /// Copied bytes behind all `chunks`.
    tail: BytesMut,
    /// How often the queue may still become empty without having needed it. Then it is given back.
    spares: u8,
}

#[derive(Default)]
struct Chunk {
    bytes: Bytes,
    origin: Origin,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    Copied,
    Moved,
}

impl ByteQueue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many slices in here belong to a buffer of somebody else.
    pub(super) fn moved_slices(&self) -> usize {
        self.moved
    }

    /// Takes a slice as it is.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.moved += 1;
        let is_first = self.is_empty();
        self.length += bytes.len();
        let chunk = Chunk {
            bytes,
            origin: Origin::Moved,
        };
        if is_first {
            self.first = chunk;
        } else {
            let rest = self.rest();
            rest.seal_tail();
            rest.chunks.push_back(chunk);
        }
    }

    /// Copies a slice.
    pub(super) fn push_copy(&mut self, bytes: &[u8]) {
        let is_first = self.is_empty();
        self.length += bytes.len();
        if is_first {
            let bytes = if bytes.len() < REUSE_FROM {
                Bytes::copy_from_slice(bytes)
            } else {
                let tail = &mut self.rest().tail;
                tail.extend_from_slice(bytes);
                tail.split().freeze()
            };
            self.first = Chunk {
                bytes,
                origin: Origin::Copied,
            };
        } else {
            let rest = self.rest();
            rest.tail.extend_from_slice(bytes);
            if rest.tail.len() >= TAIL_LENGTH {
                rest.seal_tail();
            }
        }
    }

    /// The next slice, of at most `limit` bytes.
    pub(super) fn pop(&mut self, limit: usize) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        if self.first.bytes.len() > limit {
            self.length -= limit;
            return Some(self.first.bytes.split_to(limit));
        }
        let chunk = std::mem::take(&mut self.first);
        self.length -= chunk.bytes.len();
        if chunk.origin == Origin::Moved {
            self.moved -= 1;
        }
        if !self.is_empty() {
            self.first = self.rest().pop().unwrap_or_default();
        } else if let Some(rest) = &mut self.rest {
            match rest.spares.checked_sub(1) {
                Some(spares) => rest.spares = spares,
                None => self.rest = None,
            }
        }
        Some(chunk.bytes)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn rest(&mut self) -> &mut Rest {
        let rest = self.rest.get_or_insert_default();
        rest.spares = SPARES;
        rest
    }
}

impl Rest {
    fn pop(&mut self) -> Option<Chunk> {
        if self.chunks.is_empty() {
            self.seal_tail();
        }
        self.chunks.pop_front()
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk {
                bytes: self.tail.split().freeze(),
                origin: Origin::Copied,
            });
        }
    }
}

/// Without the bytes: they may be somebody's secret.
impl fmt::Debug for ByteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteQueue")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A busy stream now and then has one slice only; its buffers are for the next time.
const SPARES: u8 = 16;

/// From here on a copy goes to a buffer that is used again when its slices are gone: fresh memory costs page faults.
const REUSE_FROM: usize = 2 * 1024;

/// Where a buffer of copied bytes ends: one frame of a connection that several streams share.
const TAIL_LENGTH: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_copies_share_one_buffer() {
        let mut queue = ByteQueue::default();
        for byte in 0..200 {
            queue.push_copy(&[byte]);
        }
        assert_eq!(queue.pop(usize::MAX).unwrap().len(), 1);
        assert_eq!(queue.pop(usize::MAX).unwrap().len(), 199);
        assert!(queue.pop(1).is_none());
    }

    #[test]
    fn a_queue_that_had_little_in_it_holds_nothing() {
        let mut queue = ByteQueue::default();
        queue.push_copy(b"one");
        queue.push_copy(b"two");
        while queue.pop(usize::MAX).is_some() {}
        assert!(queue.rest.is_some(), "it may be needed again soon");
        for _ in 0..SPARES {
            queue.push_copy(b"three");
            queue.pop(usize::MAX);
        }
        assert!(queue.rest.is_none());
    }

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(
            operations in proptest::collection::vec((0u8..4, 0usize..40_000), 1..40)
        ) {
            let mut queue = ByteQueue::default();
            let mut model = VecDeque::<u8>::new();
            let mut next = 0u8;
            for (operation, size) in operations {
                match operation {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..size).map(|_| { next = next.wrapping_add(1); next }).collect();
                        model.extend(&bytes);
                        if operation == 0 { queue.push(Bytes::from(bytes)) } else { queue.push_copy(&bytes) }
                    }
                    _ => if let Some(bytes) = queue.pop(size.max(1)) {
                        let expected: Vec<u8> = model.drain(..bytes.len()).collect();
                        prop_assert_eq!(&bytes[..], &expected[..]);
                    } else {
                        prop_assert!(model.is_empty());
                    },
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            queue.clear();
            prop_assert_eq!((queue.len(), queue.moved_slices()), (0, 0));
        }
    }
}
