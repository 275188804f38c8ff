//! [`kube_client`]: a `kube::Client` over a tunnel.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::AUTHORIZATION,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kube::client::Body;
use tower_service::Service;

use super::{Target, Tunnel, TunnelConnector};
use crate::{
    AuthProvider, Error, ErrorKind, Result,
    auth::{Freshness, TokenRequest},
};

/// What the requests call the API server. The tunnel goes to it whatever the name.
const HOST: &str = "kubernetes";

/// A [`kube::Client`] whose requests go through `tunnel`, with the tokens of `auth`: no local port, no kubeconfig.
///
/// Each request asks `auth` for a token; after an answer of 401 the next request asks for a
/// [fresh](Freshness::Fresh) one. Connections are pooled, one tunnel stream each. Watches, logs and, with kube's feature
/// `ws`, `exec` and `port-forward` work as over TCP.
///
/// The client's timeouts are yours to set: this one has none, because a watch is open for as long as it is wanted.
///
/// # Errors of the client
/// What keeps a request from being sent is a [`kube::Error::Service`] with this crate's [`Error`](crate::Error) inside.
///
/// # Panics
/// Outside a tokio runtime.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{AuthProvider, Tunnel, tunnel::kube_client};
///
/// # async fn example(tunnel: Arc<dyn Tunnel>, auth: Arc<dyn AuthProvider>) -> Result<(), kube::Error> {
/// let client = kube_client(tunnel, auth, "default");
/// println!("{}", client.apiserver_version().await?.git_version);
/// # Ok(()) }
/// ```
pub fn kube_client(
    tunnel: Arc<dyn Tunnel>,
    auth: Arc<dyn AuthProvider>,
    default_namespace: impl Into<String>,
) -> kube::Client {
    let connector = TunnelConnector::new(tunnel, Target::api_server());
    let service = AuthenticatedRequests {
        client: Client::builder(TokioExecutor::new()).build(connector),
        auth,
        was_refused: Arc::new(AtomicBool::new(false)),
    };
    kube::Client::new(service, default_namespace)
}

/// Sends each request to the API server under the caller's token.
#[derive(Clone)]
struct AuthenticatedRequests {
    client: Client<TunnelConnector, Body>,
    auth: Arc<dyn AuthProvider>,
    /// Whether the last answer was a 401. Its request can not be sent again: the body has gone.
    was_refused: Arc<AtomicBool>,
}

impl AuthenticatedRequests {
    async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>> {
        let freshness = if self.was_refused.swap(false, Ordering::Relaxed) {
            Freshness::Fresh
        } else {
            Freshness::Cached
        };
        let wanted = TokenRequest::new().with_freshness(freshness);
        let token = self.auth.token(&wanted).await?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()))
            .map_err(|_| Error::new(ErrorKind::InvalidInput, "the token can not be sent"))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        *request.uri_mut() = at_the_api_server(request.uri());
        let response = self.client.request(request).await.map_err(of_the_tunnel)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.was_refused.store(true, Ordering::Relaxed);
        }
        Ok(response)
    }
}

impl Service<Request<Body>> for AuthenticatedRequests {
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

impl fmt::Debug for AuthenticatedRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatedRequests")
            .finish_non_exhaustive()
    }
}

/// kube leaves scheme and host out; the pool wants them.
fn at_the_api_server(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static(HOST));
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    Uri::from_parts(parts).expect("scheme, host and path are all there")
}

/// The pooled client wraps the error of the tunnel, which says more than its own.
fn of_the_tunnel(error: hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            let kind = ours.kind();
            let help = ours.help().map(str::to_owned);
            let outer = Error::new(kind, "the request did not get through the tunnel");
            return match help {
                Some(help) => outer.with_help(help),
                None => outer,
            }
            .with_source(error);
        }
        source = cause.source();
    }
    Error::new(
        ErrorKind::Network,
        "the request broke off inside the tunnel",
    )
    .with_source(error)
}
