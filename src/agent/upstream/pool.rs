//! [`Pool`]: which connection a request goes out on, and when another one is opened.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    dial::{Dial, Dialled, UpstreamIo},
    http1, http2,
    places::{ConnectionId, IDLE_LIMIT, MAX_STREAMS, Places},
};
use crate::{Error, ErrorKind, Result};

/// The most HTTP/2 connections at once, those that run empty included. With 90 requests on each it is ten times what
/// an agent has in flight; a server that allows only a few on each must not be flooded with connections.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How many connections are opened side by side. Each new one brings room for 90 requests.
pub(super) const MAX_OPENINGS: usize = 4;
/// How long requests wait for one connection to open before another is tried: behind a load balancer one dead backend
/// would otherwise hold everybody for as long as a connect may take.
pub(super) const OPENING_PATIENCE: Duration = Duration::from_millis(300);
/// How long a new connection may take to say how many requests it allows. It is the first thing a server says.
pub(super) const SETTINGS_LIMIT: Duration = Duration::from_secs(10);
/// How long a request waits for a place. Longer than a connection may take to open (TCP, TLS and settings: 30 s).
pub(super) const PLACE_LIMIT: Duration = Duration::from_secs(35);

/// The connections to one API server.
pub(super) struct Pool {
    shared: Arc<PoolShared>,
}

/// A connection for one request.
pub(super) enum Connection {
    Http1(http1::Lease),
    Http2(http2::Lease),
}

/// Whether a request has been sent before.
#[derive(Clone, Copy)]
pub(super) enum Attempt {
    First,
    /// It failed on a kept connection: the others may be as old.
    Again,
}

struct PoolShared {
    dial: Box<dyn Dial>,
    idle_http1: Arc<http1::IdleConnections>,
    state: Mutex<State>,
    /// A place is free, a connection has opened, or the server turned out to speak HTTP/1.1.
    changed: Notify,
}

#[derive(Default)]
struct State {
    places: Places<http2::Sender>,
    openings: Vec<Opening>,
    next_opening: u64,
    /// How many requests wait for a place.
    waiting: usize,
    spoken: Spoken,
    expiring: bool,
}

/// What the server spoke on the last connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Spoken {
    #[default]
    Unknown,
    Http1,
    Http2,
}

/// A connection that is being opened, for whoever waits. Nobody's leaving ends it.
#[derive(Clone)]
struct Opening {
    number: u64,
    since: Instant,
    outcome: Shared<BoxFuture<'static, Result<(), Arc<Error>>>>,
}

impl Pool {
    pub(super) fn new(dial: Box<dyn Dial>) -> Self {
        Self {
            shared: Arc::new(PoolShared {
                dial,
                idle_http1: Arc::default(),
                state: Mutex::default(),
                changed: Notify::new(),
            }),
        }
    }

    pub(super) fn dial(&self) -> &dyn Dial {
        &*self.shared.dial
    }

    /// A connection for one request: one that is there, or a new one.
    ///
    /// # Errors
    /// What kept a connection from being made; [`ErrorKind::LimitReached`] when no place became free in time.
    ///
    /// # Cancel safety
    /// Cancel-safe. A connection that is being opened for several requests opens all the same.
    pub(super) async fn connection(&self, attempt: Attempt) -> Result<Connection> {
        let shared = &self.shared;
        if let Some(connection) = shared.at_hand(attempt) {
            return Ok(connection);
        }
        let waiting = Waiting::new(shared);
        match tokio::time::timeout(PLACE_LIMIT, waiting.connection(attempt)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::LimitReached,
                format!("no connection has room for another request, after {PLACE_LIMIT:?}"),
            )
            .with_help("the API server allows too few requests at once: see its HTTP/2 settings")),
        }
    }
}

