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

/// How long a proof is used again. This crate's agent takes one for five minutes, Azure's for fifteen; clocks differ,
/// and a request is on its way for a while.
const PROOF_LIFE: Duration = Duration::from_secs(3 * 60);

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
            && proof.is_usable(&token, now)
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

impl Proof {
    fn is_usable(&self, token: &AccessToken, now: SystemTime) -> bool {
        self.of.secret() == token.secret()
            && now
                .duration_since(self.made_at)
                .is_ok_and(|age| age < PROOF_LIFE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{super::proof, *};

    /// The agent looks at the time in the proof, and refuses it a moment after its five minutes.
    #[test]
    fn a_proof_is_replaced_well_before_an_agent_refuses_it() {
        let made_at = SystemTime::now();
        let proof = Proof {
            of: AccessToken::new("posted", None),
            token: AccessToken::new("proof", None),
            made_at,
        };
        let after = |seconds| made_at + Duration::from_secs(seconds);
        let posted = AccessToken::new("posted", None);
        assert!(proof.is_usable(&posted, after(60)));
        assert!(!proof.is_usable(&posted, after(4 * 60)));
        assert!(!proof.is_usable(&posted, made_at - Duration::from_secs(1)));
        assert!(!proof.is_usable(&AccessToken::new("renewed", None), after(60)));
    }

    #[tokio::test]
    async fn each_cluster_gets_proofs_of_its_own_and_a_refused_one_is_replaced() {
        let posted = Arc::new(PostedToken::new(proof::generate().unwrap()));
        posted.post("an-access-token").unwrap();
        let (one, other) = (
            posted.caller_of("/one".to_owned()),
            posted.caller_of("/other".to_owned()),
        );
        let cached = TokenRequest::new();
        let fresh = TokenRequest::new().with_freshness(Freshness::Fresh);
        let first = one.token(&cached).await.unwrap();
        assert_eq!(first.secret().split('.').count(), 3);
        assert_eq!(one.token(&cached).await.unwrap().secret(), first.secret());
        assert_ne!(other.token(&cached).await.unwrap().secret(), first.secret());
        assert_ne!(one.token(&fresh).await.unwrap().secret(), first.secret());
    }
}
