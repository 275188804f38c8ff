//! What arrived on one stream and waits to be read.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;

use super::{config::RECEIVE_FLOOR, queue::give_back, spare::Spare};

/// A queue of received bytes, with an account of the memory that they keep alive, the [`charge`](Self::charge).
///
/// What is pushed as `Bytes` is moved. It pins the whole receive block that it is a slice of, and is charged with all of
/// that, though slices may share a block. [`compact`](Self::compact) makes it a copy, when that is too dear.
///
/// What is copied stands in buffers of the queue's own. They never hold more than the credit that the peer has for the
/// stream, so that a queue which pins nothing needs no allowance beside it:
///
/// * only the last buffer has spare room, and no more than the peer may still fill;
/// * the credit of a buffer is given back when all of it is read, since it is kept until then.
///
/// One slice needs no memory but its own: most streams have no more at a time, and most have none.
#[derive(Default)]
pub(super) struct Unread {
    /// Empty only if there is nothing in `rest` either.
    first: Chunk,
    rest: Spare<Rest>,
    length: usize,
    charge: usize,
    pinned: usize,
}

/// The next bytes of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Popped {
    pub(super) bytes: Bytes,
    /// How many bytes of credit are free now: those of `bytes`, or none and later more.
    pub(super) credit: usize,
}

/// What came while there was a first slice.
#[derive(Default)]
struct Rest {
    chunks: VecDeque<Chunk>,
    /// How many of the first `chunks` pin nothing, and were looked at.
    compacted: usize,
    /// Copied bytes behind all `chunks`.
    tail: Vec<u8>,
}

#[derive(Default)]
struct Chunk {
    bytes: Bytes,
    /// Of memory that is kept, until all `bytes` are gone.
    charge: u32,
    origin: Origin,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    Copied,
    Moved,
}

impl Unread {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes of memory are kept.
    #[inline]
    pub(super) fn charge(&self) -> usize {
        self.charge
    }

    /// Whether there is anything to [`compact`](Self::compact).
    pub(super) fn is_pinning(&self) -> bool {
        self.pinned > 0
    }

    /// Takes a slice as it is. It pins `block` bytes.
    #[inline]
    pub(super) fn push(&mut self, bytes: Bytes, block: usize) {
        if bytes.is_empty() {
            return;
        }
        let is_first = self.is_empty();
        self.length += bytes.len();
        self.pinned += 1;
        let chunk = Chunk {
            bytes,
            charge: charge(block),
            origin: Origin::Moved,
        };
        self.charge += chunk.charge as usize;
        if is_first {
            self.first = chunk;
        } else {
            self.seal();
            self.rest.needed().chunks.push_back(chunk);
        }
    }

    /// Copies a slice, behind which the peer may send `expected` bytes.
    pub(super) fn push_copy(&mut self, bytes: &[u8], expected: usize) {
        if bytes.is_empty() {
            return;
        }
        let is_first = self.is_empty();
        self.length += bytes.len();
        if is_first {
            self.charge += bytes.len();
            self.first = Chunk::copied(Bytes::copy_from_slice(bytes));
            return;
        }
        if self.rest.needed().tail.len() + bytes.len() > BUFFER_LENGTH {
            self.seal();
        }
        let tail = &mut self.rest.needed().tail;
        let before = tail.capacity();
        let needed = tail.len() + bytes.len();
        if before < needed {
            let wanted = (GROWTH * before).clamp(SMALLEST_BUFFER, BUFFER_LENGTH);
            let wanted = wanted.min(needed.saturating_add(expected)).max(needed);
            tail.reserve_exact(wanted - tail.len());
        }
        tail.extend_from_slice(bytes);
        self.charge += self.tail_capacity() - before;
    }

    /// Gives spare room back: what comes next is not copied, or nothing comes.
    pub(super) fn seal(&mut self) {
        if let Some(rest) = self.rest.get_mut() {
            self.charge -= rest.seal();
        }
    }

    /// The next slice, of at most `limit` bytes.
    #[inline]
    pub(super) fn pop(&mut self, limit: usize) -> Option<Popped> {
        if self.is_empty() {
            return None;
        }
        let first = &mut self.first;
        if first.bytes.len() > limit {
            self.length -= limit;
            return Some(Popped {
                bytes: first.bytes.split_to(limit),
                credit: match first.origin {
                    Origin::Moved => limit,
                    Origin::Copied => 0,
                },
            });
        }
        let Chunk {
            bytes,
            charge,
            origin,
        } = std::mem::take(first);
        self.length -= bytes.len();
        self.charge -= charge as usize;
        let credit = match origin {
            Origin::Moved => {
                self.pinned -= 1;
                bytes.len()
            }
            Origin::Copied => charge as usize,
        };
        self.refill();
        Some(Popped { bytes, credit })
    }

