//! [`KeySet`]: the public keys that an issuer signs with (RFC 7517).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{json, jwt::SignatureAlgorithm};
use crate::crypto::{self, RsaPadding};

/// Entra ID publishes some ten keys, busy issuers with many applications a few dozen.
pub(super) const MAX_KEYS: usize = 128;

/// Smaller moduli are within reach of attackers; larger ones buy nothing, and each check costs its square.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// 65537, which all issuers use. Others have a history of attacks and no advantage.
const RSA_EXPONENT: &[u8] = &[1, 0, 1];
/// Bytes of one coordinate on P-256.
const P256_COORDINATE: usize = 32;

/// The usable keys of a JWK set.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// A public key for signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Option<SignatureAlgorithm>,
    issuer: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Big-endian modulus without leading zeros; the exponent is [`RSA_EXPONENT`].
    Rsa(Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
}

impl KeySet {
    /// The keys of a JWK set that can verify a signature. Others (for encryption, of other kinds, too small) are left
    /// out, as RFC 7517 section 5 asks.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let set = json::object(text)?;
        let Some(Value::Array(entries)) = set.get("keys") else {
            return Err("it has no list `keys`");
        };
        if entries.len() > MAX_KEYS {
            return Err("it has too many keys");
        }
        let mut keys = Vec::new();
        for entry in entries {
            match entry
                .as_object()
                .ok_or("a key is not an object")
                .and_then(Key::parse)
            {
                Ok(key) => keys.push(key),
                Err(reason) => tracing::debug!(reason, "a key of the issuer is left out"),
            }
        }
        if keys.is_empty() {
            return Err("it has no key that can verify a signature");
        }
        Ok(Self { keys })
    }

    /// The keys that a token with this `kid` and algorithm may have been signed with. Without a `kid` only a set with
    /// a single fitting key is clear.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: SignatureAlgorithm) -> Vec<&Key> {
        let fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        match id {
            Some(id) => fitting
                .filter(|key| key.id.as_deref() == Some(id))
                .collect(),
            None => {
                let all: Vec<_> = fitting.collect();
                if all.len() == 1 { all } else { Vec::new() }
            }
        }
    }
}

impl Key {
    /// A key out of one JWK.
    pub(super) fn parse(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err("it is not for signatures");
        }
        match jwk.get("key_ops") {
            None => {}
            Some(Value::Array(operations)) if operations.iter().any(|name| name == "verify") => {}
            Some(_) => return Err("it is not for verifying signatures"),
        }
        let algorithm = match text(jwk, "alg")? {
            None => None,
            Some(name) => {
                Some(SignatureAlgorithm::from_name(name).ok_or("its algorithm is not supported")?)
            }
        };
        let material = match text(jwk, "kty")? {
            Some("RSA") => Material::rsa(jwk)?,
            Some("EC") => Material::p256(jwk)?,
            _ => return Err("its type is not supported"),
        };
        let key = Self {
            id: text(jwk, "kid")?.map(str::to_owned),
            algorithm,
            issuer: text(jwk, "issuer")?.map(str::to_owned),
            material,
        };
        match key.algorithm {
            Some(algorithm) if !key.fits(algorithm) => Err("its algorithm and type contradict"),
            _ => Ok(key),
        }
    }

    /// The issuer that the key is bound to: Entra ID's extension of the key set.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whether a signature with `algorithm` may be this key's.
    pub(super) fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        let of_type = match (&self.material, algorithm) {
            (Material::Rsa(_), SignatureAlgorithm::Rs256 | SignatureAlgorithm::Ps256)
            | (Material::P256(_), SignatureAlgorithm::Es256) => true,
            (Material::Rsa(_), SignatureAlgorithm::Es256)
            | (Material::P256(_), SignatureAlgorithm::Rs256 | SignatureAlgorithm::Ps256) => false,
        };
        of_type && self.algorithm.is_none_or(|own| own == algorithm)
    }

    pub(super) fn verifies(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match (&self.material, algorithm) {
            (Material::Rsa(n), SignatureAlgorithm::Rs256) => {
                crypto::rsa_verifies(RsaPadding::Pkcs1, n, RSA_EXPONENT, message, signature)
            }
            (Material::Rsa(n), SignatureAlgorithm::Ps256) => {
                crypto::rsa_verifies(RsaPadding::Pss, n, RSA_EXPONENT, message, signature)
            }
            (Material::P256(point), SignatureAlgorithm::Es256) => {
                crypto::ecdsa_p256_verifies(point, message, signature)
            }
            _ => false,
        }
    }

    /// The key's SHA-256 thumbprint in base64url (RFC 7638).
    pub(super) fn thumbprint(&self) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        // Members in alphabetical order, no white space.
        let canonical = match &self.material {
            Material::Rsa(n) => format!(
                r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                encode(RSA_EXPONENT),
                encode(n)
            ),
            Material::P256(point) => {
                let (x, y) = point[1..].split_at(P256_COORDINATE);
                format!(
                    r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
                    encode(x),
                    encode(y)
                )
            }
        };
        encode(&crypto::sha256(canonical.as_bytes()))
    }
}

impl Material {
    fn rsa(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        // A big-endian integer of any length: never indexed before its length is known.
        if without_leading_zeros(&binary(jwk, "e")?) != RSA_EXPONENT {
            return Err("its exponent is not 65537");
        }
        let n = binary(jwk, "n")?;
        let n = without_leading_zeros(&n);
        let bits = n
            .first()
            .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !RSA_MODULUS_BITS.contains(&bits) {
            return Err("its modulus is too short or too long");
        }
        Ok(Self::Rsa(n.to_vec()))
    }

    fn p256(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        if text(jwk, "crv")? != Some("P-256") {
            return Err("its curve is not supported");
        }
        let mut point = vec![0x04];
        for coordinate in ["x", "y"] {
            // RFC 7518 section 6.2.1.2: the full length, leading zeros included.
            let bytes = binary(jwk, coordinate)?;
            if bytes.len() != P256_COORDINATE {
                return Err("a coordinate has the wrong length");
            }
            point.extend(bytes);
        }
        Ok(Self::P256(point))
    }
}

/// A member that must be a string where it is present.
fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Result<Option<&'a str>, &'static str> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a member that has to be a string is none"),
    }
}

fn binary(jwk: &Map<String, Value>, member: &str) -> Result<Vec<u8>, &'static str> {
    let text = text(jwk, member)?.ok_or("a part of it is missing")?;
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "a part of it is not base64url")
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes
        .iter()
        .position(|&byte| byte != 0)
        .unwrap_or(bytes.len());
    &bytes[start..]
}
