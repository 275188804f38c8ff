//! The resource id of an Arc-enabled cluster.

/// `/subscriptions/…/resourceGroups/…/providers/Microsoft.Kubernetes/connectedClusters/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedClusterId(());
