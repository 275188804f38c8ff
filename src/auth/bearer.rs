//! A bearer token that is given: fixed, or in a file.

use super::{AccessToken, AuthProvider, TokenRequest};
use crate::Result;
use async_trait::async_trait;
use std::path::PathBuf;

/// A service account's bearer token, or any other.
pub struct BearerAuth(());

impl BearerAuth {
    /// Always `token`.
    pub fn fixed(_token: impl Into<String>) -> Result<Self> {
        todo!()
    }

    /// The token in the file at `path`, read again when the file changes.
    pub fn file(_path: impl Into<PathBuf>) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl AuthProvider for BearerAuth {
    async fn token(&self, _request: &TokenRequest) -> Result<AccessToken> {
        todo!()
    }
}
