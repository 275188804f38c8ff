//! Entry points of the fuzz targets. Not part of the API.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, Uri};

use super::{
    entra,
    jwt::{Jwt, SignatureAlgorithm},
    keys::{Key, KeySet},
    pop::{PopPolicy, ProofVerifier},
};
use crate::agent::identity::Credential;

const ALGORITHMS: &[SignatureAlgorithm] = &[
    SignatureAlgorithm::Rs256,
    SignatureAlgorithm::Ps256,
    SignatureAlgorithm::Es256,
];

/// Takes `input` for a token, and for the parts of one: nothing that is made up may verify.
pub fn token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check(text);
    }
    let mut parts = input.splitn(3, |&byte| byte == 0);
    let mut part = || BASE64_URL_SAFE_NO_PAD.encode(parts.next().unwrap_or_default());
    check(&format!("{}.{}.{}", part(), part(), part()));
}

/// Takes `input` for a key set.
pub fn key_set(input: &[u8]) {
    if let Ok(keys) = KeySet::parse(input) {
        for &algorithm in ALGORITHMS {
            for key in keys.candidates(None, algorithm) {
                let _ = key.thumbprint();
                assert!(!key.verifies(algorithm, b"message", input));
            }
        }
    }
}

/// Takes `input` for the claims of a token whose signature holds.
pub fn entra_claims(input: &[u8]) {
    entra::fuzz_claims(input);
}

fn check(token: &str) {
    let Ok(jwt) = Jwt::parse(token) else {
        return;
    };
    let none: [&Key; 0] = [];
    assert!(jwt.verify(&none, ALGORITHMS).is_err());
    let (Ok(credential), Ok(proof)) = (
        Credential::new(token, Method::GET, Uri::from_static("/")),
        Jwt::parse(token),
    ) else {
        return;
    };
    let verifier = ProofVerifier::new(PopPolicy::required("host"), ALGORITHMS.to_vec());
    let now = std::time::SystemTime::UNIX_EPOCH;
    // The key is the proof's own, so a fuzzer that could sign would pass; it can not.
    assert!(verifier.verify(proof, &credential, now).is_err());
}
