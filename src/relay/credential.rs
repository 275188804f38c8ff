//! What a party shows the relay.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

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

/// Where a party's tokens come from: a rule whose key makes them, or one finished token.
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

/// Another source of tokens, such as Microsoft Entra, is another variant.
#[derive(Clone)]
enum Source {
    Rule(SasRule),
    Finished(RelayToken),
}

impl RelayCredential {
    /// A finished SAS token, as Azure Resource Manager hands them out for a cluster. It can not be renewed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `token` is not of the form `SharedAccessSignature sr=…&sig=…&se=…&skn=…`.
    pub fn sas_token(token: impl Into<String>) -> Result<Self> {
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
        Ok(Self(Source::Finished(RelayToken::new(
            token,
            Some(expires_at),
        ))))
    }

    /// A token for `hybrid_connection` that is valid at `now`. A rule's token lives for one hour.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] when the finished token has expired.
    pub fn token(
        &self,
        hybrid_connection: &HybridConnection,
        now: SystemTime,
    ) -> Result<RelayToken> {
        match &self.0 {
            Source::Rule(rule) => Ok(rule.sign(hybrid_connection, now + TOKEN_LIFETIME)),
            Source::Finished(token) if token.expires_at.is_some_and(|at| at <= now) => {
                Err(Error::new(
                    ErrorKind::Unauthorized,
                    format!("the SAS token for {hybrid_connection} has expired"),
                )
                .with_help("get a new token, and check this machine's clock"))
            }
            Source::Finished(token) => Ok(token.clone()),
        }
    }
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

    #[test]
    fn a_rule_makes_tokens_of_one_hour() {
        let credential = RelayCredential::from(SasRule::new("rule", "key").unwrap());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = credential.token(&hybrid_connection(), now).unwrap();
        assert_eq!(token.expires_at(), Some(now + TOKEN_LIFETIME));
        assert!(token.secret().starts_with("SharedAccessSignature sr="));
    }

    #[test]
    fn a_finished_token_is_used_until_it_expires() {
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let token = SasRule::new("rule", "key")
            .unwrap()
            .sign(&hybrid_connection(), expires_at);
        let credential = RelayCredential::sas_token(token.secret()).unwrap();

        let before = expires_at - Duration::from_secs(1);
        let used = credential.token(&hybrid_connection(), before).unwrap();
        assert_eq!(used.secret(), token.secret());
        assert_eq!(used.expires_at(), Some(expires_at));

        let error = credential
            .token(&hybrid_connection(), expires_at)
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
