//! [`EntraAuthenticator`]: tokens of Microsoft Entra ID.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use super::{
    cache::Verdicts,
    claims::{Claims, unusable},
    cloud::{Cloud, TenantId, Version},
    discovery::{Discovery, KeyHosts},
    groups::{GroupResolver, Groups, PrincipalKind},
    jwt::{Jwt, SignatureAlgorithm, TokenKind},
    key_store::KeyStore,
    pop::{PopPolicy, ProofVerifier},
    rejection::{Failure, Rejection},
    verifier::{DEFAULT_MAX_LIFETIME, DEFAULT_SKEW, Rules, Verifier},
};
use crate::{
    Error, ErrorKind, Result,
    agent::identity::{
        Authenticated, Authentication, AuthenticationError, Authenticator, Credential, Identity,
        IdentityRules, RejectReason,
    },
    clock::Clock,
    net::{Connector, HttpClient, TrustRoots},
};

/// Azure's "Kubernetes Arc server" application, for which callers of Arc-enabled clusters get their tokens.
const ARC_SERVER_AUDIENCE: &str = "6256c85f-0aad-4d50-b960-e6e9b21efe35";

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

/// Makes an [`EntraAuthenticator`].
#[derive(Clone, Debug)]
pub struct EntraAuthenticatorBuilder {
    tenant: TenantId,
    cloud: Cloud,
    audiences: Vec<String>,
    algorithms: Vec<SignatureAlgorithm>,
    username: EntraUsername,
    pop: PopPolicy,
    groups: GroupResolver,
    rules: IdentityRules,
    skew: Duration,
    max_lifetime: Duration,
    connector: Option<Connector>,
    clock: Clock,
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
        EntraAuthenticatorBuilder {
            tenant,
            cloud: Cloud::public(),
            audiences: Vec::new(),
            algorithms: vec![SignatureAlgorithm::Rs256],
            username: EntraUsername::default(),
            pop: PopPolicy::refused(),
            groups: GroupResolver::refuse(),
            rules: IdentityRules::default(),
            skew: DEFAULT_SKEW,
            max_lifetime: DEFAULT_MAX_LIFETIME,
            connector: None,
            clock: Clock::system(),
        }
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
    fn verifier(&self, issuer: &str) -> Option<(Version, &Verifier)> {
        [(Version::V1, &self.v1), (Version::V2, &self.v2)]
            .into_iter()
            .find(|(_, verifier)| verifier.issuer() == issuer)
    }

