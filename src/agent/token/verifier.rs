//! [`Verifier`]: signature, times and audience of one issuer's tokens.

use std::time::{Duration, SystemTime};

use super::{
    claims::{Claims, TimeRules},
    jwt::{Jwt, SignatureAlgorithm, TokenKind},
    key_store::KeyStore,
    keys::Key,
    rejection::{Failure, Rejection},
};
use crate::{
    Error, ErrorKind, Result,
    agent::identity::{RefreshCounts, RejectReason},
    clock::Clock,
};

/// How far this machine's clock and the issuer's may differ, unless the builder says otherwise.
pub(super) const DEFAULT_SKEW: Duration = Duration::from_secs(60);
/// More would make tokens live noticeably longer than their issuer wants.
const MAX_SKEW: Duration = Duration::from_secs(300);
/// The longest life of a token that is accepted unless the builder says otherwise: Entra ID's own limit for tokens
/// whose life an administrator may set.
pub(super) const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What the tokens of an issuer have to be.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Vec<SignatureAlgorithm>,
    pub(super) skew: Duration,
    pub(super) max_lifetime: Duration,
}

pub(super) struct Verifier {
    issuer: String,
    /// Where not empty: the values that a key's own `issuer` may have.
    key_issuers: Vec<String>,
    keys: KeyStore,
    rules: Rules,
    clock: Clock,
}

impl Rules {
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |text: &'static str| Err(Error::new(ErrorKind::InvalidInput, text));
        if self.audiences.iter().any(String::is_empty) || self.audiences.is_empty() {
            return invalid("an audience of tokens is empty");
        }
        if self.algorithms.is_empty() {
            return invalid("no signature algorithm of tokens is accepted");
        }
        if self.skew > MAX_SKEW {
            return invalid("clocks may differ by five minutes at most");
        }
        Ok(())
    }
}

impl Verifier {
    pub(super) fn new(issuer: String, keys: KeyStore, rules: Rules, clock: Clock) -> Self {
        Self {
            issuer,
            key_issuers: Vec::new(),
            keys,
            rules,
            clock,
        }
    }

    /// Only accepts keys that are bound to one of `issuers`, or to none.
    pub(super) fn with_key_issuers(mut self, issuers: Vec<String>) -> Self {
        self.key_issuers = issuers;
        self
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) async fn preload(&self) -> Result<()> {
        self.keys.preload().await
    }

    pub(super) fn key_refreshes(&self) -> RefreshCounts {
        self.keys.refreshes()
    }

    /// The claims of a bearer token and the time of its end.
    pub(super) async fn verify(&self, jwt: Jwt<'_>) -> Result<(Claims, SystemTime), Failure> {
        if jwt.kind() != TokenKind::Bearer {
            return Err(Rejection::new(
                RejectReason::Malformed,
                "a proof of possession stands where an access token is expected",
            )
            .into());
        }
        // Before the key store is asked, so that such tokens never make it call the issuer.
        if !self.rules.algorithms.contains(&jwt.algorithm()) {
            return Err(Rejection::new(
                RejectReason::Algorithm,
                "the signature algorithm is not among the accepted ones",
            )
            .into());
        }
        let set = self.keys.keys_for(jwt.key_id(), jwt.algorithm()).await?;
        let candidates: Vec<&Key> = set
            .candidates(jwt.key_id(), jwt.algorithm())
            .into_iter()
            .filter(|key| self.may_sign(key))
            .collect();
        let claims = jwt.verify(&candidates, &self.rules.algorithms)?;
        if claims.string("iss")? != Some(&self.issuer) {
            return Err(Rejection::new(RejectReason::Issuer, "`iss` is another issuer").into());
        }
        claims.check_audience(&self.rules.audiences)?;
        let times = TimeRules {
            skew: self.rules.skew,
            max_lifetime: self.rules.max_lifetime,
        };
        let expires_at = claims.check_times(times, self.clock.now())?;
        Ok((claims, expires_at))
    }

    fn may_sign(&self, key: &Key) -> bool {
        key.issuer().is_none_or(|issuer| {
            self.key_issuers.is_empty() || self.key_issuers.iter().any(|own| own == issuer)
        })
    }
}
