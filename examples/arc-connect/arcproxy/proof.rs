//! [`ProofOfPossession`]: the key that Entra binds the user's access token to.
//!
//! The one place to wire `arc_cluster_connect::auth::ProofKey` in: [`generate`] gives it, by way of this trait.

use std::{sync::Arc, time::SystemTime};

use arc_cluster_connect::{Result, auth::AccessToken};
use serde_json::{Value, json};

/// A key of this run.
pub trait ProofOfPossession: Send + Sync {
    /// The name of the key, which `az` puts into its token request.
    fn key_id(&self) -> &str;

    /// The public half, as a JSON Web Key.
    fn public_jwk(&self) -> Value;

    /// `token`, wrapped so that it shows possession of the key to `host`: the resource id of a cluster.
    fn sign(&self, token: &AccessToken, host: &str, now: SystemTime) -> Result<AccessToken>;
}

/// A key of this run.
pub fn generate() -> Arc<dyn ProofOfPossession> {
    Arc::new(Unproven {
        key_id: uuid::Uuid::new_v4().simple().to_string(),
    })
}

/// Proves nothing: the access token goes on as it is. An agent that asks for a proof refuses it and says so.
struct Unproven {
    key_id: String,
}

impl ProofOfPossession for Unproven {
    fn key_id(&self) -> &str {
        &self.key_id
    }

    fn public_jwk(&self) -> Value {
        json!({ "kid": self.key_id })
    }

    fn sign(&self, token: &AccessToken, _: &str, _: SystemTime) -> Result<AccessToken> {
        Ok(token.clone())
    }
}
