//! What a party shows the relay.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use secrecy::{ExposeSecret, SecretString};

use super::{HybridConnection, SasRule, sas::SasToken};
use crate::{
    Error, ErrorKind, Result,
    auth::{AadAuth, AuthProvider, Freshness, TokenRequest},
};

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

/// Where a party's tokens come from: a rule whose key makes them, one finished token, Entra ID, or a source that gets
/// new ones.
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
    Entra(Arc<EntraTokens>),
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

    /// Tokens of Entra ID that `credential` gets, such as an [`AzureCredential`](crate::auth::AzureCredential): no key
    /// to keep, and rights that Azure can take away again.
    ///
    /// The identity needs the role *Azure Relay Listener* or *Azure Relay Sender* on the hybrid connection, or on its
    /// namespace. One token serves every dial, and is renewed ahead of its end. It is good for every relay on which
    /// the identity has a role, so show it to no relay that is not Azure's own. A relay takes some 150 ms to check it,
    /// where a key takes 10. Not to be had in Azure operated by 21Vianet.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use arc_cluster_connect::{
    ///     Result,
    ///     auth::{AzureCredential, CredentialSettings, ManagedIdentity},
    ///     net::{Connector, TrustRoots},
    ///     relay::RelayCredential,
    /// };
    ///
    /// fn credential() -> Result<RelayCredential> {
    ///     let settings = CredentialSettings::new(Connector::new(TrustRoots::platform())?);
    ///     let identity = ManagedIdentity::SystemAssigned;
    ///     let credential = AzureCredential::managed_identity(&settings, &identity)?;
    ///     Ok(RelayCredential::entra(Arc::new(credential)))
    /// }
    /// ```
    pub fn entra(credential: Arc<dyn TokenCredential>) -> Self {
        Self(Source::Entra(Arc::new(EntraTokens {
            auth: AadAuth::new(credential).with_scope(ENTRA_SCOPE),
            is_refused: AtomicBool::new(false),
        })))
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
            Source::Entra(tokens) => tokens.token(Freshness::Cached).await?,
            Source::Refreshing(source) => return source.grant().await,
        };
        Ok(RelayGrant::new(hybrid_connection.clone(), token))
    }

    /// As [`grant`](Self::grant), for a party whose token nears its end: a newer one if there is one, although the old
    /// one is still valid.
    pub(super) async fn renewed(
        &self,
        hybrid_connection: &HybridConnection,
        now: SystemTime,
    ) -> Result<RelayGrant> {
        match &self.0 {
            Source::Entra(tokens) => {
                let token = tokens.token(Freshness::Fresh).await?;
                Ok(RelayGrant::new(hybrid_connection.clone(), token))
            }
            _ => self.grant(hybrid_connection, now).await,
        }
    }

    /// The relay has refused `grant`. Says whether asking again may give another.
    pub(super) fn refused(&self, grant: &RelayGrant) -> Renewable {
        match &self.0 {
            Source::Refreshing(source) => source.refused(grant),
            Source::Entra(tokens) => tokens.is_refused.store(true, Ordering::Relaxed),
            Source::Rule(_) | Source::Finished(_) => {}
        }
        self.renewable()
    }

    /// Whether asking again later may give another token.
    pub(super) fn renewable(&self) -> Renewable {
        match &self.0 {
            Source::Refreshing(_) | Source::Entra(_) => Renewable::Yes,
            Source::Rule(_) | Source::Finished(_) => Renewable::No,
        }
    }
}

/// Tokens of Entra ID for the relay.
struct EntraTokens {
    auth: AadAuth,
    /// The relay did not take the last one: the next is not to come from the cache.
    is_refused: AtomicBool,
}

impl EntraTokens {
    async fn token(&self, freshness: Freshness) -> Result<RelayToken> {
        let freshness = if self.is_refused.load(Ordering::Relaxed) {
            Freshness::Fresh
        } else {
            freshness
        };
        let request = TokenRequest::new().with_freshness(freshness);
        let token = self.auth.token(&request).await.map_err(|error| {
            let help = error.help().map(str::to_owned);
            let outer = Error::new(error.kind(), "Entra ID gave no token for the relay");
            let outer = match help {
                Some(help) => outer.with_help(help),
                None => outer,
            };
            outer.with_source(error)
        })?;
        self.is_refused.store(false, Ordering::Relaxed);
        Ok(RelayToken::new(
            token.secret().to_owned(),
            token.expires_at(),
        ))
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
            Source::Entra(_) => f.write_str("RelayCredential(entra)"),
            Source::Refreshing(_) => f.write_str("RelayCredential(refreshing)"),
        }
    }
}

/// The relay's name at Entra ID, the same in every cloud that has it (Microsoft's "Authenticate and authorize an
/// application with Microsoft Entra ID to access Azure Relay entities").
const ENTRA_SCOPE: &str = "https://relay.azure.net/.default";

/// What Microsoft's own clients ask for. A longer life would let a stolen token live longer; a shorter one only
/// renews more often.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests;