    fn is_own(&self, jwt: &Jwt<'_>) -> bool {
        jwt.unverified("iss")
            .and_then(Value::as_str)
            .is_some_and(|issuer| self.verifier(issuer).is_some())
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

    fn check_tenant(&self, claims: &Claims, version: Version) -> Result<(), Rejection> {
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
        if let Some(issuer) = credential.unverified_issuer() {
            return match self.inner.verifier(issuer) {
                Some(_) => self.inner.authenticate_bare(token).await,
                None => Ok(Authentication::NotMine),
            };
        }
        // A proof names no issuer: the token inside does.
        match Jwt::parse(token) {
            Ok(proof) if proof.kind() == TokenKind::ProofOfPossession => {
                let is_own = proof
                    .unverified("at")
                    .and_then(Value::as_str)
                    .and_then(|inner| Jwt::parse(inner).ok())
                    .is_some_and(|inner| self.inner.is_own(&inner));
                if is_own {
                    self.inner.authenticate_proof(proof, credential).await
                } else {
                    Ok(Authentication::NotMine)
                }
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

impl EntraAuthenticatorBuilder {
    /// Sets the cloud; the public one unless this is called.
    #[must_use]
    pub fn cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = cloud;
        self
    }

    /// Accepts tokens for this audience. May be called more than once.
    ///
    /// Unless it is called, that is the application of Arc-enabled clusters. v2 tokens name an application by its id
    /// (a UUID), v1 tokens also by its URI.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Sets the accepted signature algorithms, of tokens and of proofs; RS256 alone unless this is called.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = SignatureAlgorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets which claim becomes the user name.
    #[must_use]
    pub fn username(mut self, username: EntraUsername) -> Self {
        self.username = username;
        self
    }

    /// Sets what becomes of tokens with and without a proof of possession. No proofs are taken unless this is called.
    #[must_use]
    pub fn pop(mut self, policy: PopPolicy) -> Self {
        self.pop = policy;
        self
    }

    /// Sets how the groups of callers are found who have too many for a token. Such callers are refused unless this
    /// is called.
    #[must_use]
    pub fn groups(mut self, resolver: GroupResolver) -> Self {
        self.groups = resolver;
        self
    }

    /// Sets the rules that each identity has to follow.
    #[must_use]
    pub fn identity_rules(mut self, rules: IdentityRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets how far clocks may differ: one minute unless this is called, five at most.
    #[must_use]
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.skew = skew;
        self
    }

    /// Sets the longest life of a token that is accepted; 24 hours unless this is called. Tokens under continuous
    /// access evaluation live up to 28 hours.
    #[must_use]
    pub fn max_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = lifetime;
        self
    }

    /// Sets how the authority and the directory are reached. The platform's trust roots count unless this is called.
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Sets the clock that tokens are judged by; the system's unless this is called.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(clock);
        self
    }

    /// Makes the authenticator. Nothing is read yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for settings that can not work; [`ErrorKind::Tls`] when the platform's trust roots
    /// can not be used.
    pub fn build(self) -> Result<EntraAuthenticator> {
        let audiences = if self.audiences.is_empty() {
            vec![ARC_SERVER_AUDIENCE.to_owned()]
        } else {
            self.audiences
        };
        let rules = Rules {
            audiences,
            algorithms: self.algorithms.clone(),
            skew: self.skew,
            max_lifetime: self.max_lifetime,
        };
        rules.check()?;
        self.pop.check()?;
        let connector = match self.connector {
            Some(connector) => connector,
            None => Connector::new(TrustRoots::platform()).map_err(|error| {
                Error::new(
                    ErrorKind::Tls,
                    "can not set up connections to the authority",
                )
                .with_source(error)
            })?,
        };
        let http = HttpClient::new(connector);
        let verifier = |version| {
            let discovery = Discovery::new(
                http.clone(),
                self.cloud.discovery_url(version, self.tenant),
                self.cloud.issuer(version, self.tenant),
                KeyHosts::Only(self.cloud.key_hosts().to_vec()),
            );
            Verifier::new(
                self.cloud.issuer(version, self.tenant),
                KeyStore::new(Box::new(discovery)),
                rules.clone(),
                self.clock.clone(),
            )
            .with_key_issuers(key_issuers(&self.cloud, self.tenant))
        };
        let (v1, v2) = (verifier(Version::V1), verifier(Version::V2));
        let groups = self
            .groups
            .connect(&self.cloud, self.tenant, http, self.clock.clone());
        Ok(EntraAuthenticator {
            inner: Arc::new(Inner {
                tenant: self.tenant,
                v1,
                v2,
                username: self.username,
                rules: self.rules,
                groups,
                proofs: ProofVerifier::new(self.pop, self.algorithms),
                verdicts: Verdicts::new(self.clock.clone()),
                clock: self.clock,
            }),
        })
    }
}

/// What a key of the tenant may name as its own issuer. Keys of all tenants lie in one place; those of consumer
/// accounts, for one, are bound to a tenant of their own.
fn key_issuers(cloud: &Cloud, tenant: TenantId) -> Vec<String> {
    [Version::V1, Version::V2]
        .into_iter()
        .flat_map(|version| {
            [
                cloud.issuer(version, tenant),
                cloud.issuer(version, "{tenantid}"),
            ]
        })
        .collect()
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

#[cfg(test)]
mod tests;
