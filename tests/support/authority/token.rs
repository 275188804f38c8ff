//! [`TokenBuilder`]: tokens, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::key::{Algorithm, SigningKey, encode};

/// Seconds since 1970.
pub fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(elapsed.expect("the clock is right").as_secs()).expect("not that late")
}

/// A token to be changed and then signed. Nothing keeps it from being a bad one: that is what it is for.
#[derive(Clone)]
pub struct TokenBuilder {
    key: SigningKey,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    algorithm: Algorithm,
}

impl TokenBuilder {
    pub(super) fn new(key: SigningKey) -> Self {
        let algorithm = key.algorithm();
        let mut token = Self {
            key,
            header: Map::new(),
            claims: Map::new(),
            algorithm,
        };
        token = token.header("typ", "JWT");
        let id = token.key.id().to_owned();
        token.header("kid", id).with_algorithm(algorithm)
    }

    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a claim away.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// The `groups` claim.
    pub fn groups(self, groups: &[&str]) -> Self {
        self.claim("groups", groups)
    }

    /// More groups than a token holds: the claim is left out and points elsewhere.
    pub fn group_overage(self, endpoint: &str) -> Self {
        self.without("groups")
            .claim("_claim_names", json!({ "groups": "src1" }))
            .claim(
                "_claim_sources",
                json!({ "src1": { "endpoint": endpoint } }),
            )
    }

    /// Bound to a key: the token is worth something only with a proof of possession.
    pub fn bound_to(self, key: &SigningKey) -> Self {
        let thumbprint = key.thumbprint();
        self.claim("cnf", json!({ "kid": thumbprint, "xms_ksl": "sw" }))
    }

    /// Sets a field of the header.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a field of the header away.
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signs with this algorithm, and says so.
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        let name = match algorithm {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Ps256 => "PS256",
            Algorithm::Es256 => "ES256",
        };
        self.header("alg", name)
    }

    /// Signs with this key instead of the authority's; the `kid` stays.
    pub fn with_key(mut self, key: SigningKey) -> Self {
        self.algorithm = key.algorithm();
        self.key = key;
        self
    }

    /// The signed token.
    pub fn sign(&self) -> String {
        let message = self.message();
        let signature = self.key.sign(self.algorithm, message.as_bytes());
        format!("{message}.{}", encode(&signature))
    }

    /// `alg: none`, with no signature at all.
    pub fn unsigned(self) -> String {
        format!("{}.", self.header("alg", "none").message())
    }

    /// The oldest trick: HS256 with the public key, which everybody knows, as the secret.
    pub fn signed_with_the_public_key(self) -> String {
        let secret = self.key.public_jwk().to_string();
        let message = self.header("alg", "HS256").message();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", encode(signature.as_ref()))
    }

    /// A valid token with one bit of its signature turned over.
    pub fn with_broken_signature(&self) -> String {
        let message = self.message();
        let mut signature = self.key.sign(self.algorithm, message.as_bytes());
        signature[10] ^= 1;
        format!("{message}.{}", encode(&signature))
    }

    /// A proof of possession around this token, as `kubelogin --pop-enabled` makes it (a signed HTTP request).
    pub fn proof(self, key: &SigningKey, host: &str) -> Self {
        let inner = self.sign();
        let mut proof = Self::new(key.clone());
        proof.header.insert("typ".to_owned(), "pop".into());
        proof
            .header
            .insert("kid".to_owned(), key.thumbprint().into());
        let mut jwk = key.public_jwk();
        jwk["kid"] = json!(key.thumbprint());
        proof
            .claim("at", inner)
            .claim("ts", now())
            .claim("u", host)
            .claim("cnf", json!({ "jwk": jwk }))
            .claim("nonce", Uuid::new_v4().simple().to_string())
    }

    fn message(&self) -> String {
        let text =
            |map: &Map<String, Value>| encode(Value::Object(map.clone()).to_string().as_bytes());
        format!("{}.{}", text(&self.header), text(&self.claims))
    }
}
