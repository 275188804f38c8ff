//! [`TunnelConnector`]: lets HTTP clients run over a tunnel.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use tower_service::Service;

use super::{OpenOptions, Target, Tunnel, TunnelStream};
use crate::{Error, Result};

/// Connects an HTTP client to one target of a tunnel, with no local port.
///
/// The scheme, host and port of a request's URI choose nothing: every connection is a stream to the same target. Give
/// URIs the form `http://kubernetes/…`, because what runs inside the tunnel is HTTP/1.1 without TLS.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use arc_cluster_connect::tunnel::{Target, Tunnel, TunnelConnector};
/// use bytes::Bytes;
/// use http_body_util::Empty;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
///
/// # async fn example(tunnel: Arc<dyn Tunnel>) -> Result<(), Box<dyn std::error::Error>> {
/// let connector = TunnelConnector::new(tunnel, Target::api_server());
/// let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
/// let answer = client.get("http://kubernetes/version".parse()?).await?;
/// assert!(answer.status().is_success());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TunnelConnector {
    tunnel: Arc<dyn Tunnel>,
    target: Target,
    options: OpenOptions,
}

impl TunnelConnector {
    /// A connector that opens streams to `target` through `tunnel`.
    pub fn new(tunnel: Arc<dyn Tunnel>, target: Target) -> Self {
        Self {
            tunnel,
            target,
            options: OpenOptions::new(),
        }
    }

    /// Opens every stream with `options`.
    #[must_use]
    pub fn with_options(mut self, options: OpenOptions) -> Self {
        self.options = options;
        self
    }
}

impl Service<Uri> for TunnelConnector {
    type Response = TunnelStream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<TunnelStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self {
            tunnel,
            target,
            options,
        } = self.clone();
        Box::pin(async move { tunnel.open(&target, options).await })
    }
}

impl fmt::Debug for TunnelConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelConnector")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
