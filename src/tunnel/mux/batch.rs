//! Bytes on their way to the transport.

use std::{collections::VecDeque, io::IoSlice, ops::Range};

use bytes::{Buf, Bytes, BytesMut};

/// What one vectored write, or a few, take away.
///
/// Headers, control frames and short payloads are written one after another into an arena; other payloads are slices
/// that belong to whoever wrote them. The arena is used again once everything has left.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What was merged for a transport that takes one slice at a time. Before all `pieces`.
    gathered: BytesMut,
    pieces: VecDeque<Piece>,
    arena: BytesMut,
    /// Where in the arena that begins which is in no piece yet.
    unsealed: usize,
    length: usize,
}

#[derive(Debug)]
enum Piece {
    Arena(Range<usize>),
    Payload(Bytes),
}

impl Batch {
    /// Appends what `write` puts into the arena.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.arena.len();
        write(&mut self.arena);
        self.length += self.arena.len() - before;
    }

    /// Appends a payload. Copies below [`MIN_BATCH_SLICE`] only.
    pub(super) fn push(&mut self, payload: Bytes) {
        self.length += payload.len();
        if payload.len() < MIN_BATCH_SLICE {
            self.arena.extend_from_slice(&payload);
        } else {
            self.seal();
            self.pieces.push_back(Piece::Payload(payload));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.length >= BATCH_LENGTH
    }

    /// Ends filling: from here on all bytes are in pieces.
    pub(super) fn seal(&mut self) {
        let end = self.arena.len();
        if self.unsealed < end {
            self.pieces.push_back(Piece::Arena(self.unsealed..end));
            self.unsealed = end;
        }
    }

    /// Fills `target` with the first slices; returns how many those are.
    pub(super) fn io_slices<'a>(&'a self, target: &mut [IoSlice<'a>; MAX_IO_SLICES]) -> usize {
        let gathered = (!self.gathered.is_empty()).then_some(&self.gathered[..]);
        let pieces = self.pieces.iter().map(|piece| piece.bytes(&self.arena));
        let mut count = 0;
        for (place, slice) in target.iter_mut().zip(gathered.into_iter().chain(pieces)) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    /// Merges the first slices into one of up to [`GATHER_LENGTH`] bytes, for a transport that takes one at a time.
    /// Copies.
    pub(super) fn gather(&mut self) {
        if !self.gathered.is_empty() {
            return;
        }
        let mut pieces = self.pieces.iter();
        let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
            return;
        };
        if first.len() + second.len() > GATHER_LENGTH {
            return;
        }
        self.gathered.clear();
        while let Some(piece) = self.pieces.front() {
            if self.gathered.len() + piece.len() > GATHER_LENGTH {
                break;
            }
            self.gathered.extend_from_slice(piece.bytes(&self.arena));
            self.pieces.pop_front();
        }
    }

    /// Drops what the transport has taken.
    pub(super) fn advance(&mut self, mut written: usize) {
        debug_assert!(written <= self.length);
        self.length -= written;
        let of_gathered = written.min(self.gathered.len());
        self.gathered.advance(of_gathered);
        written -= of_gathered;
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > written {
                front.advance(written);
                break;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
        if self.length == 0 {
            self.arena.clear();
            self.unsealed = 0;
        }
    }

    /// Drops everything, and the memory with it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything, as one piece.
    #[cfg(any(test, fuzzing))]
    pub(super) fn take(&mut self) -> Bytes {
        self.seal();
        let mut all = std::mem::take(&mut self.gathered);
        for piece in &self.pieces {
            all.extend_from_slice(piece.bytes(&self.arena));
        }
        self.clear();
        all.freeze()
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Arena(range) => range.len(),
            Self::Payload(bytes) => bytes.len(),
        }
    }

    fn bytes<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Arena(range) => &arena[range.clone()],
            Self::Payload(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Arena(range) => range.start += count,
            Self::Payload(bytes) => bytes.advance(count),
        }
    }
}

/// Where a batch ends. Enough for few system calls; what is in a batch can not be overtaken any more.
pub(super) const BATCH_LENGTH: usize = 256 * 1024;

/// Slices in one write. More do not make a write cheaper, and the array lives on the stack.
pub(super) const MAX_IO_SLICES: usize = 64;

/// Below this, copying a payload next to its header costs less than one more slice in a write.
const MIN_BATCH_SLICE: usize = 4 * 1024;

/// Below this, a payload is copied when it is queued: a queue full of slices of one byte would hold many times its limit.
pub(super) const MIN_PAYLOAD_SLICE: usize = 512;

/// One write of a transport without vectored writes: one message of 64 KiB on a WebSocket, four TLS records.
const GATHER_LENGTH: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Batch {
        let mut batch = Batch::default();
        batch.write(|arena| arena.extend_from_slice(b"head"));
        batch.push(Bytes::from_static(b"small"));
        batch.push(Bytes::from(vec![b'x'; MIN_BATCH_SLICE]));
        batch.write(|arena| arena.extend_from_slice(b"tail"));
        batch.seal();
        batch
    }

    #[test]
    fn small_payloads_stand_beside_their_headers() {
        let batch = filled();
        let mut target = [IoSlice::new(&[]); MAX_IO_SLICES];
        assert_eq!(batch.io_slices(&mut target), 3);
        assert_eq!(&target[0][..], b"headsmall");
        assert_eq!(batch.len(), 13 + MIN_BATCH_SLICE);
    }

    #[test]
    fn partial_writes_and_gathering_lose_nothing() {
        let expected = filled().take();
        for step in [1, 3, 9, 10, 500, 13 + MIN_BATCH_SLICE] {
            for gather in [false, true] {
                let mut batch = filled();
                let mut seen = Vec::new();
                while !batch.is_empty() {
                    if gather {
                        batch.gather();
                    }
                    let mut target = [IoSlice::new(&[]); MAX_IO_SLICES];
                    let count = batch.io_slices(&mut target);
                    let all: Vec<u8> = target[..count]
                        .iter()
                        .flat_map(|slice| slice.to_vec())
                        .collect();
                    let written = step.min(all.len());
                    seen.extend_from_slice(&all[..written]);
                    batch.advance(written);
                }
                assert_eq!(seen, expected);
            }
        }
    }
}
