//! A bearer token that is given: fixed, in a file, or by the API server for a service account.

use std::{fmt, path::PathBuf};

use async_trait::async_trait;

use super::{
    AccessToken, AuthProvider, Freshness, ServiceAccountSource, TokenRequest,
    token_cache::TokenCache,
    token_file::TokenFile,
    token_text::{access_token, is_expired},
};
use crate::{Error, ErrorKind, Result, clock::Clock};

/// A service account's bearer token, or any other that somebody hands over.
///
/// Where the token is a JWT, its `exp` claim is read (and not verified: that is the API server's task), so that an
/// expired token is reported as such, with what to do about it, and not as a bare 401. A clock that is up to a minute
/// ahead makes no difference.
///
/// A fixed token can not be renewed: [`Freshness::Fresh`] gives the same one again.
#[derive(Debug)]
pub struct BearerAuth {
    source: Source,
    clock: Clock,
}

enum Source {
    Fixed(AccessToken),
    File(TokenFile),
    ServiceAccount(TokenCache),
}

impl BearerAuth {
    /// Always `token`. White space around it is dropped.
    ///
    /// ```
    /// use arc_cluster_connect::auth::BearerAuth;
    ///
    /// assert!(BearerAuth::fixed("a-token\n").is_ok());
    /// assert!(BearerAuth::fixed("").is_err());
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is empty or can not be a token, [`ErrorKind::LimitReached`] above 32 KiB,
    /// [`ErrorKind::Unauthorized`] when it has expired already. No error shows the token.
    pub fn fixed(token: impl Into<String>) -> Result<Self> {
        Self::fixed_with(&token.into(), Clock::system())
    }

    /// The token in the file at `path`, read now, and again when the file changes.
    ///
    /// A change is noticed within a second, or at once by a request for a [fresh](Freshness::Fresh) token. While the
    /// file is unreadable, empty or malformed, the last good token stays in use, as long as it has not expired.
    /// This call reads a small file synchronously; later reads happen off the runtime's threads.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file can not be read; otherwise as [`fixed`](Self::fixed). The text names the file.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self> {
        Self::file_with(path.into(), Clock::system())
    }

    /// A service account's tokens from the Kubernetes TokenRequest API, fetched when first wanted and renewed by
    /// themselves.
    ///
    /// One request serves everybody who waits. A token is renewed in the background at four fifths of its life; while
    /// the renewal fails, it stays in use until its end. A request for a [fresh](Freshness::Fresh) token asks the API
    /// server again, at most every ten seconds.
    pub fn service_account(source: ServiceAccountSource) -> Self {
        Self::service_account_with(source, Clock::system())
    }

    pub(super) fn service_account_with(source: ServiceAccountSource, clock: Clock) -> Self {
        let cache = TokenCache::renewing_at_four_fifths(Box::new(source), clock.clone());
        Self {
            source: Source::ServiceAccount(cache),
            clock,
        }
    }

    fn fixed_with(token: &str, clock: Clock) -> Result<Self> {
        let auth = Self {
            source: Source::Fixed(access_token(token)?),
            clock,
        };
        if let Source::Fixed(token) = &auth.source {
            auth.check_expiry(token)?;
        }
        Ok(auth)
    }

    pub(super) fn file_with(path: PathBuf, clock: Clock) -> Result<Self> {
        let file = TokenFile::open(path, clock.now())?;
        let auth = Self {
            source: Source::File(file),
            clock,
        };
        if let Source::File(file) = &auth.source {
            auth.check_expiry(&file.last_good())?;
        }
        Ok(auth)
    }

    fn check_expiry(&self, token: &AccessToken) -> Result<()> {
        if !is_expired(token, self.clock.now()) {
            return Ok(());
        }
        let (what, how) = match &self.source {
            Source::Fixed(_) => (
                "the bearer token has expired".to_owned(),
                "start again with it",
            ),
            Source::File(file) => (
                format!("the bearer token in {} has expired", file.path().display()),
                "write it to the file, which is read again by itself",
            ),
            Source::ServiceAccount(_) => (
                "the API server gave a token that has expired already".to_owned(),
                "check both machines' clocks",
            ),
        };
        Err(Error::new(ErrorKind::Unauthorized, what).with_help(format!(
            "get a new token (for a service account: `kubectl create token NAME -n NAMESPACE`) and {how}"
        )))
    }
}

#[async_trait]
impl AuthProvider for BearerAuth {
    async fn token(&self, request: &TokenRequest) -> Result<AccessToken> {
        let token = match &self.source {
            Source::Fixed(token) => token.clone(),
            Source::ServiceAccount(cache) => cache.token(request.freshness()).await?,
            Source::File(file) => {
                let mut token = file.token(request.freshness(), self.clock.now()).await;
                // The renewal may have been written less than a check interval ago.
                if is_expired(&token, self.clock.now()) {
                    token = file.token(Freshness::Fresh, self.clock.now()).await;
                }
                token
            }
        };
        self.check_expiry(&token)?;
        Ok(token)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(token) => token.fmt(f),
            Self::File(file) => file.fmt(f),
            Self::ServiceAccount(_) => f.write_str("ServiceAccount"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{auth::token_text::tests::jwt, clock::ManualClock};

    #[tokio::test]
    async fn a_fixed_token_stays_the_same_until_it_expires() {
        let time = ManualClock::starting_at(1000);
        let auth = BearerAuth::fixed_with(&jwt(r#"{"exp":2000}"#), time.clock()).unwrap();
        let fresh = TokenRequest::new().with_freshness(Freshness::Fresh);
        let token = auth.token(&TokenRequest::new()).await.unwrap();
        assert_eq!(auth.token(&fresh).await.unwrap().secret(), token.secret());
        time.advance(Duration::from_secs(1061));
        let error = auth.token(&fresh).await.expect_err("expired");
        assert!(error.is_unauthorized());
        assert!(error.help().unwrap().contains("kubectl create token"));
    }

    #[test]
    fn a_token_that_has_expired_already_is_refused_at_once() {
        let time = ManualClock::starting_at(3000);
        let error = BearerAuth::fixed_with(&jwt(r#"{"exp":2000}"#), time.clock()).expect_err("old");
        assert!(error.is_unauthorized());

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), jwt(r#"{"exp":2000}"#)).unwrap();
        let error =
            BearerAuth::file_with(file.path().to_owned(), time.clock()).expect_err("old file");
        assert!(error.to_string().contains(&*file.path().to_string_lossy()));
    }

    #[tokio::test]
    async fn a_renewed_file_is_seen_in_the_moment_the_old_token_expires() {
        let time = ManualClock::starting_at(1000);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), jwt(r#"{"exp":1000}"#)).unwrap();
        let auth = BearerAuth::file_with(file.path().to_owned(), time.clock()).unwrap();
        time.advance(Duration::from_millis(59_500));
        auth.token(&TokenRequest::new()).await.unwrap();
        time.advance(Duration::from_millis(600));
        let error = auth.token(&TokenRequest::new()).await.expect_err("expired");
        assert!(error.to_string().contains("has expired"));
        std::fs::write(file.path(), jwt(r#"{"exp":9000}"#)).unwrap();
        // No time passes: the check interval alone would hide the new content.
        auth.token(&TokenRequest::new()).await.unwrap();
    }

    #[test]
    fn debug_shows_no_secret() {
        let auth = BearerAuth::fixed("hush-hush").unwrap();
        assert!(!format!("{auth:?}").contains("hush"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush-hush").unwrap();
        let auth = BearerAuth::file(file.path()).unwrap();
        assert!(!format!("{auth:?}").contains("hush"));
    }
}
