//! Which tokens are good, and what becomes of them.

use super::*;

#[tokio::test]
async fn a_users_token_of_either_version_becomes_an_identity() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    for version in [TokenVersion::V1, TokenVersion::V2] {
        let token = bed.key.token(&bed.claims(version));
        let identity = verdict(&entra, &token).await.identity();
        assert_eq!(identity.user(), "alice@contoso.com");
        assert_eq!(identity.groups(), [GROUP]);
        assert_eq!(identity.uid(), None);
        assert_eq!(identity.extra().len(), 1);
        assert_eq!(identity.extra()["oid"], [OID]);
    }
}

#[tokio::test]
async fn the_tokens_end_is_told() {
    let bed = Bed::new().await;
    let token = bed.token(&json!({}));
    let credential = Credential::new(&token, http::Method::GET, "/".parse().unwrap()).unwrap();
    let Ok(Authentication::Identity(known)) = bed.entra().authenticate(&credential).await else {
        panic!("not accepted");
    };
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 3600);
    assert_eq!(known.expires_at(), Some(end));
}

#[tokio::test]
async fn j7_who_has_no_user_name_is_known_by_the_object_id() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    for changes in [
        json!({"upn": null}),
        json!({"idtyp": "app", "upn": null}),
        // An application has no user name, whatever its token says.
        json!({"idtyp": "app", "upn": "alice@contoso.com"}),
        // Display names: mutable, and chosen by their owner.
        json!({"upn": null, "preferred_username": "root", "email": "root@x", "unique_name": "root"}),
    ] {
        let identity = verdict(&entra, &bed.token(&changes)).await.identity();
        assert_eq!(identity.user(), OID, "{changes}");
    }
    let only_oid = bed.builder().username(EntraUsername::Oid).build().unwrap();
    let identity = verdict(&only_oid, &bed.token(&json!({}))).await.identity();
    assert_eq!(identity.user(), OID);
}

#[tokio::test]
async fn j7_an_object_id_is_required_and_a_uuid() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    for changes in [
        json!({"oid": null}),
        json!({"oid": ""}),
        json!({"oid": "alice"}),
        json!({"oid": 7}),
        json!({"oid": "../../groups"}),
        json!({"oid": "{0ab1c2d3-0000-4000-8000-00000000abcd}"}),
        json!({"oid": "00000000-0000-0000-0000-000000000000"}),
        json!({"idtyp": "device"}),
        json!({"idtyp": true}),
        json!({"upn": ["alice"]}),
        json!({"groups": "all"}),
        json!({"groups": [1]}),
        json!({"groups": {"a": "b"}}),
        json!({"ver": "2.0"}),
        json!({"ver": null}),
    ] {
        let verdict = verdict(&entra, &bed.token(&changes)).await;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::Claims),
            "{changes}"
        );
    }
}

#[tokio::test]
async fn names_that_kubernetes_keeps_for_itself_are_no_identities() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    for upn in [
        "system:admin",
        "system:serviceaccount:kube-system:x",
        " alice",
        "a\nb",
    ] {
        let verdict = verdict(&entra, &bed.token(&json!({"upn": upn}))).await;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::IdentityRefused),
            "{upn}"
        );
    }
    let too_many: Vec<_> = (0..2_001).map(|number| format!("g{number}")).collect();
    let verdict = verdict(&entra, &bed.token(&json!({"groups": too_many}))).await;
    assert_eq!(verdict, Verdict::Rejected(RejectReason::IdentityRefused));
}

#[tokio::test]
async fn j2_the_issuer_is_compared_byte_by_byte_and_the_tenant_with_it() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let base = &bed.site.base;
    for issuer in [
        json!(format!("{base}/{TENANT}")),
        json!(format!("{base}/{TENANT}//")),
        json!(format!("{base}/{}/", TENANT.to_uppercase())),
        json!(format!("{base}/{OTHER_TENANT}/")),
        json!(format!("{base}/{TENANT}/v2.0/")),
        json!(format!("https://sts.windows.net/{TENANT}/")),
        json!("kubernetes/serviceaccount"),
        json!([bed.issuer(TokenVersion::V1)]),
        Value::Null,
    ] {
        let verdict = verdict(&entra, &bed.token(&json!({"iss": issuer}))).await;
        assert_eq!(verdict, Verdict::NotMine, "{issuer}");
    }
    for tenant in [
        json!(OTHER_TENANT),
        json!(TENANT.to_uppercase()),
        json!(1),
        Value::Null,
    ] {
        let verdict = verdict(&entra, &bed.token(&json!({"tid": tenant}))).await;
        assert!(
            matches!(
                verdict,
                Verdict::Rejected(RejectReason::Issuer | RejectReason::Claims)
            ),
            "{tenant}: {verdict:?}"
        );
    }
}