    /// Copies the oldest slice that pins a block, and small ones behind it, so that they pin none any more.
    ///
    /// No byte is copied twice by this, however often it is called, and nothing is looked at twice.
    pub(super) fn compact(&mut self) {
        if self.first.origin == Origin::Moved {
            let before = self.first.charge;
            self.first = Chunk::copied(Bytes::copy_from_slice(&self.first.bytes));
            self.charge = self.charge - before as usize + self.first.charge as usize;
            self.pinned -= 1;
        } else if let Some(rest) = self.rest.get_mut()
            && let Some(packed) = rest.compact()
        {
            self.charge = self.charge - packed.before + packed.after;
            self.pinned -= packed.slices;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Puts the next chunk to the front.
    fn refill(&mut self) {
        if self.is_empty() {
            self.rest.unneeded();
            return;
        }
        let rest = self.rest.needed();
        let spare = if rest.chunks.is_empty() {
            rest.seal()
        } else {
            0
        };
        let next = rest.pop();
        self.charge -= spare;
        self.first = next;
    }

    fn tail_capacity(&self) -> usize {
        self.rest.get().map_or(0, |rest| rest.tail.capacity())
    }
}

/// What was copied together.
struct Packed {
    slices: usize,
    before: usize,
    after: usize,
}

impl Rest {
    fn pop(&mut self) -> Chunk {
        let next = self.chunks.pop_front().unwrap_or_default();
        self.compacted = self.compacted.saturating_sub(1);
        give_back(&mut self.chunks);
        next
    }

    /// Makes a chunk of the tail. Returns how much room it had to spare.
    fn seal(&mut self) -> usize {
        let mut tail = std::mem::take(&mut self.tail);
        let before = tail.capacity();
        tail.shrink_to_fit();
        let spare = before - tail.len();
        if !tail.is_empty() {
            self.chunks.push_back(Chunk::copied(tail.into()));
        }
        spare
    }

    fn compact(&mut self) -> Option<Packed> {
        loop {
            let start = self.compacted;
            let run = self.chunks.range(start..);
            let mut packed = Packed {
                slices: 0,
                before: 0,
                after: 0,
            };
            let mut end = start;
            for chunk in run {
                if end > start && packed.after + chunk.bytes.len() > BUFFER_LENGTH {
                    break;
                }
                packed.slices += usize::from(chunk.origin == Origin::Moved);
                packed.before += chunk.charge as usize;
                packed.after += chunk.bytes.len();
                end += 1;
            }
            if end == start {
                return None;
            }
            if packed.slices == 0 {
                self.compacted = end;
                continue;
            }
            let mut buffer = Vec::with_capacity(packed.after);
            buffer.extend_from_slice(&self.chunks[start].bytes);
            for chunk in self.chunks.drain(start + 1..end) {
                buffer.extend_from_slice(&chunk.bytes);
            }
            self.chunks[start] = Chunk::copied(buffer.into());
            self.compacted = start + 1;
            give_back(&mut self.chunks);
            return Some(packed);
        }
    }
}

impl Chunk {
    fn copied(bytes: Bytes) -> Self {
        Self {
            charge: charge(bytes.len()),
            bytes,
            origin: Origin::Copied,
        }
    }
}

/// Buffers and blocks are far below 4 GiB.
fn charge(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Without the bytes: they may be somebody's secret.
impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread")
            .field("length", &self.length)
            .field("charge", &self.charge)
            .finish_non_exhaustive()
    }
}

/// What tests and fuzz targets look at.
#[cfg(any(test, fuzzing))]
impl Unread {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Counts anew: the bytes, what is kept for them, and what of that is pinned.
    pub(super) fn recount(&self) -> Recount {
        let rest = self.rest.get().into_iter().flat_map(|rest| &rest.chunks);
        let chunks = || std::iter::once(&self.first).chain(rest.clone());
        let moved = || chunks().filter(|chunk| chunk.origin == Origin::Moved);
        let tail = self.rest.get().map_or(0, |rest| rest.tail.len());
        let compacted = self.rest.get().map_or(0, |rest| rest.compacted);
        assert!(
            rest.clone()
                .take(compacted)
                .all(|chunk| chunk.origin == Origin::Copied)
        );
        assert_eq!(self.pinned, moved().count());
        Recount {
            length: chunks().map(|chunk| chunk.bytes.len()).sum::<usize>() + tail,
            charge: chunks().map(|chunk| chunk.charge as usize).sum::<usize>()
                + self.tail_capacity(),
            pinned: self.pinned,
            pinned_length: moved().map(|chunk| chunk.bytes.len()).sum(),
            pinned_charge: moved().map(|chunk| chunk.charge as usize).sum(),
        }
    }
}

#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(super) struct Recount {
    pub(super) length: usize,
    pub(super) charge: usize,
    pub(super) pinned: usize,
    pub(super) pinned_length: usize,
    pub(super) pinned_charge: usize,
}

/// Where a buffer of copied bytes ends. The credit of a buffer comes back as one: half of the least window, so that the
/// peer fills the other half meanwhile.
const BUFFER_LENGTH: usize = RECEIVE_FLOOR as usize / 2;

/// Where a buffer begins: a few keystrokes, or what is expected if that is less.
const SMALLEST_BUFFER: usize = 512;

/// How much longer a full buffer becomes: it has grown twice when it ends.
const GROWTH: usize = 4;

#[cfg(test)]
mod tests;
