//! [`Registry`]: the clusters that share the port.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    ProxyId,
    cluster::{Cluster, Link, LiveRequest},
    events::{EventSender, ProxyEvent},
};
use crate::{Error, ErrorKind, Result};

/// How many clusters one endpoint serves. Each has a tunnel with a connection and a task; nobody's kubeconfig holds
/// more, and whoever adds them in a loop by mistake learns of it.
pub(super) const MAX_CLUSTERS: usize = 256;

/// How many removed ids are remembered, to say what became of them.
const MAX_REMOVED: usize = 256;

/// The clusters by id. Shared, and changed while requests run.
#[derive(Default)]
pub(super) struct Registry {
    entries: RwLock<Entries>,
    events: EventSender,
}

#[derive(Default)]
struct Entries {
    clusters: BTreeMap<ProxyId, Arc<Cluster>>,
    /// Oldest first.
    removed: VecDeque<ProxyId>,
    closed: bool,
}

/// What a request meets.
pub(super) enum Found {
    Cluster(LiveRequest),
    Removed,
    Unknown,
}

impl Registry {
    /// Adds a cluster.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is one with this id, [`ErrorKind::LimitReached`] when there are too many,
    /// [`ErrorKind::Closed`] when the proxy shuts down.
    pub(super) fn add(&self, id: ProxyId, link: Link) -> Result<()> {
        let mut entries = self.write();
        if entries.clusters.contains_key(&id) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the local endpoint serves a cluster with the id {id} already"),
            )
            .with_help("remove that one first, or replace its tunnel and credential"));
        }
        self.insert(&mut entries, id, link)
    }

    /// Adds a cluster, or gives the one with this id another link.
    pub(super) fn replace(&self, id: ProxyId, link: Link) -> Result<()> {
        let mut entries = self.write();
        let Some(cluster) = entries.clusters.get(&id) else {
            return self.insert(&mut entries, id, link);
        };
        self.events.send(ProxyEvent::ClusterReplaced { id });
        cluster.replace_link(link, &self.events);
        Ok(())
    }

    fn insert(&self, entries: &mut Entries, id: ProxyId, link: Link) -> Result<()> {
        if entries.closed {
            return Err(Error::new(
                ErrorKind::Closed,
                "the local endpoint shuts down and takes no further cluster",
            ));
        }
        if entries.clusters.len() >= MAX_CLUSTERS {
            return Err(Error::new(
                ErrorKind::LimitReached,
                format!(
                    "the local endpoint serves {MAX_CLUSTERS} clusters, which is the most it may"
                ),
            )
            .with_help("remove a cluster first"));
        }
        entries.removed.retain(|removed| *removed != id);
        // The addition is told before anything of its tunnel.
        self.events.send(ProxyEvent::ClusterAdded { id });
        entries
            .clusters
            .insert(id, Cluster::new(id, link, &self.events));
        Ok(())
    }

    /// Takes a cluster out: no request finds it any more. Those that run are the caller's to end.
    pub(super) fn remove(&self, id: &ProxyId) -> Option<Arc<Cluster>> {
        let mut entries = self.write();
        let cluster = entries.clusters.remove(id)?;
        if entries.removed.len() == MAX_REMOVED {
            entries.removed.pop_front();
        }
        entries.removed.push_back(*id);
        self.events.send(ProxyEvent::ClusterRemoving { id: *id });
        Some(cluster)
    }

    /// No cluster is added any more.
    pub(super) fn close(&self) {
        self.write().closed = true;
    }

    /// Counts a request in. Under the lock, so that a removal misses none.
    pub(super) fn enter(&self, id: &ProxyId) -> Found {
        let entries = self.read();
        match entries.clusters.get(id) {
            Some(cluster) => Found::Cluster(cluster.enter()),
            None if entries.removed.contains(id) => Found::Removed,
            None => Found::Unknown,
        }
    }

    pub(super) fn contains(&self, id: &ProxyId) -> bool {
        self.read().clusters.contains_key(id)
    }

    /// The clusters, in the order of their ids.
    pub(super) fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.read().clusters.values().cloned().collect()
    }

    /// The clusters of this moment, and `subscribe`'s result of the same one.
    pub(super) fn snapshot_with<T>(
        &self,
        subscribe: impl FnOnce(&EventSender) -> T,
    ) -> (Vec<Arc<Cluster>>, T) {
        let entries = self.read();
        let clusters = entries.clusters.values().cloned().collect();
        (clusters, subscribe(&self.events))
    }

    pub(super) fn events(&self) -> &EventSender {
        &self.events
    }

    // No code runs under the lock that could leave the entries half changed.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}
