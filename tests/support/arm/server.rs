//! Connections and requests.

use std::{convert::Infallible, io, sync::Arc};

use arc_cluster_connect::{arm::ConnectedClusterId, net::TlsAcceptor};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Fault, Question, Recorded, Shared, answer};

/// No question here is longer.
const MAX_QUESTION: usize = 64 * 1024;

pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Dropped with this task: a resource manager that is gone answers nobody.
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
        async move { respond(&shared, request).await }
    });
    // How a connection ends is the client's to notice.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_QUESTION).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    let text = |name: &str| {
        let value = head.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned()
    };
    let version = head
        .uri
        .query()
        .and_then(|query| query.strip_prefix("api-version="))
        .unwrap_or("")
        .to_owned();
    let path = head.uri.path().to_owned();
    shared.state().requests.push(Recorded {
        method: head.method.to_string(),
        path: path.clone(),
        version: version.clone(),
        correlation_id: text("x-ms-correlation-request-id"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    if path == "/metadata/endpoints" {
        return Ok(json_answer(200, &answer::metadata(shared, &text("host"))));
    }
    if !shared.state().takes(&text("authorization")) {
        return Ok(refusal(401, "InvalidAuthenticationToken"));
    }
    let Some((question, cluster)) = question(shared, &head.method, &path) else {
        return Ok(refusal(404, "ResourceNotFound"));
    };
    let fault = shared.state().take_fault(question);
    match fault {
        Some(Fault::Gone) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::Refusal {
            status,
            code,
            headers,
        }) => {
            let mut response = refusal(status, code);
            for (name, value) in headers {
                let value = value.parse().expect("a header's value");
                response.headers_mut().insert(name, value);
            }
            return Ok(response);
        }
        None => {}
    }
    if !shared.state().versions.contains(&&*version) {
        return Ok(refusal(400, "NoRegisteredProviderFound"));
    }
    Ok(match question {
        Question::Cluster => json_answer(200, &answer::cluster(shared, &cluster, &version)),
        Question::Credential => json_answer(200, &answer::credential(shared, &cluster, &version)),
    })
}

fn question(
    shared: &Shared,
    method: &Method,
    path: &str,
) -> Option<(Question, ConnectedClusterId)> {
    let clusters = shared.state().clusters.clone();
    clusters.into_iter().find_map(|cluster| {
        let id = cluster.to_string();
        let (head, rest) = path.split_at_checked(id.len())?;
        let question = match (method, rest) {
            _ if !head.eq_ignore_ascii_case(&id) => None,
            (&Method::GET, "") => Some(Question::Cluster),
            (&Method::POST, "/listClusterUserCredential") => Some(Question::Credential),
            _ => None,
        };
        Some((question?, cluster))
    })
}

fn refusal(status: u16, code: &str) -> Response<Full<Bytes>> {
    json_answer(
        status,
        &json!({ "error": { "code": code, "message": "On demand.", "target": null, "details": [] } }),
    )
}

fn json_answer(status: u16, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        "application/json".parse().expect("it is one"),
    );
    headers.insert(
        "x-ms-request-id",
        "request-of-a-test".parse().expect("it is one"),
    );
    response
}
