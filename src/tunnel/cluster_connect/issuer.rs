//! [`Issuer`]: who gives credentials for a cluster's relay.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::{
    Error, ErrorKind, Result,
    arm::{ArmClient, AuthenticationMethod, ClusterKubeconfig, ConnectedClusterId, RelayAccess},
    net::{Endpoint, Security},
    relay::{HybridConnection, RelayGrant, RelayToken},
};

#[async_trait]
pub(super) trait Issuer: Send + Sync {
    /// A new credential. May be dropped at any point.
    async fn issue(&self) -> Result<Issued>;
}

/// A credential, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) grant: RelayGrant,
    /// When the issuer says that another should be in use; the token itself may live longer.
    pub(super) expires_at: SystemTime,
    pub(super) kubeconfigs: Vec<ClusterKubeconfig>,
}

/// Azure Resource Manager.
pub(super) struct ArmIssuer {
    arm: ArmClient,
    id: ConnectedClusterId,
    method: AuthenticationMethod,
}

impl ArmIssuer {
    pub(super) fn new(
        arm: ArmClient,
        id: ConnectedClusterId,
        method: AuthenticationMethod,
    ) -> Self {
        Self { arm, id, method }
    }
}

#[async_trait]
impl Issuer for ArmIssuer {
    async fn issue(&self) -> Result<Issued> {
        let credential = self
            .arm
            .list_cluster_user_credential(&self.id, self.method)
            .await?;
        Ok(Issued {
            grant: grant(&credential.relay, self.arm.cloud().relay_suffix())?,
            expires_at: credential.relay.expires_at(),
            kubeconfigs: credential.kubeconfigs,
        })
    }
}

fn grant(access: &RelayAccess, suffix: &str) -> Result<RelayGrant> {
    let unusable = |error: Error| {
        Error::new(
            ErrorKind::Protocol,
            "Azure Resource Manager gave a credential that no relay can be dialled with",
        )
        .with_source(error)
        .with_help("check that the cloud is the right one")
    };
    let relay = endpoint(access.namespace(), suffix).map_err(unusable)?;
    let hybrid_connection =
        HybridConnection::new(relay, access.hybrid_connection_name()).map_err(unusable)?;
    let token = RelayToken::sas(access.token()).map_err(unusable)?;
    Ok(RelayGrant::new(hybrid_connection, token))
}

/// `namespace` under the domain `suffix`, which may have a port.
fn endpoint(namespace: &str, suffix: &str) -> Result<Endpoint> {
    let is_name = namespace
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if !is_name {
        return Err(Error::new(
            ErrorKind::Protocol,
            "the relay's name is not a host name",
        ));
    }
    let (domain, port) = match suffix.rsplit_once(':') {
        Some((domain, port)) => (domain, port.parse().ok()),
        None => (suffix, Some(443)),
    };
    let port = port.ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            "the port of the relays' domain is not a number",
        )
    })?;
    Ok(Endpoint::new(
        format!("{namespace}.{domain}"),
        port,
        Security::Tls,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_below_the_clouds_domain() {
        let of = |namespace, suffix| endpoint(namespace, suffix).unwrap().authority();
        assert_eq!(
            of("azgnrelay-eastus-l1", "servicebus.windows.net"),
            "azgnrelay-eastus-l1.servicebus.windows.net:443"
        );
        assert_eq!(of("a.b", "relays.example:8443"), "a.b.relays.example:8443");
        for namespace in ["evil.example/", "a@b", "a:1", "a b", "é"] {
            endpoint(namespace, "servicebus.windows.net").unwrap_err();
        }
    }
}
