//! Requests of this program's own, as the caller, straight through a tunnel.

use std::{sync::Arc, time::Duration};

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, Result, Tunnel,
    auth::TokenRequest,
    tunnel::{StateStream, Target, TunnelConnector, TunnelState},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use crate::common;

/// How long a request through a new tunnel may take before the program gives up.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Answers to what is asked here, and errors, are far smaller. A user's groups and claims are in some.
const ANSWER_SIZE: usize = 256 * 1024;

/// Asks the API server for its version as the caller: shows at the start, not at the first `kubectl`, whether the relay,
/// the agent, the API server and the caller's credential all work. `unauthorized` is what to do when that last is refused.
pub async fn first_request(
    tunnel: &Arc<dyn Tunnel>,
    auth: &Arc<dyn AuthProvider>,
    unauthorized: &'static str,
) -> Result<()> {
    let answer = ask(tunnel, auth, Method::GET, "/version", None);
    let response =
        common::with_patience("waiting for the API server's first answer", answer).await?;
    // 403 proves the identity: this caller may just not read the version.
    if response.status() == StatusCode::FORBIDDEN {
        return Ok(());
    }
    judge(&response, unauthorized)
}

/// One exchange with the API server.
pub async fn ask(
    tunnel: &Arc<dyn Tunnel>,
    auth: &Arc<dyn AuthProvider>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Response<Bytes>> {
    let token = auth.token(&TokenRequest::new()).await?;
    let connector = TunnelConnector::new(Arc::clone(tunnel), Target::api_server());
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let invalid = |error: http::Error| {
        Error::new(ErrorKind::InvalidInput, "the token can not be sent").with_source(error)
    };
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()))
        .map_err(|error| invalid(error.into()))?;
    // Whoever logs headers is told not to log this one.
    bearer.set_sensitive(true);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://kubernetes{path}"))
        .header(AUTHORIZATION, bearer);
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = body.map(|body| Bytes::from(body.to_string()));
    let request = request
        .body(Full::new(body.unwrap_or_default()))
        .map_err(invalid)?;
    let exchange = async {
        let response = client.request(request).await.map_err(transport_error)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_SIZE)
            .collect()
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Network, "the API server's answer broke off")
                    .with_source(error)
            })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    match tokio::time::timeout(ANSWER_LIMIT, exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("no answer through the tunnel within {ANSWER_LIMIT:?}"),
        )
        .with_help("check the agent's log and its connection to the API server")),
    }
}

/// Resolves when a dial fails in a way that the user has to look at. A tunnel would go on trying, which is right later,
/// when a network comes and goes; now it is more likely that a name is misspelt. Only an agent that is not there yet is
/// waited for.
pub async fn hopeless(mut states: StateStream) -> Error {
    let mut told = false;
    while let Some(state) = states.next().await {
        let TunnelState::Waiting { reason, .. } = state else {
            continue;
        };
        if reason.kind() != ErrorKind::NotFound {
            return copy(&reason);
        }
        if !told {
            told = true;
            common::progress("no agent is there yet; waiting for it");
        }
    }
    std::future::pending().await
}

/// The error that a refusal is.
pub fn judge(response: &Response<Bytes>, unauthorized: &'static str) -> Result<()> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let message = status_message(response.body());
    let (kind, help) = match status {
        StatusCode::UNAUTHORIZED => (ErrorKind::Unauthorized, unauthorized),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            (
                ErrorKind::Network,
                "the agent runs but can not reach its API server: check the agent's log",
            )
        }
        _ => (ErrorKind::Refused, "check the agent's log"),
    };
    Err(
        Error::new(kind, format!("the cluster answered {status}: {message}"))
            .with_status(status.as_u16())
            .with_help(help),
    )
}

fn status_message(body: &[u8]) -> String {
    serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|status| status["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "no reason was given".to_owned())
}

/// The pooled client wraps ours: the tunnel's own error says more.
fn transport_error(error: hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            return copy(ours);
        }
        source = cause.source();
    }
    Error::new(ErrorKind::Network, "the request failed").with_source(error)
}

/// An error of our own that is shared, as one that can be returned.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.report());
    if let Some(help) = error.help() {
        copy = copy.with_help(help.to_owned());
    }
    if let Some(tracking_id) = error.tracking_id() {
        copy = copy.with_tracking_id(tracking_id);
    }
    copy
}
