//! What is sent, and in which order.

use std::time::Instant;

use super::super::{
    batch::{BATCH_LENGTH, Batch},
    config::{CLOSE_TIMEOUT, MAX_FRAME, MIN_SLICE, SHARED_FRAME},
    frame::{Flags, Frame, HEADER_LENGTH, METADATA_LENGTH, encode_data_header},
    id::{MAX_STREAM_COUNT, StreamId},
    schedule::Lane,
    settings::PREFACE,
    state::{ReceiveState, SendState},
};
use super::{Connection, Ending, drained};

impl Connection {
    /// Fills `batch` with what should leave now, until nothing is left or the batch is full.
    ///
    /// What is in the batch counts as sent.
    pub(in super::super) fn poll_transmit(&mut self, now: Instant, batch: &mut Batch) {
        if std::mem::take(&mut self.outbox.introduction) {
            let settings = self.limits.settings();
            batch.write(|out| {
                out.extend_from_slice(&PREFACE);
                Frame::Settings(settings).encode(out);
            });
        }
        if self.is_closing() {
            self.transmit_last_word(now, batch);
        } else {
            self.transmit_session_frames(now, batch);
            self.transmit_control(batch);
            self.transmit_opens(batch);
            self.transmit_leave_notice(batch);
            self.transmit_go_away(batch);
            self.transmit_data(batch);
            // What an OPEN made possible, such as a first CREDIT, leaves with it: a second write would cost as much again.
            self.transmit_control(batch);
            if self.has_run_out() {
                self.end(drained(), Ending::Clean, None);
            }
        }
        batch.seal();
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something to do.
    pub(in super::super) fn wants_transmit(&self) -> bool {
        if let Some(closing) = &self.closing {
            return closing.until.is_none();
        }
        self.outbox.introduction
            || self.outbox.pong.is_some()
            || self.outbox.max_streams
            || self.liveness.is_ping_due()
            || self.leave_notice.as_ref().is_some_and(|leave| !leave.sent)
            || self.local_leave.as_ref().is_some_and(|leave| !leave.sent)
            || !self.scheduler.is_empty()
            || self.has_run_out()
    }

    /// Whether a session that takes no new streams has lost its last one.
    fn has_run_out(&self) -> bool {
        let said = self.local_leave.as_ref().is_none_or(|leave| leave.sent);
        self.is_going_away() && said && self.live == 0 && self.peer.is_some()
    }

    fn transmit_last_word(&mut self, now: Instant, batch: &mut Batch) {
        let last_stream = self.last_remote_stream();
        let Some(closing) = &mut self.closing else {
            return;
        };
        closing.until.get_or_insert(now + CLOSE_TIMEOUT);
        if let Some((code, text)) = closing.last_word.take() {
            let frame = Frame::GoAway {
                last_stream,
                code,
                reason: super::reason(&text),
            };
            batch.write(|out| frame.encode(out));
        }
    }

    fn transmit_session_frames(&mut self, now: Instant, batch: &mut Batch) {
        if let Some(token) = self.outbox.pong.take() {
            batch.write(|out| Frame::Pong(token).encode(out));
        }
        if self.liveness.is_ping_due() {
            let token = self.liveness.start_ping(now);
            self.in_flight.handle_ping(now);
            batch.write(|out| Frame::Ping(token).encode(out));
        }
        if std::mem::take(&mut self.outbox.max_streams) && self.local_leave.is_none() {
            let allowance = self.stream_allowance();
            if allowance > self.remote.allowed {
                self.remote.allowed = allowance;
                batch.write(|out| Frame::MaxStreams(allowance).encode(out));
            }
        }
    }

    fn transmit_control(&mut self, batch: &mut Batch) {
        while !batch.is_full() {
            let Some(id) = self.scheduler.control.pop_front() else {
                return;
            };
            let Some(entry) = self.streams.get_mut(&id) else {
                continue;
            };
            entry.in_control = false;
            if let Some(code) = entry.receive.stop_due.take() {
                batch.write(|out| Frame::Stop { stream: id, code }.encode(out));
            }
            if let SendState::Resetting(code, cause) = entry.send.state {
                entry.send.state = SendState::Reset(cause);
                let frame = Frame::Reset {
                    stream: id,
                    code,
                    final_size: entry.send.window.sent(),
                };
                batch.write(|out| frame.encode(out));
            }
            if std::mem::take(&mut entry.receive.credit_due)
                && entry.receive.state == ReceiveState::Open
                && entry
                    .receive
                    .window
                    .is_credit_due(&self.receive_budget, self.in_flight.allotment())
            {
                let window = &mut entry.receive.window;
                window.report_use(&mut self.in_flight);
                let limit = window.grant(&mut self.receive_budget, self.in_flight.allotment());
                batch.write(|out| Frame::Credit { stream: id, limit }.encode(out));
            }
            self.settle(id);
        }
    }

    fn transmit_opens(&mut self, batch: &mut Batch) {
        while !batch.is_full() {
            let Some(id) = self.scheduler.opening.pop_front() else {
                return;
            };
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.lane = Lane::Idle;
                if matches!(entry.send.state, SendState::Reset(_)) {
                    // Refused by the peer's GOAWAY before it left.
                    entry.send.opening = None;
                    self.settle(id);
                } else {
                    self.transmit_frame(id, batch);
                    self.schedule_again(id);
                }
            }
        }
    }

