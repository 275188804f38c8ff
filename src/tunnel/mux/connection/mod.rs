//! The protocol, without input or output.

mod application;
#[cfg(any(test, fuzzing))]
mod checks;
mod input;
mod memory;
mod table;
mod transmit;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    SessionStatus,
    code::CloseCode,
    config::{Config, MAX_FRAME, MAX_REASON, RECEIVE_FLOOR, SEND_FLOOR},
    control_budget::ControlBudget,
    decoder::Decoder,
    entry::Entry,
    flow::SharedBudget,
    id::{BuildIdHasher, Role, StreamId},
    in_flight::InFlight,
    limits::Limits,
    liveness::{Liveness, Verdict},
    schedule::Scheduler,
    settings::Settings,
    violation::Violation,
};
use crate::{Error, ErrorKind};
use memory::UnreadMemory;

/// One end of a session: deterministic, without sockets, clocks, tasks or wakers.
///
/// Its methods are of four kinds:
///
/// * `handle_*` take what happened outside: bytes, the end of the pipe, time;
/// * `open`, `accept`, `read`, `write`, … are what the application wants;
/// * `poll_transmit` gives bytes for the pipe, `poll_event` tells who should be woken, `poll_timeout` when
///   [`handle_timeout`](Self::handle_timeout) wants to be called;
/// * the rest are questions.
///
/// After any `handle_*` and any application call, events and bytes may be there. An event is a hint to try again:
/// it is given only to who was told [`Poll::Pending`](std::task::Poll::Pending) before, so that there are never
/// more than three for each stream.
#[derive(Debug)]
pub(super) struct Connection {
    role: Role,
    limits: Limits,
    decoder: Decoder,
    /// The DATA frame whose payload is arriving.
    arriving: Option<Arriving>,
    /// What the peer said first; `None` until then.
    peer: Option<Settings>,
    handshake_until: Instant,
    /// Boxed: a table that has just grown is half empty.
    streams: HashMap<StreamId, Box<Entry>, BuildIdHasher>,
    /// Streams that have not ended on the wire.
    live: usize,
    local: LocalStreams,
    remote: RemoteStreams,
    scheduler: Scheduler,
    outbox: Outbox,
    receive_budget: SharedBudget,
    send_budget: SharedBudget,
    memory: UnreadMemory,
    control: ControlBudget,
    liveness: Liveness,
    in_flight: InFlight,
    /// The announcement that a GOAWAY of our own will come.
    leave_notice: Option<Leave>,
    local_leave: Option<Leave>,
    /// The last of our streams that the peer takes, once it is going away.
    peer_leave: Option<u32>,
    /// Payload of streams that came after our GOAWAY.
    ignored: u64,
    closing: Option<Closing>,
    events: VecDeque<Event>,
    bytes_sent: u64,
    bytes_received: u64,
}

/// Who should try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Readable(StreamId),
    Writable(StreamId),
    /// The peer has given the stream up, or the session has ended.
    Aborted(StreamId),
    /// A stream can be accepted, or none will be any more.
    Incoming,
    /// A stream can be opened, or none can be any more.
    CanOpen,
    /// The session became ready, goes away, or ended.
    Changed,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As one of the two sides wished.
    Clean,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Arriving {
    stream: StreamId,
    /// Of the payload.
    length: u32,
    remaining: u32,
    fin: bool,
}

#[derive(Debug)]
struct LocalStreams {
    opened: u64,
    allowed: u64,
    in_table: usize,
    opener_waits: bool,
}

#[derive(Debug)]
struct RemoteStreams {
    opened: u64,
    /// As the peer was told.
    allowed: u64,
    in_table: usize,
    unaccepted: VecDeque<StreamId>,
    acceptor_waits: bool,
}

/// Frames of the session that are due: flags, not a queue, so that replies never pile up.
#[derive(Debug)]
struct Outbox {
    introduction: bool,
    pong: Option<u64>,
    max_streams: bool,
}

/// Our own GOAWAY.
#[derive(Debug)]
struct Leave {
    reason: String,
    sent: bool,
}

#[derive(Debug)]
struct Closing {
    error: Arc<Error>,
    ending: Ending,
    last_word: Option<(CloseCode, String)>,
    /// Set once the driver has seen it.
    until: Option<Instant>,
    expired: bool,
}

impl Connection {
    pub(super) fn new(role: Role, config: Config, now: Instant) -> Self {
        let limits = config.limits(role);
        let settings = limits.settings();
        Self {
            role,
            decoder: Decoder::new(MAX_FRAME as u32),
            arriving: None,
            peer: None,
            handshake_until: now + limits.handshake_timeout,
            streams: HashMap::default(),
            live: 0,
            local: LocalStreams {
                opened: 0,
                allowed: u64::from(Settings::INITIAL.max_streams),
                in_table: 0,
                opener_waits: false,
            },
            remote: RemoteStreams {
                opened: 0,
                allowed: u64::from(settings.max_streams),
                in_table: 0,
                unaccepted: VecDeque::new(),
                acceptor_waits: false,
            },
            scheduler: Scheduler::default(),
            outbox: Outbox {
                introduction: true,
                pong: None,
                max_streams: false,
            },
            receive_budget: SharedBudget::new(RECEIVE_FLOOR, limits.receive_pool()),
            send_budget: SharedBudget::new(SEND_FLOOR, limits.send_pool()),
            memory: UnreadMemory::new(limits.effective_receive_budget()),
            control: ControlBudget::new(now),
            liveness: Liveness::new(now, limits.silence),
            in_flight: InFlight::new(now, limits.largest_target()),
            leave_notice: None,
            local_leave: None,
            peer_leave: None,
            ignored: 0,
            closing: None,
            events: VecDeque::new(),
            bytes_sent: 0,
            bytes_received: 0,
            limits,
        }
    }

