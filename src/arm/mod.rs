//! Azure Resource Manager: where is the cluster.

mod id;

pub use id::ConnectedClusterId;
