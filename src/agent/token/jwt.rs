//! [`Jwt`]: a signed token (RFC 7519, RFC 7515 compact form), read strictly, and the way from unverified to verified.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{claims::Claims, json, keys::Key, rejection::Rejection};
use crate::agent::identity::{Credential, RejectReason};

/// The longest token, checked before anything is decoded. Tokens with 200 groups have about 10 KiB.
pub(super) const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// A signature algorithm (RFC 7518 section 3.1) that a token may have.
///
/// There is no `none`, and nothing with a shared secret (`HS256`): the verifier of such a token could have made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: what Entra ID and nearly every other issuer signs with.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl SignatureAlgorithm {
    /// By its registered name, byte for byte.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// A token that is well-formed. Nothing in it is true until [`verify`](Self::verify) says so.
pub(super) struct Jwt<'a> {
    algorithm: SignatureAlgorithm,
    kind: TokenKind,
    key_id: Option<String>,
    claims: Map<String, Value>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// What the header's `typ` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Absent, `JWT` or `at+jwt` (RFC 9068).
    Bearer,
    /// `pop`: a proof of possession around an access token.
    ProofOfPossession,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart.
    ///
    /// Of the header, only `alg`, `kid`, `typ` and `crit` are looked at. A key or the place of a key that a token
    /// brings itself (`jwk`, `jku`, `x5c`, `x5u`) is never used.
    pub(super) fn parse(token: &'a str) -> Result<Self, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejection::new(
                RejectReason::Malformed,
                format!("the token is longer than {MAX_TOKEN_BYTES} bytes"),
            ));
        }
        let malformed = |text: &'static str| Rejection::new(RejectReason::Malformed, text);
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("the token is not a signed JWT of three parts"));
        };
        let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
        let header = decode_object(header)
            .map_err(|_| malformed("the token's header is not strict base64url JSON"))?;
        let claims = decode_object(payload)
            .map_err(|_| malformed("the token's claims are not strict base64url JSON"))?;
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| malformed("the token's signature is not strict base64url"))?;
        // RFC 7515 section 4.1.11: what is critical and not understood makes the token invalid. We understand none.
        if header.contains_key("crit") {
            return Err(malformed("the token has critical extensions"));
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(SignatureAlgorithm::from_name)
            .ok_or(Rejection::new(
                RejectReason::Algorithm,
                "the token's signature algorithm is not accepted",
            ))?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(malformed("the token's `kid` is not a string")),
        };
        Ok(Self {
            algorithm,
            kind: token_kind(header.get("typ"))?,
            key_id,
            claims,
            signed,
            signature,
        })
    }

    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    pub(super) fn kind(&self) -> TokenKind {
        self.kind
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// A claim that anybody may have written. For finding out whom to ask, and with which key.
    pub(super) fn unverified(&self, claim: &str) -> Option<&Value> {
        self.claims.get(claim)
    }

    /// The claims, when one of `keys` signed them with one of the algorithms in `allowed`.
    pub(super) fn verify(
        self,
        keys: &[&Key],
        allowed: &[SignatureAlgorithm],
    ) -> Result<Claims, Rejection> {
        if !allowed.contains(&self.algorithm) {
            return Err(Rejection::new(
                RejectReason::Algorithm,
                "the token's signature algorithm is not accepted",
            ));
        }
        if keys
            .iter()
            .any(|key| key.verifies(self.algorithm, self.signed, &self.signature))
        {
            Ok(Claims::from_verified(self.claims))
        } else {
            Err(Rejection::new(
                RejectReason::Signature,
                "the token's signature is not valid",
            ))
        }
    }
}

/// Whose token it is, says the token.
///
/// Also where other claims are so wrong that the credential itself does not tell: such a token is its issuer's to
/// refuse, and must not be offered to others.
pub(super) fn unverified_issuer(credential: &Credential) -> Option<Cow<'_, str>> {
    match credential.unverified_issuer() {
        Some(issuer) => Some(Cow::Borrowed(issuer)),
        None => {
            let jwt = Jwt::parse(credential.token()).ok()?;
            Some(Cow::Owned(jwt.unverified("iss")?.as_str()?.to_owned()))
        }
    }
}

fn decode_object(part: &str) -> Result<Map<String, Value>, &'static str> {
    let text = BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| "it is not base64url")?;
    json::object(&text)
}

fn token_kind(typ: Option<&Value>) -> Result<TokenKind, Rejection> {
    let Some(typ) = typ else {
        return Ok(TokenKind::Bearer);
    };
    // RFC 7515 section 4.1.9: a media type, in any case, `application/` may be left out.
    let name = typ.as_str().map(str::to_ascii_lowercase);
    match name
        .as_deref()
        .map(|name| name.strip_prefix("application/").unwrap_or(name))
    {
        Some("jwt" | "at+jwt") => Ok(TokenKind::Bearer),
        Some("pop") => Ok(TokenKind::ProofOfPossession),
        _ => Err(Rejection::new(
            RejectReason::Malformed,
            "the token's `typ` says that it is something else than an access or id token",
        )),
    }
}
