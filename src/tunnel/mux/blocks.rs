//! Where the transport writes what it received.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::config::RECEIVE_BLOCK;

/// Receive blocks, used again once all slices of them are gone: fresh ones would cost page faults.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    current: Option<BytesMut>,
    retired: VecDeque<BytesMut>,
}

/// Blocks that are kept for later: 1 MiB in all, with the current one. They are what a session may hold beside its receive
/// budget, in which blocks count that unread bytes pin.
const MAX_RETIRED: usize = 7;

/// With less room than this a block is retired: smaller reads would cost more system calls than a block.
const MIN_READ: usize = 16 * 1024;

impl Blocks {
    /// A buffer, empty, with room for at least [`MIN_READ`] bytes.
    pub(super) fn writable(&mut self) -> &mut BytesMut {
        let usable = self.current.take().and_then(|mut block| {
            // Back to its beginning whenever nobody holds a slice: what was read last is still in a cache.
            if block.try_reclaim(RECEIVE_BLOCK) || block.capacity() >= MIN_READ {
                return Some(block);
            }
            self.retired.push_back(block);
            None
        });
        let block = usable.unwrap_or_else(|| self.reclaim_or_allocate());
        self.current.insert(block)
    }

    fn reclaim_or_allocate(&mut self) -> BytesMut {
        // The newest first: its memory is the most likely to be in a cache.
        let free = self
            .retired
            .iter_mut()
            .rposition(|block| block.try_reclaim(RECEIVE_BLOCK))
            .and_then(|index| self.retired.remove(index));
        if self.retired.len() > MAX_RETIRED {
            self.retired.pop_front();
        }
        free.unwrap_or_else(|| BytesMut::with_capacity(RECEIVE_BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(blocks: &mut Blocks) -> bytes::Bytes {
        let block = blocks.writable();
        block.resize(block.capacity(), 7);
        block.split().freeze()
    }

    #[test]
    fn a_block_is_used_again_when_its_slices_are_gone() {
        let mut blocks = Blocks::default();
        let first = fill(&mut blocks);
        let address = first.as_ptr();
        let second = fill(&mut blocks);
        assert_ne!(second.as_ptr(), address);
        drop(first);
        assert_eq!(fill(&mut blocks).as_ptr(), address);
    }

    #[test]
    fn few_blocks_are_kept() {
        let mut blocks = Blocks::default();
        let pinned: Vec<_> = (0..3 * MAX_RETIRED).map(|_| fill(&mut blocks)).collect();
        assert_eq!(blocks.retired.len(), MAX_RETIRED);
        assert!(
            pinned
                .iter()
                .all(|slice| slice.iter().all(|byte| *byte == 7))
        );
    }
}
