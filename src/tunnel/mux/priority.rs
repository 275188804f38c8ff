//! [`Priority`] and [`Weight`]: who is served before whom.

/// Whose bytes leave first where several streams have some. Each side sets it for what it sends.
///
/// Small writes of a stream that had nothing to send pass bulk by themselves, whatever their priority, unless it is
/// [`Background`](Self::Background).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Before all others, up to half of what leaves at a time.
    Interactive,
    /// In turns.
    #[default]
    Normal,
    /// When nobody else has anything to send, and one time in sixteen otherwise.
    Background,
}

/// A stream's share beside streams of the same [`Priority`]: from 1, as every stream has it, to 16 times as much.
///
/// It counts for what is sent, and for what the peer may have under way to this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u8);

impl Weight {
    /// What every stream starts with.
    pub const NORMAL: Self = Self(1);

    /// `weight` within 1 to 16.
    pub fn new(weight: u8) -> Self {
        Self(weight.clamp(1, LARGEST_WEIGHT))
    }

    /// The number.
    pub fn value(self) -> u8 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// Sixteen frames in a row are a batch: more would only make others wait.
const LARGEST_WEIGHT: u8 = 16;
