//! [`Shared`]: what the tunnel, its openings, its streams and its warm connections know together.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    future::{OptionFuture, join},
    stream,
};
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    health::{self, Health, Seen, Turn},
    lock,
};
use crate::{
    Error, ErrorKind, Result,
    net::random_jitter,
    tunnel::{StateStream, TunnelState, TunnelStatus},
};

/// How many changes of state are kept for a subscriber that does not poll; one that is further behind misses the oldest.
const STATE_BACKLOG: usize = 64;

/// How long a shutdown waits for live streams, as in the other tunnels.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Shared {
    peer: String,
    inner: Mutex<Inner>,
    /// Tells those who wait for a turn, or for the end.
    changes: watch::Sender<()>,
    states: broadcast::Sender<TunnelState>,
    /// A shutdown has begun, or the tunnel was dropped.
    leaving: CancellationToken,
    /// The drain's limit was reached.
    cut: CancellationToken,
    is_cut: AtomicBool,
    /// A token per living stream.
    live: TaskTracker,
    sent: AtomicU64,
    received: AtomicU64,
}

struct Inner {
    health: Health,
    published: (u8, u32, u64),
    round_trip_time: Option<Duration>,
    /// How many streams had not ended at the drain's limit.
    cut: usize,
}

impl Shared {
    pub(super) fn new(peer: String) -> Self {
        let health = Health::new(random_jitter);
        Self {
            peer,
            inner: Mutex::new(Inner {
                published: health.version(),
                health,
                round_trip_time: None,
                cut: 0,
            }),
            changes: watch::Sender::new(()),
            states: broadcast::Sender::new(STATE_BACKLOG),
            leaving: CancellationToken::new(),
            cut: CancellationToken::new(),
            is_cut: AtomicBool::new(false),
            live: TaskTracker::new(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.inner).health.seen()
    }

    pub(super) fn is_good(&self) -> bool {
        lock(&self.inner).health.is_good()
    }

    /// Waits until a dial may begin. `reason` is told why there is none yet.
    pub(super) async fn turn(
        self: &Arc<Self>,
        seen: Seen,
        reason: &mut Option<Arc<Error>>,
    ) -> Result<Attempt> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let until = {
                let mut inner = lock(&self.inner);
                match inner.health.turn(Instant::now(), seen) {
                    Turn::Dial(attempt) => {
                        self.publish(&mut inner);
                        return Ok(Attempt {
                            shared: Arc::clone(self),
                            attempt: Some(attempt),
                        });
                    }
                    Turn::Failed(reason) => return Err(self.unreachable(&reason)),
                    Turn::Closed => return Err(self.closed_error()),
                    Turn::Wait(until) => {
                        *reason = inner.health.last_failure().cloned();
                        until
                    }
                }
            };
            let due = async {
                match until {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                // The sender lives as long as we do.
                _ = changes.changed() => {}
            }
        }
    }

    /// Counts a stream from now until its lease is dropped.
    pub(super) fn lease(self: &Arc<Self>) -> Result<Lease> {
        let inner = lock(&self.inner);
        if self.leaving.is_cancelled() {
            return Err(self.closed_error());
        }
        let token = self.live.token();
        drop(inner);
        Ok(Lease {
            shared: Arc::clone(self),
            _token: token,
        })
    }

    pub(super) fn measured(&self, round_trip_time: Duration) {
        lock(&self.inner).round_trip_time = Some(round_trip_time);
    }

    /// Takes no new streams from now on.
    pub(super) fn leave(&self) {
        let mut inner = lock(&self.inner);
        inner.health.drain();
        self.leaving.cancel();
        self.live.close();
        self.publish(&mut inner);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    pub(super) async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Waits for the live streams and the task that keeps connections warm within the limit, cuts the others off, and
    /// closes.
    pub(super) async fn drain(&self, keeper: Option<JoinHandle<()>>) {
        let all = join(self.live.wait(), OptionFuture::from(keeper));
        let cut = match timeout(DRAIN_LIMIT, all).await {
            Ok(_) => 0,
            Err(_) => self.live.len(),
        };
        self.is_cut.store(true, Ordering::Release);
        self.cut.cancel();
        self.close(cut);
    }

    /// No stream comes any more; those that live go on.
    pub(super) fn close(&self, cut: usize) {
        let mut inner = lock(&self.inner);
        if inner.health.is_closed() {
            return;
        }
        self.leaving.cancel();
        inner.cut = cut;
        inner.health.close();
        self.publish(&mut inner);
        drop(inner);
        self.changes.send_replace(());
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.inner).health.is_closed()
    }

