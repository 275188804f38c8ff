//! [`EntraAuthenticator`]: tokens of Microsoft Entra ID.

mod builder;

use std::{fmt, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use super::{
    cache::Verdicts,
    claims::{Claims, unusable},
    groups::{Groups, PrincipalKind},
    jwt::{Jwt, TokenKind, unverified_issuer},
    pop::ProofVerifier,
    rejection::{Failure, Rejection},
    verifier::Verifier,
};
use crate::{
    Result,
    agent::identity::{
        Authenticated, Authentication, AuthenticationError, Authenticator, Credential, Identity,
        IdentityRules, RejectReason,
    },
    auth::{TenantId, TokenVersion},
    clock::Clock,
};

pub use builder::EntraAuthenticatorBuilder;

/// The key of the extra information by which Azure RBAC finds the caller in the directory.
const EXTRA_OID: &str = "oid";

/// Callers with tokens of one Entra ID tenant, v1 or v2, with or without proof of possession.
///
/// The user name is the user principal name (`upn`), or the object id for callers who have none: service principals
/// and guests. Groups are object ids. `oid` is passed on as extra information, which Azure RBAC needs.
///
/// Tokens are checked offline with the tenant's published keys. Those are read when they are first needed, or by
/// [`preload`](Self::preload), once an hour from then on, and when a token names a key that is unknown (at most every
/// ten seconds). While the authority is out of reach the last ones stay in use, for three days at most.
///
/// Sources: Microsoft's "Access token claims reference", "Configure group claims" and "Signing key rollover" pages;
/// RFC 7515, 7517, 7519, 7638, 8725.
#[derive(Clone)]
pub struct EntraAuthenticator {
    inner: Arc<Inner>,
}

/// Which claim becomes the user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntraUsername {
    /// `upn` where a user's token has it, else `oid`. What role bindings for Arc-enabled clusters are written for.
    #[default]
    UpnOrOid,
    /// Always `oid`. Safer: a user principal name can change hands.
    Oid,
}

struct Inner {
    tenant: TenantId,
    v1: Verifier,
    v2: Verifier,
    username: EntraUsername,
    rules: IdentityRules,
    groups: Groups,
    proofs: ProofVerifier,
    verdicts: Verdicts<Arc<Accepted>>,
    clock: Clock,
}

/// An access token that holds, whoever shows it.
struct Accepted {
    identity: Identity,
    expires_at: SystemTime,
    binding: Binding,
}

/// Whether the token is worth something only together with a proof.
enum Binding {
    None,
    /// To the key with this thumbprint.
    Key(String),
    /// To something that we can not check.
    Unknown,
}

impl EntraAuthenticator {
    /// An authenticator for the callers of `tenant`.
    ///
    /// ```
    /// use arc_cluster_connect::agent::{EntraAuthenticator, TenantId};
    ///
    /// # fn main() -> arc_cluster_connect::Result<()> {
    /// let tenant = TenantId::parse("72f988bf-86f1-41af-91ab-2d7cd011db47")?;
    /// let entra = EntraAuthenticator::builder(tenant).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(tenant: TenantId) -> EntraAuthenticatorBuilder {
        EntraAuthenticatorBuilder::new(tenant)
    }

    /// Reads the tenant's keys now, so that a program can say at its start what would else fail each caller.
    ///
    /// # Errors
    /// What kept them from being read; the text names the URL.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn preload(&self) -> Result<()> {
        let (v1, v2) = tokio::join!(self.inner.v1.preload(), self.inner.v2.preload());
        v1.and(v2)
    }
}

impl Inner {
    fn verifier(&self, issuer: &str) -> Option<(TokenVersion, &Verifier)> {
        [(TokenVersion::V1, &self.v1), (TokenVersion::V2, &self.v2)]
            .into_iter()
            .find(|(_, verifier)| verifier.issuer() == issuer)
    }

