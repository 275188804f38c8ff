use serde_json::{Value, json};

use super::*;
use crate::crypto::{PublicKey, SigningKey};

const ISSUER: &str = "https://sts.windows.net/tenant/";
const OBJECT: &str = "22222222-2222-2222-2222-2222222222ab";
const NOW: u64 = 1_700_000_000;

fn key(pem: &str) -> SigningKey {
    let base64: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let document = base64::prelude::BASE64_STANDARD.decode(base64).unwrap();
    SigningKey::from_pkcs8(&document).unwrap()
}

fn first() -> SigningKey {
    key(include_str!("../../../../agent/token/tests/keys/first.pem"))
}

fn second() -> SigningKey {
    key(include_str!(
        "../../../../agent/token/tests/keys/second.pem"
    ))
}

fn key_set(id: &str, key: &SigningKey) -> Value {
    let Some(PublicKey::Rsa { n, e }) = key.public() else {
        panic!("an RSA key");
    };
    let encode = |number| BASE64_URL_SAFE_NO_PAD.encode(number);
    json!({ "keys": [
        { "kty": "EC", "kid": "another", "crv": "P-256" },
        { "kty": "RSA", "kid": id, "use": "sig", "n": encode(n), "e": encode(e) },
    ]})
}

fn issuer() -> EntraIssuer {
    let keys = key_set("1", &first()).to_string();
    EntraIssuer::new(ISSUER, keys.as_bytes())
        .unwrap()
        .object(OBJECT.to_uppercase(), Rights::LISTEN)
        .role("Relay.Send", Rights::SEND)
}

fn header() -> Value {
    json!({ "alg": "RS256", "kid": "1", "typ": "JWT" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "https://relay.azure.net", "exp": NOW + 60, "nbf": NOW - 60,
        "oid": OBJECT, "roles": ["Relay.Send"],
    })
}

fn with(mut value: Value, member: &str, new: Value) -> Value {
    value[member] = new;
    value
}

fn without(mut value: Value, member: &str) -> Value {
    value.as_object_mut().unwrap().remove(member);
    value
}

fn sign(key: &SigningKey, header: &str, claims: &str) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn token(header: &Value, claims: &Value) -> String {
    sign(&first(), &header.to_string(), &claims.to_string())
}

fn check(token: &str, rights: Rights) -> Result<SystemTime, (u16, String)> {
    let mut rules = crate::relay::server::token::Rules::default();
    rules.trust(issuer());
    let claim = Claim {
        host: "relay.example",
        path: "a",
        rights,
        now: UNIX_EPOCH + Duration::from_secs(NOW),
    };
    rules.check(Some(token), &claim).map_err(|refusal| {
        let word = refusal.text().split([':', '.']).next().unwrap();
        (refusal.status().as_u16(), word.to_owned())
    })
}

#[test]
fn rights_follow_from_object_and_role() {
    let both = token(&header(), &claims());
    let until = UNIX_EPOCH + Duration::from_secs(NOW + 60);
    assert_eq!(check(&both, Rights::LISTEN), Ok(until));
    assert_eq!(check(&both, Rights::SEND), Ok(until));

    let forbidden = Err((403, "Unauthorized access".to_owned()));
    let no_role = token(&header(), &without(claims(), "roles"));
    assert_eq!(check(&no_role, Rights::LISTEN), Ok(until));
    assert_eq!(check(&no_role, Rights::SEND), forbidden);
    let stranger = token(&header(), &with(claims(), "oid", json!("other")));
    assert_eq!(check(&stranger, Rights::LISTEN), forbidden);
    assert_eq!(check(&stranger, Rights::SEND), Ok(until));
    // A role is not an object, whatever its name.
    let role = with(without(claims(), "oid"), "roles", json!([OBJECT]));
    assert_eq!(check(&token(&header(), &role), Rights::LISTEN), forbidden);
}

#[test]
fn each_claim_is_checked() {
    let wrong = |member: &str, value: Value, word: &str| {
        let claims = with(claims(), member, value);
        let refused = check(&token(&header(), &claims), Rights::SEND);
        assert_eq!(refused, Err((401, word.to_owned())), "{claims}");
    };
    wrong(
        "iss",
        json!("https://sts.windows.net/other/"),
        "InvalidIssuer",
    );
    wrong(
        "aud",
        json!("https://management.azure.com"),
        "InvalidAudience",
    );
    wrong("aud", json!(["https://relay.azure.net"]), "MalformedToken");
    wrong("exp", json!(NOW), "ExpiredToken");
    wrong("exp", json!("never"), "MalformedToken");
    wrong("exp", json!(u64::MAX), "MalformedToken");
    wrong("nbf", json!(NOW + 61), "InvalidToken");
    for member in ["iss", "aud", "exp"] {
        let refused = check(&token(&header(), &without(claims(), member)), Rights::SEND);
        assert_eq!(refused, Err((401, "MalformedToken".to_owned())), "{member}");
    }
    let slash = with(claims(), "aud", json!("https://relay.azure.net/"));
    assert!(check(&token(&header(), &slash), Rights::SEND).is_ok());
    let twice = claims().to_string().replacen('{', r#"{"aud":"x","#, 1);
    let twice = sign(&first(), &header().to_string(), &twice);
    assert_eq!(check(&twice, Rights::SEND).unwrap_err().1, "MalformedToken");
}

#[test]
fn only_the_issuers_signature_counts() {
    let refused = |token: &str| check(token, Rights::SEND).unwrap_err().1;
    let (header_text, claims_text) = (header().to_string(), claims().to_string());
    let forged = sign(&second(), &header_text, &claims_text);
    assert_eq!(refused(&forged), "InvalidSignature");
    let good = token(&header(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(refused(&format!("{message}.")), "InvalidSignature");
    let other = token(&header(), &with(claims(), "oid", json!("x")));
    let (other, _) = other.rsplit_once('.').unwrap();
    assert_eq!(refused(&format!("{other}.{signature}")), "InvalidSignature");
    let unknown = token(&with(header(), "kid", json!("2")), &claims());
    assert_eq!(refused(&unknown), "InvalidSignature");

    for (member, value) in [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("PS256")),
        ("crit", json!(["exp"])),
        ("typ", json!("pop")),
        ("kid", json!(1)),
    ] {
        let token = token(&with(header(), member, value), &claims());
        assert_eq!(refused(&token), "MalformedToken", "{member}");
    }
    assert_eq!(refused(&format!("{good}=")), "MalformedToken");
    assert_eq!(
        refused(&format!("{good}{}", "A".repeat(MAX_TOKEN))),
        "MalformedToken"
    );
    // Not a JWT at all: judged as a shared access signature.
    assert_eq!(refused("eyJ.x"), "MalformedToken");
}

#[test]
fn a_key_set_needs_a_usable_key() {
    let set = key_set("1", &first());
    let broken = |member: &str, value: Value| {
        let mut set = set.clone();
        set["keys"][1][member] = value;
        set.to_string()
    };
    for text in [
        String::new(),
        "[]".to_owned(),
        r#"{"keys":[]}"#.to_owned(),
        broken("n", json!("AQAB")),
        broken("n", json!("=")),
        broken("e", Value::Null),
        broken("kid", Value::Null),
        broken("use", json!("enc")),
        broken("alg", json!("PS256")),
        broken("kty", json!("oct")),
    ] {
        let error = EntraIssuer::new(ISSUER, text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(error.help().is_some());
    }
    assert!(EntraIssuer::new("", set.to_string().as_bytes()).is_err());
    assert!(!format!("{:?}", issuer()).contains("keys"));
}
