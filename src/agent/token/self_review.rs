//! [`SelfReviews`]: the API server's word on a caller's own token, before anything of the caller's request goes there.
//!
//! The question is the caller's: it goes out under their token, over the connections that carry no credential of the
//! agent's. So the agent needs no right to review tokens, and learns nothing that the caller could not be told.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    cache::Verdicts,
    rejection::{Failure, Outage, Rejection},
};
use crate::{
    ErrorKind,
    agent::{
        Core,
        audit::{CallerKind, CallerSummary},
        correlation::CorrelationId,
        identity::{
            AuthenticationError, CallerToken, RejectReason, Standing, authentication_failed,
        },
        question::{self, Answer},
        record::RequestRecord,
        status::Refusal,
    },
    clock::Clock,
};

/// How long the API server's yes is believed: a token that it no longer takes costs it one more request at most, which
/// it refuses itself. What it said no to is not asked for again for five seconds.
const BELIEVED: Duration = Duration::from_secs(10);
/// Who has no name. An API server that lets anybody in may answer so.
const ANONYMOUS: &str = "system:anonymous";

/// Asks the API server who the holder of a token is, as that holder, and remembers the answer for a moment: of 4 096
/// tokens that are good, and 1 024 that are not.
pub(in crate::agent) struct SelfReviews {
    verdicts: Verdicts<Arc<Holder>>,
    clock: Clock,
}

/// The holder of a token, in the API server's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holder {
    /// Unknown where the API server is too old to tell.
    user: Option<String>,
    groups: usize,
}

/// What the API server can be asked, in this order, until it knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Since Kubernetes 1.28. Answers with a name.
    Who,
    /// In every version. Answers whoever is let in; what, makes no difference.
    May,
}

impl Core {
    /// Has the API server judge a caller's own token, where that is asked for.
    ///
    /// # Errors
    /// 401 when it does not accept the token, 403 when it does not tell whose it is, 503 when it can not be asked.
    pub(in crate::agent) async fn review(
        self: &Arc<Self>,
        standing: &Standing,
        record: &mut RequestRecord,
        correlation: &CorrelationId,
    ) -> Result<(), Refusal> {
        if let (Standing::OwnToken(token), Some(reviews)) = (standing, &self.self_reviews) {
            let holder = reviews.holder(self, token, correlation).await?;
            record.set_caller(CallerSummary {
                kind: CallerKind::PassThrough,
                user: holder.user.as_deref(),
                groups: holder.groups,
            });
        }
        Ok(())
    }
}

impl SelfReviews {
    pub(in crate::agent) fn new(clock: Clock) -> Self {
        Self {
            verdicts: Verdicts::new(clock.clone()),
            clock,
        }
    }

    async fn holder(
        &self,
        core: &Arc<Core>,
        token: &CallerToken,
        correlation: &CorrelationId,
    ) -> Result<Arc<Holder>, Refusal> {
        let (core, own, correlation) = (Arc::clone(core), token.clone(), correlation.clone());
        let clock = self.clock.clone();
        let asking = async move {
            let holder = ask(&core, &own, &correlation).await?;
            Ok((Arc::new(holder), clock.now() + BELIEVED))
        };
        self.verdicts
            .of(token.text(), asking)
            .await
            .map_err(|failure| {
                authentication_failed("self-review", &AuthenticationError::from(failure))
            })
    }
}

async fn ask(
    core: &Core,
    token: &CallerToken,
    correlation: &CorrelationId,
) -> Result<Holder, Failure> {
    for question in [Question::Who, Question::May] {
        let body = question.body().to_string();
        let answer = question::ask_as_caller(core, token, question.path(), body, correlation)
            .await
            .map_err(|error| unanswered(error.kind(), error.report()))?;
        if answer.status != StatusCode::NOT_FOUND {
            return question.holder(&answer);
        }
    }
    Err(unanswered(
        ErrorKind::NotFound,
        "the API server knows no review by which callers are told who they are".to_owned(),
    ))
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Self::Who => "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            Self::May => "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        }
    }

    fn body(self) -> Value {
        match self {
            Self::Who => json!({
                "kind": "SelfSubjectReview",
                "apiVersion": "authentication.k8s.io/v1",
            }),
            Self::May => json!({
                "kind": "SelfSubjectAccessReview",
                "apiVersion": "authorization.k8s.io/v1",
                "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } },
            }),
        }
    }

    /// Only an answer that says so is a yes.
    fn holder(self, answer: &Answer) -> Result<Holder, Failure> {
        let rejected = |reason, detail: &'static str| Rejection::new(reason, detail).into();
        match answer.status {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED => {
                return Err(rejected(
                    RejectReason::ApiServer,
                    "the API server answered 401 to the token's own review",
                ));
            }
            StatusCode::FORBIDDEN => {
                return Err(rejected(
                    RejectReason::NotReviewed,
                    "the API server answered 403 to the token's own review",
                ));
            }
            status => {
                return Err(unanswered(
                    ErrorKind::Refused,
                    format!(
                        "the API server answered {} to a token's review",
                        status.as_u16()
                    ),
                ));
            }
        }
        let holder = match self {
            Self::Who => named(&answer.body),
            Self::May => is_review(&answer.body).then(Holder::default),
        };
        let holder = holder.ok_or_else(|| {
            unanswered(
                ErrorKind::Protocol,
                "the API server's answer to a token's review is none".to_owned(),
            )
        })?;
        if holder.user.as_deref() == Some(ANONYMOUS) {
            return Err(rejected(
                RejectReason::ApiServer,
                "the API server takes the token's holder for nobody",
            ));
        }
        Ok(holder)
    }
}

fn named(body: &[u8]) -> Option<Holder> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        user_info: UserInfo,
    }
    #[derive(Deserialize)]
    struct UserInfo {
        username: String,
        #[serde(default)]
        groups: Vec<String>,
    }

    let user = serde_json::from_slice::<Review>(body)
        .ok()?
        .status
        .user_info;
    (!user.username.is_empty()).then_some(Holder {
        user: Some(user.username),
        groups: user.groups.len(),
    })
}

fn is_review(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body)
        .is_ok_and(|review| review["status"]["allowed"].is_boolean())
}

fn unanswered(kind: ErrorKind, message: String) -> Failure {
    Outage::new(
        kind,
        message,
        "check that the agent reaches the API server, or do without the review of service accounts' tokens",
    )
    .into()
}

#[cfg(test)]
mod tests;
