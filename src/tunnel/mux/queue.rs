//! Bytes of one direction of one stream that wait.

use std::{collections::VecDeque, fmt};

use bytes::{Bytes, BytesMut};

/// A queue of slices. What is pushed as `Bytes` is moved; what is pushed as a slice is copied once, next to its
/// neighbours, so that a queue of one-byte writes is one buffer.
#[derive(Default)]
pub(super) struct ByteQueue {
    chunks: VecDeque<Chunk>,
    /// Copied bytes behind all `chunks`.
    tail: BytesMut,
    length: usize,
    moved: usize,
}

struct Chunk {
    bytes: Bytes,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
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
        self.seal_tail();
        self.length += bytes.len();
        self.moved += 1;
        self.chunks.push_back(Chunk {
            bytes,
            origin: Origin::Moved,
        });
    }

    /// Copies a slice.
    pub(super) fn push_copy(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.length += bytes.len();
        if self.tail.len() >= TAIL_LENGTH {
            self.seal_tail();
        }
    }

    /// The next slice, of at most `limit` bytes.
    pub(super) fn pop(&mut self, limit: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal_tail();
        }
        let front = self.chunks.front_mut()?;
        if front.bytes.len() > limit {
            self.length -= limit;
            return Some(front.bytes.split_to(limit));
        }
        let chunk = self.chunks.pop_front()?;
        self.length -= chunk.bytes.len();
        if chunk.origin == Origin::Moved {
            self.moved -= 1;
        }
        Some(chunk.bytes)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
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
        assert_eq!(queue.pop(usize::MAX).unwrap().len(), 200);
        assert!(queue.pop(1).is_none());
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
