//! [`ProofOfPossession`]: the key that Entra binds the user's access token to.

use std::{sync::Arc, time::SystemTime};

use arc_cluster_connect::{
    Result,
    auth::{AccessToken, ProofKey},
};
use serde_json::Value;

/// A key of this run.
pub trait ProofOfPossession: Send + Sync {
    /// The name of the key, which `az` puts into its token request.
    fn key_id(&self) -> &str;

    /// The public half, as a JSON Web Key.
    fn public_jwk(&self) -> Value;

    /// `token`, wrapped so that it shows possession of the key to `host`: the resource id of a cluster.
    fn sign(&self, token: &AccessToken, host: &str, now: SystemTime) -> Result<AccessToken>;
}

/// A key of this run. It is in no file: when the program ends, what was bound to it is worth nothing.
pub fn generate() -> Result<Arc<dyn ProofOfPossession>> {
    Ok(Arc::new(ProofKey::generate()?))
}

impl ProofOfPossession for ProofKey {
    fn key_id(&self) -> &str {
        self.key_id()
    }

    fn public_jwk(&self) -> Value {
        self.public_jwk()
    }

    fn sign(&self, token: &AccessToken, host: &str, now: SystemTime) -> Result<AccessToken> {
        self.sign(token, host, now)
    }
}
