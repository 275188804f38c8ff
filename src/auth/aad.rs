//! Microsoft Entra ID tokens, through any `TokenCredential`.

use super::{AccessToken, AuthProvider, TokenRequest};
use crate::Result;
use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use std::sync::Arc;

/// Entra ID tokens for the caller.
pub struct AadAuth {
    credential: Arc<dyn TokenCredential>,
}

impl AadAuth {
    /// Tokens from `credential`, for the scope of Azure Arc's Kubernetes server application.
    pub fn new(credential: Arc<dyn TokenCredential>) -> Self {
        Self { credential }
    }
}

#[async_trait]
impl AuthProvider for AadAuth {
    async fn token(&self, _request: &TokenRequest) -> Result<AccessToken> {
        let _ = &self.credential;
        todo!()
    }
}
