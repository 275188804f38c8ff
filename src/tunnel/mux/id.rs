//! Who opened which stream.

use std::{
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

/// Which end of the pipe this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that dialled. Its streams have odd ids.
    Client,
    /// The side that was dialled. Its streams have even ids.
    Server,
}

impl Role {
    pub(super) fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The number of a stream within its session. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// As it stands in a frame header. Never 0: that number means the session itself.
    pub fn value(self) -> u32 {
        self.0
    }

    /// The `index`th stream (from 0) that `opener` opens. The caller keeps `index` below [`MAX_STREAM_COUNT`].
    pub(super) fn nth(opener: Role, index: u64) -> Self {
        debug_assert!(index < MAX_STREAM_COUNT, "stream ids are exhausted");
        let index = index as u32;
        match opener {
            Role::Client => Self(2 * index + 1),
            Role::Server => Self(2 * index + 2),
        }
    }

    pub(super) fn from_wire(value: u32) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }

    pub(super) fn opener(self) -> Role {
        if self.0 & 1 == 1 {
            Role::Client
        } else {
            Role::Server
        }
    }

    /// The inverse of [`nth`](Self::nth).
    pub(super) fn index(self) -> u64 {
        u64::from((self.0 - 1) / 2)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many streams one side can open in a session: ids have 32 bits, one of which names the opener.
pub(super) const MAX_STREAM_COUNT: u64 = (1 << 31) - 1;

/// Hashes a [`StreamId`]. Ids are handed out in order by rule, so a peer can not choose colliding ones and the
/// keyed hash of the standard library would protect against nothing.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, value: u32) {
        // The table looks at the high bits too: spread the few low ones over the word.
        self.0 = u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type BuildIdHasher = BuildHasherDefault<IdHasher>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_their_opener_and_their_place() {
        for (opener, first) in [(Role::Client, 1), (Role::Server, 2)] {
            assert_eq!(StreamId::nth(opener, 0).value(), first);
            for index in [0, 1, 2, 1000, MAX_STREAM_COUNT - 1] {
                let id = StreamId::nth(opener, index);
                assert_eq!(id.opener(), opener);
                assert_eq!(id.index(), index);
            }
        }
        assert_eq!(StreamId::from_wire(0), None);
    }
}
