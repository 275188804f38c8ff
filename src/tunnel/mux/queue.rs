//! Bytes that wait to be sent on one stream.

use std::{collections::VecDeque, fmt};

use bytes::{Bytes, BytesMut};

use super::spare::Spare;

/// A queue of slices. What is pushed as `Bytes` is moved; what is pushed as a slice is copied once, next to its
/// neighbours, so that a queue of one-byte writes is one buffer.
///
/// One slice needs no memory but its own: most streams have no more at a time, and most have none.
#[derive(Default)]
pub(super) struct ByteQueue {
    /// Empty only if there is nothing in `rest` either.
    first: Bytes,
    rest: Spare<Rest>,
    length: usize,
}

/// What came while there was a first slice.
#[derive(Default)]
struct Rest {
    chunks: VecDeque<Bytes>,
    /// Copied bytes behind all `chunks`.
    tail: BytesMut,
}

impl ByteQueue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes a slice as it is.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let is_first = self.is_empty();
        self.length += bytes.len();
        if is_first {
            self.first = bytes;
        } else {
            let rest = self.rest.needed();
            rest.seal_tail();
            rest.chunks.push_back(bytes);
        }
    }

    /// Copies a slice.
    pub(super) fn push_copy(&mut self, bytes: &[u8]) {
        let is_first = self.is_empty();
        self.length += bytes.len();
        if is_first {
            self.first = if bytes.len() < REUSE_FROM {
                Bytes::copy_from_slice(bytes)
            } else {
                let tail = &mut self.rest.needed().tail;
                tail.extend_from_slice(bytes);
                tail.split().freeze()
            };
        } else {
            let rest = self.rest.needed();
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
        if self.first.len() > limit {
            self.length -= limit;
            return Some(self.first.split_to(limit));
        }
        let bytes = std::mem::take(&mut self.first);
        self.length -= bytes.len();
        if !self.is_empty() {
            self.first = self.rest.needed().pop().unwrap_or_default();
        } else {
            self.rest.unneeded();
        }
        Some(bytes)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many buffers there are.
    #[cfg(test)]
    pub(super) fn slices(&self) -> usize {
        let rest = self.rest.get();
        usize::from(!self.is_empty())
            + rest.map_or(0, |rest| {
                rest.chunks.len() + usize::from(!rest.tail.is_empty())
            })
    }
}

impl Rest {
    fn pop(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal_tail();
        }
        let next = self.chunks.pop_front();
        give_back(&mut self.chunks);
        next
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

/// Gives back most of a list that was long and is not any more: a queue that is never quite empty would keep it.
pub(super) fn give_back<T>(list: &mut VecDeque<T>) {
    if list.capacity() > KEPT_PLACES && list.len() < list.capacity() / 4 {
        list.shrink_to(list.capacity() / 2);
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

/// Places in a list that are always kept: those of one round of the driver, for one of a few streams.
const KEPT_PLACES: usize = 16;

/// From here on a copy goes to a buffer that is used again when its slices are gone: fresh memory costs page faults.
const REUSE_FROM: usize = 2 * 1024;

/// Where a buffer of copied bytes ends: one frame of a connection that several streams share.
const TAIL_LENGTH: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::spare::PATIENCE, *};

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
        assert!(queue.rest.get().is_some(), "it may be needed again soon");
        for _ in 0..PATIENCE {
            queue.push_copy(b"three");
            queue.pop(usize::MAX);
        }
        assert!(queue.rest.get().is_none());
    }

    #[test]
    fn a_queue_that_is_never_empty_gives_its_list_back() {
        let mut queue = ByteQueue::default();
        for _ in 0..1000 {
            queue.push(Bytes::from_static(b"slice"));
        }
        while queue.slices() > 2 {
            queue.pop(usize::MAX);
            let rest = queue.rest.get().unwrap();
            assert!(rest.chunks.capacity() <= (4 * rest.chunks.len() + 4).max(KEPT_PLACES));
        }
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
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
