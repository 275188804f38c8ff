//! What the peer sends.

use std::time::Instant;

use bytes::Bytes;

use super::super::{
    code::{CloseCode, StreamCode},
    config::RECEIVE_BLOCK,
    control_budget::{TOKENS_FOR_STREAM, TOKENS_OF_RESET},
    decoder::{DataHeader, Decoded},
    entry::{Entry, Owner},
    flow::{MAX_OFFSET, ReceiveWindow, SendWindow},
    frame::{Frame, Kind},
    id::{MAX_STREAM_COUNT, StreamId},
    settings::Settings,
    state::{ReceiveState, ResetCause, SendState},
    violation::Violation,
};
use super::{Arriving, Connection, Ending, Event};
use crate::{Error, ErrorKind};

/// Where a frame about a stream leads.
enum Place {
    /// Into the table.
    Table,
    /// Nowhere: the stream has ended on both sides.
    Gone,
    /// Nowhere: the stream came after our GOAWAY.
    Ignored,
}

impl Connection {
    /// Takes the next bytes of the pipe, in whatever pieces they come.
    ///
    /// Payloads stay slices of `input`, unless their frames are short. Each is thought to keep all of `input` alive, or a whole
    /// receive block if that is more; see [`UnreadMemory`](super::memory::UnreadMemory).
    pub(in super::super) fn handle_input(&mut self, now: Instant, input: Bytes) {
        if self.is_closing() {
            return;
        }
        self.liveness.on_received(now);
        if self.liveness.take_asked() {
            self.events.push_back(Event::Changed);
        }
        self.control.refill(now);
        self.in_flight.handle_received(now, input.len() as u64);
        self.take_frames(now, input);
        if self.in_flight.wants_round(now) {
            self.liveness.measure();
        }
    }

    fn take_frames(&mut self, now: Instant, mut input: Bytes) {
        let block = input.len().max(RECEIVE_BLOCK);
        while !self.is_closing() {
            let outcome = match self.decoder.decode(&mut input) {
                Ok(Some(decoded)) => self.receive(now, decoded, block),
                Ok(None) => return,
                Err(violation) => Err(violation),
            };
            if let Err(violation) = outcome {
                self.misbehaved(violation);
            }
        }
    }

    fn receive(&mut self, now: Instant, decoded: Decoded, block: usize) -> Result<(), Violation> {
        if self.peer.is_none() {
            let Decoded::Frame(Frame::Settings(settings)) = decoded else {
                return Err(Violation::SettingsMissing);
            };
            self.receive_settings(settings);
            return Ok(());
        }
        match decoded {
            Decoded::Data(header) => self.receive_data(header),
            Decoded::Payload(piece) => self.receive_payload(piece, block),
            Decoded::Ignored => self.control.spend(1),
            Decoded::Frame(frame) => self.receive_frame(now, frame),
        }
    }

