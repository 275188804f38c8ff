//! [`AgentCredential`]: the agent's own token, and the one thing that can be done with it.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, HeaderValue, header};

use super::{Identity, RefreshCounts, Refreshes};
use crate::{
    Error, ErrorKind, Result,
    agent::impersonation::{self, UidHeader},
    auth::{AccessToken, AuthProvider, BearerAuth, Freshness, TokenRequest},
};

/// Where Kubernetes puts the service account's token in every pod.
const IN_CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The credential under which the agent acts for callers it has authenticated: a service account with the right to
/// `impersonate`, and best with no other.
///
/// It never reaches the API server without the identity of a caller beside it: within this crate nothing can be done
/// with it but to write both at once. A program can hand it over, and not get the token back:
///
/// ```compile_fail,E0624
/// # use arc_cluster_connect::agent::AgentCredential;
/// # async fn no(credential: AgentCredential) {
/// let token = credential.token().await;
/// # }
/// ```
#[derive(Clone)]
pub struct AgentCredential {
    provider: Arc<dyn AuthProvider>,
    /// The API server has said no to the last token.
    refused: Arc<AtomicBool>,
    /// The last token, so that a new one is noticed.
    held: Arc<Mutex<Option<AgentToken>>>,
    refreshes: Arc<Refreshes>,
}

impl AgentCredential {
    /// The token in a file, which is read again when it changes.
    ///
    /// # Errors
    /// Those of [`BearerAuth::file`].
    pub fn file(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self::new(Arc::new(BearerAuth::file(path)?)))
    }

    /// The token of the service account in whose pod this process runs.
    ///
    /// # Errors
    /// [`ErrorKind::File`] outside a pod, or where the pod's token is not mounted.
    pub fn in_cluster() -> Result<Self> {
        Self::file(IN_CLUSTER_TOKEN).map_err(|error| {
            Error::new(error.kind(), "the agent has no service account token")
                .with_source(error)
                .with_help(
                    "run the agent in a pod with a service account that may impersonate, or give such a token in a \
                     file",
                )
        })
    }

    /// Tokens from elsewhere.
    pub fn new(provider: Arc<dyn AuthProvider>) -> Self {
        Self {
            provider,
            refused: Arc::default(),
            held: Arc::default(),
            refreshes: Arc::default(),
        }
    }

    /// The token of now.
    pub(in crate::agent) async fn token(&self) -> Result<AgentToken> {
        let freshness = if self.refused.swap(false, Ordering::Relaxed) {
            Freshness::Fresh
        } else {
            Freshness::Cached
        };
        let token = self
            .provider
            .token(&TokenRequest::new().with_freshness(freshness))
            .await
            .inspect_err(|_| self.refreshes.failed())?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = held.as_ref().filter(|held| held.is(&token)) {
            return Ok(same.clone());
        }
        let token = AgentToken::new(&token).inspect_err(|_| self.refreshes.failed())?;
        self.refreshes.succeeded();
        *held = Some(token.clone());
        Ok(token)
    }

    /// How often there was a new token.
    pub(in crate::agent) fn refreshes(&self) -> RefreshCounts {
        self.refreshes.counts()
    }

    /// Says that the API server did not take the token: the next one is a fresh one.
    pub(in crate::agent) fn set_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for AgentCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentCredential").finish_non_exhaustive()
    }
}

/// The agent's token for one request. It can not be read: it can only [act](Self::act_as) for somebody.
#[derive(Clone)]
pub(in crate::agent) struct AgentToken(HeaderValue);

const SCHEME: &str = "Bearer ";

impl AgentToken {
    fn new(token: &AccessToken) -> Result<Self> {
        let mut value =
            HeaderValue::try_from(format!("{SCHEME}{}", token.secret())).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "the agent's own token is malformed",
                )
            })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    fn is(&self, token: &AccessToken) -> bool {
        self.0.as_bytes().strip_prefix(SCHEME.as_bytes()) == Some(token.secret().as_bytes())
    }

    /// Makes a request one of the agent for `identity`: all identity headers first, the credential last, so that a
    /// failure in between leaves a request without any.
    ///
    /// The API server runs a request with a credential and no `Impersonate-User` as the credential's owner. This is
    /// the only function that writes the agent's credential, and it can not write it alone.
    ///
    /// # Errors
    /// When a name can not stand in a header. `headers` are of no use then.
    pub(in crate::agent) fn act_as(
        self,
        identity: &Identity,
        uid: UidHeader,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        impersonation::write(identity, uid, headers)?;
        headers.insert(header::AUTHORIZATION, self.0);
        Ok(())
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentToken(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::IdentityRules;

    #[tokio::test]
    async fn a_replaced_file_is_read_again_once_the_api_server_says_no() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "first").expect("written");
        let credential = AgentCredential::file(file.path()).expect("usable");
        assert_eq!(authorization(&credential).await, "Bearer first");
        std::fs::write(file.path(), "second-token").expect("written");
        credential.set_refused();
        assert_eq!(authorization(&credential).await, "Bearer second-token");
    }

    #[tokio::test]
    async fn new_tokens_and_missing_ones_are_counted_and_the_same_again_is_not() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "first").expect("written");
        let credential = AgentCredential::file(file.path()).expect("usable");
        for _ in 0..3 {
            credential.clone().token().await.expect("a token");
        }
        assert_eq!(credential.refreshes(), RefreshCounts::new(1, 0));
        std::fs::write(file.path(), "second-token").expect("written");
        credential.set_refused();
        for _ in 0..3 {
            credential.token().await.expect("a token");
        }
        assert_eq!(credential.refreshes(), RefreshCounts::new(2, 0));
    }

    struct Gone;

    #[async_trait::async_trait]
    impl AuthProvider for Gone {
        async fn token(&self, _: &TokenRequest) -> Result<AccessToken> {
            Err(Error::new(ErrorKind::Network, "nobody answers"))
        }
    }

    #[tokio::test]
    async fn a_missing_token_is_counted_as_a_failure() {
        let credential = AgentCredential::new(Arc::new(Gone));
        credential.token().await.expect_err("there is none");
        assert_eq!(credential.refreshes(), RefreshCounts::new(0, 1));
    }

    #[test]
    fn no_file_no_credential() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = AgentCredential::file(directory.path().join("token")).expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::File);
    }

    #[tokio::test]
    async fn neither_credential_nor_token_prints_itself() {
        let credential =
            AgentCredential::new(Arc::new(BearerAuth::fixed("hush-hush").expect("a token")));
        let token = credential.token().await.expect("a token");
        assert!(!format!("{credential:?} {token:?}").contains("hush"));
    }

    async fn authorization(credential: &AgentCredential) -> HeaderValue {
        let identity = Identity::builder("ada")
            .build(&IdentityRules::default())
            .expect("valid");
        let mut headers = HeaderMap::new();
        let token = credential.token().await.expect("a token");
        token
            .act_as(&identity, UidHeader::Omit, &mut headers)
            .expect("writable");
        assert_eq!(headers["impersonate-user"], "ada");
        headers[header::AUTHORIZATION].clone()
    }
}