    /// The pipe ended: the peer sends nothing more.
    pub(super) fn handle_end(&mut self) {
        if self.is_closing() {
            return;
        }
        if self.peer.is_none() {
            let seen = self.decoder.partial_preface().unwrap_or_default().len();
            self.end(
                Error::new(
                    ErrorKind::Network,
                    format!(
                        "the connection ended before the peer introduced itself ({seen} bytes came)"
                    ),
                ),
                Ending::Failed,
                None,
            );
        } else if self.opens_nothing() && self.live == 0 {
            self.end(drained(), Ending::Clean, None);
        } else {
            self.end(
                Error::new(ErrorKind::Network, "the connection to the peer was lost"),
                Ending::Failed,
                None,
            );
        }
    }

    /// The pipe broke.
    pub(super) fn handle_failure(&mut self, error: Error) {
        self.end(error, Ending::Failed, None);
    }

    /// Time has passed: the moment of [`poll_timeout`](Self::poll_timeout) was reached, or any other.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(closing) = &mut self.closing {
            closing.expired |= closing.until.is_some_and(|until| now >= until);
            return;
        }
        if !self.is_reading() {
            // The silence is ours: we have not looked.
            self.liveness.on_received(now);
        }
        self.control.refill(now);
        if self.peer.is_none() && now >= self.handshake_until {
            self.give_up("the peer did not introduce itself in time");
        } else if self.liveness.on_time(now) == Verdict::Dead {
            self.give_up("nothing was heard from the peer for too long");
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. Always in the future of the last call.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let Some(closing) = &self.closing {
            return closing.until;
        }
        let handshake = self.peer.is_none().then_some(self.handshake_until);
        let resume = self.control.paused_until();
        let others = handshake.into_iter().chain(resume);
        Some(others.fold(self.liveness.deadline(), Instant::min))
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether input is wanted now. While it is not, `poll_timeout` tells when to ask again.
    pub(super) fn is_reading(&self) -> bool {
        // At the end input is read and dropped: closing a socket with unread input would destroy our last word.
        self.is_closing() || self.control.paused_until().is_none()
    }

    /// Whether the peer has introduced itself.
    pub(super) fn is_ready(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether one of the sides has said that it takes no new streams.
    pub(super) fn is_going_away(&self) -> bool {
        self.local_leave.is_some() || self.peer_leave.is_some()
    }

    /// Whether this side must not open streams any more. After an announcement of its own: a peer that has none may end the
    /// session as soon as it hears of that, and with it a stream that comes then.
    fn opens_nothing(&self) -> bool {
        self.is_going_away() || self.leave_notice.is_some()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Why the session ended, once it has.
    pub(super) fn ended(&self) -> Option<(&Arc<Error>, Ending)> {
        let closing = self.closing.as_ref()?;
        Some((&closing.error, closing.ending))
    }

    /// Whether the last frame and the peer's farewell have had their time.
    pub(super) fn is_expired(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.expired)
    }

    pub(super) fn status(&self) -> SessionStatus {
        SessionStatus {
            live_streams: self.live,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            round_trip_time: self.round_trip_time(),
        }
    }

    fn round_trip_time(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// What peers of this session are held to.
    fn peer_settings(&self) -> Settings {
        self.peer.unwrap_or(Settings::INITIAL)
    }

    fn give_up(&mut self, why: &'static str) {
        self.end(
            Error::new(ErrorKind::Timeout, why),
            Ending::Failed,
            Some((CloseCode::TIMEOUT, why.to_owned())),
        );
    }

    fn misbehaved(&mut self, violation: Violation) {
        self.end(
            violation.into_error(),
            Ending::Failed,
            Some((violation.code(), violation.to_string())),
        );
    }

    /// Ends the session and with it every stream. The first reason stays.
    fn end(&mut self, error: Error, ending: Ending, last_word: Option<(CloseCode, String)>) {
        if self.is_closing() {
            return;
        }
        self.closing = Some(Closing {
            error: Arc::new(error),
            ending,
            last_word,
            until: None,
            expired: false,
        });
        for (id, entry) in &mut self.streams {
            if std::mem::take(&mut entry.receive.reader_waits) {
                self.events.push_back(Event::Readable(*id));
            }
            if std::mem::take(&mut entry.send.writer_waits) {
                self.events.push_back(Event::Writable(*id));
            }
            if std::mem::take(&mut entry.abort_watched) {
                self.events.push_back(Event::Aborted(*id));
            }
            // Nothing of it can leave any more.
            entry.send.queue.clear();
        }
        self.scheduler = Scheduler::default();
        // Nobody can accept them any more, and what was sent on them would stay for as long as the session is held.
        self.refuse_unaccepted();
        self.wake_acceptor();
        self.wake_opener();
        self.events.push_back(Event::Changed);
    }
}

/// Why a session ended that both sides let run out.
fn drained() -> Error {
    Error::new(ErrorKind::Closed, "the session was drained and closed")
}

/// At most [`MAX_REASON`] bytes of a text.
fn reason(text: &str) -> String {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
