//! What the application wants.

use std::task::Poll;

use bytes::Bytes;

use super::super::{
    batch::MIN_PAYLOAD_SLICE,
    code::{CloseCode, StreamCode},
    config::MAX_METADATA,
    control_budget::TOKENS_FOR_STREAM,
    entry::{Entry, Owner},
    failure::{StreamFailure, session_ended},
    flow::{ReceiveWindow, SendWindow},
    id::{MAX_STREAM_COUNT, StreamId},
    priority::{Priority, Weight},
    schedule::Lane,
    state::{ReceiveState, ResetCause, SendState},
};
use super::{Connection, Ending, Event, Leave, reason};
use crate::{Error, ErrorKind, Result};

impl Connection {
    /// Opens a stream. Sends nothing by itself: the OPEN rides on the first data, or goes alone if there is none
    /// when the next bytes leave.
    pub(in super::super) fn open(&mut self, metadata: &Bytes) -> Poll<Result<StreamId>> {
        if let Some((error, _)) = self.ended() {
            return Poll::Ready(Err(session_ended(error)));
        }
        if self.opens_nothing() {
            return Poll::Ready(Err(Error::new(
                ErrorKind::Closed,
                "the tunnel session is going away and takes no new streams",
            )));
        }
        if metadata.len() > MAX_METADATA {
            return Poll::Ready(Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "stream metadata of {} bytes is above the limit of {MAX_METADATA}",
                    metadata.len()
                ),
            )));
        }
        if self.local.opened >= MAX_STREAM_COUNT {
            self.go_away("stream ids are used up");
            return Poll::Ready(Err(Error::new(
                ErrorKind::Closed,
                "the tunnel session has used up its stream ids",
            )));
        }
        if !self.can_open() {
            self.local.opener_waits = true;
            return Poll::Pending;
        }
        let id = StreamId::nth(self.role, self.local.opened);
        self.local.opened += 1;
        self.control.earn(TOKENS_FOR_STREAM);
        let mut entry = Entry::new(
            id,
            Owner::Handle,
            Some(metadata.clone()),
            SendWindow::new(u64::from(self.peer_settings().initial_stream_window)),
            ReceiveWindow::new(
                u64::from(self.limits.settings().initial_stream_window),
                self.limits.stream_window,
            ),
        );
        entry.lane = Lane::Opening;
        self.scheduler.opening.push_back(id);
        self.insert(entry);
        self.update_credit(id);
        Poll::Ready(Ok(id))
    }

    /// The next stream of the peer's, with its metadata; `None` once the session has ended.
    pub(in super::super) fn accept(&mut self) -> Poll<Option<(StreamId, Bytes)>> {
        loop {
            if self.is_closing() {
                return Poll::Ready(None);
            }
            let Some(id) = self.remote.unaccepted.pop_front() else {
                self.remote.acceptor_waits = true;
                return Poll::Pending;
            };
            self.offer_streams();
            let Some(entry) = self.streams.get_mut(&id) else {
                continue;
            };
            let owner = std::mem::replace(&mut entry.owner, Owner::Handle);
            if let ReceiveState::Reset(code) = entry.receive.state {
                // The peer thought better of it while the stream waited.
                self.release(id, code);
                continue;
            }
            if let Owner::Waiting(metadata) = owner {
                return Poll::Ready(Some((id, metadata)));
            }
        }
    }

    /// Up to `limit` bytes (at least 1) that arrived on a stream; `None` at its end.
    pub(in super::super) fn read(
        &mut self,
        id: StreamId,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, StreamFailure>> {
        let Some(entry) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamFailure::EndedHere));
        };
        let receive = &mut entry.receive;
        let before = receive.unread.charge();
        if let Some(popped) = receive.unread.pop(limit) {
            self.memory.change(before, receive.unread.charge());
            receive
                .window
                .consume(popped.credit as u64, &mut self.receive_budget);
            self.update_credit(id);
            return Poll::Ready(Ok(Some(popped.bytes)));
        }
        match receive.state {
            ReceiveState::Finished => Poll::Ready(Ok(None)),
            ReceiveState::Reset(code) => Poll::Ready(Err(StreamFailure::Reset(code))),
            ReceiveState::Stopped | ReceiveState::Discarded => {
                Poll::Ready(Err(StreamFailure::EndedHere))
            }
            ReceiveState::Open => match &self.closing {
                Some(closing) => Poll::Ready(Err(StreamFailure::Session(closing.error.clone()))),
                None => {
                    receive.reader_waits = true;
                    Poll::Pending
                }
            },
        }
    }

    /// Ready once the peer has given the stream up before its end, the session has ended, or nobody holds it any more.
    pub(in super::super) fn aborted(&mut self, id: StreamId) -> Poll<()> {
        let Some(entry) = self.streams.get_mut(&id) else {
            return Poll::Ready(());
        };
        if self.closing.is_some() || entry.owner == Owner::Released || entry.is_aborted_by_peer() {
            return Poll::Ready(());
        }
        entry.abort_watched = true;
        Poll::Pending
    }

    /// Copies as much of `data` (not empty) into the stream's send queue as there is room for.
    pub(in super::super) fn write(
        &mut self,
        id: StreamId,
        data: &[u8],
    ) -> Poll<Result<usize, StreamFailure>> {
        let room = match self.poll_room(id) {
            Poll::Ready(Ok(room)) => room,
            Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            Poll::Pending => return Poll::Pending,
        };
        let length = data.len().min(room);
        self.enqueue(id, |entry| entry.send.queue.push_copy(&data[..length]));
        Poll::Ready(Ok(length))
    }

    /// Moves all of `chunk` into the stream's send queue once there is any room: the queue may be longer than its
    /// limit by one chunk, whose memory the caller had already. Copies below [`MIN_PAYLOAD_SLICE`]: a queue full of
    /// slices of one byte would hold many times its limit, and they are copied on their way out anyhow.
    pub(in super::super) fn write_chunk(
        &mut self,
        id: StreamId,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), StreamFailure>> {
        match self.poll_room(id) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            Poll::Pending => return Poll::Pending,
        }
        let chunk = std::mem::take(chunk);
        self.enqueue(id, |entry| {
            if chunk.len() < MIN_PAYLOAD_SLICE {
                entry.send.queue.push_copy(&chunk);
            } else {
                entry.send.queue.push(chunk);
            }
        });
        Poll::Ready(Ok(()))
    }

    /// Where the stream stands when several have something to send. Counts from its next turn on.
    pub(in super::super) fn set_priority(&mut self, id: StreamId, priority: Priority) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.priority = priority;
        }
    }

    /// How much of everything the stream has beside its equals.
    pub(in super::super) fn set_weight(&mut self, id: StreamId, weight: Weight) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.weight = weight;
            entry.receive.window.set_weight(weight);
        }
    }

    /// Ends the sending direction with an end of file, behind what was written.
    pub(in super::super) fn finish(&mut self, id: StreamId) -> Result<(), StreamFailure> {
        let Some(entry) = self.streams.get_mut(&id) else {
            return Err(StreamFailure::EndedHere);
        };
        match entry.send.state {
            SendState::Finished => return Ok(()),
            SendState::Open | SendState::Finishing => {}
            _ => return entry.send.failure().map_or(Ok(()), Err),
        }
        if let Some(closing) = &self.closing {
            return Err(StreamFailure::Session(closing.error.clone()));
        }
        entry.send.state = SendState::Finishing;
        entry.schedule(&mut self.scheduler);
        self.wake_writer(id);
        Ok(())
    }

    /// Ends the sending direction without an end of file. Written bytes that have not left are dropped.
    pub(in super::super) fn reset(&mut self, id: StreamId, code: StreamCode) {
        self.begin_reset(id, code, ResetCause::Local);
    }

    /// Ends the receiving direction: asks the peer to send nothing more.
    pub(in super::super) fn stop(&mut self, id: StreamId, code: StreamCode) {
        self.begin_stop(id, code);
        self.settle(id);
    }

    /// The application lets go. What was finished still leaves, anything else ends early.
    pub(in super::super) fn release(&mut self, id: StreamId, code: StreamCode) {
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        entry.owner = Owner::Released;
        entry.receive.reader_waits = false;
        entry.send.writer_waits = false;
        entry.abort_watched = false;
        if entry.send.state == SendState::Open {
            self.begin_reset(id, code, ResetCause::Local);
        }
        self.begin_stop(id, code);
        self.settle(id);
    }

    /// Nobody will accept any more: refuses what waits, and the peer's further streams.
    pub(in super::super) fn refuse_unaccepted(&mut self) {
        while let Some(id) = self.remote.unaccepted.pop_front() {
            self.release(id, StreamCode::REFUSED);
        }
        self.offer_streams();
    }

    /// Asks the peer to open nothing new, and takes what it opens before it has heard of that. This side opens nothing new
    /// either.
    pub(in super::super) fn announce_go_away(&mut self, text: &str) {
        if self.leave_notice.is_some() || self.local_leave.is_some() || self.is_closing() {
            return;
        }
        self.leave_notice = Some(Leave {
            reason: reason(text),
            sent: false,
        });
        self.wake_opener();
    }

    /// No new streams either way; the session ends with its last stream.
    pub(in super::super) fn go_away(&mut self, text: &str) {
        if self.local_leave.is_some() || self.is_closing() {
            return;
        }
        self.local_leave = Some(Leave {
            reason: reason(text),
            sent: false,
        });
        self.wake_opener();
        self.events.push_back(Event::Changed);
    }

    /// Ends the session and every stream now.
    pub(in super::super) fn close(&mut self, text: &str) {
        let text = reason(text);
        self.end(
            Error::new(
                ErrorKind::Closed,
                format!("this side closed the session: {text}"),
            ),
            Ending::Clean,
            Some((CloseCode::CLOSED, text)),
        );
    }

    /// Asks the peer for a sign of life, which comes with [`Event::Changed`].
    pub(in super::super) fn probe(&mut self) {
        self.liveness.ask();
    }

    /// Whether the peer has yet to give the sign that [`probe`](Self::probe) asked for.
    pub(in super::super) fn is_probing(&self) -> bool {
        self.liveness.is_asked()
    }

    /// Makes a CREDIT due if it is worth one.
    pub(super) fn update_credit(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id)
            && entry.receive.state == ReceiveState::Open
            && entry
                .receive
                .window
                .is_credit_due(&self.receive_budget, self.in_flight.allotment())
        {
            entry.receive.credit_due = true;
            entry.schedule_control(&mut self.scheduler);
        }
    }

    /// Whether a writer who waits should try again: half of the queue is free, so that writers are woken for a
    /// good piece and not for every frame.
    pub(super) fn has_write_room(&self, id: StreamId) -> bool {
        let Some(entry) = self.streams.get(&id) else {
            return false;
        };
        let queued = entry.send.queue.len() as u64;
        queued * 2 <= self.send_limit(queued)
    }

    fn send_limit(&self, queued: u64) -> u64 {
        self.limits.send_queue.min(self.send_budget.ceiling(queued))
    }

    fn poll_room(&mut self, id: StreamId) -> Poll<Result<usize, StreamFailure>> {
        let Some(entry) = self.streams.get(&id) else {
            return Poll::Ready(Err(StreamFailure::EndedHere));
        };
        if let Some(failure) = entry.send.failure() {
            return Poll::Ready(Err(failure));
        }
        if let Some(closing) = &self.closing {
            return Poll::Ready(Err(StreamFailure::Session(closing.error.clone())));
        }
        let queued = entry.send.queue.len() as u64;
        let room = self.send_limit(queued).saturating_sub(queued);
        if room > 0 {
            return Poll::Ready(Ok(room as usize));
        }
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.send.writer_waits = true;
        }
        Poll::Pending
    }

    fn enqueue(&mut self, id: StreamId, push: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        let before = entry.send.queue.len() as u64;
        push(entry);
        self.send_budget
            .change(before, entry.send.queue.len() as u64);
        entry.schedule(&mut self.scheduler);
    }
}
