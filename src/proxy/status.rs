//! What the proxy is doing, as a snapshot and as JSON.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{ProxyId, endpoint::base_path};
use crate::tunnel::{TunnelState, TunnelStatus};

/// A snapshot of a proxy.
///
/// `GET /-/status` at the endpoint, with the secret of the run, gives the same as JSON: see
/// [the module](super#the-status-of-a-running-proxy).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProxyStatus {
    /// The address that is listened on.
    pub local_addr: SocketAddr,
    /// The Unix socket that is listened on.
    pub unix_socket: Option<PathBuf>,
    /// Whether the proxy shuts down.
    pub draining: bool,
    /// The clusters, in the order of their ids.
    pub clusters: Vec<ClusterStatus>,
}

/// A snapshot of one cluster behind a proxy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Its id in the path of the endpoint.
    pub id: ProxyId,
    /// Its tunnel: the present one, when it was replaced.
    pub tunnel: TunnelStatus,
    /// Requests that are not over, watches and upgraded streams among them.
    pub live_requests: usize,
    /// Requests that were forwarded since the cluster was added.
    pub requests: u64,
    /// Bytes of request bodies, and from clients on upgraded streams.
    pub bytes_sent: u64,
    /// Bytes of response bodies, and to clients on upgraded streams.
    pub bytes_received: u64,
    /// Why the tunnel was last lost or not dialled, even if it is back.
    pub last_error: Option<LastError>,
}

/// A failure of a tunnel. Holds no secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastError {
    /// The error and its causes on one line.
    pub message: String,
    /// When it happened.
    pub at: SystemTime,
}

impl ProxyStatus {
    /// The JSON of `GET /-/status`.
    pub(super) fn to_json(&self) -> Value {
        let clusters: Vec<Value> = self
            .clusters
            .iter()
            .map(|cluster| cluster.to_json(self.local_addr))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "address": self.local_addr.to_string(),
            "unixSocket": self.unix_socket,
            "draining": self.draining,
            "clusters": clusters,
        })
    }
}

impl ClusterStatus {
    fn to_json(&self, address: SocketAddr) -> Value {
        let last_error = self.last_error.as_ref().map(
            |error| json!({ "message": printable(&error.message), "at": timestamp(error.at) }),
        );
        json!({
            "id": self.id.to_string(),
            "server": format!("https://{address}{}", base_path(&self.id)),
            "tunnel": tunnel_json(&self.tunnel),
            "liveRequests": self.live_requests,
            "requests": self.requests,
            "bytesSent": self.bytes_sent,
            "bytesReceived": self.bytes_received,
            "lastError": last_error,
        })
    }
}

fn tunnel_json(tunnel: &TunnelStatus) -> Value {
    let mut json = json!({
        "state": StateName(&tunnel.state).to_string(),
        "peer": printable(&tunnel.peer),
        "roundTripMilliseconds": tunnel.round_trip_time.map(milliseconds),
        "streams": tunnel.live_streams,
        "bytesSent": tunnel.bytes_sent,
        "bytesReceived": tunnel.bytes_received,
    });
    if let Some(credential) = &tunnel.credential {
        json["credential"] = json!({
            "expiresAt": timestamp(credential.expires_at),
            "issued": credential.issued,
            "failure": credential.failure.as_ref().map(|failure| printable(&failure.report())),
        });
    }
    match &tunnel.state {
        TunnelState::Connecting { attempt } => json["attempt"] = json!(attempt),
        TunnelState::Waiting { retry_in, reason } => {
            json["retryInMilliseconds"] = json!(milliseconds(*retry_in));
            json["reason"] = json!(printable(&reason.report()));
        }
        _ => {}
    }
    json
}

/// The name of a state in JSON.
struct StateName<'a>(&'a TunnelState);

impl fmt::Display for StateName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            TunnelState::Idle => "idle",
            TunnelState::Connecting { .. } => "connecting",
            TunnelState::Connected => "connected",
            TunnelState::Waiting { .. } => "waiting",
            TunnelState::Draining => "draining",
            TunnelState::Closed => "closed",
        })
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(super) fn timestamp(at: SystemTime) -> Option<String> {
    OffsetDateTime::from(at).format(&Rfc3339).ok()
}

/// Peers' words end on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Error, ErrorKind, tunnel::CredentialStatus};

    #[test]
    fn a_credential_shows_its_end_and_why_there_is_no_next_one() {
        let mut tunnel = TunnelStatus::new(TunnelState::Connected, "till-7");
        assert_eq!(tunnel_json(&tunnel)["credential"], Value::Null);

        tunnel.credential = Some(CredentialStatus {
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
            issued: 3,
            failure: Some(Arc::new(Error::new(ErrorKind::Network, "no\nway"))),
        });
        assert_eq!(
            tunnel_json(&tunnel)["credential"],
            json!({ "expiresAt": "2026-01-01T00:00:00Z", "issued": 3, "failure": "no way" })
        );
    }
}
