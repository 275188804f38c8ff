//! Who is calling: the token that the API server, or the agent in front of it, will see.
//!
//! An [`AuthProvider`] gives it for each request:
//!
//! | the cluster knows the caller by | provider | where the token comes from |
//! |---|---|---|
//! | Entra ID | [`AadAuth`] | an [`AzureCredential`], or any other `TokenCredential` |
//! | Entra ID with proof of possession | [`PopAuth`] | an [`AzureCredential`] that can bind tokens, and a [`ProofKey`] |
//! | a service account | [`BearerAuth::service_account`] | the TokenRequest API, renewed by itself |
//! | any bearer token | [`BearerAuth::file`], [`BearerAuth::fixed`] | a file that somebody renews, or a value that nobody does |
//!
//! # Which Azure credential, when
//!
//! | where the program runs | credential | proof of possession |
//! |---|---|---|
//! | on somebody's desk, `az` is there | [`AzureCredential::azure_cli`], [`AzureCredential::azure_developer_cli`] | no |
//! | on somebody's desk, or on a machine without a browser, `az` is not there | [`AzureCredential::device_code`] | yes |
//! | in Azure Cloud Shell | [`AzureCredential::azure_cli`]: Cloud Shell's own identity endpoint knows no Arc clusters | no |
//! | in any CI, as an application | [`AzureCredential::client_certificate`], [`AzureCredential::client_secret`] | yes |
//! | in Azure Pipelines | [`AzureCredential::azure_pipelines`]: no secret to keep | no |
//! | in a pod of AKS, or of an Arc-enabled cluster with workload identity | [`AzureCredential::workload_identity`]: no secret to keep | no |
//! | on a virtual machine, in an App Service, on an Arc-enabled server | [`AzureCredential::managed_identity`] | no |
//! | it should find out | [`AzureCredential::detect`], and tell with [`AzureCredential::kind`] | depends |
//!
//! A cluster that insists on proofs takes no managed identity and no token of `az`: those can not be bound to a key. A
//! service account is the way out there.
//!
//! [`CredentialSettings`] say how Entra ID is reached (proxy, certificate authorities), in which [`Cloud`], and under
//! which correlation id. Sign-in never follows a redirect, repeats what a busy authority asks to be repeated, and ends
//! in an [`Error`](crate::Error) that carries the AADSTS code and says what to do.

mod aad;
mod azure_credential;
mod bearer;
mod cloud;
mod pem;
mod pop;
mod proof_key;
mod service_account;
mod tenant;
mod token_cache;
mod token_file;
mod token_text;

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

pub use aad::AadAuth;
pub use azure_credential::{
    AzureCredential, ClientId, CredentialKind, CredentialSettings, DeviceCodePrompt,
    ManagedIdentity,
};
pub use bearer::BearerAuth;
pub use cloud::Cloud;
#[cfg(feature = "agent")]
pub(crate) use cloud::{TokenVersion, base_url};
pub use pop::PopAuth;
pub use proof_key::ProofKey;
pub use service_account::{HttpSender, ServiceAccountSource};
pub use tenant::TenantId;

use crate::Result;

/// Gives the token under which requests reach the cluster.
///
/// Called for each request, so implementations cache. Implementations must be cancel-safe: a dropped future leaves the
/// provider as it was.
///
/// ```
/// use arc_cluster_connect::{
///     AuthProvider, Error, ErrorKind, Result,
///     auth::{AccessToken, TokenRequest},
/// };
/// use async_trait::async_trait;
///
/// /// The token of whoever started the program.
/// struct Environment;
///
/// #[async_trait]
/// impl AuthProvider for Environment {
///     async fn token(&self, _: &TokenRequest) -> Result<AccessToken> {
///         let token = std::env::var("CALLER_TOKEN").map_err(|_| {
///             Error::new(ErrorKind::Unauthorized, "CALLER_TOKEN is not set")
///                 .with_help("export the token of `kubectl create token NAME`")
///         })?;
///         Ok(AccessToken::new(token, None))
///     }
/// }
/// ```
#[async_trait]
pub trait AuthProvider: Send + Sync {
    /// A token that is valid now.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`](crate::ErrorKind::Unauthorized) when the caller has to do something (log in,
    /// renew a file); a retryable kind when the authority is out of reach.
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken>;
}

/// What a token is wanted for.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    freshness: Freshness,
}

/// Whether a cached token will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Any token that is still valid.
    #[default]
    Cached,
    /// The cached one was refused: get another.
    Fresh,
}

impl TokenRequest {
    /// A request that a cached token satisfies.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether a cached token will do.
    #[must_use]
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// Whether a cached token will do.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }
}

/// A bearer token. Never printed; its memory is wiped when dropped.
#[derive(Clone)]
pub struct AccessToken {
    secret: SecretString,
    expires_at: Option<SystemTime>,
}

impl AccessToken {
    /// A token, with the time after which it is worthless, if known.
    pub fn new(secret: impl Into<String>, expires_at: Option<SystemTime>) -> Self {
        Self {
            secret: SecretString::from(secret.into()),
            expires_at,
        }
    }

    /// The token itself, for an `Authorization: Bearer` header.
    pub fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The time after which the token is worthless, if known.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_token_does_not_print_itself() {
        let token = AccessToken::new("hush", Some(SystemTime::UNIX_EPOCH));
        assert_eq!(token.secret(), "hush");
        let shown = format!("{token:?} {token:#?}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