#[tokio::test]
async fn j2_a_key_that_is_bound_to_another_tenant_signs_nothing_here() {
    let bed = Bed::new().await;
    for (issuer, is_good) in [
        (bed.issuer(TokenVersion::V2), true),
        (bed.cloud().issuer(TokenVersion::V2, "{tenantid}"), true),
        (bed.cloud().issuer(TokenVersion::V1, "{tenantid}"), true),
        (bed.cloud().issuer(TokenVersion::V2, OTHER_TENANT), false),
        ("https://elsewhere/{tenantid}/v2.0".to_owned(), false),
    ] {
        bed.publish(&[with(bed.key.jwk(), &json!({"issuer": issuer}))]);
        match verdict(&bed.entra(), &bed.token(&json!({}))).await {
            Verdict::Accepted(_) => assert!(is_good, "{issuer}"),
            verdict => assert_eq!(
                (is_good, verdict),
                (false, Verdict::Rejected(RejectReason::Signature)),
                "{issuer}"
            ),
        }
    }
}

#[tokio::test]
async fn j3_keys_come_only_from_where_they_may() {
    let bed = Bed::new().await;
    let issuer = bed.issuer(TokenVersion::V1);
    let base = &bed.site.base;
    let keys = format!("{base}/{TENANT}/keys");
    let elsewhere = keys.replace("127.0.0.1", "localhost");
    for document in [
        json!({"issuer": bed.issuer(TokenVersion::V2), "jwks_uri": keys}),
        json!({"issuer": format!("{issuer}x"), "jwks_uri": keys}),
        json!({"jwks_uri": keys}),
        json!({"issuer": issuer}),
        json!({"issuer": issuer, "jwks_uri": keys.replace("https", "http")}),
        json!({"issuer": issuer, "jwks_uri": elsewhere}),
        json!({"issuer": issuer, "jwks_uri": keys.replace("https://", "https://x@")}),
        json!({"issuer": issuer, "jwks_uri": "file:///etc/passwd"}),
        json!({"issuer": issuer, "jwks_uri": format!("{base}/elsewhere")}),
        json!([]),
    ] {
        let path = format!("/{TENANT}/.well-known/openid-configuration");
        bed.site.set(&path, 200, &document);
        let verdict = verdict(&bed.entra(), &bed.token(&json!({}))).await;
        assert_eq!(verdict, Verdict::Unavailable, "{document}");
    }
    assert_eq!(bed.site.count(&format!("/{TENANT}/keys")), 0);
    assert!(bed.entra().preload().await.is_err());
}

