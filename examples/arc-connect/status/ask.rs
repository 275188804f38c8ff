//! [`Answer`]: what one running proxy says of itself.

use std::time::Duration;

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::running::{Running, RunningCluster};

/// A proxy on this machine answers at once, unless it hangs.
const LIMIT: Duration = Duration::from_secs(3);

/// 256 clusters with an error each.
const MAX_ANSWER: usize = 1 << 20;

/// A running proxy, and what it said when it was asked.
pub struct Answer {
    pub running: Running,
    /// The JSON of `GET /-/status`.
    pub status: Result<Value>,
}

/// Asks a proxy for its status, as the one who started it.
pub async fn ask(running: Running) -> Answer {
    let status = tokio::time::timeout(LIMIT, status(&running))
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer within {LIMIT:?}"),
            ))
        });
    Answer { running, status }
}

async fn status(running: &Running) -> Result<Value> {
    let roots = TrustRoots::only_pem(running.certificate_authority.as_bytes())?;
    let host = running.address.ip().to_string();
    let endpoint = Endpoint::new(host, running.address.port(), Security::Tls);
    let stream = Connector::new(roots)?
        .connect(&endpoint, Alpn::Http1)
        .await?;
    let broken = |error: hyper::Error| {
        Error::new(ErrorKind::Network, "the answer broke off").with_source(error)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::get("/-/status")
        .header(header::HOST, endpoint.authority())
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", running.secret.expose()),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the record is damaged").with_source(error)
        })?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(
                Error::new(ErrorKind::Refused, format!("it answered {status}"))
                    .with_status(status.as_u16()),
            );
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Network, "the answer broke off").with_source(error)
            })?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| {
            Error::new(ErrorKind::Protocol, "the answer is not readable").with_source(error)
        })
    };
    // Driven here, so that the socket goes with this future.
    tokio::select! {
        answered = exchange => answered,
        Err(error) = connection => Err(broken(error)),
    }
}

impl Answer {
    /// Each cluster as the proxy tells it, and as the record names it.
    pub fn clusters(&self) -> Vec<(Option<&RunningCluster>, Option<&Value>)> {
        let recorded = &self.running.clusters;
        let told = match &self.status {
            Ok(status) => status["clusters"].as_array().map(Vec::as_slice),
            Err(_) => return recorded.iter().map(|one| (Some(one), None)).collect(),
        };
        told.unwrap_or_default()
            .iter()
            .map(|cluster| {
                let id = cluster["id"].as_str();
                let named = recorded.iter().find(|one| Some(&*one.id) == id);
                (named, Some(cluster))
            })
            .collect()
    }

    /// A stable shape: members may be added. Nothing secret is in it.
    pub fn to_json(&self) -> Value {
        let clusters: Vec<Value> = self
            .clusters()
            .into_iter()
            .map(|(named, told)| {
                let mut cluster = told.cloned().unwrap_or_else(|| json!({}));
                if let Some(named) = named {
                    cluster["id"] = json!(named.id);
                    cluster["server"] = json!(named.server);
                }
                cluster["name"] = json!(named.map(|named| &named.name));
                cluster["context"] = json!(named.and_then(|named| named.context.as_ref()));
                cluster["resource"] = json!(named.and_then(|named| named.resource.as_ref()));
                cluster
            })
            .collect();
        let status = self.status.as_ref().ok();
        json!({
            "pid": self.running.pid,
            "startedAt": self.running.started_at,
            "address": self.running.address.to_string(),
            "unixSocket": self.running.unix_socket,
            "version": status.map(|status| &status["version"]),
            "draining": status.map(|status| &status["draining"]),
            "error": self.status.as_ref().err().map(Error::report),
            "clusters": clusters,
        })
    }
}
