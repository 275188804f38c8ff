//! [`ConnectedCluster`]: what Azure knows of a cluster.

use std::time::SystemTime;

use azure_core::time::parse_rfc3339;
use serde::{Deserialize, Deserializer};

use crate::{Error, ErrorKind, Result};

/// An enumeration of the service that may grow: what this version of the crate does not know is kept as it came.
macro_rules! open_enum {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_about])* $variant,)*
            /// A value that this version of the crate does not know.
            Other(String),
        }

        impl $name {
            /// The service's word for it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            /// Without regard to case, as all of Azure's enumerations are.
            fn from(text: &str) -> Self {
                $(if text.eq_ignore_ascii_case($text) {
                    return Self::$variant;
                })*
                Self::Other(text.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::from(&*String::deserialize(deserializer)?))
            }
        }
    };
}

open_enum! {
    /// Whether Azure hears the cluster's agent.
    ConnectivityStatus {
        /// The agent was installed and has not been heard yet.
        Connecting = "Connecting",
        /// The agent was heard in the last 15 minutes.
        Connected = "Connected",
        /// The agent has not been heard for 15 minutes.
        Offline = "Offline",
        /// The agent was away for so long that its certificate has expired.
        Expired = "Expired",
        /// The resource exists, and no agent was ever installed.
        AgentNotInstalled = "AgentNotInstalled",
    }
}

open_enum! {
    /// Whether the cluster is reached over a private link, which cluster connect does not work with.
    PrivateLinkState {
        /// It is.
        Enabled = "Enabled",
        /// It is not.
        Disabled = "Disabled",
    }
}

open_enum! {
    /// What became of the last change of the resource.
    ProvisioningState {
        /// It was made.
        Succeeded = "Succeeded",
        /// It failed.
        Failed = "Failed",
        /// It was given up.
        Canceled = "Canceled",
        /// The resource is being made.
        Provisioning = "Provisioning",
        /// It is being changed.
        Updating = "Updating",
        /// It is being deleted.
        Deleting = "Deleting",
        /// It was taken and has not begun.
        Accepted = "Accepted",
    }
}

open_enum! {
    /// How the cluster came about.
    ClusterKind {
        /// Made by Azure on somebody's machines.
        ProvisionedCluster = "ProvisionedCluster",
        /// On AWS, connected through Azure's connector.
        Aws = "AWS",
    }
}

/// An Arc-enabled cluster as Azure Resource Manager describes it. Fields that the service leaves out are `None`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectedCluster {
    /// The resource's name.
    pub name: String,
    /// The Azure region of the resource.
    pub location: Option<String>,
    /// How the cluster came about, when it is not an ordinary connected cluster.
    pub kind: Option<ClusterKind>,
    /// Whether Azure hears the agent.
    pub connectivity_status: Option<ConnectivityStatus>,
    /// When the agent was last heard.
    pub last_connectivity_time: Option<SystemTime>,
    /// When the certificate of the agent's identity ends.
    pub identity_certificate_expiration_time: Option<SystemTime>,
    /// What became of the last change of the resource.
    pub provisioning_state: Option<ProvisioningState>,
    /// Whether the cluster is behind a private link.
    pub private_link_state: Option<PrivateLinkState>,
    /// The version of the agent.
    pub agent_version: Option<String>,
    /// The version of the API server.
    pub kubernetes_version: Option<String>,
    /// The distribution, such as `k3s`.
    pub distribution: Option<String>,
    /// What the cluster runs on.
    pub infrastructure: Option<String>,
    /// How many nodes the cluster has.
    pub total_node_count: Option<u64>,
    /// How many cores its nodes have.
    pub total_core_count: Option<u64>,
    /// How the cluster uses Entra ID, where the service tells.
    pub aad_profile: Option<AadProfile>,
}

/// How a cluster uses Entra ID.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct AadProfile {
    /// Whether Azure's role assignments decide in the cluster.
    #[serde(rename = "enableAzureRBAC")]
    pub azure_rbac_enabled: Option<bool>,
    /// Groups whose members administer the cluster, by object id.
    #[serde(rename = "adminGroupObjectIDs")]
    pub admin_group_object_ids: Option<Vec<String>>,
    /// The tenant whose users the cluster takes.
    #[serde(rename = "tenantID")]
    pub tenant_id: Option<String>,
}

