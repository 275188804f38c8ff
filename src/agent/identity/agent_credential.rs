//! [`AgentCredential`]: the agent's own token, and the one thing that can be done with it.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, HeaderValue, header};

use super::Identity;
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
            .await?;
        AgentToken::new(&token)
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
pub(in crate::agent) struct AgentToken(HeaderValue);

impl AgentToken {
    fn new(token: &AccessToken) -> Result<Self> {
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", token.secret())).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "the agent's own token is malformed",
                )
            })?;
        value.set_sensitive(true);
        Ok(Self(value))
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
