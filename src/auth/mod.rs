//! Who is calling: the token that the API server, or the agent in front of it, will see.

mod aad;
mod bearer;
mod cloud;
mod tenant;
mod token_cache;
mod token_file;
mod token_text;

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

pub use aad::AadAuth;
pub use bearer::BearerAuth;
pub use cloud::Cloud;
#[cfg(feature = "agent")]
pub(crate) use cloud::{TokenVersion, base_url};
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