    /// Resolves when the tunnel is closed, with how that went.
    pub(super) async fn closed(&self) -> Result<()> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let cut = {
                let inner = lock(&self.inner);
                inner.health.is_closed().then_some(inner.cut)
            };
            match cut {
                Some(0) => return Ok(()),
                Some(cut) => return Err(self.cut_error(cut)),
                // The sender lives as long as we do.
                None => _ = changes.changed().await,
            }
        }
    }

    pub(super) fn status(&self) -> TunnelStatus {
        let inner = lock(&self.inner);
        let mut status = TunnelStatus::new(inner.health.state(), &self.peer);
        status.round_trip_time = inner.round_trip_time;
        status.live_streams = self.live.len();
        status.bytes_sent = self.sent.load(Ordering::Relaxed);
        status.bytes_received = self.received.load(Ordering::Relaxed);
        status
    }

    pub(super) fn states(&self) -> StateStream {
        let inner = lock(&self.inner);
        let present = inner.health.state();
        let changes = Some((Some(present), self.states.subscribe()));
        StateStream::new(stream::unfold(changes, |changes| async {
            let (present, mut changes) = changes?;
            let state = match present {
                Some(state) => state,
                None => loop {
                    match changes.recv().await {
                        Ok(state) => break state,
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                },
            };
            let last = matches!(state, TunnelState::Closed);
            Some((state, (!last).then_some((None, changes))))
        }))
    }

    /// Tells the watchers, if there is something to tell. Under the lock, so that a new one misses nothing.
    fn publish(&self, inner: &mut Inner) {
        let version = inner.health.version();
        if version != inner.published {
            inner.published = version;
            // Nobody may be listening.
            let _ = self.states.send(inner.health.state());
        }
    }

    fn end_attempt(&self, end: impl FnOnce(&mut Health)) {
        let mut inner = lock(&self.inner);
        end(&mut inner.health);
        self.publish(&mut inner);
        drop(inner);
        self.changes.send_replace(());
    }

    /// Why an opening got no stream: the last failure, under a text that names the tunnel.
    pub(super) fn unreachable(&self, reason: &Arc<Error>) -> Error {
        Error::repeated(
            reason,
            format!("there is no bridged connection to {}", self.peer),
        )
    }

    pub(super) fn closed_error(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("the tunnel to {} was shut down", self.peer),
        )
        .with_help("make a new tunnel")
    }

    fn cut_error(&self, cut: usize) -> Error {
        let peer = &self.peer;
        Error::new(
            ErrorKind::Timeout,
            format!("{cut} streams to {peer} had not ended when the tunnel was closed"),
        )
        .with_help("end the streams first: their last bytes may be lost")
    }
}

/// A dial that may begin. Dropped, it was given up.
pub(super) struct Attempt {
    shared: Arc<Shared>,
    attempt: Option<health::Attempt>,
}

impl Attempt {
    /// Whether it was granted when the way worked, and now does not.
    pub(super) fn is_stale(&self) -> bool {
        let health = &lock(&self.shared.inner).health;
        self.attempt
            .as_ref()
            .is_some_and(|attempt| health.is_stale(attempt))
    }

    /// The listener answered, with a stream or with a refusal.
    pub(super) fn answered(mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.shared.end_attempt(|health| health.answered(attempt));
        }
    }

    pub(super) fn failed(mut self, reason: &Arc<Error>) {
        if let Some(attempt) = self.attempt.take() {
            self.shared
                .end_attempt(|health| health.failed(attempt, reason, Instant::now()));
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.shared.end_attempt(|health| health.abandoned(attempt));
        }
    }
}

/// A living stream's place in the counts.
pub(super) struct Lease {
    shared: Arc<Shared>,
    _token: TaskTrackerToken,
}

impl Lease {
    pub(super) fn count_sent(&self, bytes: usize) {
        self.shared.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        let received = &self.shared.received;
        received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.shared.is_cut.load(Ordering::Acquire)
    }

    /// Resolves when the stream has to end.
    pub(super) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.shared.cut.clone().cancelled_owned()
    }

    pub(super) fn cut_error(&self) -> Error {
        self.shared.closed_error()
    }
}
