//! [`Certificate`]: an application's certificate and key, and the assertions that they make.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Error, ErrorKind, Result,
    auth::{pem, proof_key::sign_jwt},
    crypto::{self, SigningKey},
};

/// How long an assertion is good for. It is used at once; clocks differ by minutes.
const ASSERTION_LIFE: Duration = Duration::from_secs(10 * 60);

pub(super) struct Certificate {
    key: SigningKey,
    /// SHA-256 of the certificate, by which Entra ID finds it (RFC 7515 section 4.1.8).
    thumbprint: String,
}

impl Certificate {
    pub(super) fn from_pem(text: &str) -> Result<Self> {
        let unusable = |what: &'static str| {
            Error::new(ErrorKind::InvalidInput, what).with_help(
                "give one PEM text with the certificate and its unencrypted RSA key in PKCS#8 \
                 (`openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes`)",
            )
        };
        let certificate = pem::first(text, "CERTIFICATE")
            .ok_or_else(|| unusable("the client certificate has no certificate in it"))?;
        let document = pem::first(text, "PRIVATE KEY")
            .ok_or_else(|| unusable("the client certificate has no PKCS#8 private key with it"))?;
        match SigningKey::from_pkcs8(&document) {
            Some(key @ SigningKey::Rsa(_)) => Ok(Self {
                key,
                thumbprint: BASE64_URL_SAFE_NO_PAD.encode(crypto::sha256(&certificate)),
            }),
            _ => Err(unusable(
                "the client certificate's key is not RSA with at least 2048 bits, which Entra ID asks for",
            )),
        }
    }

    /// Says, signed, that the application `client` asks at `endpoint`.
    pub(super) fn assertion(
        &self,
        client: &str,
        endpoint: &str,
        now: SystemTime,
    ) -> Result<SecretString> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5t#S256": self.thumbprint });
        let claims = json!({
            "aud": endpoint,
            "iss": client,
            "sub": client,
            "jti": Uuid::new_v4().to_string(),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + ASSERTION_LIFE).as_secs(),
        });
        sign_jwt(&self.key, &header, &claims).map(SecretString::from)
    }
}
