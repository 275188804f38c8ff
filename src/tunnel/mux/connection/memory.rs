//! [`UnreadMemory`]: what unread bytes keep in memory, on all streams together.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{
    super::{
        config::MIN_SLICE,
        entry::Entry,
        id::{BuildIdHasher, StreamId},
        state::ReceiveState,
    },
    Arriving, Connection,
};

/// The sum of all charges, which stays within the receive budget whatever the peer sends.
///
/// A slice of a receive block pins the whole block, and is charged with it. So slices are copied out of their blocks,
/// those of the stream first that has pinned for the longest, whenever the sum is above the budget. That always suffices:
/// what is copied is charged with no more than the credit of its stream, and all credit together is within the budget.
///
/// While bytes are read about as fast as they come, none is copied. Those that stand for long are copied once.
#[derive(Debug)]
pub(super) struct UnreadMemory {
    charge: usize,
    budget: usize,
    /// All streams that pin blocks, some that did, and some that are no more.
    pinning: VecDeque<StreamId>,
}

type Streams = HashMap<StreamId, Box<Entry>, BuildIdHasher>;

/// Streams that are no more are looked for when there may be more of them than of others, and than this.
const MANY_REMOVED: usize = 16;

impl UnreadMemory {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            charge: 0,
            budget: usize::try_from(budget).unwrap_or(usize::MAX),
            pinning: VecDeque::new(),
        }
    }

    /// Books a change of what one stream keeps.
    #[inline]
    pub(super) fn change(&mut self, before: usize, after: usize) {
        self.charge = self.charge - before + after;
    }

    /// A stream has left the table. Its place here is of use to nobody.
    pub(super) fn forget_removed(&mut self, streams: &Streams) {
        if self.pinning.len() > 2 * streams.len() + MANY_REMOVED {
            self.pinning.retain(|id| streams.contains_key(id));
            self.pinning.shrink_to(2 * self.pinning.len());
        }
    }

    /// Copies slices out of their blocks until the budget holds what is unread.
    #[cold]
    fn compact(&mut self, streams: &mut Streams) {
        while self.charge > self.budget
            && let Some(id) = self.pinning.front()
        {
            let receive = streams.get_mut(id).map(|entry| &mut entry.receive);
            let Some(receive) = receive else {
                self.pinning.pop_front();
                continue;
            };
            if !receive.unread.is_pinning() {
                receive.in_pinning = false;
                self.pinning.pop_front();
                continue;
            }
            let before = receive.unread.charge();
            receive.unread.compact();
            self.charge = self.charge - before + receive.unread.charge();
        }
    }
}

impl Connection {
    /// Keeps a piece of the payload that is arriving, a slice of `block` bytes. `false` where nobody wants it.
    // Inlined, as what it calls: it is a part of every frame, and one in twenty nanoseconds that a frame takes.
    #[inline]
    pub(super) fn keep(&mut self, arriving: Arriving, piece: Bytes, block: usize) -> bool {
        let Some(entry) = self.streams.get_mut(&arriving.stream) else {
            return false;
        };
        let receive = &mut entry.receive;
        if receive.state != ReceiveState::Open {
            return false;
        }
        let before = receive.unread.charge();
        // Not by the length of the piece: long payloads are cut wherever a read or a block ends.
        if (arriving.length as usize) < MIN_SLICE {
            let room = usize::try_from(receive.window.room()).unwrap_or(usize::MAX);
            let expected = room.saturating_add(arriving.remaining as usize);
            receive.unread.push_copy(&piece, expected);
        } else {
            receive.unread.push(piece, block);
            if !receive.in_pinning {
                receive.in_pinning = true;
                self.memory.pinning.push_back(arriving.stream);
            }
        }
        self.memory.change(before, receive.unread.charge());
        if self.memory.charge > self.memory.budget {
            self.memory.compact(&mut self.streams);
        }
        true
    }
}

/// What tests and fuzz targets look at.
#[cfg(any(test, fuzzing))]
impl UnreadMemory {
    /// `charge` is what was counted anew.
    pub(super) fn assert_consistent(&self, charge: usize, streams: &Streams) {
        assert_eq!(charge, self.charge);
        assert!(charge <= self.budget, "{charge} of {}", self.budget);
        let known = self.pinning.iter().filter_map(|id| streams.get(id));
        let known = known.filter(|entry| entry.receive.in_pinning).count();
        let marked = streams.values().filter(|entry| entry.receive.in_pinning);
        assert_eq!(known, marked.count());
        assert!(self.pinning.len() <= 3 * streams.len() + MANY_REMOVED);
    }
}
