//! Whose turn it is to send.

use std::collections::VecDeque;

use super::id::StreamId;

/// The order in which streams are served, after control frames of the session:
///
/// 1. control: streams with a CREDIT, STOP or RESET to send, each once however much changed;
/// 2. opening: streams that the peer does not know yet, in the order of their ids;
/// 3. sparse: streams that became ready with little to send, at most half of a batch;
/// 4. bulk: everything else, in turns.
///
/// A stream stands at most once in `control` and once in one of the others, and it stays in the stream table while
/// it stands in one: the queues are bounded by the number of streams.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    pub(super) control: VecDeque<StreamId>,
    pub(super) opening: VecDeque<StreamId>,
    pub(super) sparse: VecDeque<StreamId>,
    pub(super) bulk: VecDeque<StreamId>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Idle,
    Opening,
    Sparse,
    Bulk,
}

/// A stream that becomes ready with no more than this is sparse: a keystroke, a request's head, an answer.
const SPARSE_LIMIT: usize = 4 * 1024;

impl Scheduler {
    /// Puts a stream that became ready with `queued` bytes into a lane.
    pub(super) fn enter(&mut self, id: StreamId, queued: usize) -> Lane {
        if queued <= SPARSE_LIMIT {
            self.sparse.push_back(id);
            Lane::Sparse
        } else {
            self.bulk.push_back(id);
            Lane::Bulk
        }
    }

    /// Whether the one who is served now is the only one with data.
    pub(super) fn is_alone(&self) -> bool {
        self.sparse.is_empty() && self.bulk.is_empty() && self.opening.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.is_alone()
    }
}