#[tokio::test]
async fn j5_times_have_a_minute_of_grace_and_not_a_second_more() {
    const DAY: u64 = 24 * 3600;

    let bed = Bed::new().await;
    let entra = bed.entra();
    let old = json!({"iat": NOW - 100, "nbf": NOW - 100});
    let until = |exp: u64| with(old.clone(), &json!({"exp": exp}));
    for (changes, expected) in [
        (until(NOW - 59), None),
        (until(NOW - 60), Some(RejectReason::Expired)),
        (until(0), Some(RejectReason::Expired)),
        (json!({"exp": null}), Some(RejectReason::Claims)),
        (json!({"exp": "soon"}), Some(RejectReason::Malformed)),
        (json!({"exp": -1}), Some(RejectReason::Malformed)),
        (json!({"exp": 1e18}), Some(RejectReason::Malformed)),
        (json!({"exp": u64::MAX}), Some(RejectReason::Malformed)),
        (json!({"exp": NOW as f64 + 0.5}), None),
        (json!({"nbf": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(RejectReason::NotYetValid)),
        (json!({"nbf": 1e18}), Some(RejectReason::Malformed)),
        (json!({"iat": NOW + 60}), None),
        (json!({"iat": NOW + 61}), Some(RejectReason::NotYetValid)),
        (json!({"iat": null, "nbf": null}), None),
        (json!({"exp": NOW + DAY + 60}), None),
        (json!({"exp": NOW + DAY + 61}), Some(RejectReason::Lifetime)),
        (
            json!({"exp": NOW + DAY + 61, "iat": null, "nbf": null}),
            Some(RejectReason::Lifetime),
        ),
    ] {
        match (verdict(&entra, &bed.token(&changes)).await, expected) {
            (Verdict::Accepted(_), None) => {}
            (verdict, Some(reason)) => assert_eq!(verdict, Verdict::Rejected(reason), "{changes}"),
            (verdict, None) => panic!("{changes}: {verdict:?}"),
        }
    }
}

#[tokio::test]
async fn j5_the_limits_can_be_set() {
    let bed = Bed::new().await;
    let entra = bed
        .builder()
        .clock_skew(Duration::ZERO)
        .max_token_lifetime(Duration::from_secs(3600))
        .build()
        .unwrap();
    verdict(&entra, &bed.token(&json!({}))).await.identity();
    let late = verdict(&entra, &bed.token(&json!({"exp": NOW}))).await;
    assert_eq!(late, Verdict::Rejected(RejectReason::Expired));
    let long = verdict(&entra, &bed.token(&json!({"exp": NOW + 3601}))).await;
    assert_eq!(long, Verdict::Rejected(RejectReason::Lifetime));
    let too_lenient = bed.builder().clock_skew(Duration::from_secs(301)).build();
    assert_eq!(too_lenient.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn j6_every_audience_has_to_be_an_accepted_one() {
    let bed = Bed::new().await;
    let entra = bed.builder().audience("a").audience("b").build().unwrap();
    for audience in [
        json!("a"),
        json!(["b"]),
        json!(["a", "b"]),
        json!(["a", "a"]),
    ] {
        let token = bed.token(&json!({"aud": audience}));
        verdict(&entra, &token).await.identity();
    }
    for audience in [
        json!(ARC_SERVER_AUDIENCE),
        json!("A"),
        json!("a/"),
        json!("a b"),
        json!(""),
        json!([]),
        json!(["a", "c"]),
        json!(["c", "a"]),
        Value::Null,
    ] {
        let verdict = verdict(&entra, &bed.token(&json!({"aud": audience}))).await;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::Audience),
            "{audience}"
        );
    }
    for audience in [json!(1), json!(["a", 1]), json!([["a"]]), json!({"a": "a"})] {
        let verdict = verdict(&entra, &bed.token(&json!({"aud": audience}))).await;
        assert_eq!(
            verdict,
            Verdict::Rejected(RejectReason::Claims),
            "{audience}"
        );
    }
}

#[tokio::test]
async fn j9_a_verdict_that_is_kept_ends_with_its_token() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let short = bed.token(&json!({"exp": NOW + 30}));
    verdict(&entra, &short).await.identity();
    bed.time.advance(Duration::from_secs(29));
    verdict(&entra, &short).await.identity();
    // Past its end only the grace for differing clocks is left.
    bed.time.advance(Duration::from_secs(60));
    verdict(&entra, &short).await.identity();
    bed.time.advance(Duration::from_secs(1));
    let late = verdict(&entra, &short).await;
    assert_eq!(late, Verdict::Rejected(RejectReason::Expired));
}

#[tokio::test]
async fn keys_rotate_without_a_failed_request() {
    let bed = Bed::new().await;
    let entra = bed.entra();
    let second = SigningKey::second();
    verdict(&entra, &bed.token(&json!({}))).await.identity();
    // The new key is published beside the old one, as issuers do, and used then.
    bed.publish(&[bed.key.jwk(), second.jwk()]);
    skip(Duration::from_secs(11)).await;
    let token = second.token(&bed.claims(TokenVersion::V1));
    verdict(&entra, &token).await.identity();
    verdict(&entra, &bed.token(&json!({"sub": "again"})))
        .await
        .identity();
    assert_eq!(bed.site.count(&format!("/{TENANT}/keys")), 2);
}

#[tokio::test]
async fn while_the_authority_is_gone_the_answer_is_503_and_later_a_good_one() {
    let bed = Bed::new().await;
    let path = format!("/{TENANT}/keys");
    bed.site.set(&path, 503, &json!({}));
    let entra = bed.entra();
    let token = bed.token(&json!({}));
    assert_eq!(verdict(&entra, &token).await, Verdict::Unavailable);
    bed.publish(&[bed.key.jwk()]);
    skip(Duration::from_secs(6)).await;
    verdict(&entra, &token).await.identity();
}

/// Lets the runtime's clock jump: the key store's pauses are over then.
async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[test]
fn settings_that_can_not_work_are_refused() {
    let builder = || EntraAuthenticator::builder(TenantId::parse(TENANT).unwrap());
    assert!(builder().audience("").build().is_err());
    assert!(builder().algorithms([]).build().is_err());
    assert!(builder().pop(PopPolicy::required("")).build().is_err());
}
