//! [`EntraIssuer`]: Microsoft Entra tokens in the place of shared access signatures.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::StatusCode;
use serde::Deserialize;

use super::{Claim, missing_right};
use crate::{
    Error, ErrorKind, Result,
    crypto::{self, RsaPadding},
    relay::server::{Refusal, Rights},
};

/// Whose Microsoft Entra tokens the relay takes, and what their owners may do.
///
/// The keys are given once: a relay that runs longer than its issuer's keys is to be started again with new ones. Only
/// `RS256` is taken, with a key that the token names, and only for the audience `https://relay.azure.net`.
///
/// ```
/// use arc_cluster_connect::relay::server::{EntraIssuer, RelayServer, Rights};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> arc_cluster_connect::Result<()> {
/// let key_set = br#"{"keys":[]}"#;
/// # let n = "w".repeat(342);
/// # let key_set = format!(r#"{{"keys":[{{"kty":"RSA","kid":"1","n":"{n}","e":"AQAB"}}]}}"#);
/// # let key_set = key_set.as_bytes();
/// let issuer = EntraIssuer::new("https://sts.windows.net/11111111-1111-1111-1111-111111111111/", key_set)?
///     .object("22222222-2222-2222-2222-222222222222", Rights::LISTEN)
///     .role("Relay.Send", Rights::SEND);
/// let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
/// let relay = RelayServer::builder()
///     .hybrid_connection("clusters/east")
///     .entra_issuer(issuer)
///     .start(socket)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EntraIssuer {
    issuer: String,
    keys: Vec<Key>,
    grants: Vec<(Principal, Rights)>,
}

/// Who is granted something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    Object(String),
    Role(String),
}

#[derive(Clone)]
struct Key {
    id: String,
    n: Vec<u8>,
    e: Vec<u8>,
}

/// Both spellings are in use: several samples of Microsoft end it with a slash.
const AUDIENCES: [&str; 2] = ["https://relay.azure.net", "https://relay.azure.net/"];

/// Longer than any Entra token, whose list of groups ends at 200. A listener's renewal is bounded by its message too.
const MAX_TOKEN: usize = 32 * 1024;

/// How far an issuer's clock may be ahead of ours. An expired token gets nothing of it.
const SKEW: Duration = Duration::from_secs(60);

impl EntraIssuer {
    /// An issuer with its name exactly as in the claim `iss`, and its keys as a JSON Web Key Set (RFC 7517). Keys that
    /// are no RSA keys for signatures are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the name is empty, or the document is no key set or holds no usable key.
    pub fn new(issuer: impl Into<String>, key_set: &[u8]) -> Result<Self> {
        let issuer = issuer.into();
        if issuer.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "an issuer has no name")
                .with_help("give the value that its tokens have in the claim 'iss'"));
        }
        let invalid = |what: &str| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the key set of {issuer} {what}"),
            )
            .with_help("give the document at the 'jwks_uri' of the issuer's openid-configuration")
        };
        let set: KeySet = serde_json::from_slice(key_set)
            .map_err(|error| invalid("is not a JSON Web Key Set").with_source(error))?;
        let keys: Vec<_> = set.keys.iter().filter_map(RawKey::usable).collect();
        if keys.is_empty() {
            return Err(invalid("holds no RSA key with an id and 2048 bits or more"));
        }
        Ok(Self {
            issuer,
            keys,
            grants: Vec::new(),
        })
    }

    /// Grants rights to the user, service principal or managed identity with this object id (`oid`). Any one grant is
    /// enough.
    pub fn object(mut self, id: impl Into<String>, rights: Rights) -> Self {
        self.grants.push((Principal::Object(id.into()), rights));
        self
    }

    /// Grants rights to everyone with this application role (`roles`). Any one grant is enough.
    pub fn role(mut self, name: impl Into<String>, rights: Rights) -> Self {
        self.grants.push((Principal::Role(name.into()), rights));
        self
    }

    /// When the right that `token` proves ends.
    pub(super) fn check(
        &self,
        token: &Token<'_>,
        claim: &Claim<'_>,
    ) -> Result<SystemTime, Refusal> {
        let is_signed = self
            .keys
            .iter()
            .filter(|key| key.id == token.header.kid)
            .any(|key| {
                let (message, signature) = (token.message.as_bytes(), &token.signature);
                crypto::rsa_verifies(RsaPadding::Pkcs1, &key.n, &key.e, message, signature)
            });
        if !is_signed {
            return Err(super::invalid_signature());
        }
        // From here on its words are the issuer's.
        let claims: Claims = token.claims().ok_or_else(malformed)?;
        if claims.iss != self.issuer {
            return Err(Refusal::unauthorized(
                "InvalidIssuer: The token is of another issuer.",
            ));
        }
        if !AUDIENCES.contains(&claims.aud.as_str()) {
            return Err(Refusal::unauthorized(
                "InvalidAudience: The authorization header contains a token with a wrong audience.",
            ));
        }
        let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let expires_at = at(claims.exp).ok_or_else(malformed)?;
        if expires_at <= claim.now {
            return Err(Refusal::unauthorized("ExpiredToken: The token is expired."));
        }
        let not_before = at(claims.nbf.unwrap_or(0)).ok_or_else(malformed)?;
        if not_before > claim.now + SKEW {
            return Err(Refusal::unauthorized(
                "InvalidToken: The token is not valid yet.",
            ));
        }
        let has_right = self
            .grants
            .iter()
            .filter(|(principal, _)| claims.name(principal))
            .any(|(_, rights)| rights.contains(claim.rights));
        if has_right {
            Ok(expires_at)
        } else {
            Err(missing_right(claim.rights))
        }
    }
}

