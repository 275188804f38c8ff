//! [`ProxyStates`]: what changes at a proxy, for user interfaces.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Interval, MissedTickBehavior},
};

use super::{ProxyId, lifetime::Lifetime, registry::Registry};
use crate::tunnel::TunnelState;

/// How many events are kept for a reader that does not poll. A reconnect is two; this is a restart of the relay under
/// every one of the most clusters that there may be.
pub(super) const EVENT_BACKLOG: usize = 512;

/// How often figures are told while they change. As often as a person can read them.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(1);

/// Something that changed at a [`Proxy`](super::Proxy).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProxyEvent {
    /// A cluster is served from now on, or was when the reader came.
    ClusterAdded {
        /// Its id.
        id: ProxyId,
    },
    /// A cluster got another tunnel and credential. Running requests go on over the earlier ones.
    ClusterReplaced {
        /// Its id.
        id: ProxyId,
    },
    /// A cluster is not served any more; its running requests may go on for a while.
    ClusterRemoving {
        /// Its id.
        id: ProxyId,
    },
    /// The last request of a cluster that is not served any more has ended.
    ClusterRemoved {
        /// Its id.
        id: ProxyId,
        /// How many requests did not end by themselves and were broken.
        cut: usize,
    },
    /// The tunnel of a cluster changed its state.
    TunnelState {
        /// The cluster's id.
        id: ProxyId,
        /// What its tunnel is doing now.
        state: TunnelState,
    },
    /// The figures of a cluster changed. At most once a second for each cluster.
    Traffic {
        /// The cluster's id.
        id: ProxyId,
        /// Requests that are not over.
        live_requests: usize,
        /// Bytes of request bodies, and from clients on upgraded streams, since the cluster was added.
        bytes_sent: u64,
        /// Bytes of response bodies, and to clients on upgraded streams, since the cluster was added.
        bytes_received: u64,
    },
    /// The reader was too slow: this many events are lost. [`Proxy::status`](super::Proxy::status) gives the present.
    Skipped {
        /// How many.
        events: u64,
    },
}

/// Where events come from. Sending never waits: a reader that is behind loses the oldest.
#[derive(Clone)]
pub(super) struct EventSender(broadcast::Sender<ProxyEvent>);

impl EventSender {
    pub(super) fn send(&self, event: ProxyEvent) {
        // Nobody may be listening.
        let _ = self.0.send(event);
    }

    fn subscribe(&self) -> broadcast::Receiver<ProxyEvent> {
        self.0.subscribe()
    }
}

impl Default for EventSender {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENT_BACKLOG))
    }
}

/// The events of a [`Proxy`](super::Proxy), beginning with what there is now. Ends with the proxy.
///
/// A reader that does not poll holds at most a few hundred events; what is older is lost, and told as
/// [`ProxyEvent::Skipped`].
pub struct ProxyStates(Pin<Box<dyn Stream<Item = ProxyEvent> + Send>>);

impl ProxyStates {
    /// Must be made within a tokio runtime.
    pub(super) fn new(registry: Arc<Registry>, lifetime: Lifetime) -> Self {
        let reader = Reader::new(registry, lifetime);
        Self(Box::pin(stream::unfold(reader, |mut reader| async move {
            Some((reader.next().await?, reader))
        })))
    }
}

impl Stream for ProxyStates {
    type Item = ProxyEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ProxyEvent>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ProxyStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyStates").finish_non_exhaustive()
    }
}

struct Reader {
    registry: Arc<Registry>,
    lifetime: Lifetime,
    events: broadcast::Receiver<ProxyEvent>,
    /// At most a few for each cluster.
    pending: VecDeque<ProxyEvent>,
    ticks: Interval,
    told: HashMap<ProxyId, (usize, u64, u64)>,
}

impl Reader {
    fn new(registry: Arc<Registry>, lifetime: Lifetime) -> Self {
        let (clusters, events) = registry.snapshot_with(EventSender::subscribe);
        let mut pending = VecDeque::new();
        for cluster in clusters {
            let id = cluster.id();
            let state = cluster.link().tunnel.status().state;
            pending.push_back(ProxyEvent::ClusterAdded { id });
            pending.push_back(ProxyEvent::TunnelState { id, state });
        }
        let mut ticks = tokio::time::interval(TRAFFIC_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            registry,
            lifetime,
            events,
            pending,
            ticks,
            told: HashMap::new(),
        }
    }

    async fn next(&mut self) -> Option<ProxyEvent> {
        let stopped = self.lifetime.stopped();
        tokio::pin!(stopped);
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                event = self.events.recv() => return match event {
                    Ok(event) => Some(event),
                    Err(RecvError::Lagged(events)) => Some(ProxyEvent::Skipped { events }),
                    Err(RecvError::Closed) => None,
                },
                () = &mut stopped => return None,
                _ = self.ticks.tick() => self.note_traffic(),
            }
        }
    }

    fn note_traffic(&mut self) {
        let clusters = self.registry.clusters();
        self.told
            .retain(|id, _| clusters.iter().any(|cluster| cluster.id() == *id));
        for cluster in clusters {
            let status = cluster.status();
            let figures = (
                status.live_requests,
                status.bytes_sent,
                status.bytes_received,
            );
            if self.told.insert(status.id, figures).unwrap_or_default() != figures {
                self.pending.push_back(ProxyEvent::Traffic {
                    id: status.id,
                    live_requests: status.live_requests,
                    bytes_sent: status.bytes_sent,
                    bytes_received: status.bytes_received,
                });
            }
        }
    }
}