    /// Whether the token inside a proof is this authenticator's: a proof itself names no issuer.
    fn is_own(&self, proof: &Jwt<'_>) -> bool {
        proof
            .unverified("at")
            .and_then(Value::as_str)
            .and_then(|token| Jwt::parse(token).ok())
            .and_then(|token| self.verifier(token.unverified("iss")?.as_str()?))
            .is_some()
    }

    async fn accepted(self: &Arc<Self>, token: &str) -> Result<Arc<Accepted>, Failure> {
        let (inner, own_token) = (Arc::clone(self), token.to_owned());
        self.verdicts
            .of(token, async move { inner.check(&own_token).await })
            .await
    }

    async fn check(&self, token: &str) -> Result<(Arc<Accepted>, SystemTime), Failure> {
        let jwt = Jwt::parse(token)?;
        let issuer = jwt.unverified("iss").and_then(Value::as_str);
        let (version, verifier) = issuer
            .and_then(|issuer| self.verifier(issuer))
            .ok_or_else(|| Rejection::new(RejectReason::Issuer, "`iss` is another issuer"))?;
        // Entra ID names the key in every token.
        if jwt.key_id().is_none() {
            return Err(Rejection::new(RejectReason::Malformed, "the token has no `kid`").into());
        }
        let (claims, expires_at) = verifier.verify(jwt).await?;
        self.check_tenant(&claims, version)?;
        let oid = object_id(&claims)?;
        let kind = principal_kind(&claims, oid)?;
        let groups = if claims.is_left_out("groups") || has_groups_elsewhere(&claims) {
            self.groups.resolve(kind, oid, token).await?
        } else {
            Arc::new(group_claim(&claims)?)
        };
        let user = match (self.username, kind) {
            (EntraUsername::UpnOrOid, PrincipalKind::User) => claims.string("upn")?,
            _ => None,
        };
        let identity = Identity::builder(user.unwrap_or(&oid.to_string()))
            .groups(groups.iter())
            .extra(EXTRA_OID, oid.to_string())
            .build(&self.rules)
            .map_err(|error| Rejection::new(RejectReason::IdentityRefused, error.to_string()))?;
        let accepted = Accepted {
            identity,
            expires_at,
            binding: binding(&claims),
        };
        Ok((Arc::new(accepted), expires_at))
    }

    fn check_tenant(&self, claims: &Claims, version: TokenVersion) -> Result<(), Rejection> {
        if claims.string("tid")? != Some(&self.tenant.to_string()) {
            return Err(Rejection::new(
                RejectReason::Issuer,
                "`tid` is another tenant",
            ));
        }
        if claims.string("ver")? != Some(version.claim()) {
            return Err(unusable("ver", "does not fit the issuer"));
        }
        Ok(())
    }

    async fn authenticate_bare(
        self: &Arc<Self>,
        token: &str,
    ) -> Result<Authentication, AuthenticationError> {
        let accepted = self.accepted(token).await?;
        let is_bound = !matches!(accepted.binding, Binding::None);
        self.proofs
            .policy()
            .check_bare(is_bound)
            .map_err(Failure::from)?;
        Ok(accepted.to_authentication())
    }

    async fn authenticate_proof(
        self: &Arc<Self>,
        proof: Jwt<'_>,
        credential: &Credential,
    ) -> Result<Authentication, AuthenticationError> {
        let proof = self
            .proofs
            .verify(proof, credential, self.clock.now())
            .map_err(Failure::from)?;
        let accepted = self.accepted(proof.access_token()).await?;
        let bound_to = match &accepted.binding {
            Binding::Key(thumbprint) => Some(thumbprint.as_str()),
            Binding::None | Binding::Unknown => None,
        };
        self.proofs
            .complete(&proof, bound_to, self.clock.now())
            .map_err(Failure::from)?;
        Ok(accepted.to_authentication())
    }
}

