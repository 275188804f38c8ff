//! [`RegisterServer`]: the plain-HTTP port at which `az` registers clusters.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_cluster_connect::{Error, ErrorKind, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{neighbour, registration::Registrar};
use crate::common;

/// `az` is one client that calls once in hours.
const MAX_CONNECTIONS: usize = 16;

/// A registration has a kubeconfig of some KiB in base64.
const MAX_BODY: usize = 1024 * 1024;

/// How long a connection may take for a head, and for the request and its answer.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// The pause when the system has no descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a page can send to any port without asking first.
const FORM_TYPES: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
];

pub struct RegisterServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    registrar: Arc<Registrar>,
}

impl RegisterServer {
    pub async fn bind(port: u16, registrar: Registrar) -> Result<Self> {
        let failed = |error| {
            Error::new(
                ErrorKind::Network,
                format!("can not listen on port {port} of 127.0.0.1 for registrations"),
            )
            .with_source(error)
            .with_help("another proxy runs, perhaps; the Azure CLI calls this AZK8S0801 ClientProxyPortInUse")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            local_addr,
            registrar: Arc::new(registrar),
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until it is dropped.
    pub async fn run(&self) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match self.listener.accept().await {
                Ok((tcp, peer)) => {
                    let local = self.local_addr;
                    let registrar = Arc::clone(&self.registrar);
                    tokio::spawn(async move {
                        serve(tcp, peer, local, registrar).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    common::warn(format_args!("can not accept a registration: {error}"));
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// One connection, for one request.
async fn serve(tcp: TcpStream, peer: SocketAddr, local: SocketAddr, registrar: Arc<Registrar>) {
    let service = service_fn(|request| {
        let registrar = Arc::clone(&registrar);
        async move {
            let response = match admit(request.headers(), peer, local) {
                Ok(()) => respond(request, &registrar).await,
                Err(reason) => refusal(StatusCode::FORBIDDEN, reason),
            };
            Ok::<_, Infallible>(response.map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), service);
    // Whoever broke it off knows.
    let _ = tokio::time::timeout(HEAD_LIMIT + REQUEST_LIMIT, connection).await;
}

/// Lets programs of this user in, and no web page.
fn admit(headers: &HeaderMap, peer: SocketAddr, local: SocketAddr) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_ours = |host: &HeaderValue| {
        Authority::try_from(host.as_bytes()).is_ok_and(|authority| {
            (authority.host() == "127.0.0.1" || authority.host().eq_ignore_ascii_case("localhost"))
                && authority.port_u16() == Some(local.port())
                && !authority.as_str().contains('@')
        })
    };
    if !(hosts.next().is_some_and(is_ours) && hosts.next().is_none()) {
        return Err("the Host of the request is not this port of this machine");
    }
    let is_a_browsers = headers.contains_key(header::ORIGIN)
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("sec-fetch-"));
    let is_a_form = headers
        .get_all(header::CONTENT_TYPE)
        .iter()
        .any(|kind| FORM_TYPES.iter().any(|form| begins_with(kind, form)));
    if is_a_browsers || is_a_form {
        return Err("web pages are not served");
    }
    neighbour::check(peer, local)
}

fn begins_with(value: &HeaderValue, prefix: &str) -> bool {
    value
        .as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

async fn respond(request: Request<Incoming>, registrar: &Registrar) -> Response<Bytes> {
    let (parts, body) = request.into_parts();
    let Some(id) = super::registration::cluster_of(parts.uri.path()) else {
        return refusal(
            StatusCode::NOT_FOUND,
            "the path is not that of a registration: /subscriptions/…/connectedClusters/NAME/register",
        );
    };
    if parts.method != Method::POST {
        return refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "a registration is a POST request",
        );
    }
    let whole = tokio::time::timeout(REQUEST_LIMIT, Limited::new(body, MAX_BODY).collect()).await;
    let body = match whole {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the registration is too large",
            );
        }
        _ => return refusal(StatusCode::BAD_REQUEST, "the registration broke off"),
    };
    let id = match id {
        Ok(id) => id,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.report()),
    };
    match registrar.register(&id, &body) {
        Ok(kubeconfigs) => {
            common::progress(format_args!(
                "ProxyRegisterSucceeded {id} ActivityId={}",
                activity(&parts.headers)
            ));
            answer(StatusCode::OK, &kubeconfigs)
        }
        Err(error) => {
            common::warn(format_args!(
                "ProxyRegisterFailed {id} ActivityId={}: {}",
                activity(&parts.headers),
                error.report()
            ));
            let status = match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::Unauthorized => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refusal(status, &error.report())
        }
    }
}

fn activity(headers: &HeaderMap) -> &str {
    headers
        .get(arc_cluster_connect::telemetry::HEADER_CORRELATION_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| id.len() <= 128)
        .unwrap_or("-")
}

/// An answer that nobody keeps: it may hold the secret of the run.
pub fn answer(status: StatusCode, content: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(content.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `az` prints the text of every answer but 200.
pub fn refusal(status: StatusCode, message: &str) -> Response<Bytes> {
    answer(status, &json!({ "error": { "message": message } }))
}
