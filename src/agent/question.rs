//! What the agent asks the API server on its own account: small questions, and always as a caller.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};

use super::{
    Core,
    body::RequestBody,
    correlation::{AuditId, CorrelationId},
    identity::{CallerToken, Identity},
    impersonation::UidHeader,
    request_headers::{CleanHeaders, Decision, SealedHeaders},
    status::Refusal,
};
use crate::{Error, ErrorKind, Result};

/// How long an answer may take. API servers answer reviews from memory, unless a webhook decides.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The largest answer in bytes. A review has less than 2 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// An answer: its status and all of its body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Asks the API server as `identity`, under the agent's credential; with a body by POST, else by GET.
///
/// # Errors
/// 503 or 502 when there is no usable answer, whatever its status.
pub(super) async fn ask(
    core: &Core,
    identity: &Arc<Identity>,
    uid: UidHeader,
    path: &'static str,
    body: Option<String>,
    correlation: &CorrelationId,
) -> Result<Answer, Refusal> {
    let decision = Decision::Impersonate(Arc::clone(identity), uid, core.agent_token().await?);
    let headers = seal(core, decision, correlation)?;
    let target = core.upstream_target(PathAndQuery::from_static(path))?;
    let answer = send(core, headers, target, body)
        .await
        .map_err(|error| Refusal::upstream_failed(&core.authority, &error))?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Err(core.agent_refused());
    }
    Ok(answer)
}

/// Asks the API server by POST, under the caller's own token and nothing else. A 401 is an answer.
///
/// # Errors
/// When there is no usable answer, whatever its status.
pub(super) async fn ask_as_caller(
    core: &Core,
    token: &CallerToken,
    path: &'static str,
    body: String,
    correlation: &CorrelationId,
) -> Result<Answer> {
    let decision = Decision::PassThrough(token.clone(), None);
    let unwritable = |_| Error::new(ErrorKind::Other, "the question can not be written");
    let headers = seal(core, decision, correlation).map_err(unwritable)?;
    let target = core
        .upstream_target(PathAndQuery::from_static(path))
        .map_err(unwritable)?;
    send(core, headers, target, Some(body)).await
}

fn seal(
    core: &Core,
    decision: Decision,
    correlation: &CorrelationId,
) -> Result<SealedHeaders, Refusal> {
    CleanHeaders::of_json().seal(decision, &core.host, AuditId::generate(), correlation, None)
}

async fn send(
    core: &Core,
    headers: SealedHeaders,
    target: PathAndQuery,
    body: Option<String>,
) -> Result<Answer> {
    let (method, body) = match body {
        Some(body) => (Method::POST, RequestBody::whole(body.into())),
        None => (Method::GET, RequestBody::empty()),
    };
    let asked = async {
        let response = core
            .lanes
            .of(&headers)
            .send(method, target, headers, body)
            .await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Protocol, "its answer can not be read").with_source(error)
            })?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    tokio::time::timeout(ANSWER_LIMIT, asked)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "it did not answer in time")))
}
