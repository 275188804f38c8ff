//! Vectors for tokens and keys by themselves; the authenticators' are beside them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    jwt::{Jwt, MAX_TOKEN_BYTES, SignatureAlgorithm, TokenKind},
    keys::{Key, KeySet, MAX_KEYS},
    test_issuer::{SigningKey, encode, with},
};
use crate::agent::identity::RejectReason;

const ALL: &[SignatureAlgorithm] = &[
    SignatureAlgorithm::Rs256,
    SignatureAlgorithm::Ps256,
    SignatureAlgorithm::Es256,
];

fn key(jwk: &Value) -> Result<Key, &'static str> {
    Key::parse(jwk.as_object().unwrap())
}

fn parse_error(token: &str) -> RejectReason {
    Jwt::parse(token).err().expect("refused").reason()
}

#[test]
fn the_example_of_rfc_7638_has_its_thumbprint() {
    let jwk = json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29"
    });
    assert_eq!(
        key(&jwk).unwrap().thumbprint(),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

#[test]
fn every_algorithm_verifies_its_own_signatures_and_no_others() {
    let (rsa, p256) = (SigningKey::first(), SigningKey::p256());
    for (signer, algorithm) in [(&rsa, "RS256"), (&rsa, "PS256"), (&p256, "ES256")] {
        let token = signer.sign(&json!({"alg": algorithm}), &json!({"sub": "a"}));
        let keys = [key(&rsa.jwk()).unwrap(), key(&p256.jwk()).unwrap()];
        let keys: Vec<&Key> = keys.iter().collect();
        assert!(Jwt::parse(&token).unwrap().verify(&keys, ALL).is_ok());
        for claimed in ["RS256", "PS256", "ES256"] {
            let relabelled = format!(
                "{}.{}",
                encode(&json!({"alg": claimed})),
                token.split_once('.').unwrap().1
            );
            let outcome = Jwt::parse(&relabelled).unwrap().verify(&keys, ALL);
            assert_eq!(outcome.is_ok(), claimed == algorithm);
        }
        let allowed = ALL
            .iter()
            .copied()
            .filter(|&other| Some(other) != SignatureAlgorithm::from_name(algorithm))
            .collect::<Vec<_>>();
        let error = Jwt::parse(&token).unwrap().verify(&keys, &allowed);
        assert_eq!(error.unwrap_err().reason(), RejectReason::Algorithm);
    }
}

#[test]
fn j1_only_asymmetric_algorithms_are_read() {
    for algorithm in [
        json!("none"),
        json!("None"),
        json!(""),
        json!("HS256"),
        json!("HS512"),
        json!("RS384"),
        json!("rs256"),
        json!("RS256 "),
        json!("EdDSA"),
        json!(null),
        json!(["RS256"]),
    ] {
        let token = format!(
            "{}.{}.",
            encode(&json!({"alg": algorithm})),
            encode(&json!({}))
        );
        assert_eq!(parse_error(&token), RejectReason::Algorithm, "{algorithm}");
    }
    let absent = format!("{}.{}.", encode(&json!({})), encode(&json!({})));
    assert_eq!(parse_error(&absent), RejectReason::Algorithm);
}

#[test]
fn j1_the_type_is_a_tokens_and_nothing_is_critical() {
    let token = |changes| {
        let header = with(json!({"alg": "RS256"}), &changes);
        format!("{}.{}.", encode(&header), encode(&json!({})))
    };
    for (typ, kind) in [
        (json!(null), TokenKind::Bearer),
        (json!("JWT"), TokenKind::Bearer),
        (json!("jwt"), TokenKind::Bearer),
        (json!("at+jwt"), TokenKind::Bearer),
        (json!("application/at+jwt"), TokenKind::Bearer),
        (json!("pop"), TokenKind::ProofOfPossession),
    ] {
        let token = token(json!({"typ": typ}));
        assert_eq!(Jwt::parse(&token).ok().unwrap().kind(), kind, "{typ}");
    }
    for changes in [
        json!({"typ": "logout+jwt"}),
        json!({"typ": "JWT "}),
        json!({"typ": 1}),
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"kid": 7}),
    ] {
        let reason = parse_error(&token(changes.clone()));
        assert_eq!(reason, RejectReason::Malformed, "{changes}");
    }
}

