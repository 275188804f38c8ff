//! [`PostedToken`]: the user's access token, as `az` posts it again and again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, Result,
    auth::{AccessToken, BearerAuth, Freshness, TokenRequest},
};
use async_trait::async_trait;

use super::proof::ProofOfPossession;

/// How long a proof is used again. Agents take one for fifteen minutes; clocks may differ by some.
const PROOF_LIFE: Duration = Duration::from_secs(5 * 60);

/// The token of the one user that this program works for.
pub struct PostedToken {
    key: Arc<dyn ProofOfPossession>,
    posted: Mutex<Option<Arc<BearerAuth>>>,
}

/// The user as the caller of one cluster.
pub struct ClusterCaller {
    posted: Arc<PostedToken>,
    /// The resource id of the cluster, to which alone a proof is worth something.
    host: String,
    proof: Mutex<Option<Proof>>,
}

struct Proof {
    of: AccessToken,
    token: AccessToken,
    made_at: SystemTime,
}

impl PostedToken {
    pub fn new(key: Arc<dyn ProofOfPossession>) -> Self {
        Self {
            key,
            posted: Mutex::default(),
        }
    }

    pub fn key(&self) -> &dyn ProofOfPossession {
        &*self.key
    }

    /// Takes a token over, if it is one that has not expired.
    pub fn post(&self, token: &str) -> Result<()> {
        let auth = Arc::new(BearerAuth::fixed(token)?);
        *lock(&self.posted) = Some(auth);
        Ok(())
    }

    /// The caller of the cluster with the resource id `host`.
    pub fn caller_of(self: &Arc<Self>, host: String) -> Arc<ClusterCaller> {
        Arc::new(ClusterCaller {
            posted: Arc::clone(self),
            host,
            proof: Mutex::default(),
        })
    }

    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        let posted = lock(&self.posted).clone();
        let help = "let `az connectedk8s proxy` run: it posts a token and renews it";
        let Some(posted) = posted else {
            return Err(
                Error::new(ErrorKind::Unauthorized, "az has posted no access token yet")
                    .with_help(help),
            );
        };
        posted.token(request).await.map_err(|error| {
            Error::new(
                ErrorKind::Unauthorized,
                "the access token that az has posted is not valid any more",
            )
            .with_source(error)
            .with_help(help)
        })
    }
}

#[async_trait]
impl AuthProvider for ClusterCaller {
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        let token = self.posted.token(request).await?;
        let now = SystemTime::now();
        let mut proof = lock(&self.proof);
        if request.freshness() == Freshness::Cached
            && let Some(proof) = &*proof
            && proof.of.secret() == token.secret()
            && now
                .duration_since(proof.made_at)
                .is_ok_and(|age| age < PROOF_LIFE)
        {
            return Ok(proof.token.clone());
        }
        let signed = self.posted.key.sign(&token, &self.host, now)?;
        *proof = Some(Proof {
            of: token,
            token: signed.clone(),
            made_at: now,
        });
        Ok(signed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
