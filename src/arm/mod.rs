//! Azure Resource Manager: where is the cluster, how is it, and with what may its relay be dialled.
//!
//! ```text
//!  ArmClient ──GET   …/connectedClusters/NAME──────────────────────────► ConnectedCluster
//!            ──POST  …/connectedClusters/NAME/listClusterUserCredential─► ClusterCredential
//!            ──GET   /metadata/endpoints───────────────────────────────► Cloud
//! ```
//!
//! Facts are those of the public specification of `Microsoft.Kubernetes` (API versions 2021-10-01 to 2026-05-01).

mod client;
mod cluster;
mod credential;
mod failure;
mod id;
mod metadata;
mod preflight;

pub use client::ArmClient;
pub use cluster::{
    AadProfile, ClusterKind, ConnectedCluster, ConnectivityStatus, PrivateLinkState,
    ProvisioningState,
};
pub use credential::{AuthenticationMethod, ClusterCredential, ClusterKubeconfig, RelayAccess};
pub use id::ConnectedClusterId;
