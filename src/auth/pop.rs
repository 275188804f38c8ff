//! [`PopAuth`]: Entra ID tokens that are worth something only to whoever holds a key.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    AccessToken, AuthProvider, AzureCredential, ProofKey, TokenRequest,
    azure_credential::{Flow, Grant},
    token_cache::{Failure, TokenCache, TokenSource},
};
use crate::{Error, ErrorKind, Result, clock::Clock};

/// Entra ID tokens with proof of possession: each request carries a new, signed proof around a token that is bound to
/// the key.
///
/// For flows that talk to Entra ID's token endpoint themselves: [client secret](AzureCredential::client_secret),
/// [client certificate](AzureCredential::client_certificate) and [device code](AzureCredential::device_code). The
/// others get their tokens from a tool or a service that can not bind them; that is why clusters that insist on proofs
/// answer managed identities and the Azure CLI with a refusal.
///
/// The bound token is cached and renewed as [`AadAuth`](super::AadAuth) does it; a proof is made for each call.
///
/// ```no_run
/// use arc_cluster_connect::{
///     Result,
///     auth::{AzureCredential, PopAuth, ProofKey},
/// };
///
/// fn caller(credential: &AzureCredential, cluster_resource_id: &str) -> Result<PopAuth> {
///     PopAuth::new(credential, ProofKey::generate()?, cluster_resource_id)
/// }
/// ```
pub struct PopAuth {
    flow: Arc<dyn Flow>,
    key: ProofKey,
    host: String,
    cache: TokenCache,
    clock: Clock,
}

impl PopAuth {
    /// Proofs for `host` (for Arc-enabled clusters: the cluster's resource id) around tokens of `credential` for Azure
    /// Arc's Kubernetes server application.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the credential can not bind tokens, or `host` is empty.
    pub fn new(
        credential: &AzureCredential,
        key: ProofKey,
        host: impl Into<String>,
    ) -> Result<Self> {
        let host = host.into();
        if host.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the host of proofs of possession is empty",
            )
            .with_help("give the cluster's resource id"));
        }
        let flow = credential.binding_flow().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{} can not bind tokens to a key", credential.kind()),
            )
            .with_help("sign in with a device code, a client secret or a client certificate, or turn proofs off")
        })?;
        let scope = super::aad::ARC_SERVER_SCOPE.to_owned();
        Ok(Self::assemble(flow, key, host, scope, Clock::system()))
    }

    /// Sets the scope, for a cluster whose agent expects tokens of another application: `<application>/.default`.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        Self::assemble(self.flow, self.key, self.host, scope.into(), self.clock)
    }

    pub(super) fn assemble(
        flow: Arc<dyn Flow>,
        key: ProofKey,
        host: String,
        scope: String,
        clock: Clock,
    ) -> Self {
        let source = BoundTokens {
            flow: Arc::clone(&flow),
            confirmation: key.request_confirmation(),
            scope,
        };
        Self {
            flow,
            key,
            host,
            cache: TokenCache::new(Box::new(source), clock.clone()),
            clock,
        }
    }
}

#[async_trait]
impl AuthProvider for PopAuth {
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        let token = self.cache.token(request.freshness()).await?;
        self.key.sign(&token, &self.host, self.clock.now())
    }
}

impl fmt::Debug for PopAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopAuth")
            .field("key", &self.key)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

struct BoundTokens {
    flow: Arc<dyn Flow>,
    confirmation: String,
    scope: String,
}

#[async_trait]
impl TokenSource for BoundTokens {
    async fn fetch(&self) -> Result<AccessToken, Failure> {
        let grant = Grant::bound(&self.scope, &self.confirmation);
        self.flow
            .token(&grant)
            .await
            .map_err(|error| Failure::of(&error))
    }
}