#[test]
fn j8_what_is_not_exactly_a_signed_token_is_malformed() {
    let good = encode(&json!({"alg": "RS256"}));
    let empty = encode(&json!({}));
    let raw = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let deep = raw(&format!(r#"{{"a":{}{}}}"#, "[".repeat(64), "]".repeat(64)));
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        good.clone(),
        format!("{good}.{empty}"),
        format!("{good}.{empty}.AA.AA"),
        format!("{good}.{empty}.A"),
        format!("{good}.{empty}.AA=="),
        // The last two bits are not zero: a second spelling of the same bytes.
        format!("{good}.{empty}.AB"),
        format!("{good}.{empty}. AA"),
        format!("{good}=.{empty}.AA"),
        format!("{good}.{}.AA", raw("[]")),
        format!("{good}.{}.AA", raw("{} {}")),
        format!("{good}.{}.AA", raw(r#"{"aud":"a","aud":"b"}"#)),
        format!("{}.{empty}.AA", raw(r#"{"alg":"none","alg":"RS256"}"#)),
        format!("{good}.{deep}.AA"),
    ] {
        assert_eq!(parse_error(&token), RejectReason::Malformed, "{token}");
    }
}

#[test]
fn j8_the_size_is_checked_before_anything_is_decoded() {
    let header = encode(&json!({"alg": "RS256"}));
    let length = MAX_TOKEN_BYTES - header.len() - 2;
    // Of the right length, base64 for spaces and an object around them.
    let claims = |length: usize| {
        let text = format!("{{{}}}", " ".repeat(length / 4 * 3 - 2));
        BASE64_URL_SAFE_NO_PAD.encode(text)
    };
    let fitting = format!("{header}.{}.", claims(length));
    assert!(fitting.len() <= MAX_TOKEN_BYTES && Jwt::parse(&fitting).is_ok());
    assert_eq!(
        parse_error(&format!("{header}.{}.", claims(length + 8))),
        RejectReason::Malformed
    );
    assert_eq!(
        parse_error(&".".repeat(MAX_TOKEN_BYTES + 1)),
        RejectReason::Malformed
    );
}

#[test]
fn keys_that_must_not_verify_are_left_out() {
    let rsa = SigningKey::first().jwk();
    let p256 = SigningKey::p256().jwk();
    let modulus = |bits: usize| {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] >>= (8 - bits % 8) % 8;
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    for (jwk, change) in [
        (&rsa, json!({"use": "enc"})),
        (&rsa, json!({"use": 1})),
        (&rsa, json!({"key_ops": ["encrypt"]})),
        (&rsa, json!({"alg": "RS512"})),
        (&rsa, json!({"alg": "ES256"})),
        (&rsa, json!({"alg": "HS256"})),
        (&rsa, json!({"kty": "oct", "k": "AAAA"})),
        (&rsa, json!({"kty": null})),
        (&rsa, json!({"n": null})),
        (&rsa, json!({"n": ""})),
        (&rsa, json!({"n": "!"})),
        (&rsa, json!({"n": modulus(2047)})),
        (&rsa, json!({"n": modulus(4097)})),
        (&rsa, json!({"e": null})),
        (&rsa, json!({"e": ""})),
        (&rsa, json!({"e": "AA"})),
        (&rsa, json!({"e": "AQ"})),
        (&rsa, json!({"e": "Aw"})),
        (&rsa, json!({"e": "AQ=="})),
        (&rsa, json!({"e": "AQABAQ"})),
        (&rsa, json!({"e": "A".repeat(4000)})),
        (&rsa, json!({"kid": 1})),
        (&p256, json!({"crv": "P-384"})),
        (&p256, json!({"x": "AAAA"})),
        (&p256, json!({"y": null})),
        (&p256, json!({"alg": "RS256"})),
    ] {
        assert!(key(&with(jwk.clone(), &change)).is_err(), "{change}");
    }
    for (jwk, change) in [
        (
            &rsa,
            json!({"use": "sig", "alg": "RS256", "key_ops": ["verify"]}),
        ),
        (&rsa, json!({"n": modulus(2048)})),
        (&rsa, json!({"n": modulus(4096)})),
        (&rsa, json!({"x5c": ["AAAA"], "x5t": "AAAA"})),
        (&p256, json!({"alg": "ES256"})),
    ] {
        assert!(key(&with(jwk.clone(), &change)).is_ok(), "{change}");
    }
}

#[test]
fn a_key_with_an_algorithm_verifies_nothing_else() {
    let signer = SigningKey::first();
    let token = signer.sign(&json!({"alg": "PS256"}), &json!({}));
    let only_rs256 = key(&with(signer.jwk(), &json!({"alg": "RS256"}))).unwrap();
    assert!(
        Jwt::parse(&token)
            .unwrap()
            .verify(&[&only_rs256], ALL)
            .is_err()
    );
}

#[test]
fn a_key_set_is_bounded_and_has_a_usable_key() {
    let jwk = SigningKey::first().jwk();
    let set = |keys: Vec<Value>| KeySet::parse(json!({"keys": keys}).to_string().as_bytes());
    assert!(set(vec![jwk.clone(); MAX_KEYS]).is_ok());
    assert!(set(vec![jwk.clone(); MAX_KEYS + 1]).is_err());
    assert!(set(vec![]).is_err());
    assert!(set(vec![json!(1), json!({"kty": "oct"})]).is_err());
    assert!(KeySet::parse(b"{}").is_err());
    assert!(KeySet::parse(b"[]").is_err());
    let mixed = set(vec![json!(1), json!({"kty": "OKP"}), jwk]).unwrap();
    let algorithm = SignatureAlgorithm::Rs256;
    assert_eq!(mixed.candidates(Some("first"), algorithm).len(), 1);
    assert_eq!(mixed.candidates(Some("other"), algorithm).len(), 0);
    assert_eq!(
        mixed
            .candidates(Some("first"), SignatureAlgorithm::Es256)
            .len(),
        0
    );
    // Without an id, one fitting key is clear and two are not.
    assert_eq!(mixed.candidates(None, algorithm).len(), 1);
    let two = set(vec![SigningKey::first().jwk(), SigningKey::second().jwk()]).unwrap();
    assert_eq!(two.candidates(None, algorithm).len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in any::<String>(), parts in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
        let _ = Jwt::parse(&text);
        let parts: Vec<_> = parts.iter().map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).collect();
        let _ = Jwt::parse(&parts.join("."));
        let _ = KeySet::parse(text.as_bytes());
    }

    #[test]
    fn no_key_panics(n in any::<Vec<u8>>(), e in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        for jwk in [
            json!({"kty": "RSA", "n": encode(&n), "e": encode(&e)}),
            json!({"kty": "RSA", "n": encode(&n.repeat(300)), "e": "AQAB"}),
            json!({"kty": "EC", "crv": "P-256", "x": encode(&n), "y": encode(&e)}),
        ] {
            if let Ok(key) = key(&jwk) {
                let _ = key.thumbprint();
                for algorithm in ALL {
                    prop_assert!(!key.verifies(*algorithm, b"message", &signature));
                }
            }
        }
    }
}
