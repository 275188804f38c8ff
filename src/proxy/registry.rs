//! [`Registry`]: the clusters that share the port.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::ProxyId;
use crate::{AuthProvider, Tunnel};

/// One cluster: the way to it, and who is calling.
pub(super) struct Cluster {
    pub(super) tunnel: Arc<dyn Tunnel>,
    pub(super) auth: Arc<dyn AuthProvider>,
}

/// The clusters by id. Shared and changeable while requests run: a request keeps the cluster that it found.
#[derive(Default)]
pub(super) struct Registry {
    clusters: RwLock<HashMap<ProxyId, Arc<Cluster>>>,
}

impl Registry {
    /// Adds a cluster, or replaces the one with this id, which is returned.
    pub(super) fn insert(&self, id: ProxyId, cluster: Cluster) -> Option<Arc<Cluster>> {
        // No code runs under the lock that could leave the map half changed.
        self.clusters
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::new(cluster))
    }

    pub(super) fn find(&self, id: &ProxyId) -> Option<Arc<Cluster>> {
        self.clusters
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }
}
