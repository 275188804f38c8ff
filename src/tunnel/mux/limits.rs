//! [`Limits`]: what one end of a session holds itself and its peer to.

use std::time::Duration;

use super::{
    config::{MAX_FRAME, RECEIVE_FLOOR, SEND_FLOOR},
    settings::Settings,
};

/// A [`Config`](super::Config) in which nothing is left open.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Streams of the peer's.
    pub(super) max_streams: usize,
    /// Streams of this side's.
    pub(super) max_opened: usize,
    pub(super) max_unaccepted: usize,
    pub(super) stream_window: u64,
    pub(super) receive_budget: u64,
    pub(super) send_queue: u64,
    pub(super) send_budget: u64,
    pub(super) silence: Duration,
    pub(super) handshake_timeout: Duration,
}

impl Limits {
    /// The most that the receive side ever grants, and the most memory that unread bytes keep, receive blocks that they
    /// pin included: `UnreadMemory` sees to that. Blocks that nothing pins are beside it, 1 MiB of them at most.
    pub(super) fn effective_receive_budget(&self) -> u64 {
        self.floors(RECEIVE_FLOOR) + self.receive_pool()
    }

    /// What is left for growth once every stream has its floor: nearly half of the budget at least, however many streams
    /// there may be. Most of those are idle, and must not slow the others down.
    pub(super) fn receive_pool(&self) -> u64 {
        pool(self.receive_budget, self.floors(RECEIVE_FLOOR))
    }

    /// The most that is ever aimed at for all streams together: what one may have of the pool.
    pub(super) fn largest_target(&self) -> u64 {
        self.receive_pool() / 3 * 2
    }

    pub(super) fn send_pool(&self) -> u64 {
        pool(self.send_budget, self.floors(SEND_FLOOR))
    }

    /// What the peer is told first. The streams are those that it may open before one is accepted; MAX_STREAMS allows
    /// the others bit by bit, as they are.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            max_streams: self.max_streams.min(self.max_unaccepted) as u32,
            max_frame: MAX_FRAME as u32,
            ..Settings::INITIAL
        }
    }

    /// `floor` for every stream that both sides may have open.
    fn floors(&self, floor: u64) -> u64 {
        (self.max_streams + self.max_opened) as u64 * floor
    }
}

fn pool(budget: u64, floors: u64) -> u64 {
    budget.saturating_sub(floors).max(budget / 16 * 7)
}
