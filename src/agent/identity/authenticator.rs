//! [`Authenticator`]: from a credential to who its holder is.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Identity, RefreshCounts, TunnelId};
use crate::{Error, ErrorKind};

/// Says who the holder of a bearer token is.
///
/// The agent asks its authenticators in their order. The first one that answers anything but
/// [`Authentication::NotMine`] decides; when no one does, the caller is refused. Whether a token is an authenticator's
/// own is to be told by its issuer, never by whether it turned out to be valid: a rejected token must not get a
/// second chance with other rules.
///
/// Called for each request, so implementations cache. Implementations must be cancel-safe.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Who holds `credential`.
    ///
    /// # Errors
    /// A rejection is final and becomes a 401 or 403; with an unavailable issuer the caller gets a 503.
    async fn authenticate(
        &self,
        credential: &Credential,
    ) -> Result<Authentication, AuthenticationError>;

    /// A short name for logs and metrics, such as `entra`.
    fn name(&self) -> &'static str;

    /// How often the issuer's keys were read since the start, for the metric
    /// [`METRIC_KEY_REFRESHES`](crate::telemetry::METRIC_KEY_REFRESHES). None, unless this is implemented.
    fn key_refreshes(&self) -> RefreshCounts {
        RefreshCounts::default()
    }
}

/// The bearer token of one request. Never printed; its memory is wiped when dropped.
pub struct Credential {
    token: SecretString,
    claims: UnverifiedClaims,
    method: Method,
    target: Uri,
    tunnel: Option<TunnelId>,
}

/// What a token says about itself. Nobody has checked it.
#[derive(Default)]
struct UnverifiedClaims {
    issuer: Option<String>,
    expires_at: Option<SystemTime>,
}

impl Credential {
    /// The token of a request for `target`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the text is no `token68` (RFC 9110 section 11.2), which is what a bearer
    /// token has to be.
    pub fn new(token: &str, method: Method, target: Uri) -> crate::Result<Self> {
        if !is_token68(token.as_bytes()) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the text is not a bearer token",
            ));
        }
        Ok(Self {
            claims: UnverifiedClaims::of(token).unwrap_or_default(),
            token: SecretString::from(token),
            method,
            target,
            tunnel: None,
        })
    }

    /// Sets through which tunnel connection the request came. The agent does.
    #[must_use]
    pub fn with_tunnel(mut self, tunnel: TunnelId) -> Self {
        self.tunnel = Some(tunnel);
        self
    }

    /// The token: ASCII, 32 KiB at most when it comes from a caller.
    pub fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// The `iss` claim, when the token is a JWT that has exactly one. Not verified: good for deciding who verifies it.
    pub fn unverified_issuer(&self) -> Option<&str> {
        self.claims.issuer.as_deref()
    }

    /// The `exp` claim of a JWT. Not verified.
    pub fn unverified_expiry(&self) -> Option<SystemTime> {
        self.claims.expires_at
    }

    /// The request's method, for proofs that are bound to it.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's target, for proofs that are bound to it.
    pub fn target(&self) -> &Uri {
        &self.target
    }

    /// Through which tunnel connection the request came, for proofs that may not move to another one; `None` when
    /// that is not known.
    pub fn tunnel(&self) -> Option<TunnelId> {
        self.tunnel
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

impl UnverifiedClaims {
    fn of(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Claims {
            iss: Option<String>,
            exp: Option<f64>,
        }

        let mut parts = token.split('.');
        let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        let expires_at = claims
            .exp
            .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
            .and_then(|since_epoch| SystemTime::UNIX_EPOCH.checked_add(since_epoch));
        Some(Self {
            issuer: claims.iss,
            expires_at,
        })
    }
}

/// What an [`Authenticator`] found out.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// The holder is known: the agent acts on their behalf.
    Identity(Authenticated),
    /// The API server itself knows the holder: it gets the caller's own token, and nothing of the agent's.
    PassThrough,
    /// The token is none of this authenticator's: the next one is asked.
    NotMine,
}

/// A known holder.
#[derive(Clone, Debug)]
pub struct Authenticated {
    identity: Identity,
    expires_at: Option<SystemTime>,
}

impl Authenticated {
    /// The holder of a token.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            expires_at: None,
        }
    }

    /// Sets when the token loses its worth. Streams may be tied to it.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Who the holder is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the token loses its worth, if it does.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    pub(in crate::agent) fn into_parts(self) -> (Identity, Option<SystemTime>) {
        (self.identity, self.expires_at)
    }
}

/// Why the holder of a token stays unknown.
///
/// What the caller is told is the fixed text of the [`RejectReason`]. The details are for the agent's log.
#[derive(Debug)]
pub struct AuthenticationError(Kind);

#[derive(Debug)]
enum Kind {
    Rejected {
        reason: RejectReason,
        detail: Option<Error>,
    },
    Unavailable(Error),
}