    fn receive_frame(&mut self, now: Instant, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Credit { stream, limit } => self.receive_credit(stream, limit),
            Frame::Reset {
                stream,
                code,
                final_size,
            } => self.receive_reset(stream, code, final_size),
            Frame::Stop { stream, code } => self.receive_stop(stream, code),
            Frame::MaxStreams(count) => self.receive_max_streams(count),
            Frame::Ping(token) => {
                // Only the last of several is answered: answers never pile up.
                self.outbox.pong = Some(token);
                self.control.spend(1)
            }
            Frame::Pong(token) => {
                if self.liveness.on_pong(token, now) {
                    self.in_flight.handle_pong(now);
                    return Ok(());
                }
                self.control.spend(1)
            }
            Frame::GoAway {
                last_stream,
                code,
                reason,
            } => self.receive_go_away(last_stream, code, &reason),
            Frame::Settings(_) => Err(Violation::SettingsRepeated),
        }
    }

    fn receive_settings(&mut self, settings: Settings) {
        self.peer = Some(settings);
        self.local.allowed = u64::from(settings.max_streams);
        for entry in self.streams.values_mut() {
            entry
                .send
                .window
                .raise(u64::from(settings.initial_stream_window));
            entry.schedule(&mut self.scheduler);
        }
        if self.can_open() {
            self.wake_opener();
        }
        self.events.push_back(Event::Changed);
    }

    fn receive_data(&mut self, header: DataHeader) -> Result<(), Violation> {
        let id = header.stream;
        let length = u64::from(header.length);
        if let Some(metadata) = header.metadata {
            self.receive_open(id, metadata, length)?;
        } else {
            if header.length == 0 && !header.fin {
                self.control.spend(1)?;
            }
            match self.locate(id)? {
                Place::Table => {}
                Place::Gone => return Err(Violation::AfterEnd(id)),
                Place::Ignored => self.ignore(length)?,
            }
        }
        if let Some(entry) = self.streams.get_mut(&id) {
            if entry.receive.state.is_ended() {
                return Err(Violation::AfterEnd(id));
            }
            if !entry.receive.window.allows(length) {
                return Err(Violation::WindowExceeded(id));
            }
            entry.receive.window.receive(length);
            if header.waiting {
                entry.receive.window.handle_waiting(&mut self.in_flight);
            }
        }
        self.bytes_received += length;
        self.control.earn_data(length);
        self.arriving = Some(Arriving {
            stream: id,
            length: header.length,
            remaining: header.length,
            fin: header.fin,
        });
        self.finish_arriving();
        Ok(())
    }

    /// Everything is checked before the stream exists.
    fn receive_open(
        &mut self,
        id: StreamId,
        metadata: Bytes,
        length: u64,
    ) -> Result<(), Violation> {
        let opened = self.remote.opened;
        let expected = StreamId::nth(self.role.peer(), opened.min(MAX_STREAM_COUNT - 1));
        if self.local_leave.is_some() && id.opener() == self.role.peer() && id >= expected {
            self.control.spend(1)?;
            return self.ignore(length);
        }
        if id != expected {
            return Err(Violation::StreamOrder {
                found: id.value(),
                expected: expected.value(),
            });
        }
        if opened >= self.remote.allowed {
            return Err(Violation::TooManyStreams {
                limit: self.remote.allowed,
            });
        }
        let initial = u64::from(self.limits.settings().initial_stream_window);
        if length > initial {
            return Err(Violation::WindowExceeded(id));
        }
        self.control.earn(TOKENS_FOR_STREAM);
        self.remote.opened += 1;
        self.remote.unaccepted.push_back(id);
        self.insert(Entry::new(
            id,
            Owner::Waiting(metadata),
            None,
            SendWindow::new(u64::from(self.peer_settings().initial_stream_window)),
            ReceiveWindow::new(initial, self.limits.stream_window),
        ));
        self.update_credit(id);
        self.wake_acceptor();
        // There may be room that was too little to be worth a frame while the peer had some left.
        self.offer_streams();
        Ok(())
    }

    fn receive_payload(&mut self, piece: Bytes, block: usize) -> Result<(), Violation> {
        let Some(arriving) = &mut self.arriving else {
            // The decoder gives payload only within a DATA frame.
            return Ok(());
        };
        arriving.remaining = arriving.remaining.saturating_sub(piece.len() as u32);
        let arriving = *arriving;
        if self.keep(arriving, piece, block) {
            self.wake_reader(arriving.stream);
        }
        self.finish_arriving();
        Ok(())
    }

    /// Takes the end of a DATA frame when its payload is complete.
    fn finish_arriving(&mut self) {
        let Some(arriving) = self.arriving.take_if(|arriving| arriving.remaining == 0) else {
            return;
        };
        let id = arriving.stream;
        if !arriving.fin {
            return;
        }
        if let Some(entry) = self.streams.get_mut(&id) {
            match entry.receive.state {
                ReceiveState::Open => {
                    entry.receive.state = ReceiveState::Finished;
                    entry.receive.credit_due = false;
                    entry.receive.window.freeze(&mut self.receive_budget);
                    let before = entry.receive.unread.charge();
                    entry.receive.unread.seal();
                    self.memory.change(before, entry.receive.unread.charge());
                    self.wake_reader(id);
                }
                ReceiveState::Stopped => entry.receive.state = ReceiveState::Discarded,
                _ => {}
            }
        }
        self.settle(id);
    }

    fn receive_credit(&mut self, id: StreamId, limit: u64) -> Result<(), Violation> {
        self.control.spend(1)?;
        if limit > MAX_OFFSET {
            return Err(Violation::LimitOverflow);
        }
        self.locate(id)?;
        if let Some(entry) = self.streams.get_mut(&id) {
            if limit < entry.send.window.limit() {
                return Err(Violation::CreditDecreased(id));
            }
            entry.send.window.raise(limit);
            entry.schedule(&mut self.scheduler);
        }
        Ok(())
    }

    fn receive_reset(
        &mut self,
        id: StreamId,
        code: StreamCode,
        final_size: u64,
    ) -> Result<(), Violation> {
        match self.locate(id)? {
            Place::Table => {}
            Place::Gone => return Err(Violation::AfterEnd(id)),
            Place::Ignored => return self.control.spend(1),
        }
        let Some(entry) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let asked_for = entry.receive.state == ReceiveState::Stopped;
        if entry.receive.state.is_ended() {
            return Err(Violation::AfterEnd(id));
        }
        // The pipe keeps the order: what was sent before has arrived.
        let received = entry.receive.window.received();
        if final_size != received {
            return Err(Violation::FinalSize {
                stream: id,
                claimed: final_size,
                received,
            });
        }
        if asked_for {
            entry.receive.state = ReceiveState::Discarded;
        } else {
            entry.receive.state = ReceiveState::Reset(code);
            self.control.spend(TOKENS_OF_RESET)?;
        }
        self.drop_unread(id);
        self.wake_reader(id);
        self.wake_watcher(id);
        self.settle(id);
        Ok(())
    }

    fn receive_stop(&mut self, id: StreamId, code: StreamCode) -> Result<(), Violation> {
        self.control.spend(1)?;
        self.locate(id)?;
        self.begin_reset(id, code, ResetCause::Stopped(code));
        Ok(())
    }

    fn receive_max_streams(&mut self, count: u64) -> Result<(), Violation> {
        self.control.spend(1)?;
        if count > MAX_STREAM_COUNT {
            return Err(Violation::LimitOverflow);
        }
        if count < self.local.allowed {
            return Err(Violation::MaxStreamsDecreased);
        }
        self.local.allowed = count;
        if self.can_open() {
            self.wake_opener();
        }
        Ok(())
    }

    fn receive_go_away(
        &mut self,
        last_stream: u32,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Violation> {
        self.control.spend(1)?;
        if code != CloseCode::DRAIN {
            self.end(refusal(code, reason), Ending::Failed, None);
            return Ok(());
        }
        let taken = match StreamId::from_wire(last_stream) {
            None => 0,
            Some(id) if id.opener() == self.role => id.index() + 1,
            Some(_) => {
                return Err(Violation::StreamField {
                    kind: Kind::GoAway,
                    stream: last_stream,
                });
            }
        };
        if self.peer_leave.is_some_and(|earlier| last_stream > earlier) {
            return Err(Violation::GoAwayIncreased);
        }
        let is_news = self.peer_leave.replace(last_stream).is_none();
        let refused: Vec<StreamId> = self
            .streams
            .keys()
            .copied()
            .filter(|id| id.opener() == self.role && id.index() >= taken)
            .collect();
        for id in refused {
            self.drop_unread(id);
            self.drop_unsent(id);
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.send.state = SendState::Reset(ResetCause::Refused);
                entry.receive.state = ReceiveState::Reset(StreamCode::REFUSED);
                entry.receive.stop_due = None;
            }
            self.wake_reader(id);
            self.wake_writer(id);
            self.wake_watcher(id);
            self.settle(id);
        }
        if is_news {
            self.wake_opener();
            self.events.push_back(Event::Changed);
        }
        Ok(())
    }

    fn locate(&self, id: StreamId) -> Result<Place, Violation> {
        if let Some(entry) = self.streams.get(&id) {
            // Known here, but not yet there.
            if entry.send.opening.is_some() {
                return Err(Violation::StreamNotOpen(id.value()));
            }
            return Ok(Place::Table);
        }
        let local = id.opener() == self.role;
        let opened = if local {
            self.local.opened
        } else {
            self.remote.opened
        };
        if id.index() < opened {
            return Ok(Place::Gone);
        }
        if !local && self.local_leave.is_some() {
            return Ok(Place::Ignored);
        }
        Err(Violation::StreamNotOpen(id.value()))
    }

    /// Counts payload that leads nowhere, because its stream came after our GOAWAY.
    fn ignore(&mut self, length: u64) -> Result<(), Violation> {
        self.ignored += length;
        if self.ignored > self.limits.effective_receive_budget() {
            return Err(Violation::IgnoredData);
        }
        Ok(())
    }
}

/// What the peer's last word means to this side.
fn refusal(code: CloseCode, reason: &str) -> Error {
    let kind = match code {
        CloseCode::CLOSED => ErrorKind::Closed,
        CloseCode::TIMEOUT => ErrorKind::Timeout,
        CloseCode::UNSUPPORTED => ErrorKind::Refused,
        CloseCode::EXCESSIVE_LOAD | CloseCode::STREAM_LIMIT => ErrorKind::LimitReached,
        _ => ErrorKind::Protocol,
    };
    Error::new(
        kind,
        format!("the peer ended the session ({code}): {reason}"),
    )
}