#[async_trait]
impl Authenticator for EntraAuthenticator {
    async fn authenticate(
        &self,
        credential: &Credential,
    ) -> Result<Authentication, AuthenticationError> {
        let token = credential.token();
        if let Some(issuer) = unverified_issuer(credential) {
            return match self.inner.verifier(&issuer) {
                Some(_) => self.inner.authenticate_bare(token).await,
                None => Ok(Authentication::NotMine),
            };
        }
        match Jwt::parse(token) {
            Ok(proof)
                if proof.kind() == TokenKind::ProofOfPossession && self.inner.is_own(&proof) =>
            {
                self.inner.authenticate_proof(proof, credential).await
            }
            _ => Ok(Authentication::NotMine),
        }
    }

    fn name(&self) -> &'static str {
        "entra"
    }
}

impl fmt::Debug for EntraAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraAuthenticator")
            .field("tenant", &self.inner.tenant)
            .finish_non_exhaustive()
    }
}

impl Accepted {
    fn to_authentication(&self) -> Authentication {
        Authentication::Identity(
            Authenticated::new(self.identity.clone()).with_expiry(self.expires_at),
        )
    }
}

fn object_id(claims: &Claims) -> Result<Uuid, Rejection> {
    let text = claims.required("oid")?;
    match Uuid::try_parse(text) {
        Ok(oid) if text.len() == uuid::fmt::Hyphenated::LENGTH && !oid.is_nil() => Ok(oid),
        _ => Err(unusable("oid", "is not a UUID")),
    }
}

/// Whether the caller is a user. `idtyp` says so where it is there; else a token that an application got for itself
/// has its object id as the subject, and neither a user's name nor scopes that a user consented to.
fn principal_kind(claims: &Claims, oid: Uuid) -> Result<PrincipalKind, Rejection> {
    match claims.string("idtyp")? {
        Some("app") => Ok(PrincipalKind::ServicePrincipal),
        Some("user") => Ok(PrincipalKind::User),
        Some(_) => Err(unusable("idtyp", "is neither `app` nor `user`")),
        None => {
            let is_own_subject = claims
                .string("sub")?
                .is_some_and(|subject| subject.eq_ignore_ascii_case(&oid.to_string()));
            let has_user_claims = claims.get("upn").is_some() || claims.get("scp").is_some();
            if is_own_subject && !has_user_claims {
                Ok(PrincipalKind::ServicePrincipal)
            } else {
                Ok(PrincipalKind::User)
            }
        }
    }
}

/// The mark that tokens of the implicit flow have instead of `_claim_names`.
fn has_groups_elsewhere(claims: &Claims) -> bool {
    match claims.get("hasgroups") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::String(text)) => text != "false",
        Some(_) => true,
    }
}

fn group_claim(claims: &Claims) -> Result<Vec<String>, Rejection> {
    match claims.get("groups") {
        // One string may be anything, a list among them: Entra ID never sends it.
        Some(Value::String(_)) => Err(unusable("groups", "is not a list")),
        _ => claims.strings("groups"),
    }
}

fn binding(claims: &Claims) -> Binding {
    let Some(confirmation) = claims.get("cnf") else {
        return Binding::None;
    };
    match confirmation.get("kid").and_then(Value::as_str) {
        Some(thumbprint) if !thumbprint.is_empty() => Binding::Key(thumbprint.to_owned()),
        _ => Binding::Unknown,
    }
}

/// Whatever the claims are: an accepted object id is one UUID, and what the other readers say is no panic.
#[cfg(fuzzing)]
pub(super) fn fuzz_claims(text: &[u8]) {
    use super::{claims::TimeRules, json};

    let Ok(object) = json::object(text) else {
        return;
    };
    let claims = Claims::from_verified(object);
    let rules = TimeRules {
        skew: std::time::Duration::from_secs(60),
        max_lifetime: std::time::Duration::from_secs(24 * 3600),
    };
    let _ = claims.check_times(rules, SystemTime::UNIX_EPOCH);
    let _ = claims.check_audience(&["a".to_owned()]);
    let _ = (group_claim(&claims), has_groups_elsewhere(&claims));
    let _ = binding(&claims);
    if let Ok(oid) = object_id(&claims) {
        assert!(!oid.is_nil());
        let _ = principal_kind(&claims, oid);
    }
}

#[cfg(test)]
mod tests;