impl ConnectedCluster {
    /// Reads the service's answer. Unknown fields are left alone, and a time that is none counts as left out.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let Resource {
            name,
            location,
            kind,
            properties,
        } = serde_json::from_slice(json).map_err(|error| {
            Error::new(
                ErrorKind::Protocol,
                "Azure Resource Manager's description of the cluster is not readable",
            )
            .with_source(error)
        })?;
        Ok(Self {
            name,
            location,
            kind: kind.filter(|kind| !kind.as_str().is_empty()),
            connectivity_status: properties.connectivity_status,
            last_connectivity_time: time(properties.last_connectivity_time.as_deref()),
            identity_certificate_expiration_time: time(
                properties
                    .managed_identity_certificate_expiration_time
                    .as_deref(),
            ),
            provisioning_state: properties.provisioning_state,
            private_link_state: properties.private_link_state,
            agent_version: properties.agent_version,
            kubernetes_version: properties.kubernetes_version,
            distribution: properties.distribution,
            infrastructure: properties.infrastructure,
            total_node_count: properties.total_node_count,
            total_core_count: properties.total_core_count,
            aad_profile: properties.aad_profile,
        })
    }
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    name: String,
    location: Option<String>,
    kind: Option<ClusterKind>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    connectivity_status: Option<ConnectivityStatus>,
    last_connectivity_time: Option<String>,
    managed_identity_certificate_expiration_time: Option<String>,
    provisioning_state: Option<ProvisioningState>,
    private_link_state: Option<PrivateLinkState>,
    agent_version: Option<String>,
    kubernetes_version: Option<String>,
    distribution: Option<String>,
    infrastructure: Option<String>,
    total_node_count: Option<u64>,
    total_core_count: Option<u64>,
    aad_profile: Option<AadProfile>,
}

fn time(text: Option<&str>) -> Option<SystemTime> {
    parse_rfc3339(text?).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_answer_of_each_version_is_read() {
        let old = br#"{"id":"x","name":"till-7","type":"Microsoft.Kubernetes/connectedClusters","location":"East US",
            "identity":{"type":"SystemAssigned"},"properties":{"agentPublicKeyCertificate":"MIIC",
            "agentVersion":"0.1.0","connectivityStatus":"Connected","kubernetesVersion":"1.20.7",
            "lastConnectivityTime":"2020-12-16T07:23:25.483Z","provisioningState":"Succeeded","totalNodeCount":0}}"#;
        let cluster = ConnectedCluster::parse(old).unwrap();
        assert_eq!(cluster.name, "till-7");
        assert_eq!(
            cluster.connectivity_status,
            Some(ConnectivityStatus::Connected)
        );
        assert_eq!(
            cluster.last_connectivity_time,
            Some(UNIX_EPOCH + Duration::from_millis(1_608_103_405_483))
        );
        assert_eq!(cluster.total_node_count, Some(0));
        assert_eq!(cluster.private_link_state, None);

        let new = br#"{"name":"till-8","kind":"ProvisionedCluster","properties":{
            "connectivityStatus":"agentnotinstalled","privateLinkState":"Enabled","provisioningState":"Rethinking",
            "lastConnectivityTime":"","gateway":{"enabled":false},
            "aadProfile":{"enableAzureRBAC":true,"adminGroupObjectIDs":null,"tenantID":"82acd5bb"}}}"#;
        let cluster = ConnectedCluster::parse(new).unwrap();
        assert_eq!(cluster.kind, Some(ClusterKind::ProvisionedCluster));
        assert_eq!(
            cluster.connectivity_status,
            Some(ConnectivityStatus::AgentNotInstalled)
        );
        assert_eq!(cluster.private_link_state, Some(PrivateLinkState::Enabled));
        assert_eq!(
            cluster.provisioning_state.unwrap(),
            ProvisioningState::Other("Rethinking".to_owned())
        );
        assert_eq!(cluster.last_connectivity_time, None);
        let aad = cluster.aad_profile.unwrap();
        assert_eq!(aad.azure_rbac_enabled, Some(true));
        assert_eq!(aad.tenant_id.as_deref(), Some("82acd5bb"));
    }

    #[test]
    fn what_is_no_description_is_an_error() {
        for text in [
            "",
            "[]",
            "<html>",
            r#"{"properties":{"totalNodeCount":-1}}"#,
        ] {
            let error = ConnectedCluster::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{text}");
        }
    }
}
