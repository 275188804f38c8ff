//! Bytes on their way to the transport.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// What one vectored write, or a few, take away.
///
/// Headers and control frames are written one after another into an arena; payloads are slices that belong to
/// whoever wrote them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    slices: VecDeque<Bytes>,
    arena: BytesMut,
    length: usize,
}

impl Batch {
    /// Appends what `write` puts into the arena.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.arena.len();
        write(&mut self.arena);
        self.length += self.arena.len() - before;
    }

    /// Appends a payload. Copies below [`MIN_PAYLOAD_SLICE`] only.
    pub(super) fn push(&mut self, payload: Bytes) {
        self.length += payload.len();
        if payload.len() < MIN_PAYLOAD_SLICE {
            self.arena.extend_from_slice(&payload);
        } else {
            self.seal();
            self.slices.push_back(payload);
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

    /// Ends filling: from here on all bytes are in slices.
    pub(super) fn seal(&mut self) {
        if !self.arena.is_empty() {
            self.slices.push_back(self.arena.split().freeze());
        }
    }

    /// Fills `target` with the first slices; returns how many those are.
    pub(super) fn io_slices<'a>(&'a self, target: &mut [IoSlice<'a>; MAX_IO_SLICES]) -> usize {
        let mut count = 0;
        for (place, slice) in target.iter_mut().zip(&self.slices) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    /// Merges the first slices into one of up to [`GATHER_LENGTH`] bytes, for a transport that takes one at a time.
    /// Copies.
    pub(super) fn gather(&mut self) {
        let [first, second, ..] = self.slices.make_contiguous() else {
            return;
        };
        if first.len() + second.len() > GATHER_LENGTH {
            return;
        }
        let mut gathered = BytesMut::with_capacity(self.length.min(GATHER_LENGTH));
        while let Some(slice) = self.slices.front() {
            if gathered.len() + slice.len() > GATHER_LENGTH {
                break;
            }
            gathered.extend_from_slice(slice);
            self.slices.pop_front();
        }
        self.slices.push_front(gathered.freeze());
    }

    /// Drops what the transport has taken.
    pub(super) fn advance(&mut self, mut written: usize) {
        debug_assert!(written <= self.length);
        self.length -= written;
        while let Some(front) = self.slices.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.slices.pop_front();
        }
    }

    /// Everything, as one piece.
    #[cfg(any(test, fuzzing))]
    pub(super) fn take(&mut self) -> Bytes {
        self.seal();
        let mut all = BytesMut::with_capacity(self.length);
        for slice in self.slices.drain(..) {
            all.extend_from_slice(&slice);
        }
        self.length = 0;
        all.freeze()
    }
}

/// Where a batch ends. Enough for few system calls; what is in a batch can not be overtaken any more.
pub(super) const BATCH_LENGTH: usize = 256 * 1024;

/// Slices in one write. More do not make a write cheaper, and the array lives on the stack.
pub(super) const MAX_IO_SLICES: usize = 64;

/// Below this, copying a payload next to its header costs less than one more slice.
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
        batch.push(Bytes::from(vec![b'x'; 1000]));
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
        assert_eq!(batch.len(), 1013);
    }

    #[test]
    fn partial_writes_and_gathering_lose_nothing() {
        let expected = filled().take();
        for step in [1, 3, 9, 10, 500, 1013] {
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