    /// A GOAWAY that takes every stream: a request to the peer, which costs no stream that is under way. Comes after the
    /// opens, too: a peer without streams may end the session as soon as it hears of it.
    fn transmit_leave_notice(&mut self, batch: &mut Batch) {
        if !self.scheduler.opening.is_empty() {
            return;
        }
        let last_stream = StreamId::nth(self.role.peer(), MAX_STREAM_COUNT - 1).value();
        if let Some(notice) = &mut self.leave_notice
            && !std::mem::replace(&mut notice.sent, true)
        {
            let frame = Frame::GoAway {
                last_stream,
                code: super::CloseCode::DRAIN,
                reason: super::reason(&notice.reason),
            };
            batch.write(|out| frame.encode(out));
        }
    }

    /// Comes after the opens: streams that exist before the GOAWAY are known to the peer before it.
    fn transmit_go_away(&mut self, batch: &mut Batch) {
        if !self.scheduler.opening.is_empty() {
            return;
        }
        let last_stream = self.last_remote_stream();
        if let Some(leave) = &mut self.local_leave
            && !std::mem::replace(&mut leave.sent, true)
        {
            let frame = Frame::GoAway {
                last_stream,
                code: super::CloseCode::DRAIN,
                reason: super::reason(&leave.reason),
            };
            batch.write(|out| frame.encode(out));
        }
    }

    fn transmit_data(&mut self, batch: &mut Batch) {
        // The other half is kept for bulk: small writes are soon done, but there may always be more of them.
        let sparse_until = batch.len() + BATCH_LENGTH.saturating_sub(batch.len()) / 2;
        while batch.len() < sparse_until {
            let Some(id) = self.scheduler.sparse.pop_front() else {
                break;
            };
            self.transmit_turn(id, batch);
        }
        while !batch.is_full() {
            let Some(id) = self.scheduler.next_turn() else {
                break;
            };
            self.transmit_turn(id, batch);
        }
    }

    /// As many frames of one stream as it has weight. It then stands behind the others if it has more.
    fn transmit_turn(&mut self, id: StreamId, batch: &mut Batch) {
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        entry.lane = Lane::Idle;
        if !entry.send.is_ready() {
            self.settle(id);
            return;
        }
        for _ in 0..entry.weight.value() {
            self.transmit_frame(id, batch);
            if batch.is_full() || !self.is_send_ready(id) {
                break;
            }
        }
        self.schedule_again(id);
    }

    fn is_send_ready(&self, id: StreamId) -> bool {
        let entry = self.streams.get(&id);
        entry.is_some_and(|entry| entry.send.is_ready())
    }

    /// Puts a stream that had its turn behind the others, if it has more.
    fn schedule_again(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id)
            && entry.send.is_ready()
        {
            entry.lane = self.scheduler.enter_again(id, entry.priority);
        }
    }

    fn transmit_frame(&mut self, id: StreamId, batch: &mut Batch) {
        // On a short path nobody waits long for a frame: longer ones cost less.
        let limit = if self.scheduler.is_alone() || self.in_flight.is_short() {
            MAX_FRAME
        } else {
            SHARED_FRAME
        };
        let limit = limit.min(self.peer_settings().max_frame as usize) - HEADER_LENGTH;
        let Some(entry) = self.streams.get_mut(&id) else {
            return;
        };
        let send = &mut entry.send;
        let metadata = send.opening.take();
        let opening = metadata
            .as_ref()
            .map_or(0, |metadata| METADATA_LENGTH + metadata.len());
        let before = send.queue.len();
        let sendable = if send.state.is_sending() {
            send.sendable()
        } else {
            0
        };
        let payload = payload_length(sendable, limit - opening);
        let mut flags = Flags::NONE;
        if metadata.is_some() {
            flags = flags.with(Flags::OPEN);
        }
        if send.state == SendState::Finishing && payload == before {
            flags = flags.with(Flags::FIN);
            send.state = SendState::Finished;
        } else if payload < before && payload as u64 == send.window.room() {
            flags = flags.with(Flags::WAITING);
        }
        batch.write(|out| encode_data_header(out, id, flags, metadata.as_deref(), payload));
        let mut missing = payload;
        while missing > 0
            && let Some(slice) = send.queue.pop(missing)
        {
            missing -= slice.len();
            batch.push(slice);
        }
        send.window.send(payload as u64);
        self.send_budget
            .change(before as u64, (before - payload) as u64);
        self.bytes_sent += payload as u64;
        self.control.earn_data(payload as u64);
        entry.schedule_control(&mut self.scheduler);
        if payload > 0 && self.has_write_room(id) {
            self.wake_writer(id);
        }
        self.settle(id);
    }

    fn last_remote_stream(&self) -> u32 {
        match self.remote.opened.checked_sub(1) {
            Some(index) => StreamId::nth(self.role.peer(), index).value(),
            None => 0,
        }
    }
}

/// How much of what is sendable goes into a frame with `room` for it.
fn payload_length(sendable: usize, room: usize) -> usize {
    match sendable.checked_sub(room) {
        // Two halves are as many frames as a full one and a crumb, which would be copied at the other end.
        Some(1..MIN_SLICE) => room.min(sendable / 2),
        _ => room.min(sendable),
    }
}
