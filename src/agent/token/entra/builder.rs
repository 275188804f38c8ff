//! [`EntraAuthenticatorBuilder`]: the settings of an [`EntraAuthenticator`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    super::{
        cache::Verdicts,
        discovery::{Discovery, KeyHosts},
        groups::GroupResolver,
        jwt::SignatureAlgorithm,
        key_store::KeyStore,
        pop::{PopPolicy, ProofVerifier},
        verifier::{DEFAULT_MAX_LIFETIME, DEFAULT_SKEW, Rules, Verifier},
    },
    EntraAuthenticator, EntraUsername, Inner,
};
use crate::{
    Error, ErrorKind, Result,
    agent::identity::IdentityRules,
    auth::{Cloud, TenantId, TokenVersion},
    clock::Clock,
    net::{Connector, HttpClient, TrustRoots},
};

/// Azure's "Kubernetes Arc server" application, for which callers of Arc-enabled clusters get their tokens.
pub(super) const ARC_SERVER_AUDIENCE: &str = "6256c85f-0aad-4d50-b960-e6e9b21efe35";

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

impl EntraAuthenticatorBuilder {
    pub(super) fn new(tenant: TenantId) -> Self {
        Self {
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
                KeyHosts::Only(
                    self.cloud
                        .key_hosts()
                        .into_iter()
                        .map(str::to_owned)
                        .collect(),
                ),
            );
            Verifier::new(
                self.cloud.issuer(version, self.tenant),
                KeyStore::new(Box::new(discovery)),
                rules.clone(),
                self.clock.clone(),
            )
            .with_key_issuers(key_issuers(&self.cloud, self.tenant))
        };
        let (v1, v2) = (verifier(TokenVersion::V1), verifier(TokenVersion::V2));
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
    [TokenVersion::V1, TokenVersion::V2]
        .into_iter()
        .flat_map(|version| {
            [
                cloud.issuer(version, tenant),
                cloud.issuer(version, "{tenantid}"),
            ]
        })
        .collect()
}
