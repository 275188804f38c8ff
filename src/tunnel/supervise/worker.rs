//! [`Worker`]: the background task that dials, notices losses, and dials again.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep_until, timeout},
};
use tracing::{Instrument, debug, info, info_span, warn};

use super::{
    Dial,
    shared::{Cause, MAX_DRAINING, Phase, Shared, leave},
};
use crate::{
    Error, ErrorKind, Result,
    net::{Backoff, Jitter},
    telemetry,
    tunnel::{
        Refusal,
        mux::{self, Role, Session},
    },
};

/// The longest that one dial may take, all its steps together. TCP, TLS and the relay's handshake have limits of their
/// own below it, the longest of which is the relay's, that waits a minute for the agent; this one holds whatever they
/// forget.
const DIAL_LIMIT: Duration = Duration::from_secs(80);

/// How long after the dial the peer's preface may take. It is one round trip; a relay answers a dial before the agent
/// has spoken, so this is the only proof that somebody is there.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The least time between the starts of two dials that openings asked for. A program that retries in a tight loop
/// does not make the tunnel hammer the relay.
const MIN_DIAL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a shutdown waits for live streams. An API request in flight ends well within it; a watch never would.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How long connections may take to end once they were closed: their last frame goes out, or does not. The
/// multiplexer gives it two seconds.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

