//! Whether a tunnel to a cluster can come about at all, before anything is dialled.

use super::{
    ArmClient, ConnectedCluster, ConnectedClusterId, ConnectivityStatus, PrivateLinkState,
};
use crate::{Error, ErrorKind, Result};

impl ArmClient {
    /// Looks at the cluster before anything is dialled, and fails with the reason when no tunnel to it can come about:
    /// its agent is not there, or it is behind a private link.
    ///
    /// `None` when the caller may not read the resource: the role for cluster connect alone does not allow that, so
    /// nothing was looked at.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no agent is connected, [`ErrorKind::Refused`] for a private link, and those of
    /// [`connected_cluster`](Self::connected_cluster).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn preflight(&self, id: &ConnectedClusterId) -> Result<Option<ConnectedCluster>> {
        let cluster = match self.describe(id).await? {
            Ok(answer) => ConnectedCluster::parse(&answer)?,
            Err(failure) if failure.is_missing_right() => {
                tracing::debug!(code = failure.code, "may not look at the cluster");
                return Ok(None);
            }
            Err(failure) => return Err(failure.into_error("describe the cluster", id)),
        };
        match obstacle(id, &cluster) {
            Some(error) => Err(error),
            None => Ok(Some(cluster)),
        }
    }
}

fn obstacle(id: &ConnectedClusterId, cluster: &ConnectedCluster) -> Option<Error> {
    let name = id.name();
    let heard = || match cluster.last_connectivity_time {
        Some(time) => format!(
            ", last heard at {}",
            azure_core::time::to_rfc3339(&time.into())
        ),
        None => String::new(),
    };
    if cluster.private_link_state == Some(PrivateLinkState::Enabled) {
        return Some(
            Error::new(
                ErrorKind::Refused,
                format!("the cluster {name} is behind a private link"),
            )
            .with_help(
                "cluster connect does not work with private links: reach the API server over the private network itself",
            ),
        );
    }
    let (what, help) = match cluster.connectivity_status.as_ref()? {
        ConnectivityStatus::Connecting => (
            format!("the agent of the cluster {name} has not connected yet"),
            "wait some minutes; then look at the agent: `kubectl get pods -n azure-arc` beside the cluster",
        ),
        ConnectivityStatus::Offline => (
            format!("the cluster {name} is offline{}", heard()),
            "look at the agent beside the cluster: `kubectl get pods -n azure-arc`, and its way out to the internet",
        ),
        ConnectivityStatus::Expired => (
            format!(
                "the agent's certificate of the cluster {name} has expired{}",
                heard()
            ),
            "the agent was away for too long: delete the resource and connect the cluster again (`az connectedk8s connect`)",
        ),
        ConnectivityStatus::AgentNotInstalled => (
            format!("no agent is installed in the cluster {name}"),
            "install it: `az connectedk8s connect`",
        ),
        // What is new to us may well work.
        ConnectivityStatus::Connected | ConnectivityStatus::Other(_) => return None,
    };
    Some(Error::new(ErrorKind::NotFound, what).with_help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(properties: &str) -> Option<Error> {
        let id = ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7")
            .unwrap();
        let json = format!(r#"{{"name":"till-7","properties":{properties}}}"#);
        obstacle(&id, &ConnectedCluster::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn each_obstacle_is_named_and_says_what_to_do() {
        for (properties, text) in [
            (
                r#"{"connectivityStatus":"Connecting"}"#,
                "has not connected yet",
            ),
            (
                r#"{"connectivityStatus":"Offline","lastConnectivityTime":"2026-01-02T03:04:05Z"}"#,
                "is offline, last heard at 2026-01-02T03:04:05Z",
            ),
            (r#"{"connectivityStatus":"Expired"}"#, "has expired"),
            (
                r#"{"connectivityStatus":"AgentNotInstalled"}"#,
                "no agent is installed",
            ),
            (
                r#"{"connectivityStatus":"Connected","privateLinkState":"Enabled"}"#,
                "private link",
            ),
        ] {
            let error = found(properties).expect(properties);
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.to_string().contains("till-7"), "{error}");
            assert!(error.help().is_some());
            assert!(!error.is_retryable(), "{error}");
        }
    }

    #[test]
    fn a_connected_cluster_and_an_unknown_state_are_let_through() {
        for properties in [
            r#"{"connectivityStatus":"Connected","privateLinkState":"Disabled"}"#,
            r#"{"connectivityStatus":"Hibernating"}"#,
            "{}",
        ] {
            assert!(found(properties).is_none(), "{properties}");
        }
    }
}
