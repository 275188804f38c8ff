//! Whose turn it is to send.

use std::collections::VecDeque;

use super::{id::StreamId, priority::Priority};

/// The order in which streams are served, after control frames of the session:
///
/// 1. control: streams with a CREDIT, STOP or RESET to send, each once however much changed;
/// 2. opening: streams that the peer does not know yet, in the order of their ids;
/// 3. sparse: interactive streams, and others that became ready with little to send, at most half of a batch;
/// 4. bulk: everything else, in turns;
/// 5. background: streams that asked for it, when there is no bulk, and one time in [`BACKGROUND_TURN`].
///
/// A stream stands at most once in `control` and once in one of the others, and it stays in the stream table while
/// it stands in one: the queues are bounded by the number of streams.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    pub(super) control: VecDeque<StreamId>,
    pub(super) opening: VecDeque<StreamId>,
    pub(super) sparse: VecDeque<StreamId>,
    pub(super) bulk: VecDeque<StreamId>,
    pub(super) background: VecDeque<StreamId>,
    /// Turns of others since the last of the background, while it waits.
    passed_over: u32,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Idle,
    Opening,
    Sparse,
    Bulk,
    Background,
}

/// A stream that becomes ready with no more than this is sparse: a keystroke, a request's head, an answer.
const SPARSE_LIMIT: usize = 4 * 1024;

/// Of so many turns the background has one, however busy the others are: it gets on, slowly.
const BACKGROUND_TURN: u32 = 15;

impl Scheduler {
    /// Puts a stream that became ready with `queued` bytes into a lane.
    pub(super) fn enter(&mut self, id: StreamId, priority: Priority, queued: usize) -> Lane {
        match priority {
            Priority::Background => self.wait_in_background(id),
            Priority::Normal if queued > SPARSE_LIMIT => self.wait_in_bulk(id),
            Priority::Normal | Priority::Interactive => {
                self.sparse.push_back(id);
                Lane::Sparse
            }
        }
    }

    /// Puts a stream that had a turn and has more to send behind the others.
    pub(super) fn enter_again(&mut self, id: StreamId, priority: Priority) -> Lane {
        match priority {
            Priority::Background => self.wait_in_background(id),
            Priority::Normal => self.wait_in_bulk(id),
            Priority::Interactive => {
                self.sparse.push_back(id);
                Lane::Sparse
            }
        }
    }

    /// Whose turn it is when the sparse lane has had its part.
    pub(super) fn next_turn(&mut self) -> Option<StreamId> {
        if self.passed_over < BACKGROUND_TURN
            && let Some(id) = self.bulk.pop_front()
        {
            self.passed_over += u32::from(!self.background.is_empty());
            return Some(id);
        }
        self.passed_over = 0;
        self.background
            .pop_front()
            .or_else(|| self.bulk.pop_front())
    }

    fn wait_in_bulk(&mut self, id: StreamId) -> Lane {
        self.bulk.push_back(id);
        Lane::Bulk
    }

    fn wait_in_background(&mut self, id: StreamId) -> Lane {
        self.background.push_back(id);
        Lane::Background
    }

    /// Whether the one who is served now is the only one with data.
    pub(super) fn is_alone(&self) -> bool {
        self.sparse.is_empty()
            && self.bulk.is_empty()
            && self.background.is_empty()
            && self.opening.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.is_alone()
    }
}
