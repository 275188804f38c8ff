//! Who is calling: from a request's head to a [`Caller`].

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, header};

use super::{
    Authentication, AuthenticationError, Authenticator, Credential, Identity, RefreshCounts,
    RejectReason, TunnelId, authenticator::is_token68,
};
use crate::agent::{request_head::RequestHead, status::Refusal};

/// The longest `Authorization` value in bytes that is looked at. Entra tokens with 200 groups have about 10 KiB.
const MAX_CREDENTIAL: usize = 32 * 1024;
/// How long finding out may take. An issuer's keys, or a caller's groups, may have to be fetched over slow links.
const AUTHENTICATION_LIMIT: Duration = Duration::from_secs(30);
/// The sub-protocol by which browsers smuggle a bearer token into a WebSocket handshake. The API server honours it.
const WEBSOCKET_BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Somebody who may ask.
#[derive(Debug)]
pub(in crate::agent) struct Caller {
    pub(in crate::agent) standing: Standing,
    /// When the token loses its worth. For a token that the API server judges, this is what the token says itself.
    pub(in crate::agent) expires_at: Option<SystemTime>,
}

/// What is known of a caller.
#[derive(Debug)]
pub(in crate::agent) enum Standing {
    /// Nothing: the API server is to judge the caller's own token.
    OwnToken(CallerToken),
    /// Who they are.
    Known(Arc<Identity>),
}

/// The caller's whole `Authorization` value, byte for byte. Never printed.
#[derive(Clone)]
pub(in crate::agent) struct CallerToken(HeaderValue);

/// Those who say who a caller is, in the order in which they are asked.
pub(in crate::agent) struct Callers(Vec<Arc<dyn Authenticator>>);

impl Callers {
    pub(in crate::agent) fn new(authenticators: Vec<Arc<dyn Authenticator>>) -> Self {
        Self(authenticators)
    }

    /// Who asks? Anything but a clear answer is a [`Refusal`].
    pub(in crate::agent) async fn identify(
        &self,
        head: &RequestHead,
        tunnel: TunnelId,
    ) -> Result<Caller, Refusal> {
        let token = CallerToken::of(&head.headers)?;
        let credential = Credential::new(token.text(), head.method.clone(), head.target.clone())
            .map_err(|_| not_bearer())?
            .with_tunnel(tunnel);
        let (authentication, name) =
            tokio::time::timeout(AUTHENTICATION_LIMIT, self.ask(&credential))
                .await
                .map_err(|_| {
                    tracing::warn!("a token was not checked in time");
                    Refusal::authentication_unavailable()
                })??;
        tracing::debug!(authenticator = name, "caller authenticated");
        Ok(match authentication {
            Authentication::Identity(authenticated) => {
                let (identity, expires_at) = authenticated.into_parts();
                Caller {
                    standing: Standing::Known(Arc::new(identity)),
                    expires_at,
                }
            }
            Authentication::PassThrough => Caller {
                standing: Standing::OwnToken(token),
                expires_at: credential.unverified_expiry(),
            },
            Authentication::NotMine => return Err(refused(RejectReason::NotAccepted)),
        })
    }

    /// The first answer that is not [`Authentication::NotMine`]. A rejection is an answer.
    async fn ask(
        &self,
        credential: &Credential,
    ) -> Result<(Authentication, &'static str), Refusal> {
        for authenticator in &self.0 {
            let name = authenticator.name();
            match authenticator.authenticate(credential).await {
                Ok(Authentication::NotMine) => {}
                Ok(authentication) => return Ok((authentication, name)),
                Err(error) => return Err(authentication_failed(name, &error)),
            }
        }
        Ok((Authentication::NotMine, "none"))
    }
}

impl Callers {
    /// How often issuers' keys were read.
    pub(in crate::agent) fn key_refreshes(&self) -> RefreshCounts {
        self.0
            .iter()
            .map(|authenticator| authenticator.key_refreshes())
            .sum()
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|authenticator| authenticator.name()))
            .finish()
    }
}

impl CallerToken {
    pub(in crate::agent) fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }

    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => {
                return Err(Refusal::rejected(
                    RejectReason::NoToken,
                    "the request carries no bearer token",
                    "pass a token: `kubectl create token NAME` makes one for a service account",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(Refusal::rejected(
                    RejectReason::NoToken,
                    "the request carries more than one Authorization header",
                    "send exactly one",
                ));
            }
            (Some(value), None) => value,
        };
        // Two credentials in one request can mean two identities: one that is checked, one that acts.
        if has_websocket_bearer(headers) {
            return Err(Refusal::rejected(
                RejectReason::NoToken,
                "the request carries a second token in Sec-WebSocket-Protocol",
                "send the token in the Authorization header only",
            ));
        }
        if value.len() > MAX_CREDENTIAL {
            return Err(Refusal::rejected(
                RejectReason::Malformed,
                format!("the bearer token is longer than {MAX_CREDENTIAL} bytes"),
                "use a token with fewer claims",
            ));
        }
        if !is_bearer(value.as_bytes()) {
            return Err(not_bearer());
        }
        let mut value = value.clone();
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// Without the scheme.
    pub(in crate::agent) fn text(&self) -> &str {
        self.0
            .to_str()
            .ok()
            .and_then(|value| value.get(SCHEME.len()..))
            .unwrap_or_default()
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerToken(redacted)")
    }
}

/// In any case, and with exactly one space.
const SCHEME: &[u8] = b"bearer ";

fn is_bearer(value: &[u8]) -> bool {
    value
        .split_at_checked(SCHEME.len())
        .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case(SCHEME) && is_token68(token))
}

fn not_bearer() -> Refusal {
    Refusal::rejected(
        RejectReason::Malformed,
        "the Authorization header is not a bearer token",
        "send `Authorization: Bearer TOKEN`; other schemes and client certificates do not work through the tunnel",
    )
}

/// What the caller hears, and the agent's log.
pub(in crate::agent) fn authentication_failed(
    authenticator: &'static str,
    error: &AuthenticationError,
) -> Refusal {
    let detail = error.detail().map(crate::Error::report).unwrap_or_default();
    match error.reason() {
        Some(reason) => {
            tracing::info!(
                authenticator,
                reason = reason.label(),
                detail,
                "a token was rejected"
            );
            refused(reason)
        }
        None => {
            tracing::warn!(authenticator, detail, "a token could not be checked");
            Refusal::authentication_unavailable()
        }
    }
}

fn refused(reason: RejectReason) -> Refusal {
    let help = match reason {
        RejectReason::NotAccepted => {
            "use a token of a kind that the agent's operator has turned on"
        }
        RejectReason::GroupsUnresolved => {
            "ask the agent's operator to let it look up groups, or be a member of fewer"
        }
        RejectReason::IdentityRefused => {
            "ask the agent's operator; names that begin with 'system:' are kept for Kubernetes itself"
        }
        RejectReason::NotReviewed => {
            "ask the cluster's operator for the role 'system:basic-user', which lets everybody ask who they are"
        }
        RejectReason::ApiServer => {
            "get a new token: `kubectl create token NAME` makes one for a service account"
        }
        RejectReason::Audience | RejectReason::Issuer => {
            "log in for the audience and tenant that the agent's operator has set"
        }
        _ => "log in again to get a new token",
    };
    Refusal::rejected(reason, reason.text(), help)
}

fn has_websocket_bearer(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .any(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split(',')
                .any(|protocol| {
                    protocol
                        .trim()
                        .to_ascii_lowercase()
                        .starts_with(WEBSOCKET_BEARER_PREFIX)
                })
        })
}

#[cfg(test)]
mod tests;
