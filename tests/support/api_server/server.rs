//! [`Server`]: what all connections of one stand-in share.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    authentication::Identities, faults::Faults, pod_directory::PodDirectories,
    request_log::RequestLog, store::Store,
};

/// The state behind every connection.
pub(super) struct Server {
    pub(super) identities: Identities,
    pub(super) store: Arc<Store>,
    pub(super) requests: Arc<RequestLog>,
    pub(super) faults: Faults,
    pub(super) pods: PodDirectories,
    pub(super) ca_pem: String,
    pub(super) big_namespace_pods: usize,
    /// No new connections, and GOAWAY on the live ones.
    pub(super) drain: CancellationToken,
    /// Everything ends at once.
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Server {
    pub(super) fn new(identities: Identities, ca_pem: String, big_namespace_pods: usize) -> Self {
        Self {
            identities,
            store: Arc::new(Store::default()),
            requests: Arc::default(),
            faults: Faults::new(),
            pods: PodDirectories::default(),
            ca_pem,
            big_namespace_pods,
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs a task that ends, wherever it stands, when the server is stopped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}
