//! What is done to the two ends, and how a fuzz target says it in bytes.

use super::super::id::Role;

/// Something that may happen at one end, or to the link.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Operation {
    Open,
    Accept,
    Write(usize),
    WriteChunk(usize),
    Read(usize),
    Watch,
    Finish,
    Reset,
    Stop,
    Drop,
    /// Any number is a priority and a weight.
    Prefer(usize),
    Probe,
    /// One batch of bytes leaves.
    Transmit,
    /// So many pieces arrive.
    Deliver(usize),
    /// Everything that is under way arrives, and all that it causes.
    Drive,
    /// Milliseconds go by.
    Wait(u64),
    /// Milliseconds that the link takes from now on.
    Latency(u64),
    /// The longest piece that the link delivers from now on.
    Fragment(usize),
}

/// One step: what, at which end, on which of its streams.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Step {
    pub(in super::super) operation: Operation,
    pub(in super::super) side: Role,
    /// Any number: the streams that the side holds are counted through it.
    pub(in super::super) choice: usize,
}

impl Step {
    /// Length of a step in bytes.
    pub(in super::super) const LENGTH: usize = 4;

    /// Every four bytes are a step.
    pub(in super::super) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let [kind, choice, high, low] = bytes;
        let number = usize::from(u16::from_be_bytes([high, low]));
        let operation = match kind >> 1 {
            0..8 => Operation::Open,
            8..18 => Operation::Accept,
            18..34 => Operation::Write(number + 1),
            34..42 => Operation::WriteChunk(number + 1),
            42..52 => Operation::Read(usize::MAX),
            52..60 => Operation::Read(number + 1),
            60..63 => Operation::Watch,
            63..68 => Operation::Finish,
            68..71 => Operation::Reset,
            71..74 => Operation::Stop,
            74..78 => Operation::Drop,
            78 => Operation::Prefer(number),
            79 => Operation::Probe,
            80..92 => Operation::Transmit,
            92..110 => Operation::Deliver(usize::from(low)),
            110..119 => Operation::Drive,
            119..122 => Operation::Wait(number as u64),
            122..125 => Operation::Latency(u64::from(low)),
            // Not much shorter: a byte at a time makes a run slow and finds what this finds.
            _ => Operation::Fragment(number + 16),
        };
        Self {
            operation,
            side: if kind & 1 == 0 {
                Role::Client
            } else {
                Role::Server
            },
            choice: usize::from(choice),
        }
    }
}
