//! [`SigningKey`]: what tokens are signed with, and its public half as a JWK.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

/// Committed: making RSA keys takes seconds, and `ring` makes none.
const RSA_KEYS: [&str; 3] = [
    include_str!("keys/rsa-1.pem"),
    include_str!("keys/rsa-2.pem"),
    include_str!("keys/rsa-3.pem"),
];

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    /// Real, and on no list of ours.
    Rs384,
    Ps256,
    Es256,
}

/// A key pair with an id.
#[derive(Clone)]
pub struct SigningKey {
    id: String,
    pair: Pair,
}

#[derive(Clone)]
enum Pair {
    Rsa(Arc<RsaKeyPair>),
    Ec(Arc<EcdsaKeyPair>),
}

impl SigningKey {
    /// One of the committed RSA keys, counted from 0.
    pub fn rsa(number: usize) -> Self {
        let pair = RsaKeyPair::from_pkcs8(&der(RSA_KEYS[number])).expect("a committed key");
        Self {
            id: format!("rsa-{number}"),
            pair: Pair::Rsa(Arc::new(pair)),
        }
    }

    /// A new key on P-256.
    pub fn p256(id: &str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .expect("the system has randomness");
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .expect("it was just made");
        Self {
            id: id.to_owned(),
            pair: Pair::Ec(Arc::new(pair)),
        }
    }

    /// The same key under another id.
    pub fn with_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// How tokens with this key are usually signed.
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Rsa(_) => Algorithm::Rs256,
            Pair::Ec(_) => Algorithm::Es256,
        }
    }

    /// The public half as a JWK, without id or use.
    pub fn public_jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": encode(&public.n), "e": encode(&public.e) })
            }
            Pair::Ec(pair) => {
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
        }
    }

    /// The entry of a key set.
    pub(super) fn entry(&self, issuer: &str) -> Value {
        let mut jwk = self.public_jwk();
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk["issuer"] = json!(issuer);
        jwk
    }

    /// RFC 7638: the id of a key by its content.
    pub fn thumbprint(&self) -> String {
        // serde_json sorts members, which is what the RFC asks for.
        let text = self.public_jwk().to_string();
        encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
    }

    /// # Panics
    /// When the key can not sign so.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match (&self.pair, algorithm) {
            (Pair::Ec(pair), Algorithm::Es256) => pair
                .sign(&random, message)
                .expect("the system has randomness")
                .as_ref()
                .to_vec(),
            (Pair::Rsa(pair), algorithm) => {
                let padding: &dyn ring::signature::RsaEncoding = match algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_SHA256,
                    Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    Algorithm::Es256 => panic!("an RSA key does not sign on a curve"),
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .expect("the system has randomness");
                signature
            }
            (Pair::Ec(_), other) => panic!("a key on a curve does not sign with {other:?}"),
        }
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn der(pem: &str) -> Vec<u8> {
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(text).expect("a committed key")
}
