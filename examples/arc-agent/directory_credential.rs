//! The agent's own identity at a directory of groups: the one place that says where it comes from.

use std::{path::Path, sync::Arc};

use arc_cluster_connect::{
    AuthProvider, Result,
    auth::{AzureCredential, BearerAuth, TokenRequest},
};
use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::{Duration, OffsetDateTime},
};

/// How long a token is used for that does not say when it ends; then the file is looked at again.
const UNKNOWN_LIFE: Duration = Duration::minutes(10);

/// The token in a file that something else renews, else the agent's identity; `None` without either.
pub fn directory_credential(
    token_file: Option<&Path>,
    identity: Option<&AzureCredential>,
) -> Result<Option<Arc<dyn TokenCredential>>> {
    Ok(match (token_file, identity) {
        (Some(path), _) => Some(Arc::new(TokenFile(BearerAuth::file(path)?))),
        (None, Some(identity)) => Some(Arc::new(identity.clone())),
        (None, None) => None,
    })
}

/// A token for one service, whatever scope is asked for.
#[derive(Debug)]
struct TokenFile(BearerAuth);

#[async_trait]
impl TokenCredential for TokenFile {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.0.token(&TokenRequest::new()).await.map_err(|error| {
            azure_core::Error::with_message(
                azure_core::error::ErrorKind::Credential,
                error.report().to_string(),
            )
        })?;
        let end = token
            .expires_at()
            .map_or_else(|| OffsetDateTime::now_utc() + UNKNOWN_LIFE, Into::into);
        Ok(AccessToken::new(token.secret().to_owned(), end))
    }
}
