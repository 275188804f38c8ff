//! [`Keeper`]: the credential in use, and the next one.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::issuer::{Issued, Issuer};
use crate::{
    Error, Result,
    arm::ClusterKubeconfig,
    clock::Clock,
    net::Jitter,
    relay::{RelayGrant, RelayTokenSource},
    tunnel::CredentialStatus,
};

/// How long before its end a credential is replaced: as Azure's own client has it. Of one that lives shorter, a fifth.
const REFRESH_AHEAD: Duration = Duration::from_secs(300);

/// A credential that has ended when it comes: this machine's clock and the issuer's differ by hours. It is used, since
/// the relay goes by its own clock, and replaced no more often than this.
const SKEWED_PAUSE: Duration = Duration::from_secs(300);

/// Keeps one credential. Whoever needs another while one is being fetched waits for that one.
pub(super) struct Keeper {
    issuer: Box<dyn Issuer>,
    clock: Clock,
    jitter: Jitter,
    state: Mutex<State>,
    /// Held during a fetch.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// How many credentials have come.
    issued: u64,
    /// Why the last attempt to get one failed, if it did.
    failure: Option<Arc<Error>>,
}

struct Held {
    issued: Issued,
    due_at: SystemTime,
    acceptance: Acceptance,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    Presumed,
    /// The relay has refused it.
    Refused,
}

impl Keeper {
    pub(super) fn new(issuer: Box<dyn Issuer>, clock: Clock, jitter: Jitter) -> Self {
        Self {
            issuer,
            clock,
            jitter,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// Fetches a credential, unless another caller has just done so.
    ///
    /// Cancel-safe.
    pub(super) async fn refresh(&self) -> Result<RelayGrant> {
        let issued = self.state().issued;
        let _fetching = self.fetching.lock().await;
        if let State {
            held: Some(held),
            issued: now,
            ..
        } = &*self.state()
            && *now != issued
        {
            return Ok(held.issued.grant.clone());
        }
        let outcome = self.issuer.issue().await;
        let mut state = self.state();
        match outcome {
            Ok(issued) => {
                let grant = issued.grant.clone();
                state.held = Some(Held {
                    due_at: self.due_at(&issued),
                    issued,
                    acceptance: Acceptance::Presumed,
                });
                state.issued += 1;
                state.failure = None;
                Ok(grant)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.failure = Some(Arc::clone(&error));
                Err(Error::repeated(
                    &error,
                    "there is no credential for the cluster's relay",
                ))
            }
        }
    }

    /// When the present credential should be replaced; `None` when there is none.
    pub(super) fn refresh_due_at(&self) -> Option<SystemTime> {
        self.state().held.as_ref().map(|held| held.due_at)
    }

    pub(super) fn status(&self) -> Option<CredentialStatus> {
        let state = self.state();
        let held = state.held.as_ref()?;
        Some(CredentialStatus {
            expires_at: held.ends_at(),
            issued: state.issued,
            failure: state.failure.clone(),
        })
    }

    pub(super) fn kubeconfigs(&self) -> Vec<ClusterKubeconfig> {
        let state = self.state();
        let held = state.held.as_ref();
        held.map(|held| held.issued.kubeconfigs.clone())
            .unwrap_or_default()
    }

    pub(super) fn due_at(&self, issued: &Issued) -> SystemTime {
        let now = self.clock.now();
        let life = issued.expires_at.duration_since(now).unwrap_or_default();
        if life.is_zero() {
            tracing::warn!(
                "a new credential has ended already: this machine's clock seems to be wrong"
            );
            return now + SKEWED_PAUSE;
        }
        let ahead = REFRESH_AHEAD.min(life / 5);
        // Many tunnels of one program, made at once, do not all ask at once again.
        let jitter = ahead / 4 * u32::from((self.jitter)()) / u32::from(u8::MAX);
        issued.expires_at - ahead - jitter
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RelayTokenSource for Keeper {
    async fn grant(&self) -> Result<RelayGrant> {
        let now = self.clock.now();
        {
            let state = self.state();
            if let Some(held) = &state.held
                && held.acceptance == Acceptance::Presumed
                && held.ends_at() > now
            {
                return Ok(held.issued.grant.clone());
            }
        }
        self.refresh().await
    }

    fn refused(&self, grant: &RelayGrant) {
        let mut state = self.state();
        if let Some(held) = &mut state.held
            && held.issued.grant.token().secret() == grant.token().secret()
        {
            held.acceptance = Acceptance::Refused;
        }
    }
}

impl Held {
    /// When the relay stops taking it: that is later than the issuer says.
    fn ends_at(&self) -> SystemTime {
        let token = self.issued.grant.token();
        token.expires_at().unwrap_or(self.issued.expires_at)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}