impl AuthenticationError {
    /// The token is not accepted, and will not be.
    pub fn rejected(reason: RejectReason) -> Self {
        Self(Kind::Rejected {
            reason,
            detail: None,
        })
    }

    /// The token is not accepted; `detail` is logged, and must not hold the token.
    pub fn rejected_because(reason: RejectReason, detail: Error) -> Self {
        Self(Kind::Rejected {
            reason,
            detail: Some(detail),
        })
    }

    /// Whether the token is good can not be told now: the issuer's keys, or the directory of groups, are out of
    /// reach.
    pub fn unavailable(error: Error) -> Self {
        Self(Kind::Unavailable(error))
    }

    /// Why the token was rejected; `None` when that could not be told.
    pub fn reason(&self) -> Option<RejectReason> {
        match &self.0 {
            Kind::Rejected { reason, .. } => Some(*reason),
            Kind::Unavailable(_) => None,
        }
    }

    /// What is behind it, for the log.
    pub fn detail(&self) -> Option<&Error> {
        match &self.0 {
            Kind::Rejected { detail, .. } => detail.as_ref(),
            Kind::Unavailable(error) => Some(error),
        }
    }
}

impl From<RejectReason> for AuthenticationError {
    fn from(reason: RejectReason) -> Self {
        Self::rejected(reason)
    }
}

/// For what [`IdentityBuilder::build`](super::IdentityBuilder::build) says.
impl From<Error> for AuthenticationError {
    fn from(error: Error) -> Self {
        Self::rejected_because(RejectReason::IdentityRefused, error)
    }
}

impl fmt::Display for AuthenticationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Rejected { reason, .. } => reason.text(),
            Kind::Unavailable(_) => "the token can not be checked at the moment",
        })
    }
}

impl std::error::Error for AuthenticationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.detail()
            .map(|error| error as &(dyn std::error::Error + 'static))
    }
}

macro_rules! reject_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal: $text:literal;)+) => {
        /// Why a token was rejected: a closed set, so that it can be a metric's label, and so that the caller learns
        /// no more than its text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RejectReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl RejectReason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in logs and metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// What the caller is told.
            pub(in crate::agent) const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

reject_reasons! {
    /// There is no token, or more than one.
    NoToken = "no_token": "the request carries no single bearer token";
    /// No authenticator takes tokens of this kind.
    NotAccepted = "not_accepted": "the agent accepts no tokens of this kind or issuer";
    /// It is not a JWT that can be read: syntax, size, repeated or misshapen claims, unknown critical headers.
    Malformed = "malformed": "the token is malformed";
    /// Its algorithm is not among the accepted ones.
    Algorithm = "algorithm": "the token is signed by a method that is not accepted";
    /// Its signature does not hold, or nobody has the key.
    Signature = "signature": "the token's signature is not valid";
    /// It comes from another issuer or tenant.
    Issuer = "issuer": "the token's issuer or tenant is not accepted";
    /// It was issued for another audience.
    Audience = "audience": "the token was issued for another audience";
    /// Its time is over.
    Expired = "expired": "the token has expired";
    /// Its time has not come.
    NotYetValid = "not_yet_valid": "the token is not valid yet";
    /// It would live longer than is accepted.
    Lifetime = "lifetime": "the token's lifetime is longer than is accepted";
    /// A claim that is needed is missing or unusable.
    Claims = "claims": "the token lacks a claim that is needed";
    /// The proof of possession does not hold.
    Proof = "proof": "the token's proof of possession is not valid";
    /// The proof of possession is too old, or from the future.
    ProofTime = "proof_time": "the token's proof of possession is not of now";
    /// The proof of possession was used before.
    Replayed = "replayed": "the token's proof of possession was used before";
    /// A proof of possession is needed, and there is none.
    ProofRequired = "proof_required": "a proof of possession is needed with this token";
    /// The caller has more groups than the token lists, and they can not be looked up.
    GroupsUnresolved = "groups_unresolved": "the caller's groups are too many for the token, and the agent can not look them up";
    /// The API server does not accept it.
    ApiServer = "api_server": "the API server does not accept the token";
    /// The API server does not let its holder ask who they are.
    NotReviewed = "not_reviewed": "the API server does not tell the token's holder who they are";
    /// The token is good, and its identity is none that may act in a cluster.
    IdentityRefused = "identity_refused": "the token's user name, groups or other names are not ones that may act in the cluster";
}

impl RejectReason {
    /// Whether the holder is known and may not act, so that another token of theirs would not help.
    pub(in crate::agent) const fn is_forbidden(self) -> bool {
        matches!(
            self,
            Self::GroupsUnresolved | Self::NotReviewed | Self::IdentityRefused
        )
    }
}

/// `token68` (RFC 9110 section 11.2).
pub(super) fn is_token68(token: &[u8]) -> bool {
    let unpadded = token
        .iter()
        .rposition(|&byte| byte != b'=')
        .map_or(0, |last| last + 1);
    unpadded > 0
        && token[..unpadded]
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
