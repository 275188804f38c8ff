use serde_json::Map;

use super::*;

const KEY: &str = include_str!("../../../tests/support/authority/keys/rsa-1.pem");

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn part(token: &AccessToken, number: usize) -> Map<String, Value> {
    let part = token.secret().split('.').nth(number).unwrap();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_proof_has_the_form_that_verifiers_expect() {
    for (key, algorithm) in [
        (ProofKey::generate().unwrap(), generated_algorithm()),
        (ProofKey::from_pem(KEY).unwrap(), "RS256"),
    ] {
        let token = AccessToken::new("hush", None);
        let proof = key.sign(&token, "HOST", at(1_800_000_000)).unwrap();
        assert_eq!(
            Value::Object(part(&proof, 0)),
            json!({"typ": "pop", "alg": algorithm, "kid": key.key_id()})
        );
        let mut claims = part(&proof, 1);
        let nonce = claims.remove("nonce").unwrap();
        assert_eq!(nonce.as_str().unwrap().len(), 32);
        assert_eq!(
            Value::Object(claims),
            json!({
                "at": "hush",
                "ts": 1_800_000_000,
                "u": "HOST",
                "cnf": {"jwk": key.public_jwk()},
            })
        );
        assert_eq!(key.public_jwk()["kid"], key.key_id());
        let again = key.sign(&token, "HOST", at(1_800_000_000)).unwrap();
        assert_ne!(part(&again, 1)["nonce"], nonce);
    }
}

fn generated_algorithm() -> &'static str {
    if cfg!(feature = "aws-lc-rs") {
        "RS256"
    } else {
        "ES256"
    }
}

#[test]
fn a_proof_ends_with_its_token_or_after_five_minutes() {
    let key = ProofKey::generate().unwrap();
    for (token_end, end) in [(None, 1300), (Some(1100), 1100), (Some(9000), 1300)] {
        let token = AccessToken::new("x", token_end.map(at));
        let proof = key.sign(&token, "h", at(1000)).unwrap();
        assert_eq!(proof.expires_at(), Some(at(end)));
    }
}

#[test]
fn the_request_confirmation_names_the_key() {
    let key = ProofKey::generate().unwrap();
    let text = BASE64_URL_SAFE_NO_PAD
        .decode(key.request_confirmation())
        .unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(value, json!({"kid": key.key_id(), "xms_ksl": "sw"}));
}

#[test]
fn a_key_file_is_the_owners_and_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proof.pem");
    let first = ProofKey::load_or_generate(&path).unwrap();
    let second = ProofKey::load_or_generate(&path).unwrap();
    assert_eq!(first.key_id(), second.key_id());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = ProofKey::load_or_generate(&path).expect_err("others can read it");
        assert!(error.help().unwrap().contains("chmod 600"));
    }
    // Another file is not overwritten.
    let other = directory.path().join("other");
    write_private(&other, "something else").unwrap();
    assert!(ProofKey::load_or_generate(&other).is_err());
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "something else");
    assert!(ProofKey::load_or_generate(&directory.path().join("no/such")).is_err());
}

#[test]
fn no_private_part_is_ever_printed() {
    let key = ProofKey::from_pem(KEY).unwrap();
    let shown = format!("{key:?} {:?}", key.public_jwk());
    for member in ["\"d\"", "\"p\"", "\"q\"", "PRIVATE"] {
        assert!(!shown.contains(member), "{shown}");
    }
    for text in [
        "hush",
        "-----BEGIN PRIVATE KEY-----\naHVzaA==\n-----END PRIVATE KEY-----",
    ] {
        let error = ProofKey::from_pem(text).expect_err("no key");
        assert!(!format!("{error:?}").contains("hush"));
    }
}