/// A request that waits for a connection. It is counted: the count says how many connections are worth opening.
struct Waiting<'a>(&'a Arc<PoolShared>);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Arc<PoolShared>) -> Self {
        shared.state().waiting += 1;
        Self(shared)
    }

    async fn connection(&self, attempt: Attempt) -> Result<Connection> {
        let shared = self.0;
        let mut joined = None;
        let mut patience = Instant::now() + OPENING_PATIENCE;
        loop {
            // Before the look, so that no change between the look and the wait is missed.
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            if let Some(connection) = shared.at_hand(attempt) {
                return Ok(connection);
            }
            if shared.state().spoken == Spoken::Http1 {
                // One request, one connection: there is nothing to share.
                match shared.dial.dial_any().await? {
                    Dialled::Http1(io) => return shared.http1(io).await.map(Connection::Http1),
                    Dialled::Http2(io) => shared.http2(io).await?,
                }
                continue;
            }
            let Some(opening) = joined.take().or_else(|| shared.opening()) else {
                changed.await;
                continue;
            };
            tokio::select! {
                biased;
                // Who has waited for a connection hears how its opening went, whatever became of others meanwhile.
                outcome = opening.outcome.clone() => outcome.map_err(|error| copy(&error))?,
                () = changed => joined = Some(opening),
                () = tokio::time::sleep_until(patience) => {
                    shared.opening();
                    patience += OPENING_PATIENCE;
                    joined = Some(opening);
                }
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl PoolShared {
    /// A connection that needs no waiting for.
    fn at_hand(self: &Arc<Self>, attempt: Attempt) -> Option<Connection> {
        if let Some(lease) = self.place() {
            return Some(Connection::Http2(lease));
        }
        match attempt {
            Attempt::First => self.idle_http1.take().map(Connection::Http1),
            Attempt::Again => None,
        }
    }

    fn place(self: &Arc<Self>) -> Option<http2::Lease> {
        loop {
            let (id, sender) = self.state().places.take()?;
            let place = Place {
                shared: Arc::clone(self),
                id,
            };
            // A connection whose server has said GOAWAY, or that has used its stream ids up, is not ready any more.
            match sender.ready().now_or_never() {
                Some(Ok(sender)) => return Some(http2::Lease::new(sender, place)),
                _ => place.retire(),
            }
        }
    }

    /// The newest of the connections that are being opened, after as many have been started as are of use. `None`: there
    /// are as many connections as there may be.
    fn opening(self: &Arc<Self>) -> Option<Opening> {
        let mut state = self.state();
        let of_use = state.waiting.div_ceil(MAX_STREAMS);
        let overdue = state
            .openings
            .last()
            .is_none_or(|newest| newest.since.elapsed() >= OPENING_PATIENCE);
        if (overdue || state.openings.len() < of_use)
            && state.openings.len() < MAX_OPENINGS
            && state.openings.len() + state.places.connections() < MAX_CONNECTIONS
        {
            let opening = self.start_opening(state.next_opening);
            state.next_opening += 1;
            state.openings.push(opening);
        }
        state.openings.last().cloned()
    }

    fn start_opening(self: &Arc<Self>, number: u64) -> Opening {
        let shared = Arc::clone(self);
        let task = tokio::spawn(async move {
            let outcome = shared.open().await.map_err(Arc::new);
            shared
                .state()
                .openings
                .retain(|opening| opening.number != number);
            if outcome.is_ok() {
                shared.changed.notify_waiters();
            }
            outcome
        });
        let outcome = task.map(|outcome| {
            outcome.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Other, "the dialling task ended");
                Err(Arc::new(error))
            })
        });
        Opening {
            number,
            since: Instant::now(),
            outcome: outcome.boxed().shared(),
        }
    }

    async fn open(self: &Arc<Self>) -> Result<()> {
        match self.dial.dial_any().await? {
            Dialled::Http2(io) => self.http2(io).await,
            Dialled::Http1(io) => {
                self.http1(io).await?.offer();
                Ok(())
            }
        }
    }

    async fn http1(self: &Arc<Self>, io: Box<dyn UpstreamIo>) -> Result<http1::Lease> {
        self.state().spoken = Spoken::Http1;
        self.expire_when_idle();
        http1::Lease::start(io, Arc::clone(&self.idle_http1)).await
    }

    /// Adds an HTTP/2 connection; returns when requests can be sent on it.
    async fn http2(self: &Arc<Self>, io: Box<dyn UpstreamIo>) -> Result<()> {
        let (sender, driver) = http2::handshake(io).await?;
        let id = {
            let mut state = self.state();
            state.spoken = Spoken::Http2;
            state.places.add(sender, Instant::now())
        };
        self.expire_when_idle();
        let (usable, became_usable) = oneshot::channel();
        // Weak: connections end with the pool, and not the other way round.
        tokio::spawn(drive(driver, Arc::downgrade(self), id, usable));
        match tokio::time::timeout(SETTINGS_LIMIT, became_usable).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::new(
                ErrorKind::Closed,
                "the connection ended before it could be used",
            )),
            Err(_) => {
                self.state().places.retire(id);
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!("its HTTP/2 settings allowed no request within {SETTINGS_LIMIT:?}"),
                ))
            }
        }
    }

    /// Lets a task close what is idle, for as long as there is a pool.
    fn expire_when_idle(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().expiring, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_LIMIT / 2).await;
                let Some(shared) = pool.upgrade() else {
                    return;
                };
                shared.idle_http1.expire();
                shared.state().places.expire(Instant::now());
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs an HTTP/2 connection to its end.
async fn drive(
    driver: http2::Driver,
    pool: Weak<PoolShared>,
    id: ConnectionId,
    usable: oneshot::Sender<()>,
) {
    let mut usable = Some(usable);
    let ended = driver
        .run(|allowed| {
            let Some(shared) = pool.upgrade() else {
                return;
            };
            let mut state = shared.state();
            state.places.set_limit(id, allowed);
            tracing::debug!(
                allowed,
                connections = state.places.connections(),
                "an HTTP/2 connection to the API server can be used"
            );
            drop(state);
            if allowed > 0
                && let Some(usable) = usable.take()
            {
                // Whoever opened it may have left.
                let _ = usable.send(());
            }
            shared.changed.notify_waiters();
        })
        .await;
    if let Err(error) = ended {
        tracing::debug!(
            error = error.report(),
            "an HTTP/2 connection to the API server was lost"
        );
    }
    if let Some(shared) = pool.upgrade() {
        shared.state().places.remove(id);
        // Who waits may open another one.
        shared.changed.notify_waiters();
    }
}

/// A request's place on an HTTP/2 connection.
pub(super) struct Place {
    shared: Arc<PoolShared>,
    id: ConnectionId,
}

impl Place {
    /// No more requests on this connection.
    pub(super) fn retire(&self) {
        self.shared.state().places.retire(self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared
            .state()
            .places
            .give_back(self.id, Instant::now());
        self.shared.changed.notify_one();
    }
}

/// The error of a connection that several requests waited for, for one of them.
fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.report());
    match error.help() {
        Some(help) => copy.with_help(help.to_owned()),
        None => copy,
    }
}
