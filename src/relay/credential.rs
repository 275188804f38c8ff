//! What a party shows the relay.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{HybridConnection, SasRule, sas::SasToken};
use crate::{Error, ErrorKind, Result};

/// A token that the relay takes. Never printed; its memory is wiped when dropped.
#[derive(Clone)]
pub struct RelayToken {
    secret: SecretString,
    expires_at: Option<SystemTime>,
}

impl RelayToken {
    /// A finished SAS token.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `token` is not of the form `SharedAccessSignature sr=…&sig=…&se=…&skn=…`.
    pub fn sas(token: impl Into<String>) -> Result<Self> {
        let token = token.into().trim().to_owned();
        let expires_at = SasToken::parse(&token)
            .map_err(|error| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "the relay's SAS token is not usable",
                )
                .with_source(error)
                .with_help("give the whole token: SharedAccessSignature sr=…&sig=…&se=…&skn=…")
            })?
            .expires_at();
        Ok(Self::new(token, Some(expires_at)))
    }

    pub(super) fn new(secret: String, expires_at: Option<SystemTime>) -> Self {
        Self {
            secret: SecretString::from(secret),
            expires_at,
        }
    }

    /// The token itself, for the `ServiceBusAuthorization` header.
    pub fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The time after which the relay refuses the token, if known.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A token together with the hybrid connection that it is for.
///
/// The two belong together: Azure Resource Manager gives each token a path of its own, below the one on which the
/// cluster's agent listens.
#[derive(Clone, Debug)]
pub struct RelayGrant {
    hybrid_connection: HybridConnection,
    token: RelayToken,
}

impl RelayGrant {
    /// `token` for `hybrid_connection`.
    pub fn new(hybrid_connection: HybridConnection, token: RelayToken) -> Self {
        Self {
            hybrid_connection,
            token,
        }
    }

    /// Where to connect.
    pub fn hybrid_connection(&self) -> &HybridConnection {
        &self.hybrid_connection
    }

    /// What to show there.
    pub fn token(&self) -> &RelayToken {
        &self.token
    }
}

/// Gets tokens from somewhere else, over and over: they end, and each new one may be for another path.
///
/// Asked at each dial, so implementations keep what is still valid. They must be cancel-safe: a dropped future leaves
/// the source as it was.
///
/// ```
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{
///     Result,
///     relay::{HybridConnection, RelayCredential, RelayGrant, RelayToken, RelayTokenSource},
/// };
/// use async_trait::async_trait;
///
/// /// A token that some other program renews in a file.
/// struct TokenFile {
///     hybrid_connection: HybridConnection,
/// }
///
/// #[async_trait]
/// impl RelayTokenSource for TokenFile {
///     async fn grant(&self) -> Result<RelayGrant> {
///         let text = std::fs::read_to_string("/run/relay/token").unwrap_or_default();
///         Ok(RelayGrant::new(self.hybrid_connection.clone(), RelayToken::sas(text)?))
///     }
/// }
///
/// # fn example(source: TokenFile) -> RelayCredential {
/// RelayCredential::refreshing(Arc::new(source))
/// # }
/// ```
#[async_trait]
pub trait RelayTokenSource: Send + Sync {
    /// A hybrid connection and a token for it that is valid now.
    ///
    /// # Errors
    /// Why there is none; a retryable kind when that passes by itself.
    async fn grant(&self) -> Result<RelayGrant>;

    /// The relay has refused `grant`: do not give it out again if there is a way to get another.
    fn refused(&self, grant: &RelayGrant) {
        let _ = grant;
    }
}

/// Where a party's tokens come from: a rule whose key makes them, one finished token, or a source that gets new ones.
///
/// Cheap to clone. Never prints a key or token.
///
/// ```
/// use arc_cluster_connect::relay::{RelayCredential, SasRule};
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let credential = RelayCredential::from(SasRule::new("listen", "an-example-key")?);
/// assert!(!format!("{credential:?}").contains("an-example-key"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RelayCredential(Source);

#[derive(Clone)]
enum Source {
    Rule(SasRule),
    Finished(RelayToken),
    Refreshing(Arc<dyn RelayTokenSource>),
}

impl RelayCredential {
    /// A finished SAS token. It can not be renewed.
    ///
    /// # Errors
    /// As [`RelayToken::sas`].
    pub fn sas_token(token: impl Into<String>) -> Result<Self> {
        Ok(Self(Source::Finished(RelayToken::sas(token)?)))
    }

    /// Tokens that `source` gets. It also says which hybrid connection each is for: a sender connects there, and the
    /// one that it was made with is a name only. A listener stays at its own.
    pub fn refreshing(source: Arc<dyn RelayTokenSource>) -> Self {
        Self(Source::Refreshing(source))
    }

    /// Where to connect and what to show there, valid at `now`: for `hybrid_connection`, unless a source decides. A
    /// rule's token lives for one hour.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] when the finished token has expired; what the source says.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn grant(
        &self,
        hybrid_connection: &HybridConnection,
        now: SystemTime,
    ) -> Result<RelayGrant> {
        let token = match &self.0 {
            Source::Rule(rule) => rule.sign(hybrid_connection, now + TOKEN_LIFETIME),
            Source::Finished(token) if token.expires_at.is_some_and(|at| at <= now) => {
                return Err(Error::new(
                    ErrorKind::Unauthorized,
                    format!("the SAS token for {hybrid_connection} has expired"),
                )
                .with_help("get a new token, and check this machine's clock"));
            }
            Source::Finished(token) => token.clone(),
            Source::Refreshing(source) => return source.grant().await,
        };
        Ok(RelayGrant::new(hybrid_connection.clone(), token))
    }

    /// The relay has refused `grant`. Says whether asking again may give another.
    pub(super) fn refused(&self, grant: &RelayGrant) -> Renewable {
        match &self.0 {
            Source::Refreshing(source) => {
                source.refused(grant);
                Renewable::Yes
            }
            Source::Rule(_) | Source::Finished(_) => Renewable::No,
        }
    }
}

