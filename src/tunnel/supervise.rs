//! [`Supervisor`]: keeps a connection to the far end, and opens streams on it. What all tunnels of this crate share.
//!
//! One background task per tunnel, the [`worker`], dials, notices losses and dials again. It alone changes the phase
//! that everybody else watches, so a hundred openings that find no connection wait for one dial, and an opening that
//! is dropped disturbs neither the dial nor the others.

mod shared;
mod worker;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::timeout};

use self::{
    shared::{Cause, Phase, Shared},
    worker::Worker,
};
use super::{
    OpenOptions, StateStream, Target, TunnelStatus, TunnelStream,
    mux::{self, MuxStream, Session},
    stream::BytePipe,
};
use crate::{
    Error, ErrorKind, Result,
    net::{Jitter, random_jitter},
};

/// How long an opening waits for a connection unless [`OpenOptions`] says otherwise. Long enough for the waits 0, 1,
/// 2 and 5 s, in which a relay or agent restarts; short enough that kubectl's user still looks at the screen.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(15);

/// Makes byte pipes to one far end.
#[async_trait]
pub(super) trait Dial: Send + Sync + 'static {
    /// The far end's name, for people.
    fn peer(&self) -> String;

    /// Connects once. May be dropped at any point.
    async fn dial(&self) -> Result<Box<dyn BytePipe>>;
}

