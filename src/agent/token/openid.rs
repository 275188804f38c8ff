//! [`OpenIdAuthenticator`]: tokens of any OpenID Connect issuer.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use http::Uri;
use serde_json::Value;

use super::{
    cache::Verdicts,
    claims::{Claims, unusable},
    discovery::{Discovery, KeyHosts},
    jwt::{Jwt, SignatureAlgorithm, unverified_issuer},
    key_store::KeyStore,
    rejection::{Failure, Rejection},
    verifier::{DEFAULT_MAX_LIFETIME, DEFAULT_SKEW, Rules, Verifier},
};
use crate::{
    Error, ErrorKind, Result,
    agent::identity::{
        Authenticated, Authentication, AuthenticationError, Authenticator, Credential, Identity,
        IdentityRules, RefreshCounts, RejectReason,
    },
    clock::Clock,
    net::{Connector, HttpClient, ProxySettings, TrustRoots},
};

/// The claim that stays the same for the life of an account, and is never given to another one.
const DEFAULT_USERNAME_CLAIM: &str = "sub";
/// An address that the issuer has not verified can be anybody's.
const EMAIL_CLAIM: &str = "email";

/// Callers with tokens of one OpenID Connect issuer, as `kube-apiserver --oidc-issuer-url` takes them.
///
/// # Prefixes
/// User and group names get the prefixes that the builder is given, character by character, and **none** unless it is
/// given one. There is no automatic prefix of the issuer's URL, and `-` is a prefix of one hyphen, not a word for
/// "none". The `system:` names of Kubernetes are refused in any case.
///
/// # `email`
/// When the user name is the claim `email`, the token must say `email_verified: true`; a token without it is refused
/// (an API server would take it).
///
/// Sources: OpenID Connect Core 1.0 sections 2, 5.1 and 5.6.2, Discovery 1.0 section 4; RFC 7515, 7517, 7519.
#[derive(Clone)]
pub struct OpenIdAuthenticator {
    inner: Arc<Inner>,
}

/// Makes an [`OpenIdAuthenticator`].
#[derive(Clone, Debug)]
pub struct OpenIdAuthenticatorBuilder {
    issuer: String,
    audiences: Vec<String>,
    names: Names,
    algorithms: Vec<SignatureAlgorithm>,
    rules: IdentityRules,
    skew: Duration,
    max_lifetime: Duration,
    trust_roots: TrustRoots,
    proxy: ProxySettings,
    clock: Clock,
}

struct Inner {
    verifier: Verifier,
    names: Names,
    rules: IdentityRules,
    verdicts: Verdicts<Arc<Authenticated>>,
}

/// Which claims become names, and with what in front.
#[derive(Clone, Debug)]
struct Names {
    username_claim: String,
    username_prefix: String,
    groups_claim: Option<String>,
    groups_prefix: String,
}

impl OpenIdAuthenticator {
    /// An authenticator for tokens of `issuer_url`, exactly as the issuer spells it, that are for `audience`.
    ///
    /// ```
    /// use arc_cluster_connect::agent::OpenIdAuthenticator;
    ///
    /// # fn main() -> arc_cluster_connect::Result<()> {
    /// let dex = OpenIdAuthenticator::builder("https://dex.example.com", "kubernetes")
    ///     .username_claim("email")
    ///     .groups_claim("groups")
    ///     .groups_prefix("dex:")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(
        issuer_url: impl Into<String>,
        audience: impl Into<String>,
    ) -> OpenIdAuthenticatorBuilder {
        OpenIdAuthenticatorBuilder {
            issuer: issuer_url.into(),
            audiences: vec![audience.into()],
            names: Names {
                username_claim: DEFAULT_USERNAME_CLAIM.to_owned(),
                username_prefix: String::new(),
                groups_claim: None,
                groups_prefix: String::new(),
            },
            algorithms: vec![SignatureAlgorithm::Rs256],
            rules: IdentityRules::default(),
            skew: DEFAULT_SKEW,
            max_lifetime: DEFAULT_MAX_LIFETIME,
            trust_roots: TrustRoots::platform(),
            proxy: ProxySettings::direct(),
            clock: Clock::system(),
        }
    }

    /// Reads the issuer's keys now, so that a program can say at its start what would else fail each caller.
    ///
    /// # Errors
    /// What kept them from being read; the text names the URL.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn preload(&self) -> Result<()> {
        self.inner.verifier.preload().await
    }
}

impl Inner {
    async fn check(&self, token: &str) -> Result<(Arc<Authenticated>, SystemTime), Failure> {
        let (claims, expires_at) = self.verifier.verify(Jwt::parse(token)?).await?;
        // RFC 7800: whoever shows such a token has to prove that they hold a key.
        if claims.get("cnf").is_some() {
            return Err(
                Rejection::new(RejectReason::ProofRequired, "the token is bound to a key").into(),
            );
        }
        let identity = Identity::builder(self.names.user(&claims)?)
            .groups(self.names.groups(&claims)?)
            .build(&self.rules)
            .map_err(|error| Rejection::new(RejectReason::IdentityRefused, error.to_string()))?;
        let authenticated = Authenticated::new(identity).with_expiry(expires_at);
        Ok((Arc::new(authenticated), expires_at))
    }
}

