//! From a caller to the [`Decision`] in whose name the request goes on.

use http::{Response, StatusCode};

use super::{
    Core,
    correlation::CorrelationId,
    identity::{AgentToken, Standing},
    impersonation::{ActAs, UidHeader},
    request_headers::{Decision, Lane},
    status::Refusal,
};

impl Core {
    /// In whose name a caller's request goes on.
    ///
    /// # Errors
    /// 403 when the caller may not act as they ask; 502 or 503 when that can not be found out, or when the agent
    /// has no usable credential.
    pub(super) async fn decide(
        &self,
        standing: Standing,
        act_as: Option<ActAs>,
        correlation: &CorrelationId,
    ) -> Result<Decision, Refusal> {
        let mut identity = match standing {
            Standing::OwnToken(token) => return Ok(Decision::PassThrough(token, act_as)),
            Standing::Known(identity) => identity,
        };
        let mut uid = self.uid_right.header(self, &identity, correlation).await?;
        if let Some(act_as) = act_as {
            identity = self
                .reviews
                .allow(self, &identity, uid, &act_as, correlation)
                .await?;
            tracing::info!(
                user = identity.user(),
                "the caller may act as somebody else, and does"
            );
            uid = self.uid_right.header(self, &identity, correlation).await?;
            if identity.uid().is_some() && uid == UidHeader::Omit {
                return Err(Refusal::forbidden(
                    "the request asks to act under a uid, and the agent has no right to pass one on",
                    "leave out --as-uid, or ask the agent's operator for the right to impersonate uids",
                ));
            }
        }
        Ok(Decision::Impersonate(
            identity,
            uid,
            self.agent_token().await?,
        ))
    }

    pub(super) async fn agent_token(&self) -> Result<AgentToken, Refusal> {
        let credential = self
            .agent_credential
            .as_ref()
            .ok_or_else(Refusal::no_agent_credential)?;
        credential.token().await.map_err(|error| {
            tracing::error!(
                error = error.report(),
                "the agent's credential is not usable"
            );
            Refusal::no_agent_credential()
        })
    }

    /// The API server has answered 401 to the agent's own credential. Passed on, it would tell the caller to log in.
    pub(super) fn agent_refused(&self) -> Refusal {
        tracing::error!("the API server does not accept the agent's credential");
        if let Some(credential) = &self.agent_credential {
            credential.set_refused();
        }
        Refusal::no_agent_credential()
    }

    /// Sees to it that only callers' own credentials are told to be wrong.
    pub(super) fn check_credential<B>(
        &self,
        lane: Lane,
        response: &Response<B>,
    ) -> Result<(), Refusal> {
        if lane == Lane::Impersonation && response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.agent_refused());
        }
        Ok(())
    }
}
