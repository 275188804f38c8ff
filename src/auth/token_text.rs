//! What a bearer token may look like, and what it says about itself.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::AccessToken;
use crate::{Error, ErrorKind, Result};

/// Tokens with many groups reach 10 KiB; the header limits of proxies and API servers lie between 8 and 64 KiB.
pub(super) const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// How far this machine's clock may be ahead of the API server's before we call a token expired on our own account.
const CLOCK_LEEWAY: Duration = Duration::from_secs(60);

/// A token from outside: trimmed and checked, its expiry read if it tells one. Errors never show it.
pub(super) fn access_token(text: &str) -> Result<AccessToken> {
    let token = text.trim();
    if token.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "the token is empty"));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Error::new(
            ErrorKind::LimitReached,
            format!("the token is longer than {MAX_TOKEN_BYTES} bytes"),
        ));
    }
    // Anything else would end the header early, or start another one.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "the token has white space, control characters or non-ASCII characters inside",
        )
        .with_help("give the token alone: on one line, without the word 'Bearer'"));
    }
    Ok(AccessToken::new(token, expiry(token)))
}

/// Whether `token` says itself that its time is over.
pub(super) fn is_expired(token: &AccessToken, now: SystemTime) -> bool {
    token
        .expires_at()
        .and_then(|end| end.checked_add(CLOCK_LEEWAY))
        .is_some_and(|end| now >= end)
}

/// The `exp` of a JWT (RFC 7519 section 4.1.4). Not verified: nothing but a better error message depends on it.
fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }

    let mut parts = token.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let since_epoch = Duration::try_from_secs_f64(claims.exp).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::auth) fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn surrounding_white_space_goes() {
        assert_eq!(access_token(" \n abc\r\n").unwrap().secret(), "abc");
    }

    #[test]
    fn bad_tokens_are_refused_and_not_shown() {
        for text in [
            "",
            " \n",
            "hush hush",
            "Bearer hush",
            "hush\r\nX-Evil: 1",
            "hush\0",
            "hushé",
        ] {
            let error = access_token(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
        assert!(access_token(&"a".repeat(MAX_TOKEN_BYTES)).is_ok());
        let error = access_token(&"a".repeat(MAX_TOKEN_BYTES + 1)).expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::LimitReached);
    }

    #[test]
    fn expiry_is_read_from_a_jwt_only() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(expiry(&jwt(r#"{"exp":1700000000}"#)), at(1_700_000_000));
        assert_eq!(
            expiry(&jwt(r#"{"exp":1.7e9,"iss":"x"}"#)),
            at(1_700_000_000)
        );
        for claims in [
            r#"{}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":"soon"}"#,
            "no json",
        ] {
            assert_eq!(expiry(&jwt(claims)), None, "{claims}");
        }
        assert_eq!(expiry("opaque"), None);
        assert_eq!(expiry("a.b.c.d"), None);
    }

    #[test]
    fn a_clock_that_is_a_little_ahead_does_not_expire_a_token() {
        let token = access_token(&jwt(r#"{"exp":1000}"#)).unwrap();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert!(!is_expired(
            &token,
            end + CLOCK_LEEWAY - Duration::from_secs(1)
        ));
        assert!(is_expired(&token, end + CLOCK_LEEWAY));
        assert!(!is_expired(
            &access_token("opaque").unwrap(),
            end + Duration::from_secs(1_000_000)
        ));
    }

    proptest! {
        #[test]
        fn accepted_tokens_fit_into_a_header(text in any::<String>()) {
            if let Ok(token) = access_token(&text) {
                prop_assert!(http::HeaderValue::from_str(token.secret()).is_ok());
            }
        }

        #[test]
        fn no_claims_panic(claims in any::<Vec<u8>>(), exp in any::<f64>()) {
            let _ = expiry(&format!("a.{}.c", BASE64_URL_SAFE_NO_PAD.encode(claims)));
            let _ = expiry(&jwt(&format!("{{\"exp\":{exp:e}}}")));
        }
    }
}
