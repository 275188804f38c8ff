//! [`Cluster`]: one cluster behind the port, its live requests and its figures.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    ProxyId,
    events::{EventSender, ProxyEvent},
    lifetime::Lifetime,
    status::{ClusterStatus, LastError},
    streams::Streams,
};
use crate::{AuthProvider, Tunnel, tunnel::TunnelState};

/// The way to a cluster, and who is calling. A request keeps the one that it found.
pub(super) struct Link {
    pub(super) tunnel: Arc<dyn Tunnel>,
    pub(super) auth: Arc<dyn AuthProvider>,
}

/// One cluster: its present link, and what all requests to it have in common.
pub(super) struct Cluster {
    id: ProxyId,
    link: Mutex<CurrentLink>,
    /// The tasks that carry its tunnel streams.
    lifetime: Lifetime,
    streams: Streams,
    /// A token for each request.
    live: TaskTracker,
    requests: AtomicU64,
    traffic: Arc<Traffic>,
    last_error: Mutex<Option<LastError>>,
}

struct CurrentLink {
    link: Arc<Link>,
    /// Ends the task that follows the states of the link's tunnel.
    _watch: Option<DropGuard>,
}

/// Bytes of bodies and of upgraded streams.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Cluster {
    /// A cluster whose tunnel is watched from now on. Must be called within a tokio runtime.
    pub(super) fn new(id: ProxyId, link: Link, events: &EventSender) -> Arc<Self> {
        let link = Arc::new(link);
        let cluster = Arc::new(Self {
            id,
            link: Mutex::new(CurrentLink {
                link: Arc::clone(&link),
                _watch: None,
            }),
            lifetime: Lifetime::default(),
            streams: Streams::default(),
            live: TaskTracker::new(),
            requests: AtomicU64::new(0),
            traffic: Arc::default(),
            last_error: Mutex::default(),
        });
        cluster.set_link(link, events);
        cluster
    }

    pub(super) fn id(&self) -> ProxyId {
        self.id
    }

    /// Counts a request in. It is live until the value is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> LiveRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        LiveRequest {
            link: self.link(),
            _token: self.live.token(),
            cluster: Arc::clone(self),
        }
    }

    /// Requests from now on take `link`; those that run keep the one that they found.
    pub(super) fn replace_link(self: &Arc<Self>, link: Link, events: &EventSender) {
        self.set_link(Arc::new(link), events);
    }

    fn set_link(self: &Arc<Self>, link: Arc<Link>, events: &EventSender) {
        let watch = watch(Arc::downgrade(self), &link, events.clone());
        *lock(&self.link) = CurrentLink {
            link,
            _watch: Some(watch),
        };
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&lock(&self.link).link)
    }

    /// Waits until the live requests have ended, breaks those that have not after `limit`, and says how many it broke.
    ///
    /// # Cancel safety
    /// A dropped future breaks them at once.
    pub(super) async fn drain(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let cutting = Cutting(self);
        self.live.close();
        // An unfinished watch or shell is the usual reason to reach the limit, and no error.
        let _ = tokio::time::timeout_at(deadline, self.live.wait()).await;
        let cut = self.live.len();
        if cut == 0 {
            // What is left of a request that has ended is the good order in which its stream closes.
            self.lifetime
                .end(deadline.saturating_duration_since(Instant::now()))
                .await;
            std::mem::forget(cutting);
        } else {
            drop(cutting);
        }
        cut
    }

    pub(super) fn status(&self) -> ClusterStatus {
        ClusterStatus {
            id: self.id,
            tunnel: self.link().tunnel.status(),
            live_requests: self.live.len(),
            requests: self.requests.load(Ordering::Relaxed),
            bytes_sent: self.traffic.sent.load(Ordering::Relaxed),
            bytes_received: self.traffic.received.load(Ordering::Relaxed),
            last_error: lock(&self.last_error).clone(),
        }
    }

    fn note_error(&self, message: String) {
        *lock(&self.last_error) = Some(LastError {
            message,
            at: SystemTime::now(),
        });
    }
}

/// A request that found its cluster.
pub(super) struct LiveRequest {
    link: Arc<Link>,
    cluster: Arc<Cluster>,
    _token: TaskTrackerToken,
}

impl LiveRequest {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn id(&self) -> ProxyId {
        self.cluster.id
    }

    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.cluster.traffic
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.cluster.streams
    }

    /// What stops when the cluster has left.
    pub(super) fn lifetime(&self) -> &Lifetime {
        &self.cluster.lifetime
    }
}

/// Breaks what is left of a cluster's requests when it is dropped.
struct Cutting<'a>(&'a Cluster);

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        // First the signal: whoever meets the end of a stream then knows what it means.
        self.0.lifetime.stop();
        self.0.streams.reset();
    }
}

/// Publishes the states of a tunnel, and keeps the reason of its last failure, until the guard is dropped.
fn watch(cluster: Weak<Cluster>, link: &Arc<Link>, events: EventSender) -> DropGuard {
    let end = CancellationToken::new();
    let guard = end.clone().drop_guard();
    let mut states = link.tunnel.states();
    tokio::spawn(async move {
        end.run_until_cancelled(async {
            while let Some(state) = states.next().await {
                let Some(cluster) = cluster.upgrade() else {
                    return;
                };
                if let TunnelState::Waiting { reason, .. } = &state {
                    cluster.note_error(reason.report());
                }
                let id = cluster.id;
                events.send(ProxyEvent::TunnelState { id, state });
            }
        })
        .await
    });
    guard
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that panics runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
