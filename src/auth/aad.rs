//! Microsoft Entra ID tokens, through any `TokenCredential`.

use std::{error::Error as StdError, fmt, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use azure_core::{credentials::TokenCredential, error::ErrorKind as AzureErrorKind};

use super::{
    AccessToken, AuthProvider, TokenRequest,
    token_cache::{Failure, TokenCache, TokenSource},
    token_text::access_token,
};
use crate::{Error, ErrorKind, Result, clock::Clock};

/// Azure's "Kubernetes Arc server" application, whose tokens Arc-enabled clusters accept.
pub(super) const ARC_SERVER_SCOPE: &str = "6256c85f-0aad-4d50-b960-e6e9b21efe35/.default";

/// Entra ID tokens for the caller.
///
/// An [`AzureCredential`](super::AzureCredential), any credential of `azure_identity`, or one of your own. Tokens are cached here, whatever the credential
/// does (the Azure CLI's starts a process for each call): concurrent callers share one fetch, a token is renewed in
/// the background up to five minutes ahead of its end, and one that is still valid stays in use when the renewal
/// fails.
///
/// A request for a [fresh](super::Freshness::Fresh) token asks the credential again, at most every ten seconds. The
/// caching credentials of `azure_identity` can not be told to fetch: they may give the same token again.
///
/// Errors carry the AADSTS code and HTTP status. The service's description is logged at debug level only: it names
/// tenants and applications, and errors of this crate travel to Kubernetes clients.
pub struct AadAuth {
    credential: Arc<dyn TokenCredential>,
    cache: TokenCache,
    clock: Clock,
}

impl AadAuth {
    /// Tokens from `credential`, for the scope of Azure Arc's Kubernetes server application.
    pub fn new(credential: Arc<dyn TokenCredential>) -> Self {
        Self::assemble(credential, ARC_SERVER_SCOPE.to_owned(), Clock::system())
    }

    /// Sets the scope, for a cluster whose agent expects tokens of another application: `<application>/.default`.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        Self::assemble(self.credential, scope.into(), self.clock)
    }

    fn assemble(credential: Arc<dyn TokenCredential>, scope: String, clock: Clock) -> Self {
        let source = CredentialSource {
            credential: Arc::clone(&credential),
            scope,
        };
        Self {
            credential,
            cache: TokenCache::new(Box::new(source), clock.clone()),
            clock,
        }
    }
}

#[async_trait]
impl AuthProvider for AadAuth {
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        self.cache.token(request.freshness()).await
    }
}

impl fmt::Debug for AadAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the credential: what its `Debug` shows is not ours to know.
        f.debug_struct("AadAuth").finish_non_exhaustive()
    }
}

struct CredentialSource {
    credential: Arc<dyn TokenCredential>,
    scope: String,
}

#[async_trait]
impl TokenSource for CredentialSource {
    async fn fetch(&self) -> Result<AccessToken, Failure> {
        let answer = self.credential.get_token(&[&self.scope], None).await;
        let token = answer.map_err(|error| {
            // Our own credentials say themselves what to do; others are read as well as can be.
            own_error(&error).map_or_else(|| failure(&error, &self.scope), Failure::of)
        })?;
        // Checked like any token from outside; the expiry is the one that the authority gave beside it.
        let checked = access_token(token.token.secret()).map_err(|error| Failure {
            kind: ErrorKind::Protocol,
            message: format!("the credential gave something that is not a token: {error}"),
            help: "check the credential that the program was given".into(),
            status: None,
        })?;
        Ok(AccessToken::new(
            checked.secret(),
            Some(SystemTime::from(token.expires_on)),
        ))
    }
}

/// The error of this crate in what a credential reports.
pub(super) fn own_error(error: &azure_core::Error) -> Option<&Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<Error>() {
            return Some(own);
        }
        next = cause.source();
    }
    None
}

/// What a credential's error holds, on whichever level: its own has the kind "credential", the HTTP status is below.
#[derive(Default)]
pub(super) struct Reported {
    pub(super) status: Option<u16>,
    /// `AADSTS…`.
    pub(super) code: Option<String>,
    pub(super) is_network: bool,
}

impl Reported {
    pub(super) fn by(error: &azure_core::Error) -> Self {
        let mut reported = Self::default();
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(azure) = cause.downcast_ref::<azure_core::Error>() {
                reported.status = reported.status.or(azure.http_status().map(u16::from));
                reported.is_network |= matches!(
                    azure.kind(),
                    AzureErrorKind::Io | AzureErrorKind::Connection
                );
            }
            reported.code = reported.code.or_else(|| aadsts_code(&cause.to_string()));
            next = cause.source();
        }
        reported
    }
}

/// Maps what a credential reports.
fn failure(error: &azure_core::Error, scope: &str) -> Failure {
    tracing::debug!(%error, scope, "the credential gave no token");
    let Reported {
        status,
        code,
        is_network,
    } = Reported::by(error);
    let (kind, what, help) = match status {
        Some(408 | 429 | 500..) => (
            ErrorKind::Refused,
            "Entra ID is not able to give a token at the moment",
            "try again later",
        ),
        Some(_) => (
            ErrorKind::Unauthorized,
            "Entra ID refused to give a token",
            "log in again (`az login`), and look up the AADSTS code at https://login.microsoftonline.com/error",
        ),
        None if is_network => (
            ErrorKind::Network,
            "Entra ID is out of reach",
            "check the network, and that login.microsoftonline.com is allowed by proxies and firewalls",
        ),
        None => (
            ErrorKind::Unauthorized,
            "the credential gave no token",
            "log in (`az login`), or check the credential's settings; the debug log has its full message",
        ),
    };
    let details: Vec<_> = code
        .into_iter()
        .chain(status.map(|status| format!("HTTP status {status}")))
        .collect();
    let details = if details.is_empty() {
        String::new()
    } else {
        format!(" ({})", details.join(", "))
    };
    Failure {
        kind,
        message: format!("{what} for {scope}{details}"),
        help: help.into(),
        status,
    }
}

/// The code alone, out of a description that is not to be passed on.
pub(super) fn aadsts_code(text: &str) -> Option<String> {
    /// Codes have five to seven digits.
    const MAX_DIGITS: usize = 10;

    let (_, rest) = text.split_once("AADSTS")?;
    let digits: String = rest
        .chars()
        .take(MAX_DIGITS)
        .take_while(char::is_ascii_digit)
        .collect();
    (!digits.is_empty()).then(|| format!("AADSTS{digits}"))
}

#[cfg(test)]
mod tests;
