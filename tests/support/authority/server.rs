//! The authority's answers.

use std::{convert::Infallible, io, sync::Arc};

use arc_cluster_connect::net::TlsAcceptor;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Shared, TENANT, faults::Fault, token_endpoint};

/// Where the keys are, for v1 and v2 alike.
pub(super) const KEYS_PATH: &str = "/common/discovery/keys";
/// No question here is longer.
const MAX_QUESTION: usize = 64 * 1024;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Dropped with this task: an authority that is gone answers nobody.
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(tcp, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(tcp).await else {
        return;
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    // How a connection ends is the client's to notice.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let fault = {
        let mut state = shared.state();
        *state.requests.entry(path.clone()).or_default() += 1;
        state.fault
    };
    match fault {
        Some(Fault::Gone) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::Down) => return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "down")),
        Some(Fault::Garbage) => return Ok(text(StatusCode::OK, "<html>not JSON</html>")),
        Some(Fault::Endless) => return Ok(endless()),
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }
    if head.method == Method::GET {
        return Ok(published(shared, &path, fault).unwrap_or_else(not_found));
    }
    let question = Limited::new(body, MAX_QUESTION).collect().await;
    let question = question.map_err(io::Error::other)?.to_bytes();
    if let Some(answer) = token_endpoint::answer(shared, &path, &head.headers, &question) {
        return answer;
    }
    let question: Value = serde_json::from_slice(&question).unwrap_or_default();
    if fault == Some(Fault::GroupsRefused) {
        return Ok(error(StatusCode::FORBIDDEN, "Authorization_RequestDenied"));
    }
    let shows_a_token = head
        .headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
    Ok(groups(shared, &path, &question, shows_a_token))
}

/// Discovery and keys.
fn published(shared: &Shared, path: &str, fault: Option<Fault>) -> Option<Response<Body>> {
    if path == KEYS_PATH {
        let state = shared.state();
        let issuer = format!("{}/{{tenantid}}/v2.0", shared.base);
        let keys: Vec<Value> = state
            .published
            .iter()
            .map(|key| key.entry(&issuer))
            .collect();
        let keys = if fault == Some(Fault::NoKeys) {
            Vec::new()
        } else {
            keys
        };
        return Some(json_answer(StatusCode::OK, &json!({ "keys": keys })));
    }
    let rest = path.strip_prefix('/')?.strip_prefix(TENANT)?;
    let issuer = match rest {
        "/.well-known/openid-configuration" => shared.issuer_v1(),
        "/v2.0/.well-known/openid-configuration" => shared.issuer_v2(),
        _ => return None,
    };
    let issuer = match fault {
        Some(Fault::WrongIssuer) => "https://login.evil.example/tenant/v2.0".to_owned(),
        _ => issuer,
    };
    let keys_at = match fault {
        Some(Fault::ForeignKeys) => "https://keys.evil.example",
        _ => shared.base.as_str(),
    };
    Some(json_answer(
        StatusCode::OK,
        &json!({
            "issuer": issuer,
            "jwks_uri": format!("{keys_at}{KEYS_PATH}"),
            "token_endpoint": format!("{}/{TENANT}/oauth2/v2.0/token", shared.base),
            "id_token_signing_alg_values_supported": ["RS256"],
            "subject_types_supported": ["pairwise"],
            "response_types_supported": ["code"],
        }),
    ))
}

/// `/v1.0/{users,servicePrincipals}/{id}/getMemberGroups` of Graph, `…/getMemberGroups` of Arc.
fn groups(shared: &Shared, path: &str, question: &Value, shows_a_token: bool) -> Response<Body> {
    let Some(subject) = path.strip_suffix("/getMemberGroups") else {
        return not_found();
    };
    let state = shared.state();
    let members = match subject.strip_prefix("/v1.0/") {
        Some(_) if !shows_a_token => {
            return error(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken");
        }
        Some(object) => object
            .split_once('/')
            .and_then(|(kind, id)| state.directory.members(kind, id)),
        None => question["accessToken"]
            .as_str()
            .and_then(|token| state.directory.members_by_token(token)),
    };
    match members {
        Some(groups) => json_answer(StatusCode::OK, &json!({ "value": groups })),
        None => error(StatusCode::NOT_FOUND, "Request_ResourceNotFound"),
    }
}

fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "NotFound")
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    json_answer(
        status,
        &json!({ "error": { "code": code, "message": "on demand" } }),
    )
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = text(status, value.to_string());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn endless() -> Response<Body> {
    let piece = || Ok(Frame::data(Bytes::from_static(&[b' '; 16 * 1024])));
    Response::new(StreamBody::new(stream::repeat_with(piece)).boxed_unsync())
}