/// Keeps one connection that takes streams, and the earlier ones that still have some.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    dial: Arc<dyn Dial>,
    config: mux::Config,
    jitter: Jitter,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Supervisor {
    /// A supervisor that has not dialled yet. Needs no runtime.
    pub(super) fn new(dial: impl Dial) -> Self {
        Self {
            shared: Arc::new(Shared::new(dial.peer())),
            dial: Arc::new(dial),
            config: mux::Config::default(),
            jitter: random_jitter,
            worker: Mutex::new(None),
        }
    }

    pub(super) fn with_config(mut self, config: mux::Config) -> Self {
        self.config = config;
        self
    }

    pub(super) async fn open(
        &self,
        target: &Target,
        options: &OpenOptions,
    ) -> Result<TunnelStream> {
        let limit = options.wait_limit().unwrap_or(OPEN_LIMIT);
        let mut stage = Stage::Connection(None);
        match timeout(limit, self.open_unlimited(target, &mut stage)).await {
            Ok(Ok(mut stream)) => {
                stream.set_priority(options.priority());
                stream.set_weight(options.weight());
                Ok(stream.into())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.open_timeout(limit, stage)),
        }
    }

    pub(super) fn status(&self) -> TunnelStatus {
        self.shared.status()
    }

    pub(super) fn states(&self) -> StateStream {
        self.shared.states()
    }

    pub(super) async fn shutdown(&self) -> Result<()> {
        self.shared.begin_shutdown();
        let mut phases = self.shared.phases();
        loop {
            match &*phases.borrow_and_update() {
                Phase::Closed { cut: 0 } => return Ok(()),
                Phase::Closed { cut } => return Err(self.shared.cut_error(*cut)),
                _ => {}
            }
            // A task that was dropped together with its runtime drains nothing any more.
            self.ensure_worker();
            if phases.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits until there is a connection, dialling first where none stands, as an opening does.
    pub(super) async fn connect(&self) -> Result<()> {
        let mut stage = Stage::Connection(None);
        let connect = self.with_session(&mut stage, |_| async { Ok(()) });
        match timeout(OPEN_LIMIT, connect).await {
            Ok(result) => result,
            Err(_) => Err(self.open_timeout(OPEN_LIMIT, stage)),
        }
    }

    /// For a task beside the tunnel that knows more than the tunnel: when to renew, and when to doubt.
    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    async fn open_unlimited(&self, target: &Target, stage: &mut Stage) -> Result<MuxStream> {
        let metadata = Bytes::copy_from_slice(target.as_str().as_bytes());
        let open = |session: Session| {
            let metadata = metadata.clone();
            async move { session.open(metadata).await }
        };
        self.with_session(stage, open).await
    }

    /// Does `what` with the session of the connection, once there is one.
    async fn with_session<T, F>(&self, stage: &mut Stage, what: impl Fn(Session) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut phases = self.shared.phases();
        let mut news = News::Old;
        let mut demanded = false;
        loop {
            self.ensure_worker();
            let phase = phases.borrow_and_update().clone();
            match phase {
                Phase::Idle | Phase::Connecting { .. } => {}
                Phase::Connected(session) => {
                    *stage = Stage::Stream;
                    match what(session.clone()).await {
                        Ok(done) => return Ok(done),
                        // The connection was lost in this instant; the worker is about to say so.
                        Err(error) if session.is_closed() || session.is_going_away() => {
                            *stage = Stage::Connection(Some(Arc::new(error)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Phase::Waiting { cause, reason, .. } => {
                    // A failure from before this call says nothing about now: only a new one ends it.
                    if news == News::New && cause == Cause::Dial && !reason.is_retryable() {
                        return Err(self.shared.dial_error(&reason));
                    }
                    let wanted = news == News::Old || cause == Cause::Loss;
                    if wanted && !demanded {
                        demanded = true;
                        self.shared.demand_dial();
                    }
                    *stage = Stage::Connection(Some(reason));
                }
                Phase::Draining | Phase::Closed { .. } => return Err(self.shared.closed_error()),
            }
            if phases.changed().await.is_err() {
                return Err(self.shared.closed_error());
            }
            news = News::New;
        }
    }

    fn open_timeout(&self, limit: Duration, stage: Stage) -> Error {
        let peer = self.shared.peer();
        match stage {
            Stage::Connection(Some(reason)) => self.shared.dial_error(&reason),
            Stage::Connection(None) => Error::new(
                ErrorKind::Timeout,
                format!("no connection to {peer} within {limit:?}"),
            )
            .with_help(
                "the dial is still going on: try again, and check the network if it stays so",
            ),
            Stage::Stream => Error::new(
                ErrorKind::Timeout,
                format!("{peer} allowed no further stream within {limit:?}"),
            )
            .with_help("too many streams are open at once: end some, or use a second tunnel"),
        }
    }

    /// Starts the background task on the first use, and anew when the runtime that it ran on is gone.
    fn ensure_worker(&self) {
        let mut worker = lock(&self.worker);
        if worker.as_ref().is_none_or(JoinHandle::is_finished) && !self.shared.is_closed() {
            let task = Worker::new(
                Arc::clone(&self.shared),
                Arc::clone(&self.dial),
                self.config.clone(),
                self.jitter,
            );
            *worker = Some(tokio::spawn(task.run()));
        }
    }
}

/// Acts on a tunnel's connection without keeping the tunnel alive.
#[derive(Clone)]
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    /// Puts a new connection in place of the present one, whose streams live on in it to their end.
    pub(super) fn renew(&self) {
        self.0.demand_renewal();
    }

    /// Takes no connection for granted: each must give a sign of life within `limit` or is closed, and a dial that
    /// waits begins now.
    pub(super) async fn doubt(&self, limit: Duration) {
        self.0.demand_dial();
        let sessions = self.0.sessions();
        let probes = sessions.iter().map(|session| async move {
            if timeout(limit, session.probe()).await.is_err() {
                session.close("the peer gave no sign of life");
            }
        });
        join_all(probes).await;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.abandon();
        if let Some(worker) = lock(&self.worker).take() {
            worker.abort();
        }
    }
}

/// What an opening was waiting for when its time was over.
enum Stage {
    /// A connection; with the last reason for having none.
    Connection(Option<Arc<Error>>),
    /// The peer's permission for one more stream.
    Stream,
}

/// Whether a phase was there before the call that looks at it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Old,
    New,
}

/// Locks. Nothing that can panic runs under these locks, so what a poisoned one guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