pub(super) struct Worker {
    shared: Arc<Shared>,
    dial: Arc<dyn Dial>,
    config: mux::Config,
    backoff: Backoff,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        dial: Arc<dyn Dial>,
        config: mux::Config,
        jitter: Jitter,
    ) -> Self {
        Self {
            shared,
            dial,
            config,
            backoff: Backoff::new(jitter),
        }
    }

    pub(super) async fn run(mut self) {
        let span = info_span!(telemetry::SPAN_TUNNEL, peer = self.shared.peer());
        async {
            let shared = Arc::clone(&self.shared);
            select! {
                biased;
                () = shared.shutdown_begun() => {}
                () = self.keep_connected() => {}
            }
            self.drain().await;
        }
        .instrument(span)
        .await;
    }

    async fn keep_connected(&mut self) {
        let mut attempt: u32 = 0;
        loop {
            attempt = attempt.saturating_add(1);
            self.shared.publish(Phase::Connecting { attempt });
            let started = Instant::now();
            let (delay, cause, reason) = match self.establish().await {
                Ok(session) => {
                    attempt = 0;
                    info!("connected");
                    self.shared.publish(Phase::Connected(session.clone()));
                    let connected = Instant::now();
                    let reason = self.hold(session).await;
                    let delay = self.backoff.after_loss(connected.elapsed());
                    (delay, Cause::Loss, reason)
                }
                Err(reason) if reason.is_retryable() => {
                    (self.backoff.after_failure(), Cause::Dial, reason)
                }
                Err(reason) => (self.backoff.after_refusal(), Cause::Dial, reason),
            };
            warn!(reason = %reason.report(), retry_in = ?delay, "no connection");
            let due = Instant::now() + delay;
            self.shared.publish(Phase::Waiting {
                retry_in: delay,
                cause,
                reason: Arc::new(reason),
            });
            select! {
                () = sleep_until(due) => {}
                () = self.shared.demanded() => {
                    sleep_until(due.min(started + MIN_DIAL_INTERVAL)).await;
                }
            }
        }
    }

    /// Stays connected, first with `session` and then with what renewals put in its place. Resolves when the last of
    /// them takes no more streams, with the reason.
    async fn hold(&self, mut session: Session) -> Error {
        loop {
            select! {
                biased;
                reason = self.loss(&session) => return reason,
                () = self.shared.renewal_demanded() => {}
            }
            if self.shared.sessions().len() > MAX_DRAINING {
                // One more would cost the oldest its streams.
                debug!("not renewed: too many earlier connections still have streams");
                continue;
            }
            // The present one serves until the next stands, and keeps its streams after that.
            let outcome = select! {
                biased;
                reason = self.loss(&session) => return reason,
                outcome = self.establish() => outcome,
            };
            match outcome {
                Ok(next) => {
                    debug!("renewed the connection");
                    self.shared.publish(Phase::Connected(next.clone()));
                    leave(&session, "a newer connection takes its place");
                    session = next;
                }
                Err(error) => warn!(reason = %error.report(), "the connection was not renewed"),
            }
        }
    }

    /// Dials, starts the multiplexer and waits until the far end has spoken it.
    async fn establish(&self) -> Result<Session> {
        let peer = self.shared.peer();
        let io = timeout(DIAL_LIMIT, self.dial.dial()).await.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                format!("dialling {peer} took longer than {DIAL_LIMIT:?}"),
            )
            .with_help(
                "check the network, and that a proxy or firewall lets the connection through",
            )
        })??;
        let (session, incoming, driver) = mux::start(io, Role::Client, self.config.clone());
        let candidate = Candidate::new(session);
        let retirement = Retirement {
            id: self.shared.admit(candidate.session.clone()),
            shared: Arc::clone(&self.shared),
        };
        // A task of its own: the streams of a connection live on while the worker dials the next one.
        self.shared.connections().spawn(
            async move {
                let _retirement = retirement;
                let (outcome, ()) = tokio::join!(driver, refuse_all(incoming));
                match outcome {
                    Ok(()) => debug!("connection ended"),
                    Err(error) => debug!(reason = %error.report(), "connection ended"),
                }
            }
            .in_current_span(),
        );
        match timeout(READY_LIMIT, candidate.session.ready()).await {
            Ok(Ok(())) => Ok(candidate.accept()),
            Ok(Err(error)) => Err(Error::new(
                error.kind(),
                format!("{peer} was reached, but the tunnel's handshake failed"),
            )
            .with_source(error)
            .with_help("check that both ends run versions that fit together")),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("{peer} was reached, but sent no tunnel handshake within {READY_LIMIT:?}"),
            )
            .with_help("check that the agent runs, and that this is its address")),
        }
    }

    /// Resolves when `session` takes no more streams, with the reason.
    async fn loss(&self, session: &Session) -> Error {
        let peer = self.shared.peer();
        select! {
            // A session that has ended is going away too; this is the reason to tell.
            biased;
            reason = session.closed() => Error::new(
                ErrorKind::Network,
                format!("the connection to {peer} was lost"),
            )
            .with_source(reason)
            .with_help("nothing, when it comes back by itself; else check the network and the agent"),
            () = session.going_away() => Error::new(
                ErrorKind::Closed,
                format!("{peer} is going away and takes no more streams"),
            )
            .with_help("nothing, when it comes back by itself; else check that the agent runs"),
        }
    }

    /// Waits for the live streams, then for the connections' last frames to leave.
    async fn drain(&self) {
        let sessions = self.shared.sessions();
        for session in &sessions {
            session.go_away("the tunnel is shutting down");
        }
        let connections = self.shared.connections();
        connections.close();
        let mut cut = 0;
        if timeout(DRAIN_LIMIT, connections.wait()).await.is_err() {
            for session in &sessions {
                cut += session.status().live_streams;
                session.close("the tunnel was shut down");
            }
            if timeout(CLOSE_LIMIT, connections.wait()).await.is_err() {
                debug!("a connection did not end in time");
            }
        }
        self.shared.publish(Phase::Closed { cut });
    }
}

/// A session whose far end has not spoken yet. Closed unless it becomes the tunnel's connection.
struct Candidate {
    session: Session,
    accepted: bool,
}

impl Candidate {
    fn new(session: Session) -> Self {
        Self {
            session,
            accepted: false,
        }
    }

    fn accept(mut self) -> Session {
        self.accepted = true;
        self.session.clone()
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.accepted {
            self.session.close("the handshake did not complete");
        }
    }
}

/// Moves a connection's bytes to the sum of the past when its task ends, in whichever way.
struct Retirement {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Retirement {
    fn drop(&mut self) {
        self.shared.retire(self.id);
    }
}

/// Tunnels carry streams one way only.
async fn refuse_all(mut incoming: mux::Incoming) {
    while let Some(stream) = incoming.accept().await {
        stream.refuse(Refusal::WrongDirection.code());
    }
}