impl Names {
    fn user(&self, claims: &Claims) -> Result<String, Rejection> {
        // Before the prefix: a prefix must not make a name out of nothing.
        let name = claims.required(&self.username_claim)?;
        if self.username_claim == EMAIL_CLAIM
            && claims.get("email_verified") != Some(&Value::Bool(true))
        {
            return Err(unusable("email_verified", "is not true"));
        }
        if name.trim() != name {
            return Err(unusable(&self.username_claim, "has white space at an edge"));
        }
        Ok(format!("{}{name}", self.username_prefix))
    }

    fn groups(&self, claims: &Claims) -> Result<Vec<String>, Rejection> {
        let Some(claim) = &self.groups_claim else {
            return Ok(Vec::new());
        };
        if claims.is_left_out(claim) {
            return Err(Rejection::new(
                RejectReason::GroupsUnresolved,
                "the token's groups are elsewhere, and this agent does not fetch them",
            ));
        }
        Ok(claims
            .strings(claim)?
            .into_iter()
            .filter(|group| !group.is_empty())
            .map(|group| format!("{}{group}", self.groups_prefix))
            .collect())
    }
}

#[async_trait]
impl Authenticator for OpenIdAuthenticator {
    async fn authenticate(
        &self,
        credential: &Credential,
    ) -> Result<Authentication, AuthenticationError> {
        if unverified_issuer(credential).as_deref() != Some(self.inner.verifier.issuer()) {
            return Ok(Authentication::NotMine);
        }
        let (inner, token) = (Arc::clone(&self.inner), credential.token().to_owned());
        let verdict = self
            .inner
            .verdicts
            .of(credential.token(), async move { inner.check(&token).await })
            .await;
        Ok(Authentication::Identity(Authenticated::clone(&*verdict?)))
    }

    fn name(&self) -> &'static str {
        "openid"
    }

    fn key_refreshes(&self) -> RefreshCounts {
        self.inner.verifier.key_refreshes()
    }
}

impl fmt::Debug for OpenIdAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenIdAuthenticator")
            .field("issuer", &self.inner.verifier.issuer())
            .finish_non_exhaustive()
    }
}

impl OpenIdAuthenticatorBuilder {
    /// Accepts tokens for this audience too. A token for several must be for accepted ones only.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Sets the claim that becomes the user name; `sub` unless this is called.
    #[must_use]
    pub fn username_claim(mut self, claim: impl Into<String>) -> Self {
        self.names.username_claim = claim.into();
        self
    }

    /// Sets what stands before each user name; nothing unless this is called.
    #[must_use]
    pub fn username_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.username_prefix = prefix.into();
        self
    }

    /// Sets the claim with the groups, a list of strings or one string. Callers have no groups unless this is called.
    #[must_use]
    pub fn groups_claim(mut self, claim: impl Into<String>) -> Self {
        self.names.groups_claim = Some(claim.into());
        self
    }

    /// Sets what stands before each group; nothing unless this is called.
    #[must_use]
    pub fn groups_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.groups_prefix = prefix.into();
        self
    }

    /// Sets the accepted signature algorithms; RS256 alone unless this is called.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = SignatureAlgorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets the certificate authorities that are trusted for the issuer; the platform's unless this is called.
    #[must_use]
    pub fn trust_roots(mut self, roots: TrustRoots) -> Self {
        self.trust_roots = roots;
        self
    }

    /// Sets the corporate proxy through which the issuer is asked; none unless this is called.
    #[must_use]
    pub fn proxy(mut self, proxy: ProxySettings) -> Self {
        self.proxy = proxy;
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

    /// Sets the longest life of a token that is accepted; 24 hours unless this is called.
    #[must_use]
    pub fn max_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = lifetime;
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
    /// [`ErrorKind::InvalidInput`] for an issuer that is not an `https` URL without query and fragment, an empty
    /// audience or claim, and other settings that can not work; [`ErrorKind::Tls`] when the trust roots can not be
    /// used.
    pub fn build(self) -> Result<OpenIdAuthenticator> {
        check_issuer(&self.issuer)?;
        if self.names.username_claim.is_empty() || self.names.groups_claim.as_deref() == Some("") {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the name of the claim for user names or groups is empty",
            ));
        }
        let rules = Rules {
            audiences: self.audiences,
            algorithms: self.algorithms,
            skew: self.skew,
            max_lifetime: self.max_lifetime,
        };
        rules.check()?;
        // Section 4: a slash at the issuer's end does not come twice.
        let url = format!(
            "{}/.well-known/openid-configuration",
            self.issuer.trim_end_matches('/')
        );
        let connector = Connector::new(self.trust_roots)?.with_proxy(self.proxy);
        let http = HttpClient::new(connector);
        let discovery = Discovery::new(http, url, self.issuer.clone(), KeyHosts::Any);
        let keys = KeyStore::new(Box::new(discovery));
        Ok(OpenIdAuthenticator {
            inner: Arc::new(Inner {
                verifier: Verifier::new(self.issuer, keys, rules, self.clock.clone()),
                names: self.names,
                rules: self.rules,
                verdicts: Verdicts::new(self.clock),
            }),
        })
    }
}

fn check_issuer(issuer: &str) -> Result<()> {
    let is_usable = issuer.parse::<Uri>().is_ok_and(|url| {
        url.scheme_str() == Some("https")
            && url.authority().is_some_and(|at| !at.as_str().contains('@'))
            && url.query().is_none()
            && !issuer.contains('#')
    });
    if is_usable {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::InvalidInput,
            "the issuer is not an https URL without user name, query and fragment",
        )
        .with_help("give the issuer exactly as its own discovery document spells it"))
    }
}

#[cfg(test)]
mod tests;
