//! [`ServiceAccountAuthenticator`]: tokens that the API server itself has issued, and so itself judges.

use async_trait::async_trait;

use super::{Authentication, AuthenticationError, Authenticator, Credential};

/// What the agent does with tokens that the API server itself has to judge: those of service accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceAccountTokens {
    /// The caller's token goes to the API server untouched, over a client that owns no credential.
    PassThrough,
    /// The same, and before it the API server is asked, as the caller, who the token's holder is
    /// (`SelfSubjectReview`; a `SelfSubjectAccessReview` before Kubernetes 1.28). A request with a token that it does
    /// not accept ends at the agent, and the audit log has the holder's name. The answer is believed for ten seconds,
    /// for 4 096 tokens.
    ///
    /// The agent needs no right for this. Callers need that of `system:basic-user`, which everybody has by default.
    Review,
    /// A service account's token is refused.
    #[default]
    Refuse,
}

/// Leaves tokens to the API server: every one that no other authenticator has taken, or only those of named issuers.
///
/// Nothing is checked here, and nothing of the agent's goes with such a token: the API server sees what it would see
/// from the caller directly.
#[derive(Clone, Debug, Default)]
pub struct ServiceAccountAuthenticator {
    issuers: Vec<String>,
    review: Review,
}

/// Whether the API server is asked about a token before the request goes there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Review {
    #[default]
    None,
    First,
}

impl ServiceAccountAuthenticator {
    /// Takes every token, also those that are no JWT.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes only tokens that name `issuer`, or another one given this way. A cluster's own is the `issuer` in
    /// `kubectl get --raw /.well-known/openid-configuration`.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuers.push(issuer.into());
        self
    }

    /// Has the API server judge a token before the request goes there: see [`ServiceAccountTokens::Review`].
    #[must_use]
    pub fn reviewed(mut self) -> Self {
        self.review = Review::First;
        self
    }

    pub(in crate::agent) fn is_reviewed(&self) -> bool {
        self.review == Review::First
    }
}

#[async_trait]
impl Authenticator for ServiceAccountAuthenticator {
    async fn authenticate(
        &self,
        credential: &Credential,
    ) -> Result<Authentication, AuthenticationError> {
        let mine = self.issuers.is_empty()
            || credential
                .unverified_issuer()
                .is_some_and(|issuer| self.issuers.iter().any(|known| known == issuer));
        Ok(if mine {
            Authentication::PassThrough
        } else {
            Authentication::NotMine
        })
    }

    fn name(&self) -> &'static str {
        "service-account"
    }
}
