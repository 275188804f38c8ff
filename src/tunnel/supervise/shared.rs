//! [`Shared`]: what the worker, the openings and the connections of one tunnel know together.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, stream};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{super::mux::Session, lock};
use crate::{
    Error, ErrorKind,
    tunnel::{StateStream, TunnelState, TunnelStatus},
};

/// How many changes of state are kept for a subscriber that does not poll. One that is further behind misses the
/// oldest and still gets the latest. A reconnect is two changes; this is half an hour of them at the longest wait.
pub(super) const STATE_BACKLOG: usize = 64;

/// How many connections may live beside the newest, each for the streams that it still carries. A peer's rolling
/// restart makes one; more than this is a peer that never stops going away, whose oldest connection is then cut.
pub(super) const MAX_DRAINING: usize = 16;

/// What the worker is doing, with what only this module may see.
#[derive(Clone)]
pub(super) enum Phase {
    Idle,
    Connecting {
        attempt: u32,
    },
    Connected(Session),
    Waiting {
        retry_in: Duration,
        cause: Cause,
        reason: Arc<Error>,
    },
    Draining,
    /// `cut` is the number of streams that had not ended when the drain's limit was reached.
    Closed {
        cut: usize,
    },
}

impl Phase {
    fn state(&self) -> TunnelState {
        match self {
            Self::Idle => TunnelState::Idle,
            Self::Connecting { attempt } => TunnelState::Connecting { attempt: *attempt },
            Self::Connected(_) => TunnelState::Connected,
            Self::Waiting {
                retry_in, reason, ..
            } => TunnelState::Waiting {
                retry_in: *retry_in,
                reason: Arc::clone(reason),
            },
            Self::Draining => TunnelState::Draining,
            Self::Closed { .. } => TunnelState::Closed,
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The dial failed.
    Dial,
    /// There was one and it was lost.
    Loss,
}

pub(super) struct Shared {
    peer: String,
    phases: watch::Sender<Phase>,
    states: broadcast::Sender<TunnelState>,
    demand: Notify,
    renewal: Notify,
    shutdown: CancellationToken,
    /// A task per living connection.
    connections: TaskTracker,
    ledger: Mutex<Ledger>,
}

/// The living connections, and the sum of the others.
#[derive(Default)]
struct Ledger {
    /// Oldest first.
    connections: Vec<Connection>,
    next_id: u64,
    retired_sent: u64,
    retired_received: u64,
}

struct Connection {
    id: u64,
    session: Session,
}

impl Shared {
    pub(super) fn new(peer: String) -> Self {
        Self {
            peer,
            phases: watch::Sender::new(Phase::Idle),
            states: broadcast::Sender::new(STATE_BACKLOG),
            demand: Notify::new(),
            renewal: Notify::new(),
            shutdown: CancellationToken::new(),
            connections: TaskTracker::new(),
            ledger: Mutex::default(),
        }
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phases.subscribe()
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.phases.borrow(), Phase::Closed { .. })
    }

    /// Moves on to `phase`, unless that leads back out of a shutdown.
    pub(super) fn publish(&self, phase: Phase) {
        let _ledger = lock(&self.ledger);
        self.publish_locked(phase);
    }

    /// As [`publish`](Self::publish), by the holder of the ledger's lock. The lock makes the two channels change
    /// together, so that a new subscriber neither misses a state nor gets one twice.
    fn publish_locked(&self, phase: Phase) {
        let allowed = match *self.phases.borrow() {
            Phase::Closed { .. } => false,
            Phase::Draining => matches!(phase, Phase::Closed { .. }),
            _ => true,
        };
        if !allowed {
            return;
        }
        if matches!(phase, Phase::Waiting { .. }) {
            // What was demanded before was served by the dial that has just failed.
            let _ = self.demand.notified().now_or_never();
        }
        let state = phase.state();
        let before = self.phases.send_replace(phase).state();
        // A connection in place of another is no change for those who watch.
        let connected = |state: &TunnelState| matches!(state, TunnelState::Connected);
        if !(connected(&before) && connected(&state)) {
            // Nobody may be listening.
            let _ = self.states.send(state);
        }
    }

    pub(super) fn demand_dial(&self) {
        self.demand.notify_one();
    }

    /// Resolves when an opening asked for a dial while the worker was waiting.
    pub(super) async fn demanded(&self) {
        self.demand.notified().await;
    }

    /// Asks for a connection in place of the present one; without one there is nothing to do.
    pub(super) fn demand_renewal(&self) {
        if matches!(*self.phases.borrow(), Phase::Connected(_)) {
            self.renewal.notify_one();
        }
    }

    /// Resolves when a renewal was asked for.
    pub(super) async fn renewal_demanded(&self) {
        self.renewal.notified().await;
    }

    pub(super) fn begin_shutdown(&self) {
        let _ledger = lock(&self.ledger);
        self.shutdown.cancel();
        let never_dialled = matches!(*self.phases.borrow(), Phase::Idle);
        self.publish_locked(if never_dialled {
            Phase::Closed { cut: 0 }
        } else {
            Phase::Draining
        });
    }

    pub(super) async fn shutdown_begun(&self) {
        self.shutdown.cancelled().await;
    }

    /// The tunnel was dropped: no new streams, the live ones go on to their end.
    pub(super) fn abandon(&self) {
        let ledger = lock(&self.ledger);
        self.publish_locked(Phase::Closed { cut: 0 });
        for connection in &ledger.connections {
            leave(&connection.session, "the tunnel was dropped");
        }
    }

    /// Counts a connection from now until [`retire`](Self::retire).
    pub(super) fn admit(&self, session: Session) -> u64 {
        let mut ledger = lock(&self.ledger);
        if self.is_closed() {
            session.close("the tunnel is closed");
        }
        // One of those that live is the new one's predecessor, which may be going away or not yet known to be lost.
        if ledger.connections.len() > MAX_DRAINING {
            let mut living = ledger.connections.iter();
            if let Some(oldest) = living.find(|connection| !connection.session.is_closed()) {
                oldest.session.close("too many older connections");
            }
        }
        let id = ledger.next_id;
        ledger.next_id += 1;
        ledger.connections.push(Connection { id, session });
        id
    }

    /// The connection has ended; its bytes are kept.
    pub(super) fn retire(&self, id: u64) {
        let mut ledger = lock(&self.ledger);
        let Some(index) = ledger
            .connections
            .iter()
            .position(|connection| connection.id == id)
        else {
            return;
        };
        let status = ledger.connections.remove(index).session.status();
        ledger.retired_sent += status.bytes_sent;
        ledger.retired_received += status.bytes_received;
    }

    pub(super) fn connections(&self) -> &TaskTracker {
        &self.connections
    }

    pub(super) fn sessions(&self) -> Vec<Session> {
        let ledger = lock(&self.ledger);
        let sessions = ledger.connections.iter();
        sessions
            .map(|connection| connection.session.clone())
            .collect()
    }

    pub(super) fn status(&self) -> TunnelStatus {
        let ledger = lock(&self.ledger);
        let phase = self.phases.borrow().clone();
        let mut status = TunnelStatus::new(phase.state(), &self.peer);
        status.bytes_sent = ledger.retired_sent;
        status.bytes_received = ledger.retired_received;
        for connection in &ledger.connections {
            let part = connection.session.status();
            status.live_streams += part.live_streams;
            status.bytes_sent += part.bytes_sent;
            status.bytes_received += part.bytes_received;
        }
        if let Phase::Connected(session) = phase {
            status.round_trip_time = session.status().round_trip_time;
        }
        status
    }

    pub(super) fn states(&self) -> StateStream {
        let _ledger = lock(&self.ledger);
        let present = self.phases.borrow().state();
        let changes = Some((Some(present), self.states.subscribe()));
        StateStream::new(stream::unfold(changes, |changes| async {
            let (present, mut changes) = changes?;
            let state = match present {
                Some(state) => state,
                None => next_change(&mut changes).await?,
            };
            let last = matches!(state, TunnelState::Closed);
            Some((state, (!last).then_some((None, changes))))
        }))
    }

    /// Why an opening got no connection: the last failure, under a text that names the tunnel.
    pub(super) fn dial_error(&self, reason: &Arc<Error>) -> Error {
        let mut error = Error::new(
            reason.kind(),
            format!("there is no connection to {}", self.peer),
        )
        .with_source(Arc::clone(reason));
        if let Some(help) = reason.help() {
            error = error.with_help(help.to_owned());
        }
        if let Some(status) = reason.status() {
            error = error.with_status(status);
        }
        if let Some(tracking_id) = reason.tracking_id() {
            error = error.with_tracking_id(tracking_id);
        }
        error
    }

    pub(super) fn closed_error(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("the tunnel to {} was shut down", self.peer),
        )
        .with_help("make a new tunnel")
    }

    pub(super) fn cut_error(&self, cut: usize) -> Error {
        let peer = &self.peer;
        Error::new(
            ErrorKind::Timeout,
            format!("{cut} streams to {peer} had not ended when the tunnel was closed"),
        )
        .with_help("end the streams first: their last bytes may be lost")
    }
}

/// Ends a session that shall take no more streams: at once where it carries none.
pub(super) fn leave(session: &Session, reason: &str) {
    if session.status().live_streams == 0 {
        session.close(reason);
    } else {
        session.go_away(reason);
    }
}

async fn next_change(changes: &mut broadcast::Receiver<TunnelState>) -> Option<TunnelState> {
    loop {
        match changes.recv().await {
            Ok(state) => return Some(state),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