impl fmt::Debug for EntraIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraIssuer")
            .field("issuer", &self.issuer)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// A token taken apart; nothing of it is proven.
pub(super) struct Token<'a> {
    header: Header,
    /// What is signed.
    message: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Whether it has the form of one, as far as it takes to tell it from a shared access signature.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with("eyJ") && text.bytes().filter(|&byte| byte == b'.').count() == 2
    }

    pub(super) fn parse(text: &'a str) -> Result<Self, Refusal> {
        Self::take_apart(text).ok_or_else(malformed)
    }

    fn take_apart(text: &'a str) -> Option<Self> {
        if text.len() > MAX_TOKEN {
            return None;
        }
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let is_ours = header.alg == "RS256"
            && header.crit.is_none()
            && header.typ.as_ref().is_none_or(|typ| {
                ["JWT", "at+jwt"]
                    .iter()
                    .any(|known| typ.eq_ignore_ascii_case(known))
            });
        is_ours.then_some(Self {
            header,
            message,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    fn claims(&self) -> Option<Claims> {
        serde_json::from_slice(&self.payload).ok()
    }
}

fn malformed() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "MalformedToken: The token is not a well-formed RS256 access token.",
    )
}

/// A member that comes twice is refused by its parser, and so is one of another type.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: u64,
    nbf: Option<u64>,
    oid: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

impl Claims {
    fn name(&self, principal: &Principal) -> bool {
        match principal {
            // A GUID, of which Microsoft's own tools write either case.
            Principal::Object(id) => self
                .oid
                .as_ref()
                .is_some_and(|oid| oid.eq_ignore_ascii_case(id)),
            Principal::Role(name) => self.roles.contains(name),
        }
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl RawKey {
    fn usable(&self) -> Option<Key> {
        let is_meant = self.kty == "RSA"
            && self.r#use.as_deref().unwrap_or("sig") == "sig"
            && self.alg.as_deref().unwrap_or("RS256") == "RS256";
        let number = |text: &Option<String>| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()?;
            let start = bytes.iter().position(|&byte| byte != 0)?;
            Some(bytes[start..].to_vec())
        };
        let (n, e) = (number(&self.n)?, number(&self.e)?);
        (is_meant && n.len() >= MIN_MODULUS).then_some(Key {
            id: self.kid.clone()?,
            n,
            e,
        })
    }
}

/// 2048 bits. Shorter keys verify nothing.
const MIN_MODULUS: usize = 256;

#[cfg(test)]
mod tests;
