//! Tokens that somebody made up or changed.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::{super::super::test_issuer::encode, *};

fn rejected(reason: RejectReason) -> Verdict {
    Verdict::Rejected(reason)
}

#[tokio::test]
async fn j1_algorithms_that_are_not_turned_on_are_refused() {
    let bed = Bed::new().await;
    let p256 = SigningKey::p256();
    bed.publish(&[bed.key.jwk(), p256.jwk()]);
    let claims = bed.claims(TokenVersion::V1);
    let pss = with(bed.key.header(), &json!({"alg": "PS256"}));
    let (ps256, es256) = (bed.key.sign(&pss, &claims), p256.token(&claims));
    for token in [&ps256, &es256] {
        let verdict = verdict(&bed.entra(), token).await;
        assert_eq!(verdict, rejected(RejectReason::Algorithm));
    }
    let all = [
        SignatureAlgorithm::Rs256,
        SignatureAlgorithm::Ps256,
        SignatureAlgorithm::Es256,
    ];
    let entra = bed.builder().algorithms(all).build().unwrap();
    for token in [&ps256, &es256, &bed.token(&json!({}))] {
        verdict(&entra, token).await.identity();
    }
}

#[tokio::test]
async fn j1_unsigned_tokens_and_those_with_a_public_key_as_the_secret_are_refused() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let claims = encode(&bed.claims(TokenVersion::V1));
    for algorithm in ["none", "NONE", "nOnE"] {
        let header = encode(&json!({"alg": algorithm, "kid": "first"}));
        let token = format!("{header}.{claims}.AAAA");
        let refused = verdict(&entra, &token).await;
        assert_eq!(refused, rejected(RejectReason::Algorithm));
        let unsigned = verdict(&entra, &format!("{header}.{claims}.")).await;
        assert_eq!(unsigned, rejected(RejectReason::Algorithm));
    }
    let header = encode(&json!({"alg": "HS256", "kid": "first"}));
    let signed = format!("{header}.{claims}");
    let jwk = bed.key.jwk();
    let secret = BASE64_URL_SAFE_NO_PAD
        .decode(jwk["n"].as_str().unwrap())
        .unwrap();
    let mac = crate::crypto::hmac_sha256(&secret, signed.as_bytes());
    let token = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac));
    assert_eq!(
        verdict(&entra, &token).await,
        rejected(RejectReason::Algorithm)
    );
    assert!(bed.site.asked().is_empty());
}

#[tokio::test]
async fn j1_a_key_that_the_token_brings_is_never_used() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let attacker = SigningKey::second();
    let claims = bed.claims(TokenVersion::V1);
    for extra in [
        json!({}),
        json!({"jwk": attacker.jwk()}),
        json!({"jku": format!("{}/attacker", bed.site.base)}),
        json!({"x5u": format!("{}/attacker", bed.site.base)}),
        json!({"x5c": ["MIIB"]}),
    ] {
        for kid in ["first", "second"] {
            let header = with(with(attacker.header(), &extra), &json!({"kid": kid}));
            let verdict = verdict(&entra, &attacker.sign(&header, &claims)).await;
            assert_eq!(verdict, rejected(RejectReason::Signature), "{header}");
        }
        // And a good token stays good with it.
        let header = with(bed.key.header(), &extra);
        let good = bed.key.sign(&header, &claims);
        verdict(&entra, &good).await.identity();
    }
    assert_eq!(bed.site.count("/attacker"), 0);
}

#[tokio::test]
async fn a_token_without_the_name_of_its_key_is_malformed() {
    let bed = Bed::new().await;
    let header = with(bed.key.header(), &json!({"kid": null}));
    let token = bed.key.sign(&header, &bed.claims(TokenVersion::V1));
    let verdict = verdict(&bed.entra(), &token).await;
    assert_eq!(verdict, rejected(RejectReason::Malformed));
}

#[tokio::test]
async fn parts_of_two_good_tokens_make_no_third() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let alice = bed.token(&json!({}));
    let bob = bed.token(&json!({"upn": "bob@contoso.com"}));
    let alice: Vec<&str> = alice.split('.').collect();
    let bob: Vec<&str> = bob.split('.').collect();
    for forged in [
        format!("{}.{}.{}", alice[0], bob[1], alice[2]),
        format!("{}.{}.", alice[0], alice[1]),
        format!(
            "{}.{}.{}",
            alice[0],
            alice[1],
            &alice[2][..alice[2].len() - 4]
        ),
        format!("{}.{}.{}AAAA", alice[0], alice[1], alice[2]),
    ] {
        let verdict = verdict(&entra, &forged).await;
        assert!(
            matches!(
                verdict,
                Verdict::Rejected(RejectReason::Signature | RejectReason::Malformed)
            ),
            "{verdict:?}"
        );
    }
}

#[tokio::test]
async fn j8_repeated_claims_are_refused() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let claims = bed.claims(TokenVersion::V1).to_string();
    for repeated in [
        r#""aud":"x""#,
        r#""upn":"root""#,
        r#""\u006fid":"x""#,
        r#""groups":[]"#,
    ] {
        let doubled = format!("{{{repeated},{}", &claims[1..]);
        // Not signed: the form is looked at first.
        let token = format!(
            "{}.{}.AAAA",
            encode(&bed.key.header()),
            BASE64_URL_SAFE_NO_PAD.encode(doubled)
        );
        let verdict = verdict(&entra, &token).await;
        assert_eq!(verdict, rejected(RejectReason::Malformed), "{repeated}");
    }
}

#[test]
fn mutated_tokens_never_verify_and_never_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_bed, entra, token) = runtime.block_on(async {
        let bed = Bed::new().await;
        let entra = bed.builder().pop(PopPolicy::accepted("x")).build().unwrap();
        entra.preload().await.unwrap();
        let token = bed.token(&json!({}));
        verdict(&entra, &token).await.identity();
        (bed, entra, token)
    });
    proptest!(ProptestConfig::with_cases(1_000), |(
        at in 0..token.len(),
        remove in 0_usize..4,
        insert in "[A-Za-z0-9._~+/-]{0,4}",
    )| {
        let end = (at + remove).min(token.len());
        let mutated = format!("{}{insert}{}", &token[..at], &token[end..]);
        prop_assume!(mutated != token);
        let verdict = runtime.block_on(verdict(&entra, &mutated));
        // An unknown key makes the store ask the authority again: what it says is no acceptance either.
        prop_assert!(!matches!(verdict, Verdict::Accepted(_)), "{:?}", verdict);
    });
}
