//! Tokens that must not count, each a 401 that says why without helping an attacker (J1–J8).

use http::{Request, StatusCode};
use serde_json::json;

use super::{
    bed::{Bed, PODS, USER, USER_ID},
    support::authority::{Algorithm, SigningKey, now},
};

#[tokio::test]
async fn every_forbidden_token_is_a_401_and_reaches_nobody() {
    let bed = Bed::start().await;
    let authority = &bed.authority;
    let good = || authority.user(USER, USER_ID);
    let strange_key = || SigningKey::rsa(2).with_id("rsa-0");
    let tokens = [
        (
            "another audience",
            good()
                .claim("aud", "00000002-0000-0000-c000-000000000000")
                .sign(),
        ),
        (
            "several audiences, one of them ours",
            good()
                .claim("aud", json!([super::support::authority::AUDIENCE, "x"]))
                .sign(),
        ),
        ("no audience", good().without("aud").sign()),
        ("an empty audience", good().claim("aud", "").sign()),
        (
            "another issuer",
            good()
                .claim("iss", "https://login.evil.example/x/v2.0")
                .sign(),
        ),
        (
            "the issuer without its path",
            good().claim("iss", authority.url()).sign(),
        ),
        (
            "the issuer with a slash",
            good()
                .claim("iss", format!("{}/", authority.issuer_v2()))
                .sign(),
        ),
        (
            "the issuer of the other version",
            good().claim("iss", authority.issuer_v1()).sign(),
        ),
        ("no issuer", good().without("iss").sign()),
        (
            "another tenant",
            good()
                .claim("tid", "00000000-0000-0000-0000-000000000001")
                .sign(),
        ),
        ("no tenant", good().without("tid").sign()),
        ("RS384", good().with_algorithm(Algorithm::Rs384).sign()),
        (
            "PS256, which is not on the list",
            good().with_algorithm(Algorithm::Ps256).sign(),
        ),
        (
            "ES256 with a key of the attacker",
            good()
                .with_key(SigningKey::p256("rsa-0"))
                .header("alg", "ES256")
                .sign(),
        ),
        (
            "HS256 with the public key",
            good().signed_with_the_public_key(),
        ),
        ("none", good().unsigned()),
        ("NONE", good().unsigned().replacen("bm9uZQ", "Tk9ORQ", 1)),
        (
            "expired",
            good()
                .claim("iat", now() - 7_200)
                .claim("nbf", now() - 7_200)
                .claim("exp", now() - 3_600)
                .sign(),
        ),
        ("no expiry", good().without("exp").sign()),
        (
            "an expiry as text",
            good().claim("exp", "2100-01-01").sign(),
        ),
        ("not yet valid", good().claim("nbf", now() + 600).sign()),
        (
            "issued in the future",
            good().claim("iat", now() + 600).sign(),
        ),
        (
            "a life of years",
            good().claim("exp", now() + 100_000_000).sign(),
        ),
        (
            "a key that nobody knows",
            good()
                .with_key(strange_key())
                .header("kid", "unknown")
                .sign(),
        ),
        (
            "a key under a known name",
            good().with_key(strange_key()).sign(),
        ),
        ("a broken signature", good().with_broken_signature()),
        ("no object id", good().without("oid").sign()),
        (
            "an object id that is none",
            good().claim("oid", "../../users").sign(),
        ),
        (
            "a key in the header",
            good()
                .with_key(strange_key())
                .header("jwk", strange_key().public_jwk())
                .sign(),
        ),
        (
            "keys by URL in the header",
            good()
                .with_key(strange_key())
                .header("jku", "https://keys.evil.example/")
                .sign(),
        ),
        (
            "a critical extension",
            good().header("crit", json!(["exp"])).sign(),
        ),
        ("another type", good().header("typ", "secevent+jwt").sign()),
        ("another version", good().claim("ver", "3.0").sign()),
        (
            "groups that are no list",
            good().claim("groups", json!({ "a": "b" })).sign(),
        ),
        (
            "bound to a key, without a proof",
            good().bound_to(&SigningKey::p256("own")).sign(),
        ),
        (
            "two parts",
            good()
                .sign()
                .rsplit_once('.')
                .expect("three parts")
                .0
                .to_owned(),
        ),
        ("four parts", format!("{}.x", good().sign())),
        ("no JSON", "aGVsbG8.aGVsbG8.aGVsbG8".to_owned()),
        (
            "a service account's token",
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50In0.AAAA".to_owned(),
        ),
        ("just text", "hello".to_owned()),
    ];
    for (name, token) in &tokens {
        let answer = bed.get(token).await;
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "{name}: {answer:?}"
        );
        let status = answer.status_object();
        assert_eq!(status["reason"], "Unauthorized", "{name}");
        let text = status.to_string();
        // It may say what is wrong, but not what would be right, and never repeats the token.
        for secret in [
            token.as_str(),
            USER_ID,
            authority.url(),
            "token-of-the-agent",
        ] {
            assert!(!text.contains(secret), "{name} shows {secret}: {text}");
        }
    }
    assert!(bed.last_arrival().is_none(), "one of them arrived");
    // The yardstick: the token that all of them were made from.
    assert_eq!(bed.get(&good().sign()).await.status, StatusCode::OK);
}

/// I2: a token that holds, with a name under which nobody can act.
#[tokio::test]
async fn names_that_could_mean_somebody_else_are_a_403() {
    let bed = Bed::start().await;
    for name in [
        "a\r\nImpersonate-Group: system:masters",
        "a\0",
        "  ",
        " admin",
        "admin\t",
        "\u{a0}admin",
    ] {
        let token = bed.authority.user(name, USER_ID).sign();
        let answer = bed.get(&token).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name:?}: {answer:?}");
        answer.status_object();
    }
    assert!(bed.last_arrival().is_none());
}

/// R14: no route without a valid identity, whatever the form of the request.
#[tokio::test]
async fn r14_every_route_asks_who_is_calling() {
    let bed = Bed::start().await;
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/livez"),
        ("GET", "/metrics"),
        ("GET", "/version"),
        ("HEAD", "/api"),
        ("OPTIONS", PODS),
        ("OPTIONS", "*"),
        ("TRACE", "/"),
        ("CONNECT", "evil.example:443"),
        ("GET", "http://evil.example/"),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
    ] {
        let request = Request::builder().method(method).uri(target);
        let answer = bed.request(request, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {target}");
    }
    let mut arrived = bed.stand_in.requests();
    // That is the agent's own question, in the name of a user of its own.
    arrived.retain(|request| {
        !request
            .path_and_query
            .ends_with("/extension-apiserver-authentication")
    });
    assert!(arrived.is_empty(), "{arrived:?}");
}