/// Whether a credential can give another token than the one that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewable {
    Yes,
    No,
}

impl From<SasRule> for RelayCredential {
    fn from(rule: SasRule) -> Self {
        Self(Source::Rule(rule))
    }
}

impl fmt::Debug for RelayCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Rule(rule) => f.debug_tuple("RelayCredential").field(rule).finish(),
            Source::Finished(token) => f.debug_tuple("RelayCredential").field(token).finish(),
            Source::Refreshing(_) => f.write_str("RelayCredential(refreshing)"),
        }
    }
}

/// What Microsoft's own clients ask for. A longer life would let a stolen token live longer; a shorter one only
/// renews more often.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Endpoint, Security};

    fn hybrid_connection() -> HybridConnection {
        let endpoint = Endpoint::new("contoso.servicebus.windows.net", 443, Security::Tls);
        HybridConnection::new(endpoint, "hyco").unwrap()
    }

    #[tokio::test]
    async fn a_rule_makes_tokens_of_one_hour() {
        let credential = RelayCredential::from(SasRule::new("rule", "key").unwrap());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let grant = credential.grant(&hybrid_connection(), now).await.unwrap();
        assert_eq!(grant.hybrid_connection(), &hybrid_connection());
        let token = grant.token();
        assert_eq!(token.expires_at(), Some(now + TOKEN_LIFETIME));
        assert!(token.secret().starts_with("SharedAccessSignature sr="));
    }

    #[tokio::test]
    async fn a_finished_token_is_used_until_it_expires() {
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = SasRule::new("rule", "key")
            .unwrap()
            .sign(&hybrid_connection(), expires_at);
        let credential = RelayCredential::sas_token(token.secret()).unwrap();

        let before = expires_at - Duration::from_secs(1);
        let used = credential
            .grant(&hybrid_connection(), before)
            .await
            .unwrap();
        assert_eq!(used.token().secret(), token.secret());
        assert_eq!(used.token().expires_at(), Some(expires_at));

        let error = credential
            .grant(&hybrid_connection(), expires_at)
            .await
            .unwrap_err();
        assert!(error.is_unauthorized());
        assert!(error.to_string().contains("has expired"));
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_text_that_is_no_token_is_refused_without_repeating_it() {
        let error = RelayCredential::sas_token("hunter2").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error:?} {}", error.report()).contains("hunter2"));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let rule = SasRule::new("rule", "top-secret-key").unwrap();
        let token = rule.sign(&hybrid_connection(), SystemTime::now());
        let finished = RelayCredential::sas_token(token.secret()).unwrap();
        let printed = format!("{token:?} {finished:?} {:?}", RelayCredential::from(rule));
        assert!(!printed.contains("top-secret-key"));
        assert!(!printed.contains("sig="));
    }
}
